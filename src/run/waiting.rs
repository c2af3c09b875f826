//! Says in the log what the zones side waits for before its first snapshot: nothing else is heard of a start that waits.

use std::time::Duration;

use crate::gate::GateStatus;
use crate::time::MonoTime;

/// A start that takes no longer says nothing.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// How often it is said again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// When it was said.
#[derive(Debug)]
pub(super) struct Waiting {
    begun: MonoTime,
    told_at: Option<MonoTime>,
}

impl Waiting {
    pub(super) const fn new(now: MonoTime) -> Self {
        Self {
            begun: now,
            told_at: None,
        }
    }

    pub(super) fn tell(&mut self, status: &GateStatus, now: MonoTime) {
        if status.bootstrapped || !self.is_due(now) {
            return;
        }
        self.told_at = Some(now);
        let seconds = now.since(self.begun).as_secs();
        tracing::info!(
            seconds,
            waiting_for = status.waiting_for,
            "waiting: no event is enriched yet"
        );
    }

    fn is_due(&self, now: MonoTime) -> bool {
        let (since, after) = self
            .told_at
            .map_or((self.begun, FIRST_AFTER), |told_at| (told_at, AGAIN_AFTER));
        now.since(since) >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_after_a_second_and_then_every_five() {
        let at = |seconds: u64| MonoTime::from_micros(seconds * 1_000_000);
        let mut waiting = Waiting::new(at(7));
        assert!(!waiting.is_due(at(7)) && waiting.is_due(at(8)));
        waiting.told_at = Some(at(8));
        assert!(!waiting.is_due(at(12)) && waiting.is_due(at(13)));
    }
}
