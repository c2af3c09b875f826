//! The floor: from there on zones(t) is exact (DESIGN 4, *Floor*). The latest of what compaction may have taken, of
//! where the zones log begins, of what went from the history, and of what the operator set.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::partition::PartitionId;
use crate::time::EventTime;
use crate::zone::StagedChange;

#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    configured: Option<EventTime>,
    first_valid_from: Option<EventTime>,
    /// Per partition, (commit time, valid_from) where the latter is the latest so far: enough to say later which is the
    /// last `valid_from` of the changes committed before an instant.
    scheduled: BTreeMap<PartitionId, Vec<(EventTime, EventTime)>>,
    floor: Option<EventTime>,
}

impl Floor {
    pub(super) fn new(configured: Option<EventTime>) -> Self {
        Self {
            configured,
            ..Self::default()
        }
    }

    pub(super) fn get(&self) -> Option<EventTime> {
        self.floor
    }

    /// Takes note of a change read during the bootstrap.
    pub(super) fn read(&mut self, change: &StagedChange) {
        self.first_valid_from = Some(
            self.first_valid_from
                .map_or(change.valid_from, |first| first.min(change.valid_from)),
        );
        if change.valid_from == change.commit_time {
            // Committed before the edge, it begins before the edge: it raises nothing.
            return;
        }
        let seen = self.scheduled.entry(change.position.partition).or_default();
        let says_nothing_new = seen.last().is_some_and(|(commit, valid_from)| {
            *commit <= change.commit_time && *valid_from >= change.valid_from
        });
        if !says_nothing_new {
            seen.push((change.commit_time, change.valid_from));
        }
    }

    /// The bootstrap has ended with `as_of`; `edge` = T + settle_margin − lag on a compacted topic.
    pub(super) fn bootstrapped(
        &mut self,
        as_of: EventTime,
        t: EventTime,
        margin: Duration,
        compaction_lag: Option<Duration>,
    ) {
        let mut floor = self
            .first_valid_from
            .map_or(as_of, |first| first.min(as_of));
        if let Some(lag) = compaction_lag {
            let edge = t.plus(margin).minus(lag);
            let last_before_edge = self
                .scheduled
                .values()
                .flatten()
                .filter(|(commit, _)| *commit < edge)
                .map(|(_, valid_from)| *valid_from)
                .max();
            floor = floor.max(edge).max(last_before_edge.unwrap_or(edge));
        }
        self.raise(floor);
        if let Some(configured) = self.configured {
            self.raise(configured);
        }
        self.scheduled.clear();
    }

    /// Versions that ended by `end` went from the history.
    pub(super) fn raise(&mut self, end: EventTime) {
        self.floor = Some(self.floor.map_or(end, |floor| floor.max(end)));
    }
}
