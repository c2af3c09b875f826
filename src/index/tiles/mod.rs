//! The tile engine: a tree of lon/lat tiles. A tile knows the zones that cover it whole, and of the others the boundaries
//! that pass, so that one way down answers for all zones; near a boundary the exact `covers` decides.
//!
//! `grid` says which tile a place is in, `work` which zones are in a tile, `build`, `leaf` and `page` write that down, `change`
//! makes the next tree and shares what it leaves alone, `walk` answers. Pages and branches are immutable and freed with the
//! last index that has them, which is the promoter's (I4, I11). Versions that ended well before `as_of` stand apart, in `past`.

mod build;
mod change;
mod edges;
mod grid;
mod leaf;
mod page;
mod slots;
mod walk;
mod work;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdSet;

use super::engine::Update;
use super::past::Past;
use super::rtree::HOT;
use super::versions::{VersionSlot, VersionTable, ZoneVersion};
use crate::geometry::Area;
use crate::time::EventTime;
use build::{Builder, Limits};
use change::{Changer, Delta};
use grid::Tile;
use page::Child;
use slots::{Cohorts, Slots, Standing};
pub(super) use walk::Passed;
use work::Work;

/// The same as [`HOT`] where much of the tree is over: twice as long as an event waits to be settled, unless told otherwise.
const LUKEWARM: Duration = Duration::from_secs(10);

/// Versions by tile.
#[derive(Clone)]
pub(super) struct Tiles {
    limits: Limits,
    root: Child,
    slots: Slots,
    /// How many versions are in the tree.
    count: usize,
    /// Those of the settled ones.
    cohorts: Cohorts,
    /// None of the others begins or ends after it.
    noted_until: EventTime,
    /// When something about a slot is due: it has been in force for long, or has been over for long.
    due: OrdSet<(EventTime, u32)>,
    past: Past,
}

impl Default for Tiles {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            root: Child::Empty,
            slots: Slots::default(),
            count: 0,
            cohorts: Cohorts::default(),
            noted_until: EventTime::MIN,
            due: OrdSet::new(),
            past: Past::default(),
        }
    }
}

impl Tiles {
    /// The engine that splits tiles with more distinct edges, and pages in proportion: for tests, which see more of both so.
    pub(super) fn splitting_above(edges_max: usize) -> Self {
        let page_words_max = 20 * edges_max;
        Self::within(Limits {
            edges_max,
            page_words_max,
        })
    }

    fn within(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// All versions, built at once.
    pub(super) fn rebuild(&mut self, versions: &VersionTable, as_of: EventTime) {
        *self = Self::within(self.limits);
        let cold_before = as_of.minus(HOT);
        let mut hot = Vec::with_capacity(versions.len());
        let (mut past, mut settled) = (Vec::new(), Vec::new());
        for (slot, version) in versions.iter() {
            if version.end().is_some_and(|end| end <= cold_before) {
                past.push(slot);
                continue;
            }
            hot.push((slot.0, &version.zone().area));
            if version.end().is_none() && version.valid_from() <= cold_before {
                settled.push((slot, version.valid_from()));
            } else {
                self.note(slot, version);
            }
        }
        self.count = hot.len();
        self.settle(&settled);
        self.past.add(&past, versions);
        let mut work = Work::default();
        for (slot, area) in hot {
            work.add(slot, area, Tile::WHOLE);
        }
        self.root = Builder::new(self.limits).child(Tile::WHOLE, &mut work);
    }

    /// Settles versions in the tree, by when they began.
    fn settle(&mut self, settled: &[(VersionSlot, EventTime)]) {
        if self.cohorts.is_empty() {
            self.cohorts = Cohorts::of(settled.iter().map(|(_, begin)| *begin).collect());
        }
        for (slot, begin) in settled {
            let cohort = self.cohorts.add(*begin, self.count);
            self.slots.set(slot.0, Standing::Settled(cohort));
        }
    }

    /// Notes when a version in the tree asks for attention.
    fn note(&mut self, slot: VersionSlot, version: &ZoneVersion) {
        self.due.insert((version.valid_from(), slot.0));
        self.noted_until = self.noted_until.max(version.valid_from());
        if let Some(end) = version.end() {
            self.slots.set(slot.0, Standing::Ended);
            self.due.insert((end, slot.0));
            self.noted_until = self.noted_until.max(end);
        } else {
            self.slots.set(slot.0, Standing::Dated);
        }
    }

    /// Makes the tree that of the versions as they are now.
    pub(super) fn update(&mut self, update: Update, versions: &mut VersionTable, as_of: EventTime) {
        let Update {
            added,
            ended,
            dropped,
        } = update;
        let cold_before = as_of.minus(HOT);
        let is_new: BTreeSet<VersionSlot> = added.iter().copied().collect();
        let (mut coming, mut buried) = (Vec::new(), Vec::new());
        for slot in &added {
            // One that a later change of the same batch cancelled is gone already.
            let Some(version) = versions.get(*slot) else {
                continue;
            };
            if version.end().is_some_and(|end| end <= cold_before) {
                buried.push(*slot);
            } else {
                self.note(*slot, version);
                coming.push(*slot);
            }
        }
        for slot in ended {
            if let Some(version) = versions.get(slot)
                && self.slots.get(slot.0) != Standing::Away
            {
                self.note(slot, version);
            }
        }
        let mut going: Vec<(u32, Arc<crate::zone::Zone>)> = Vec::new();
        let mut free = Vec::new();
        for (slot, version) in &dropped {
            if is_new.contains(slot) {
                free.push(*slot);
            } else if self.slots.get(slot.0) == Standing::Away {
                versions.empty(*slot);
            } else {
                self.slots.set(slot.0, Standing::Away);
                going.push((slot.0, version.shared_zone().clone()));
                free.push(*slot);
            }
        }
        self.attend(as_of, versions, &mut going, &mut buried);
        // One that comes and is over for long enough already was never in the tree.
        coming.retain(|slot| self.slots.get(slot.0) != Standing::Away);
        going.retain(|(slot, _)| !is_new.contains(&VersionSlot(*slot)));
        self.count = self.count + coming.len() - going.len();
        self.change(&coming, &going, versions);
        self.past.add(&buried, versions);
        for slot in free {
            versions.free(slot);
        }
        self.past.forget_emptied(versions);
    }

    /// Does what is due: what has been over for long goes to the past, what has been in force for long settles. Where
    /// changes come so fast that much of the tree is over, that is sooner.
    fn attend(
        &mut self,
        as_of: EventTime,
        versions: &VersionTable,
        going: &mut Vec<(u32, Arc<crate::zone::Zone>)>,
        buried: &mut Vec<VersionSlot>,
    ) {
        let (cold_before, lukewarm_before) = (as_of.minus(HOT), as_of.minus(LUKEWARM));
        let many = self.count / 4;
        let mut settled = Vec::new();
        while let Some(&(when, slot)) = self.due.get_min() {
            let before = if self.due.len() > many {
                lukewarm_before
            } else {
                cold_before
            };
            if when > before {
                break;
            }
            self.due.remove(&(when, slot));
            let slot = VersionSlot(slot);
            if self.slots.get(slot.0) == Standing::Away {
                continue;
            }
            let Some(version) = versions.get(slot) else {
                continue;
            };
            match version.end() {
                Some(end) if end <= before => {
                    self.slots.set(slot.0, Standing::Away);
                    going.push((slot.0, version.shared_zone().clone()));
                    buried.push(slot);
                }
                None if version.valid_from() <= before => {
                    settled.push((slot, version.valid_from()));
                }
                _ => {}
            }
        }
        self.settle(&settled);
    }

    /// Writes the tree anew where versions come and go.
    fn change(
        &mut self,
        coming: &[VersionSlot],
        going: &[(u32, Arc<crate::zone::Zone>)],
        versions: &VersionTable,
    ) {
        if coming.is_empty() && going.is_empty() {
            return;
        }
        let area_of = |slot: u32| -> &Area {
            let version = versions.get(VersionSlot(slot));
            &version
                .expect("a version in the tree is in the table")
                .zone()
                .area
        };
        let mut delta = Delta::new();
        for slot in coming {
            delta.added.add(slot.0, area_of(slot.0), Tile::WHOLE);
        }
        for (slot, zone) in going {
            delta.removed.add(*slot, &zone.area, Tile::WHOLE);
        }
        let mut changer = Changer::new(Builder::new(self.limits), &area_of);
        self.root = changer.child(&self.root, Tile::WHOLE, &mut delta);
    }

    /// Entries for versions, those in the past included.
    pub(super) fn entry_count(&self) -> usize {
        self.count + self.past.entry_count()
    }

    /// The bytes that the tiles occupy, the zones' shapes apart.
    pub(super) fn byte_len(&self) -> usize {
        self.root.byte_len()
    }
}
