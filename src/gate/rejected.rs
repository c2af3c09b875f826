//! Zones whose newest change was rejected, until a good one comes: what status, gauge and alert name (DESIGN 3).

use std::collections::BTreeMap;

use crate::partition::RecordPosition;
use crate::rejection::Rejection;
use crate::time::EventTime;
use crate::zone::ZoneId;

/// So many are kept by name; beyond it they are only counted.
const NAMED_MAX: usize = 10_000;
/// So many of them are told in a status.
const TOLD_MAX: usize = 1_000;

/// A zone whose newest change was rejected, until a good one comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedZone {
    /// The record at fault.
    pub position: RecordPosition,
    /// Why it was rejected.
    pub rejection: Rejection,
    /// The previous version ends here (the topic may no longer hold it); `None` = it stays.
    pub ends_at: Option<EventTime>,
}

#[derive(Debug, Default)]
pub(super) struct RejectedZones {
    named: BTreeMap<ZoneId, RejectedZone>,
    unnamed: usize,
}

impl RejectedZones {
    /// Takes note of a rejected change; `None` where it does not say which zone it means.
    pub(super) fn add(&mut self, id: Option<ZoneId>, rejected: RejectedZone) {
        match id {
            Some(id) if self.named.len() < NAMED_MAX || self.named.contains_key(&id) => {
                self.named.insert(id, rejected);
            }
            _ => self.unnamed += 1,
        }
    }

    /// Whether the record at `position` is among them.
    pub(super) fn names(&self, id: &ZoneId, position: RecordPosition) -> bool {
        self.named
            .get(id)
            .is_some_and(|zone| zone.position == position)
    }

    /// A good change of the zone came.
    pub(super) fn mended(&mut self, id: &ZoneId) {
        self.named.remove(id);
    }

    pub(super) fn count(&self) -> usize {
        self.named.len() + self.unnamed
    }

    /// Those that a status names.
    pub(super) fn told(&self) -> Vec<(ZoneId, RejectedZone)> {
        self.named
            .iter()
            .take(TOLD_MAX)
            .map(|(id, zone)| (id.clone(), zone.clone()))
            .collect()
    }
}
