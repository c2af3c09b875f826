//! The version table: slot to [`ZoneVersion`], copied on write by chunks, so that setting one version's end copies one
//! chunk and leaves every published index as it is (I4).

use std::sync::Arc;

use imbl::Vector;

use crate::partition::RecordPosition;
use crate::time::EventTime;
use crate::zone::{ChangeOrder, Zone};

/// Where a version stands in the table of its index.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionSlot(pub(super) u32);

/// One state of a zone: what one record said, in force over [`valid_from`, `end`).
#[derive(Clone, Debug)]
pub struct ZoneVersion {
    zone: Arc<Zone>,
    valid_from: EventTime,
    /// Exclusive; `None` = no end known.
    end: Option<EventTime>,
    order: ChangeOrder,
}

impl ZoneVersion {
    pub(super) fn new(
        zone: Arc<Zone>,
        valid_from: EventTime,
        end: Option<EventTime>,
        order: ChangeOrder,
    ) -> Self {
        Self {
            zone,
            valid_from,
            end,
            order,
        }
    }

    /// The zone as this version has it.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The same, shared.
    #[must_use]
    pub fn shared_zone(&self) -> &Arc<Zone> {
        &self.zone
    }

    /// It is in force from here on.
    #[must_use]
    pub fn valid_from(&self) -> EventTime {
        self.valid_from
    }

    /// It is no longer in force from here on; `None` = no end known.
    #[must_use]
    pub fn end(&self) -> Option<EventTime> {
        self.end
    }

    /// The record it came from.
    #[must_use]
    pub fn position(&self) -> RecordPosition {
        self.order.position
    }

    /// The commit time of its record.
    #[must_use]
    pub fn commit_time(&self) -> EventTime {
        self.order.commit_time
    }

    /// Whether it is in force at `at`.
    #[must_use]
    pub fn is_in_force(&self, at: EventTime) -> bool {
        self.valid_from <= at && self.end.is_none_or(|end| at < end)
    }

    /// About what it occupies: shape, texts, table row and index entries.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        zone_byte_len(&self.zone)
    }
}

pub(super) fn zone_byte_len(zone: &Zone) -> usize {
    const ROW_AND_ENTRIES: usize = 256;
    ROW_AND_ENTRIES
        + zone.area.byte_len()
        + zone.id.as_str().len()
        + zone.id_json.len()
        + zone.properties_json.as_ref().map_or(0, |json| json.len())
}

const CHUNK: usize = 64;
type Chunk = [Option<ZoneVersion>; CHUNK];

/// Slots with their versions. Cloning shares every chunk.
#[derive(Clone, Default)]
pub(super) struct VersionTable {
    chunks: Vector<Arc<Chunk>>,
    /// Slots never used start here.
    next: u32,
    /// Emptied slots that no tree refers to any more.
    free: Vector<u32>,
    /// Emptied slots that a tree may still refer to.
    emptied: Vector<u32>,
    len: usize,
}

impl VersionTable {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, slot: VersionSlot) -> Option<&ZoneVersion> {
        let slot = slot.0 as usize;
        self.chunks.get(slot / CHUNK)?[slot % CHUNK].as_ref()
    }

    fn row(&mut self, slot: VersionSlot) -> &mut Option<ZoneVersion> {
        let slot = slot.0 as usize;
        let chunk = self
            .chunks
            .get_mut(slot / CHUNK)
            .expect("a slot that was given out has a chunk");
        &mut Arc::make_mut(chunk)[slot % CHUNK]
    }

    pub(super) fn insert(&mut self, version: ZoneVersion) -> VersionSlot {
        let slot = VersionSlot(self.free.pop_back().unwrap_or_else(|| {
            let slot = self.next;
            self.next = slot
                .checked_add(1)
                .expect("fewer than 2^32 zone versions fit into memory");
            slot
        }));
        if slot.0 as usize / CHUNK == self.chunks.len() {
            self.chunks.push_back(Arc::new([const { None }; CHUNK]));
        }
        *self.row(slot) = Some(version);
        self.len += 1;
        slot
    }

    pub(super) fn set_end(&mut self, slot: VersionSlot, end: Option<EventTime>) {
        self.row(slot)
            .as_mut()
            .expect("a version that ends is in the table")
            .end = end;
    }

    pub(super) fn remove(&mut self, slot: VersionSlot) -> ZoneVersion {
        let version = self
            .row(slot)
            .take()
            .expect("a version that goes is in the table");
        self.len -= 1;
        version
    }

    /// Takes back the slot of a version that went, though a tree may still refer to it.
    pub(super) fn empty(&mut self, slot: VersionSlot) {
        self.emptied.push_back(slot.0);
    }

    /// The same where no tree refers to it: it may be used again.
    pub(super) fn free(&mut self, slot: VersionSlot) {
        self.free.push_back(slot.0);
    }

    /// Says that no tree refers to an emptied slot any more: they may be used again.
    pub(super) fn recycle(&mut self) {
        self.free.append(std::mem::take(&mut self.emptied));
    }

    pub(super) fn emptied_count(&self) -> usize {
        self.emptied.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (VersionSlot, &ZoneVersion)> {
        self.chunks.iter().enumerate().flat_map(|(chunk, rows)| {
            rows.iter().enumerate().filter_map(move |(row, version)| {
                let slot = u32::try_from(chunk * CHUNK + row).expect("slots are u32");
                version.as_ref().map(|version| (VersionSlot(slot), version))
            })
        })
    }
}
