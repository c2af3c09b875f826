//! The clocks of the process: the only place that reads them (DESIGN 2).
//!
//! What a wall clock says is handed to the gate's guard before anything is decided by it (DESIGN 4, "T").

#![allow(clippy::disallowed_methods)]

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{EventTime, MonoTime};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_does_not_go_back() {
        let first = Clock::mono();
        assert!(Clock::mono() >= first);
    }
}
