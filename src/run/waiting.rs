//! Says in the log what the zones side waits for before its first snapshot, and how far it has come: nothing else is heard of
//! a start that waits.

use std::time::Duration;

use crate::gate::{GateStatus, Reading};
use crate::time::MonoTime;

/// A start that takes no longer says nothing.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How often it is said again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// When it was said, and how far the reading had come then.
#[derive(Debug)]
pub(super) struct Waiting {
    begun: MonoTime,
    told: Option<(MonoTime, u64)>,
}

/// How a reading goes on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Progress {
    percent: u64,
    per_second: u64,
    /// At the rate since it was told last; `None` where nothing came.
    remaining_s: Option<u64>,
}

impl Waiting {
    pub(super) const fn new(now: MonoTime) -> Self {
        Self {
            begun: now,
            told: None,
        }
    }

    pub(super) fn tell(&mut self, status: &GateStatus, now: MonoTime) {
        if status.bootstrapped || !self.is_due(now) {
            return;
        }
        let seconds = now.since(self.begun).as_secs();
        let waiting_for = status.waiting_for.as_str();
        let reading = status.reading;
        let progress = reading.map(|reading| self.progress(reading, now));
        let read = reading.map(|reading| reading.read);
        tracing::info!(
            seconds,
            waiting_for,
            read,
            of = reading.map(|reading| reading.of),
            percent = progress.map(|progress| progress.percent),
            zones = reading.map(|reading| reading.zones),
            per_second = progress.map(|progress| progress.per_second),
            remaining_s = progress.and_then(|progress| progress.remaining_s),
            "waiting: no event is enriched yet"
        );
        self.told = Some((now, read.unwrap_or(0)));
    }

    fn progress(&self, Reading { read, of, .. }: Reading, now: MonoTime) -> Progress {
        let (since, before) = self.told.unwrap_or((self.begun, 0));
        let millis = now.since(since).as_millis().max(1) as u64;
        let per_second = read.saturating_sub(before) * 1_000 / millis;
        Progress {
            percent: (read * 100).checked_div(of).unwrap_or(100),
            per_second,
            remaining_s: of.saturating_sub(read).checked_div(per_second),
        }
    }

    fn is_due(&self, now: MonoTime) -> bool {
        let (since, after) = self.told.map_or((self.begun, FIRST_AFTER), |(told_at, _)| {
            (told_at, AGAIN_AFTER)
        });
        now.since(since) >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn it_is_due_after_a_second_and_then_every_five() {
        let mut waiting = Waiting::new(at(7));
        assert!(!waiting.is_due(at(7)) && waiting.is_due(at(8)));
        waiting.told = Some((at(8), 0));
        assert!(!waiting.is_due(at(12)) && waiting.is_due(at(13)));
    }

    #[test]
    fn the_rest_is_reckoned_at_the_rate_since_it_was_told_last() {
        let mut waiting = Waiting::new(at(7));
        let reading = |read| Reading {
            read,
            of: 1_000,
            zones: 0,
        };
        let progress = |percent, per_second, remaining_s| Progress {
            percent,
            per_second,
            remaining_s,
        };
        assert_eq!(
            waiting.progress(reading(100), at(8)),
            progress(10, 100, Some(9))
        );
        waiting.told = Some((at(8), 100));
        assert_eq!(
            waiting.progress(reading(350), at(13)),
            progress(35, 50, Some(13))
        );
        assert_eq!(
            waiting.progress(reading(100), at(13)),
            progress(10, 0, None)
        );
        let nothing = Reading {
            read: 0,
            of: 0,
            zones: 0,
        };
        assert_eq!(waiting.progress(nothing, at(13)), progress(100, 0, None));
    }
}
