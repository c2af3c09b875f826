//! When a marker is to be written to a zones partition (`gate.proof = "marker"`, DESIGN 4): where none was read for a
//! while, whoever wrote it, so that many processes together write hardly more than one does.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::partition::PartitionId;
use crate::time::MonoTime;

/// A marker that is not read back for so long is taken for lost: an unclean election may take one that was acknowledged.
/// Longer than a dead replica holds records back (DESIGN 4), so that no more of them pile up behind it.
const LOST_AFTER: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default)]
struct Lane {
    /// When the newest marker was read, or the last try to write one failed.
    rested_at: Option<MonoTime>,
    /// Since when one of ours is under way, or written and not read back: more of them would say no more.
    under_way_since: Option<MonoTime>,
}

impl Lane {
    fn is_under_way(&self, now: MonoTime) -> bool {
        self.under_way_since
            .is_some_and(|since| now.since(since) < LOST_AFTER)
    }
}

/// The markers of all partitions.
#[derive(Debug)]
pub struct MarkerSchedule {
    interval: Duration,
    lanes: BTreeMap<PartitionId, Lane>,
}

impl MarkerSchedule {
    /// At most one marker per partition and `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            lanes: BTreeMap::new(),
        }
    }

    /// Those of `partitions` that a marker is to be written to now; it counts as under way from here on.
    pub fn due(
        &mut self,
        partitions: impl IntoIterator<Item = PartitionId>,
        now: MonoTime,
    ) -> Vec<PartitionId> {
        let mut due = Vec::new();
        for partition in partitions {
            let lane = self.lanes.entry(partition).or_default();
            let has_rested = lane
                .rested_at
                .is_none_or(|at| now.since(at) >= self.interval);
            if has_rested && !lane.is_under_way(now) {
                lane.under_way_since = Some(now);
                due.push(partition);
            }
        }
        due
    }

    /// A marker was read, whoever wrote it.
    pub fn read(&mut self, partition: PartitionId, now: MonoTime) {
        self.rest(partition, now);
    }

    /// A marker could not be written: the next try comes after the interval.
    pub fn failed(&mut self, partition: PartitionId, now: MonoTime) {
        self.rest(partition, now);
    }

    fn rest(&mut self, partition: PartitionId, now: MonoTime) {
        *self.lanes.entry(partition).or_default() = Lane {
            rested_at: Some(now),
            under_way_since: None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(0);
    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_micros(millis * 1_000)
    }

    #[test]
    fn one_is_written_when_none_was_read_for_the_interval_and_none_is_under_way() {
        let mut schedule = MarkerSchedule::new(INTERVAL);
        assert_eq!(schedule.due([P], at(0)), [P]);
        assert_eq!(schedule.due([P], at(1_000)), [], "it is not read back yet");
        schedule.read(P, at(1_001));
        assert_eq!(schedule.due([P], at(1_100)), []);
        schedule.read(P, at(1_100));
        assert_eq!(
            schedule.due([P], at(1_199)),
            [],
            "another process's counts as well"
        );
        assert_eq!(schedule.due([P], at(1_200)), [P]);
    }

    #[test]
    fn one_that_is_never_read_back_is_written_again_after_a_while() {
        let mut schedule = MarkerSchedule::new(INTERVAL);
        assert_eq!(schedule.due([P], at(0)), [P]);
        // Acknowledged, and then gone with the leader that had it alone.
        assert_eq!(schedule.due([P], at(29_999)), []);
        assert_eq!(schedule.due([P], at(30_000)), [P]);
        assert_eq!(schedule.due([P], at(30_100)), [], "one at a time");
    }

    #[test]
    fn a_failed_write_is_tried_again_after_the_interval_and_holds_up_no_other_partition() {
        let mut schedule = MarkerSchedule::new(INTERVAL);
        let other = PartitionId(1);
        assert_eq!(schedule.due([P, other], at(0)), [P, other]);
        schedule.failed(P, at(10));
        schedule.read(other, at(5));
        assert_eq!(schedule.due([P, other], at(105)), [other]);
        assert_eq!(schedule.due([P, other], at(110)), [P]);
    }
}
