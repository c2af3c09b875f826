//! The version table: slot to [`ZoneVersion`], a tree that is copied on write, so that setting one version's end copies one
//! way down and leaves every published index as it is (I4).

use std::sync::Arc;

use imbl::Vector;

use crate::fetch::fetch;
use crate::partition::RecordPosition;
use crate::time::EventTime;
use crate::zone::{ChangeOrder, Zone};

/// Where a version stands in the table of its index.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionSlot(pub(super) u32);

impl VersionSlot {
    /// Its place in its leaf.
    fn row(self) -> usize {
        self.0 as usize % ROWS
    }
}

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

/// A zone's id as a JSON string where it is short, as nearly all are.
///
/// It stands in the table, so that writing an answer reads one place of memory for each zone, where the row and then the zone
/// would be two misses of the cache one after the other. A copy of it allocates nothing.
#[derive(Copy, Clone)]
struct ShortId {
    /// Zero: it stands with the zone alone.
    len: u8,
    bytes: [u8; SHORT_ID_MAX],
}

/// A UUID in quotes, and one more: so that a [`ShortId`] is of 40 bytes.
const SHORT_ID_MAX: usize = 39;

impl ShortId {
    const NONE: Self = Self {
        len: 0,
        bytes: [0; SHORT_ID_MAX],
    };

    fn of(id_json: &str) -> Self {
        let mut id = Self::NONE;
        if let Some(place) = id.bytes.get_mut(..id_json.len()) {
            place.copy_from_slice(id_json.as_bytes());
            id.len = id_json.len() as u8;
        }
        id
    }

    #[inline]
    fn get(&self) -> Option<&[u8]> {
        (self.len > 0).then(|| &self.bytes[..usize::from(self.len)])
    }
}

/// Versions of a leaf. Few: to copy a leaf is to count one more reference to each of its zones, wherever these stand.
const ROWS: usize = 16;

/// A leaf of the table.
#[derive(Clone)]
struct Rows {
    ids: [ShortId; ROWS],
    versions: [Option<ZoneVersion>; ROWS],
}

impl Rows {
    const EMPTY: Self = Self {
        ids: [ShortId::NONE; ROWS],
        versions: [const { None }; ROWS],
    };
}

/// Parts of a node above.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 5;

/// A part of the table.
#[derive(Clone, Default)]
enum Part {
    #[default]
    Empty,
    Rows(Arc<Rows>),
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
        self.rows(slot)?.versions[slot.row()].as_ref()
    }

    /// The id of a version's zone as a JSON string.
    #[inline]
    pub(super) fn id_json(&self, slot: VersionSlot) -> Option<&[u8]> {
        let rows = self.rows(slot)?;
        let row = slot.row();
        rows.ids[row].get().or_else(|| {
            let version = rows.versions[row].as_ref()?;
            Some(version.zone.id_json.as_bytes())
        })
    }

    /// Asks for the memory of [`Self::get`].
    #[inline]
    pub(super) fn fetch(&self, slot: VersionSlot) {
        if let Some(rows) = self.rows(slot) {
            fetch(&raw const rows.versions[slot.row()]);
        }
    }

    /// Asks for the memory of [`Self::id_json`].
    #[inline]
    pub(super) fn fetch_id(&self, slot: VersionSlot) {
        if let Some(rows) = self.rows(slot) {
            fetch(&raw const rows.ids[slot.row()]);
        }
    }

    #[inline]
    fn rows(&self, slot: VersionSlot) -> Option<&Rows> {
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
            Part::Rows(rows) => Some(rows),
            Part::Empty | Part::Parts(_) => None,
        }
    }

    /// The leaf of a slot, for a write.
    fn own_rows(&mut self, slot: VersionSlot) -> &mut Rows {
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
            *part = Part::Rows(Arc::new(Rows::EMPTY));
        }
        let Part::Rows(rows) = part else {
            unreachable!("below all levels of parts stand rows");
        };
        own(rows, |rows| {
            let versions = rows.versions.iter().flatten();
            versions
                .map(|version| Arc::strong_count(&version.zone))
                .sum()
        })
    }

    pub(super) fn insert(&mut self, version: ZoneVersion) -> VersionSlot {
        let slot = VersionSlot(self.free.pop_back().unwrap_or_else(|| {
            let slot = self.next;
            self.next = slot
                .checked_add(1)
                .expect("fewer than 2^32 zone versions fit into memory");
            slot
        }));
        let row = slot.row();
        let rows = self.own_rows(slot);
        rows.ids[row] = ShortId::of(&version.zone.id_json);
        rows.versions[row] = Some(version);
        self.len += 1;
        slot
    }

    pub(super) fn set_end(&mut self, slot: VersionSlot, end: Option<EventTime>) {
        self.own_rows(slot).versions[slot.row()]
            .as_mut()
            .expect("a version that ends is in the table")
            .end = end;
    }

    pub(super) fn remove(&mut self, slot: VersionSlot) -> ZoneVersion {
        let row = slot.row();
        let rows = self.own_rows(slot);
        rows.ids[row] = ShortId::NONE;
        let version = rows.versions[row]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Area, Position, RawShape, ShapeRules};

    fn version(id_json: &str) -> ZoneVersion {
        let shape = RawShape::Circle {
            center: Position { lon: 1.0, lat: 2.0 },
            radius_m: 9.0,
        };
        let zone = Zone {
            id: crate::zone::ZoneId::new("z"),
            id_json: id_json.into(),
            area: Area::new(shape, &ShapeRules::default()).unwrap(),
            properties_json: None,
            version: None,
        };
        let order = ChangeOrder {
            commit_time: EventTime::MIN,
            position: RecordPosition::new(0, 0),
        };
        ZoneVersion::new(Arc::new(zone), EventTime::MIN, None, order)
    }

    #[test]
    fn ids_of_every_length_are_read_back_through_shared_copies_and_gone_with_their_version() {
        let ids: Vec<_> = (0..3 * SHORT_ID_MAX)
            .map(|len| format!("\"{}\"", "é".repeat(len / 2) + &"x".repeat(len % 2)))
            .collect();
        let mut table = VersionTable::default();
        let slots: Vec<_> = ids.iter().map(|id| table.insert(version(id))).collect();
        let before = table.clone();
        for slot in &slots {
            table.set_end(*slot, Some(EventTime::MIN));
            assert_eq!(table.id_json(*slot), before.id_json(*slot));
            table.remove(*slot);
            table.free(*slot);
            assert_eq!(table.id_json(*slot), None);
        }
        // A long id takes the place of a short one, and the other way round.
        for (id, slot) in ids.iter().zip(slots.iter().rev()) {
            assert_eq!(
                table.insert(version(id)),
                *slot,
                "the last one freed is the first"
            );
        }
        for (place, slot) in slots.iter().enumerate() {
            assert_eq!(before.id_json(*slot), Some(ids[place].as_bytes()));
            let other = &ids[ids.len() - 1 - place];
            assert_eq!(table.id_json(*slot), Some(other.as_bytes()));
        }
        assert_eq!(table.id_json(VersionSlot(100_000)), None);
    }
}
