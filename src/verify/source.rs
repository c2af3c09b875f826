//! One telemetry partition as the witness sees it: which records it read, which outputs it saw of each, what is still
//! to be judged. Counting only; what an output must be is judged elsewhere.

use std::collections::{HashMap, VecDeque};

use crate::codec::headers;
use crate::telemetry::{RecordRef, RecordTimestamp};
use crate::time::EventTime;

/// Outputs may run this far ahead of the telemetry that was read; beyond it their source is not believed.
const AHEAD_MAX: i64 = 20_000_000;

/// A gap of the telemetry's offsets this long is no transaction marker: the topic dropped records before they were read.
const GAP_MIN: i64 = 1_000;

/// A header kept with its record: name and value.
pub(super) type StoredHeader = (Box<str>, Option<Box<[u8]>>);

/// A record kept until it is judged.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) timestamp: RecordTimestamp,
    pub(super) key: Option<Box<[u8]>>,
    pub(super) value: Option<Box<[u8]>>,
    pub(super) headers: Vec<StoredHeader>,
}

impl Stored {
    pub(super) fn of(record: &RecordRef<'_>) -> Self {
        Self {
            timestamp: record.timestamp,
            key: record.key.map(Box::from),
            value: record.value.map(Box::from),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (Box::from(*name), value.map(Box::from)))
                .collect(),
        }
    }

    /// What an output has behind the headers of its source, of which it repeats all but those of `its_own` names; `None`
    /// where it does not repeat them in order.
    pub(super) fn headers_after(
        &self,
        source: &Self,
        its_own: fn(&str) -> bool,
    ) -> Option<&[StoredHeader]> {
        let mut rest = self.headers.as_slice();
        for original in source.headers.iter().filter(|(name, _)| !its_own(name)) {
            let (first, behind) = rest.split_first()?;
            if first != original {
                return None;
            }
            rest = behind;
        }
        Some(rest)
    }

    /// The value of the last header of this name; of what an enriched record says of itself also where one header says it all.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let last = |name: &str| {
            let mut from_last = self.headers.iter().rev();
            let (_, value) = from_last.find(|(header, _)| &**header == name)?;
            std::str::from_utf8(value.as_deref()?).ok()
        };
        last(name).or_else(|| headers::part_of_all(last(headers::ALL)?, name))
    }
}

/// Which topic an output stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Enriched,
    DeadLetter,
}

/// An output that waits to be judged.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) kind: Kind,
    /// It can be judged once the zones are known up to here.
    pub(super) at: Option<EventTime>,
    pub(super) record: Stored,
}

/// What is known of one source offset.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) record: Option<Stored>,
    pub(super) outputs: Vec<Output>,
    pub(super) seen: u32,
    /// Committed without an output.
    pub(super) lost: bool,
}

/// What the commit cursor says of a record as it passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// It has an output.
    Delivered,
    /// It has none.
    Missing,
    /// There is no record at this offset (a transaction marker).
    Hole,
}

/// One telemetry partition.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The offset of `slots[0]`; below it everything is judged and dropped.
    base: i64,
    started: bool,
    slots: VecDeque<Slot>,
    /// The next telemetry offset to read.
    pub(super) read_to: i64,
    /// Outputs are complete for every offset below.
    pub(super) settled_to: i64,
    /// The first telemetry record that was read.
    pub(super) telemetry_from: Option<i64>,
    /// Committed up to here: what has its output may be passed, what has none waits for `settled_to`.
    pub(super) committed_to: i64,
    /// Runs of records that the topic dropped before they were read.
    unread: Vec<(i64, i64)>,
    slots_unread: Vec<(i64, i64)>,
    /// The commit cursor: below it lost or not is decided.
    pub(super) passed_to: i64,
    /// The lowest offset with an output.
    pub(super) first_output: Option<i64>,
    /// The first offset that was judged.
    pub(super) judged_from: Option<i64>,
    /// The highest first occurrence in each output partition.
    last_first: HashMap<i32, i64>,
    /// Outputs whose telemetry was not read yet.
    pub(super) ahead: usize,
}

/// Where an output's source is.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Slot(&'a mut Slot),
    /// Judged and dropped before.
    Dropped,
    /// No offset that this partition can have.
    Nowhere,
}

impl Source {
    /// Starts at the first offset met, of telemetry or of an output.
    pub(super) fn start(&mut self, offset: i64) {
        if !self.started {
            self.started = true;
            self.base = offset;
            self.read_to = offset;
            self.passed_to = offset;
        }
        self.begin_at(offset);
    }

    /// Before any telemetry is read, the partition begins at the lowest offset met: outputs come in any order (a dead
    /// letter may be read before the enriched records ahead of it).
    fn begin_at(&mut self, offset: i64) {
        if self.telemetry_from.is_some() || offset < 0 || self.base - offset > AHEAD_MAX {
            return;
        }
        while self.base > offset {
            self.slots.push_front(Slot::default());
            self.base -= 1;
        }
        if self.read_to > self.base {
            self.read_to = self.base;
            self.passed_to = self.base;
        }
    }

    /// Takes a telemetry record; offsets ascend.
    pub(super) fn read(&mut self, offset: i64, record: Stored) -> bool {
        self.start(offset);
        if offset < self.read_to {
            return false;
        }
        // What lies before the first record is what retention took long ago.
        if self
            .telemetry_from
            .replace(self.telemetry_from.unwrap_or(offset))
            .is_some()
            && offset - self.read_to >= GAP_MIN
        {
            self.unread.push((self.read_to, offset));
        }
        let Place::Slot(slot) = self.slot(offset) else {
            return false;
        };
        let waiting = slot.outputs.len();
        slot.record = Some(record);
        self.ahead -= waiting;
        self.read_to = self.read_to.max(offset + 1);
        true
    }

    /// The slot of an offset, made if need be.
    pub(super) fn slot(&mut self, offset: i64) -> Place<'_> {
        if offset < self.base {
            return Place::Dropped;
        }
        let number = offset - self.base;
        if number > AHEAD_MAX {
            return Place::Nowhere;
        }
        let number = usize::try_from(number).expect("checked to be small");
        if self.slots.len() <= number {
            self.slots.resize_with(number + 1, Slot::default);
        }
        Place::Slot(&mut self.slots[number])
    }

    /// Notes the first occurrence of an offset in an output partition; false where a later one came before it.
    pub(super) fn in_order(&mut self, offset: i64, output_partition: i32) -> bool {
        let last = self.last_first.entry(output_partition).or_insert(offset);
        let ordered = offset >= *last;
        *last = offset.max(*last);
        ordered
    }

    /// Moves the commit cursor over the next record if that can be decided. One without an output waits until the outputs
    /// are settled, also where it stands before all that have one: a lower output may still come, from the other topic.
    pub(super) fn pass(&mut self) -> Option<(i64, Passed)> {
        let offset = self.passed_to;
        let is_settled = offset < self.settled_to;
        if !self.started || offset >= self.read_to || !is_settled && offset >= self.committed_to {
            return None;
        }
        let slot = usize::try_from(offset - self.base)
            .ok()
            .and_then(|i| self.slots.get_mut(i));
        let passed = match slot {
            Some(slot) if slot.record.is_none() => Passed::Hole,
            Some(slot) if slot.seen > 0 => Passed::Delivered,
            _ => Passed::Missing,
        };
        if passed == Passed::Missing && !is_settled {
            return None;
        }
        self.passed_to += 1;
        Some((offset, passed))
    }

    /// Marks a record that the cursor passed as lost.
    pub(super) fn mark_lost(&mut self, offset: i64) {
        if let Place::Slot(slot) = self.slot(offset) {
            slot.lost = true;
        }
    }

    /// Drops what the cursor has passed and is judged, but for the last `keep`.
    pub(super) fn drop_judged(&mut self, keep: usize) {
        let passed = usize::try_from(self.passed_to - self.base).unwrap_or(0);
        let mut droppable = passed.saturating_sub(keep);
        while droppable > 0
            && self
                .slots
                .front()
                .is_some_and(|slot| slot.outputs.is_empty())
        {
            self.slots.pop_front();
            self.base += 1;
            droppable -= 1;
        }
    }

    /// Telemetry records that wait for their first output.
    pub(super) fn unmatched(&self) -> usize {
        let from = usize::try_from(self.passed_to - self.base).unwrap_or(0);
        self.slots
            .len()
            .saturating_sub(from)
            .saturating_sub(self.ahead)
    }

    /// How many records the topic dropped before they were read, and the first of them, since the last call.
    pub(super) fn take_unread(&mut self) -> Vec<(i64, i64)> {
        self.slots_unread.extend(&self.unread);
        std::mem::take(&mut self.unread)
    }

    /// Whether an offset lies among those.
    pub(super) fn is_unread(&self, offset: i64) -> bool {
        self.slots_unread
            .iter()
            .any(|(from, to)| (*from..*to).contains(&offset))
    }

    /// Outputs whose source was never read: what is left at the end.
    pub(super) fn orphans(&self) -> Vec<i64> {
        let mut offsets = Vec::new();
        for (slot, offset) in self.slots.iter().zip(self.base..) {
            if slot.record.is_none() {
                offsets.extend(std::iter::repeat_n(offset, slot.outputs.len()));
            }
        }
        offsets
    }
}
