//! The clocks of the process: the only place that reads them (DESIGN 2).
//!
//! What a wall clock says is handed to the gate's guard before anything is decided by it (DESIGN 4, "T").

#![allow(clippy::disallowed_methods)]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{EventTime, MonoTime, Now};

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Reads the clocks of the process.
#[derive(Copy, Clone, Debug)]
pub struct Clock;

impl Clock {
    /// Monotonic time since the process first asked for it.
    #[must_use]
    pub fn mono() -> MonoTime {
        let elapsed = ORIGIN.elapsed();
        MonoTime::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// The wall clock as it stands, unguarded.
    #[must_use]
    pub fn wall() -> EventTime {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis - 1)
            }
        };
        EventTime::clamped(millis)
    }

    /// An instant for waits at the edge, comparable with no other clock.
    #[must_use]
    pub fn instant() -> Instant {
        Instant::now()
    }
}

/// The guarded wall time **T** of the process (DESIGN 4): set by the thread that guards it, read by all others.
#[derive(Debug)]
pub struct GuardedTime {
    /// T less the monotonic time, in ms. Between two settings T goes on with the monotonic clock.
    ahead_ms: AtomicI64,
}

impl Default for GuardedTime {
    /// T is the wall clock.
    fn default() -> Self {
        let time = Self {
            ahead_ms: AtomicI64::new(0),
        };
        time.set(Now {
            mono: Clock::mono(),
            wall: Clock::wall(),
        });
        time
    }
}

impl GuardedTime {
    /// Sets T.
    pub fn set(&self, now: Now) {
        let ahead = now.wall.millis().saturating_sub(mono_ms(now.mono));
        self.ahead_ms.store(ahead, Ordering::Relaxed);
    }

    /// The time now, by T.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = Clock::mono();
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        Now {
            mono,
            wall: EventTime::clamped(ahead.saturating_add(mono_ms(mono))),
        }
    }
}

fn mono_ms(mono: MonoTime) -> i64 {
    i64::try_from(mono.micros() / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_does_not_go_back() {
        let first = Clock::mono();
        assert!(Clock::mono() >= first);
    }

    #[test]
    fn guarded_time_is_what_it_was_set_to_and_goes_on() {
        let time = GuardedTime::default();
        let set = Now {
            mono: Clock::mono(),
            wall: EventTime::clamped(1_000_000),
        };
        time.set(set);
        let now = time.now();
        assert!(
            now.wall >= set.wall && now.wall.since(set.wall).as_secs() < 60,
            "{now:?}"
        );
    }
}
