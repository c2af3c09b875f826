//! Moving `as_of`: up to where the published index is complete, when a new head or a new index is published, and what the
//! end of a bootstrap sets. Owns I1 (`as_of`) and I3.

use std::sync::Arc;
use std::time::Duration;

use super::super::promotion::Promotion;
use super::super::{Degraded, Epoch, Snapshot};
use super::{Gate, GateEffect, Published};
use crate::time::{EventTime, Now};

impl Gate {
    /// The low watermark up to which everything is in the index at hand.
    pub(super) fn complete_to(&self) -> Option<EventTime> {
        let building = self.promotion.as_ref().and_then(Promotion::earliest);
        let waiting = [self.staging.earliest(), building]
            .into_iter()
            .flatten()
            .min();
        let before_waiting = waiting.map(|first| first.minus(Duration::from_millis(1)));
        let low = self.low_watermark?;
        Some(before_waiting.map_or(low, |before| low.min(before)))
    }

    pub(super) fn advance_as_of(&mut self, effects: &mut Vec<GateEffect>) {
        let Some(complete_to) = self.complete_to() else {
            return;
        };
        let degraded = if self.margin.is_degraded() {
            Degraded::Flagged
        } else {
            Degraded::No
        };
        match &self.published {
            None => {
                // The bootstrap is whole: one build at its end, nothing left that the watermark has passed.
                if self.is_whole(complete_to) && self.has_zones_at(complete_to) {
                    self.end_bootstrap(complete_to);
                    self.publish_new(complete_to, degraded, effects);
                    effects.push(GateEffect::Bootstrapped);
                }
            }
            Some(published) if self.starting_over => {
                // Whether any zone is left is not asked again: if all were deleted meanwhile, that is the answer.
                let reaches = complete_to >= published.as_of;
                if self.is_whole(complete_to) && reaches && self.has_room() {
                    self.end_bootstrap(complete_to);
                    self.starting_over = false;
                    self.publish_new(complete_to, degraded, effects);
                }
            }
            Some(published) => {
                let as_of = published.as_of.max(complete_to);
                let floor = self.floor.get().unwrap_or(published.floor);
                // `complete_to` speaks of the index at hand: the published one may lack what was built last, although the
                // next build has begun meanwhile.
                if !Arc::ptr_eq(&published.index, &self.index) {
                    // Else as_of stands: what waits may belong below it.
                    if self.has_room() {
                        self.publish_new(as_of, degraded, effects);
                    }
                } else if as_of > published.as_of
                    || floor > published.floor
                    || degraded != published.degraded
                {
                    // Answers above the history that the next index has dropped are the same in this one.
                    let head = Published {
                        index: published.index.clone(),
                        as_of,
                        floor,
                        degraded,
                    };
                    self.publish(head, effects);
                }
            }
        }
    }

    /// Whether a reading from the start is through: nothing is left that the watermark has passed, and the index can be asked.
    fn is_whole(&self, complete_to: EventTime) -> bool {
        self.low_watermark == Some(complete_to)
            && self.promotion.is_none()
            && self.index.is_searchable()
    }

    /// Whether the bootstrap need not wait for a zone. Looks at all of them once for each `at`, and not again with every
    /// input: a large import may all be scheduled.
    fn has_zones_at(&mut self, at: EventTime) -> bool {
        if self.config.allow_empty {
            return true;
        }
        if self.no_zones_at == Some(at) {
            return false;
        }
        let has_any = self.index.zones_in_force(at).next().is_some();
        self.no_zones_at = (!has_any).then_some(at);
        has_any
    }

    /// The latest T, and the time that has passed since.
    pub(super) fn latest_t_by_now(&self) -> EventTime {
        let Now { mono, wall } = self.latest_t;
        wall.plus(self.now.mono.since(mono))
    }

    pub(super) fn end_bootstrap(&mut self, as_of: EventTime) {
        // T may have stepped back just now. Compaction went by the brokers' clocks all the same, and a floor too high only
        // flags an answer, where one too low promises a wrong one.
        let t = self.latest_t_by_now().max(self.now.wall);
        let t = self.newest_stamp.map_or(t, |stamp| t.max(stamp));
        self.floor
            .bootstrapped(as_of, t, self.margin.current(), self.topic.compaction_lag);
        self.read_before.clear();
        self.new_partitions.clear();
    }

    pub(super) fn publish_new(
        &mut self,
        as_of: EventTime,
        degraded: Degraded,
        effects: &mut Vec<GateEffect>,
    ) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.live_snapshots += 1;
        let floor = self.floor.get().unwrap_or(as_of);
        self.publish(
            Published {
                index: self.index.clone(),
                as_of,
                floor,
                degraded,
            },
            effects,
        );
    }

    pub(super) fn publish(&mut self, published: Published, effects: &mut Vec<GateEffect>) {
        if let Some(before) = &self.published {
            assert!(published.as_of >= before.as_of, "I1: as_of never goes back");
        }
        effects.push(GateEffect::Publish(Arc::new(Snapshot {
            index: published.index.clone(),
            epoch: self.epoch,
            as_of: published.as_of,
            floor: published.floor,
            degraded: published.degraded,
        })));
        self.published = Some(published);
    }
}
