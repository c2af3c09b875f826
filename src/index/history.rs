//! What is over: when each version ended, what that occupies, and what goes first when it is too much (DESIGN 4,
//! *History*: the earliest-ended go, and the floor rises to the last end that went).

use imbl::OrdMap;

use super::timeline::{Ruler, TimelineEntry};
use crate::time::EventTime;
use crate::zone::ZoneId;

/// What a removal keeps occupied until it is forgotten.
const REMOVAL_BYTES: usize = 256;

/// Ends of versions, and removals, by instant.
#[derive(Clone, Default)]
pub(super) struct History {
    /// Bytes that are over at an instant, by zone.
    ended: OrdMap<(EventTime, ZoneId), usize>,
    /// Bytes of all entries with an end ≤ `counted_to`.
    bytes: usize,
    counted_to: Option<EventTime>,
}

impl History {
    /// When an entry is over for good, and what it occupies.
    fn ending(
        entry: &TimelineEntry,
        byte_len: impl Fn(&TimelineEntry) -> usize,
    ) -> Option<(EventTime, usize)> {
        match entry.ruler {
            Ruler::Upsert { .. } => entry.version_end().map(|end| (end, byte_len(entry))),
            Ruler::Remove => Some((entry.valid_from, REMOVAL_BYTES)),
        }
    }

    /// Takes note of an entry's end (when it is added, or cut to a new end).
    pub(super) fn note(
        &mut self,
        id: &ZoneId,
        entry: &TimelineEntry,
        byte_len: impl Fn(&TimelineEntry) -> usize,
    ) {
        if let Some((end, bytes)) = Self::ending(entry, byte_len) {
            *self.ended.entry((end, id.clone())).or_insert(0) += bytes;
            if self.counted_to.is_some_and(|to| end <= to) {
                self.bytes += bytes;
            }
        }
    }

    /// Takes back what [`Self::note`] noted of an entry.
    pub(super) fn unnote(
        &mut self,
        id: &ZoneId,
        entry: &TimelineEntry,
        byte_len: impl Fn(&TimelineEntry) -> usize,
    ) {
        let Some((end, bytes)) = Self::ending(entry, byte_len) else {
            return;
        };
        let key = (end, id.clone());
        let Some(noted) = self.ended.get_mut(&key) else {
            return;
        };
        *noted -= bytes;
        if *noted == 0 {
            self.ended.remove(&key);
        }
        if self.counted_to.is_some_and(|to| end <= to) {
            self.bytes -= bytes;
        }
    }

    /// Counts what is over by `as_of`; calls `ended` with every zone of which something has ended since the last time.
    pub(super) fn count_to(&mut self, as_of: EventTime, mut ended: impl FnMut(&ZoneId)) {
        if self.counted_to.is_some_and(|to| as_of <= to) {
            return;
        }
        let from = self
            .counted_to
            .map_or(EventTime::MIN, |to| EventTime::clamped(to.millis() + 1));
        let lower = (from, ZoneId::new(""));
        for ((end, id), bytes) in self.ended.range(lower..) {
            if *end > as_of {
                break;
            }
            self.bytes += bytes;
            ended(id);
        }
        self.counted_to = Some(as_of);
    }

    /// The `as_of` that was last counted to.
    pub(super) fn counted_to(&self) -> Option<EventTime> {
        self.counted_to
    }

    /// Bytes of what is over.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The zone and instant of what ended first.
    pub(super) fn first(&self) -> Option<(EventTime, ZoneId)> {
        let ((end, id), _) = self.ended.get_min()?;
        self.counted_to
            .is_some_and(|to| *end <= to)
            .then(|| (*end, id.clone()))
    }
}
