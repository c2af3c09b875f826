//! Which change of a zone rules at which instant: *of a zone's changes with valid_from ≤ t the last in the log rules*
//! (DESIGN 4).
//!
//! So a change cuts every change before it in the log at its own `valid_from`, and is itself cut at the earliest
//! `valid_from` of those after it. A change that is left without an instant is gone for good: whatever cut it would cut
//! anything it could cut. That makes the result independent of the order in which changes are added.

use std::sync::Arc;

use super::versions::VersionSlot;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    entries: Arc<[TimelineEntry]>,
    /// The last version number seen, to count those that do not rise.
    pub(super) version: Option<i64>,
}

impl Timeline {
    /// Of one change.
    pub(super) fn of(entry: TimelineEntry, version: Option<i64>) -> Self {
        Self {
            entries: Arc::new([entry]),
            version,
        }
    }

    /// The entries by `valid_from`; they do not overlap.
    #[must_use]
    pub fn entries(&self) -> &[TimelineEntry] {
        &self.entries
    }

    /// The entry that rules at `at`.
    #[must_use]
    pub fn at(&self, at: EventTime) -> Option<&TimelineEntry> {
        let next = self.entries.partition_point(|entry| entry.valid_from <= at);
        self.entries[..next].last()
    }

    /// Where an added change would stop ruling; `Err` if it would never rule.
    pub(super) fn ruled_until(
        &self,
        valid_from: EventTime,
        order: &ChangeOrder,
    ) -> Result<Option<EventTime>, NeverRules> {
        let until = self
            .entries
            .iter()
            .filter(|entry| entry.order.is_after(order) || entry.order == *order)
            .map(|entry| entry.valid_from)
            .min();
        if until.is_some_and(|until| until <= valid_from) {
            Err(NeverRules)
        } else {
            Ok(until)
        }
    }

    /// Adds a change; gives the entries that no longer rule and calls `cut` for each one that now ends earlier.
    pub(super) fn add(
        &mut self,
        added: TimelineEntry,
        mut cut: impl FnMut(&TimelineEntry),
    ) -> Vec<TimelineEntry> {
        let mut entries = self.entries.to_vec();
        let mut gone = Vec::new();
        entries.retain_mut(|entry| {
            if !added.order.is_after(&entry.order) {
                return true;
            }
            if entry.valid_from >= added.valid_from {
                gone.push(*entry);
                return false;
            }
            if entry
                .ruled_until
                .is_none_or(|until| until > added.valid_from)
            {
                entry.ruled_until = Some(added.valid_from);
                cut(entry);
            }
            true
        });
        let place = entries.partition_point(|entry| entry.valid_from < added.valid_from);
        entries.insert(place, added);
        self.entries = entries.into();
        gone
    }

    /// Forgets what is over by `end`: versions that ended and removals that only said so. Gives what went.
    pub(super) fn forget(&mut self, end: EventTime) -> Vec<TimelineEntry> {
        let mut gone = Vec::new();
        let mut entries = self.entries.to_vec();
        entries.retain(|entry| {
            let over = match entry.ruler {
                Ruler::Upsert { .. } => entry.version_end().is_some_and(|until| until <= end),
                Ruler::Remove => entry.valid_from <= end,
            };
            if over {
                gone.push(*entry);
            }
            !over
        });
        self.entries = entries.into();
        gone
    }
}

/// A change that later ones in the log had cancelled before it could act.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct NeverRules;
