//! The guarded wall time **T** (DESIGN 4, *settle_margin*): a step of the host's clock must neither leap over changes nor
//! stop the gate for longer than a bound.

use std::time::Duration;

use crate::time::{EventTime, MonoTime};

/// The wall clock may run ahead of the monotonic one by this much between two readings.
const STEP: Duration = Duration::from_millis(100);
/// After so long a forward step is believed, whatever the log says.
const BELIEVED_AFTER: Duration = Duration::from_secs(60);

/// Turns readings of two clocks into T.
#[derive(Clone, Debug)]
pub struct ClockGuard {
    last: EventTime,
    last_mono: MonoTime,
    /// Since when the wall clock has been ahead of what can be explained.
    ahead_since: Option<MonoTime>,
    steps: u64,
}

impl ClockGuard {
    /// At start T is the wall clock.
    #[must_use]
    pub fn new(wall: EventTime, mono: MonoTime) -> Self {
        Self {
            last: wall,
            last_mono: mono,
            ahead_since: None,
            steps: 0,
        }
    }

    /// T now. `newest_stamp` is the newest LogAppendTime stamp read: no honest T is below it by much.
    pub fn read(
        &mut self,
        wall: EventTime,
        mono: MonoTime,
        newest_stamp: Option<EventTime>,
    ) -> EventTime {
        let expected = self.last.plus(mono.since(self.last_mono));
        let t = if wall <= expected.plus(STEP) {
            // In step, or stepped back: followed at once, as watermarks stand until T has passed them.
            if expected.since(wall) > STEP {
                self.steps += 1;
            }
            self.ahead_since = None;
            wall
        } else {
            let since = *self.ahead_since.get_or_insert_with(|| {
                self.steps += 1;
                mono
            });
            if mono.since(since) >= BELIEVED_AFTER {
                self.ahead_since = None;
                wall
            } else {
                wall.min(newest_stamp.map_or(expected, |stamp| expected.max(stamp)))
            }
        };
        // T is whole milliseconds: where it is elapsed time, the part of one that it does not show is kept for the next
        // reading, or frequent readings would make it stand still.
        let part = if t == expected {
            mono.since(self.last_mono).as_micros() as u64 % 1_000
        } else {
            0
        };
        self.last = t;
        self.last_mono = MonoTime::from_micros(mono.micros() - part);
        t
    }

    /// How many steps of the wall clock were met, in either direction.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(millis: i64) -> EventTime {
        EventTime::clamped(millis)
    }

    fn m(millis: u64) -> MonoTime {
        MonoTime::from_micros(millis * 1_000)
    }

    #[test]
    fn t_follows_a_wall_clock_in_step() {
        let mut guard = ClockGuard::new(t(1_000), m(0));
        assert_eq!(guard.read(t(1_050), m(50), None), t(1_050));
        assert_eq!(
            guard.read(t(1_200), m(120), None),
            t(1_200),
            "slewed by less than a step"
        );
        assert_eq!(guard.steps(), 0);
    }

    #[test]
    fn fs_26_a_step_back_is_followed_at_once() {
        let mut guard = ClockGuard::new(t(10_000_000), m(0));
        assert_eq!(guard.read(t(2_800_050), m(50), None), t(2_800_050));
        assert_eq!(guard.steps(), 1);
    }

    #[test]
    fn fs_26_a_step_forward_is_not_followed_until_the_log_or_a_minute_confirms_it() {
        let mut guard = ClockGuard::new(t(0), m(0));
        let ahead = 7_200_000;
        assert_eq!(
            guard.read(t(ahead + 50), m(50), None),
            t(50),
            "T goes on by the monotonic clock"
        );
        assert_eq!(
            guard.read(t(ahead + 100), m(100), Some(t(5_000))),
            t(5_000),
            "the log shows it is later"
        );
        assert_eq!(guard.read(t(ahead + 60_049), m(60_049), None), t(64_949));
        assert_eq!(
            guard.read(t(ahead + 60_050), m(60_050), None),
            t(ahead + 60_050),
            "believed after a minute"
        );
        assert_eq!(guard.steps(), 1);
    }

    #[test]
    fn fs_26_parts_of_milliseconds_are_not_lost_between_readings() {
        let start = EventTime::clamped(0);
        let ahead = EventTime::clamped(3_600_000);
        let mut guard = ClockGuard::new(start, MonoTime::from_micros(0));
        let mut t = start;
        for step in 1..=10_000 {
            t = guard.read(ahead, MonoTime::from_micros(step * 300), None);
        }
        assert_eq!(t, EventTime::clamped(3_000));
    }
}
