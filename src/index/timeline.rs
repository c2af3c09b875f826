//! Which change of a zone rules at which instant: *of a zone's changes with valid_from ≤ t the last in the log rules*
//! (DESIGN 4).
//!
//! So a change cuts every change before it in the log at its own `valid_from`, and is itself cut at the earliest
//! `valid_from` of those after it. A change that is left without an instant is gone for good: whatever cut it would cut
//! anything it could cut. That makes the result independent of the order in which changes are added.

use super::entries::Entries;
use super::versions::VersionSlot;
use crate::partition::PartitionId;
use crate::time::EventTime;
use crate::zone::ChangeOrder;

/// What a change makes of its zone while it rules.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ruler {
    /// The zone is as this version says, until it expires.
    Upsert {
        /// Where the version stands in the table.
        slot: VersionSlot,
        /// The zone is gone from here on, though the change goes on ruling.
        expires_at: Option<EventTime>,
    },
    /// The zone is not there.
    Remove,
}

/// A change that rules over [`valid_from`, `ruled_until`).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimelineEntry {
    /// It rules from here on.
    pub valid_from: EventTime,
    /// Another change rules from here on; `None` = it is the last.
    pub ruled_until: Option<EventTime>,
    /// Its place in the log.
    pub order: ChangeOrder,
    /// What it says.
    pub ruler: Ruler,
}

impl TimelineEntry {
    /// The version it made, if it is an upsert.
    #[must_use]
    pub fn slot(&self) -> Option<VersionSlot> {
        match self.ruler {
            Ruler::Upsert { slot, .. } => Some(slot),
            Ruler::Remove => None,
        }
    }

    /// Where its version ends: at the next ruling change or when it expires, whichever comes first.
    #[must_use]
    pub fn version_end(&self) -> Option<EventTime> {
        match self.ruler {
            Ruler::Upsert {
                expires_at: Some(expires),
                ..
            } => Some(self.ruled_until.map_or(expires, |until| until.min(expires))),
            _ => self.ruled_until,
        }
    }
}

/// The changes of one zone that rule at some instant, by `valid_from`. Cloning shares them.
///
/// Those of one partition stand in the order of the log too, as a change that is before another in the log and not before
/// it in time never rules beside it. So what a change concerns is found by halving. Between partitions commit times decide
/// ([`ChangeOrder::is_after`]), which need not rise with a partition's offsets: the order may go in a circle then, and every
/// entry is looked at, of zones that should not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    entries: Entries,
    /// The last version number seen, to count those that do not rise.
    pub(super) version: Option<i64>,
    /// Whether they are from several partitions.
    is_mixed: bool,
}

impl Timeline {
    /// Of one change.
    pub(super) fn of(entry: TimelineEntry, version: Option<i64>) -> Self {
        Self {
            entries: Entries::one(entry),
            version,
            is_mixed: false,
        }
    }

    /// The entries by `valid_from`; they do not overlap.
    #[must_use]
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The entry that rules at `at`.
    #[must_use]
    pub fn at(&self, at: EventTime) -> Option<&TimelineEntry> {
        let next = self.entries.partition_point(|entry| entry.valid_from <= at);
        self.entries.get(next.checked_sub(1)?)
    }

    /// Whether something of the zone is in force after `as_of`.
    pub(super) fn is_alive(&self, as_of: EventTime) -> bool {
        let is_over = |entry: &TimelineEntry| entry.ruled_until.is_some_and(|until| until <= as_of);
        let mut ruling = self
            .entries
            .starting_at(self.entries.partition_point(is_over));
        ruling.any(|entry| {
            entry.slot().is_some() && entry.version_end().is_none_or(|end| end > as_of)
        })
    }

    /// Whether a change from this partition finds those of another.
    pub(super) fn is_foreign_to(&self, partition: PartitionId) -> bool {
        self.is_mixed
            || self
                .entries
                .last()
                .is_some_and(|entry| entry.order.position.partition != partition)
    }

    /// Where an added change would stop ruling; `Err` if it would never rule.
    pub(super) fn ruled_until(
        &self,
        valid_from: EventTime,
        order: &ChangeOrder,
    ) -> Result<Option<EventTime>, NeverRules> {
        let is_later = |entry: &TimelineEntry| entry.order.is_after(order) || entry.order == *order;
        let later = if self.is_foreign_to(order.position.partition) {
            self.entries.iter().find(|entry| is_later(entry))
        } else {
            let place = self.entries.partition_point(|entry| !is_later(entry));
            self.entries.get(place)
        };
        let until = later.map(|entry| entry.valid_from);
        if until.is_some_and(|until| until <= valid_from) {
            Err(NeverRules)
        } else {
            Ok(until)
        }
    }

    /// Adds a change that rules.
    pub(super) fn add(&mut self, added: TimelineEntry) -> Displaced {
        let place = self
            .entries
            .partition_point(|entry| entry.valid_from < added.valid_from);
        // All that begin before are before it in the log, or it would not rule. As they do not overlap, the last one alone may
        // end later.
        let ends_later = |entry: &TimelineEntry| {
            let until = entry.ruled_until;
            until.is_none_or(|until| until > added.valid_from)
        };
        let before = place.checked_sub(1).and_then(|last| self.entries.get(last));
        let cut = before.copied().filter(ends_later).map(|longer| Cut {
            longer,
            shorter: TimelineEntry {
                ruled_until: Some(added.valid_from),
                ..longer
            },
        });
        let is_earlier = |entry: &TimelineEntry| added.order.is_after(&entry.order);
        let is_mixed = self.is_foreign_to(added.order.position.partition);
        let end = if is_mixed {
            self.entries.len()
        } else {
            self.entries.partition_point(is_earlier)
        };
        let concerned = self.entries.starting_at(place).take(end - place).copied();
        let (gone, left): (Vec<_>, Vec<_>) = concerned.partition(is_earlier);
        let first = place - usize::from(cut.is_some());
        let shorter = cut.map(|cut| cut.shorter);
        self.entries
            .splice(first..end, shorter.into_iter().chain([added]).chain(left));
        self.is_mixed = is_mixed && self.has_several_partitions();
        Displaced { cut, gone }
    }

    /// Forgets what is over by `end`: versions that ended and removals that only said so. Gives what went.
    pub(super) fn forget(&mut self, end: EventTime) -> Vec<TimelineEntry> {
        // Whatever rules before something that is over is over.
        let over = self.entries.partition_point(|entry| match entry.ruler {
            Ruler::Upsert { .. } => entry.version_end().is_some_and(|until| until <= end),
            Ruler::Remove => entry.valid_from <= end,
        });
        let gone = self.entries.starting_at(0).take(over).copied().collect();
        self.entries.splice(0..over, []);
        self.is_mixed = self.is_mixed && self.has_several_partitions();
        gone
    }

    fn has_several_partitions(&self) -> bool {
        let partition = |entry: &TimelineEntry| entry.order.position.partition;
        let first = self.entries.get(0).map(partition);
        self.entries
            .iter()
            .any(|entry| Some(partition(entry)) != first)
    }
}

/// What an added change took from others.
#[derive(Clone, Debug)]
pub(super) struct Displaced {
    /// The entry that ends earlier now.
    pub(super) cut: Option<Cut>,
    /// Those that rule no longer.
    pub(super) gone: Vec<TimelineEntry>,
}

/// An entry as it was and as it is.
#[derive(Copy, Clone, Debug)]
pub(super) struct Cut {
    pub(super) longer: TimelineEntry,
    pub(super) shorter: TimelineEntry,
}

/// A change that later ones in the log had cancelled before it could act.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct NeverRules;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::RecordPosition;
    use proptest::prelude::*;

    /// A change as far as its rule goes: `valid_from` and its place in the log.
    type Change = (EventTime, ChangeOrder);

    /// A log of up to 300 changes over `partitions`, most of them valid soon after those before.
    fn logs(partitions: i32) -> impl Strategy<Value = Vec<Change>> {
        let change = (
            0..partitions,
            0i64..40,
            prop_oneof![9 => 0i64..8, 1 => 0i64..900],
        );
        proptest::collection::vec(change, 1..300).prop_map(move |changes| {
            let at = |(offset, (partition, lead, late)): (usize, (i32, i64, i64))| {
                let offset = i64::try_from(offset).unwrap();
                let order = ChangeOrder {
                    commit_time: EventTime::clamped(5 * offset),
                    position: RecordPosition::new(partition, offset),
                };
                (
                    EventTime::clamped(5 * offset + if late > 7 { late } else { lead }),
                    order,
                )
            };
            changes.into_iter().enumerate().map(at).collect()
        })
    }

    fn add(timeline: &mut Timeline, (valid_from, order): Change) -> Vec<TimelineEntry> {
        let Ok(ruled_until) = timeline.ruled_until(valid_from, &order) else {
            return Vec::new();
        };
        let Displaced { cut, gone } = timeline.add(TimelineEntry {
            valid_from,
            ruled_until,
            order,
            ruler: Ruler::Remove,
        });
        if let Some(Cut { longer, shorter }) = cut {
            assert_eq!(shorter.order, longer.order);
            assert!(longer.ruled_until.is_none_or(|until| until > valid_from));
            assert_eq!(shorter.ruled_until, Some(valid_from));
        }
        gone
    }

    /// Of all changes in effect the last in the log, looked for one by one.
    fn ruling(changes: &[Change], at: EventTime) -> Option<ChangeOrder> {
        let in_effect = changes.iter().filter(|(valid_from, _)| *valid_from <= at);
        let later = |a: ChangeOrder, b: ChangeOrder| if b.is_after(&a) { b } else { a };
        in_effect.map(|(_, order)| *order).reduce(later)
    }

    fn assert_rules(timeline: &Timeline, changes: &[Change]) {
        for at in (0..2_500).map(EventTime::clamped) {
            let found = timeline.at(at).map(|entry| entry.order);
            assert_eq!(found, ruling(changes, at), "at {at}");
        }
        let mut entries = timeline.entries().iter().peekable();
        while let Some(entry) = entries.next() {
            let next = entries.peek().map(|next| next.valid_from);
            assert_eq!(entry.ruled_until, next, "it rules until the next does");
        }
        let partitions = |entry: &TimelineEntry| entry.order.position.partition;
        let first = timeline.entries().last().map(partitions);
        let is_mixed = timeline
            .entries()
            .iter()
            .any(|entry| Some(partitions(entry)) != first);
        assert_eq!(timeline.is_mixed, is_mixed);
    }

    fn assert_rules_in_any_order(changes: &[Change], shuffled: &[Change]) -> Timeline {
        let mut timelines = [changes, shuffled].map(|changes| {
            let mut timeline = Timeline::default();
            let gone: usize = changes
                .iter()
                .map(|change| add(&mut timeline, *change).len())
                .sum();
            assert!(timeline.entries().len() + gone <= changes.len());
            assert_rules(&timeline, changes);
            timeline
        });
        assert_eq!(timelines[0], timelines[1]);
        std::mem::take(&mut timelines[0])
    }

    proptest! {
        #[test]
        fn the_last_in_the_log_rules_however_many_there_are_and_in_whatever_order_they_come(
            (changes, shuffled) in logs(1).prop_flat_map(|log| (Just(log.clone()), Just(log).prop_shuffle())),
        ) {
            assert_rules_in_any_order(&changes, &shuffled);
        }

        #[test]
        fn changes_of_several_partitions_rule_by_commit_time(
            (changes, shuffled) in logs(3).prop_flat_map(|log| (Just(log.clone()), Just(log).prop_shuffle())),
        ) {
            assert_rules_in_any_order(&changes, &shuffled);
        }

        #[test]
        fn what_is_forgotten_is_what_was_over_and_the_others_go_on(
            changes in logs(2),
            end in (0i64..2_000).prop_map(EventTime::clamped),
        ) {
            let mut timeline = Timeline::default();
            for change in &changes {
                add(&mut timeline, *change);
            }
            let before = timeline.clone();
            let gone = timeline.forget(end);
            prop_assert!(gone.iter().all(|entry| entry.valid_from <= end));
            prop_assert!(gone.iter().chain(timeline.entries().iter()).eq(before.entries().iter()));
            prop_assert!(timeline.entries().iter().all(|entry| entry.valid_from > end));
        }
    }

    /// The tests above would hold on short timelines alone.
    #[test]
    fn a_zone_that_changes_often_keeps_a_tree_and_comes_back_from_it() {
        let at = |offset: i64| {
            let commit_time = EventTime::clamped(offset);
            let position = RecordPosition::new(0, offset);
            (
                commit_time,
                ChangeOrder {
                    commit_time,
                    position,
                },
            )
        };
        let changes: Vec<Change> = (0..1_000).map(at).collect();
        let mut timeline = Timeline::default();
        for change in &changes {
            assert_eq!(add(&mut timeline, *change), []);
        }
        assert!(matches!(timeline.entries(), Entries::Many(many) if many.len() == 1_000));
        assert_rules(&timeline, &changes);
        assert_eq!(timeline.forget(EventTime::clamped(989)).len(), 990);
        assert!(matches!(timeline.entries(), Entries::Few(few) if few.len() == 10));
        assert_rules(&timeline, &changes[990..]);
    }
}
