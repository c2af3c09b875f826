//! The allowance for clocks and replication: grows by what a late change proves it lacked, falls back when that is long
//! ago (DESIGN 4, *Late change*).

use std::time::Duration;

use crate::time::MonoTime;

/// Without a late change for so long the margin falls back.
const FALLS_BACK_AFTER: Duration = Duration::from_secs(600);
/// A change later than this says that answers cannot be trusted until a restart.
const DEGRADED_FROM: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(super) struct Margin {
    base: Duration,
    max: Duration,
    current: Duration,
    last_late: Option<MonoTime>,
    degraded: bool,
}

impl Margin {
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max: max.max(base),
            current: base,
            last_late: None,
            degraded: false,
        }
    }

    pub(super) fn current(&self) -> Duration {
        self.current
    }

    /// A change came `lateness` after everything up to it had been promised.
    pub(super) fn late(&mut self, lateness: Duration, now: MonoTime) {
        self.current = (self.current + 2 * lateness).min(self.max);
        self.last_late = Some(now);
        self.doubt(lateness);
    }

    /// A change came `lateness` too late, and not for the margin's sake.
    pub(super) fn doubt(&mut self, lateness: Duration) {
        self.degraded |= lateness > DEGRADED_FROM;
    }

    pub(super) fn tick(&mut self, now: MonoTime) {
        if self
            .last_late
            .is_some_and(|last| now.since(last) >= FALLS_BACK_AFTER)
        {
            self.current = self.base;
            self.last_late = None;
        }
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.degraded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> MonoTime {
        MonoTime::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_margin_grows_by_twice_the_lateness_up_to_its_maximum_and_falls_back_after_ten_minutes() {
        let mut margin = Margin::new(Duration::from_millis(250), Duration::from_secs(2));
        margin.late(Duration::from_millis(100), seconds(0));
        assert_eq!(margin.current(), Duration::from_millis(450));
        margin.late(Duration::from_secs(5), seconds(1));
        assert_eq!(margin.current(), Duration::from_secs(2));
        assert!(!margin.is_degraded());
        margin.tick(seconds(600));
        assert_eq!(margin.current(), Duration::from_secs(2));
        margin.tick(seconds(601));
        assert_eq!(margin.current(), Duration::from_millis(250));
        margin.late(Duration::from_secs(61), seconds(700));
        margin.tick(seconds(7_000));
        assert!(margin.is_degraded(), "until restart");
    }
}
