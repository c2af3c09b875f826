//! The version table: slot to [`ZoneVersion`], a tree that is copied on write, so that setting one version's end copies one
//! way down and leaves every published index as it is (I4).

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

    pub(super) fn order(&self) -> ChangeOrder {
        self.order
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

/// Versions of a leaf. Few: to copy a leaf is to count one more reference to each of its zones, wherever these stand.
const ROWS: usize = 16;
/// Parts of a node above.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 5;

/// A part of the table.
#[derive(Clone, Default)]
enum Part {
    #[default]
    Empty,
    Rows(Arc<[Option<ZoneVersion>; ROWS]>),
    Parts(Arc<[Part; PARTS]>),
}

impl Part {
    /// A count that stands with what it leads to.
    fn count(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Rows(rows) => Arc::strong_count(rows),
            Self::Parts(parts) => Arc::strong_count(parts),
        }
    }
}

/// For a write: copied where it is shared. To count a reference waits for the memory it stands in, one after the other, where to
/// look at all of them first waits for all at once: `counts` looks.
fn own<T: Clone>(shared: &mut Arc<T>, counts: impl Fn(&T) -> usize) -> &mut T {
    if Arc::strong_count(shared) > 1 {
        std::hint::black_box(counts(shared));
    }
    Arc::make_mut(shared)
}

/// Slots with their versions. Cloning shares all of it.
#[derive(Clone, Default)]
pub(super) struct VersionTable {
    root: Part,
    /// Levels of parts above the rows.
    height: u32,
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

    #[inline]
    pub(super) fn get(&self, slot: VersionSlot) -> Option<&ZoneVersion> {
        let slot = slot.0 as usize;
        let place = slot / ROWS;
        let mut part = &self.root;
        let mut level = self.height;
        if place >> (PART_BITS * level) != 0 {
            return None;
        }
        while let Part::Parts(parts) = part {
            level -= 1;
            part = &parts[(place >> (PART_BITS * level)) % PARTS];
        }
        match part {
            Part::Rows(rows) => rows[slot % ROWS].as_ref(),
            Part::Empty | Part::Parts(_) => None,
        }
    }

    fn row(&mut self, slot: VersionSlot) -> &mut Option<ZoneVersion> {
        let slot = slot.0 as usize;
        let place = slot / ROWS;
        while place >> (PART_BITS * self.height) != 0 {
            let mut parts = [const { Part::Empty }; PARTS];
            parts[0] = std::mem::take(&mut self.root);
            self.root = Part::Parts(Arc::new(parts));
            self.height += 1;
        }
        let mut part = &mut self.root;
        for level in (0..self.height).rev() {
            if let Part::Empty = part {
                *part = Part::Parts(Arc::new([const { Part::Empty }; PARTS]));
            }
            let Part::Parts(parts) = part else {
                unreachable!("rows stand below all levels of parts");
            };
            let looked_at = |parts: &[Part; PARTS]| parts.iter().map(Part::count).sum();
            part = &mut own(parts, looked_at)[(place >> (PART_BITS * level)) % PARTS];
        }
        if let Part::Empty = part {
            *part = Part::Rows(Arc::new([const { None }; ROWS]));
        }
        let Part::Rows(rows) = part else {
            unreachable!("below all levels of parts stand rows");
        };
        let looked_at = |rows: &[Option<ZoneVersion>; ROWS]| {
            let zones = rows.iter().flatten().map(|version| &version.zone);
            zones.map(Arc::strong_count).sum()
        };
        &mut own(rows, looked_at)[slot % ROWS]
    }

    pub(super) fn insert(&mut self, version: ZoneVersion) -> VersionSlot {
        let slot = VersionSlot(self.free.pop_back().unwrap_or_else(|| {
            let slot = self.next;
            self.next = slot
                .checked_add(1)
                .expect("fewer than 2^32 zone versions fit into memory");
            slot
        }));
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
        (0..self.next)
            .map(VersionSlot)
            .filter_map(|slot| Some((slot, self.get(slot)?)))
    }
}
