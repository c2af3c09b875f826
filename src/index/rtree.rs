//! The plain engine: rstar over envelopes, in a few immutable trees that promotions merge as a binary counter merges
//! digits, so that the cost of a change is that of re-packing it a logarithmic number of times, whatever the zone count.
//!
//! Trees hold slots, never areas: a slot whose version went, or is not in force, is skipped by the caller and left out
//! at the next merge. Versions that ended well before `as_of` stand in trees of their own, asked only for instants
//! before the last of those ends (DESIGN 6).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rstar::{AABB, RTree, RTreeObject};

use super::Query;
use super::versions::{VersionSlot, VersionTable};
use crate::geometry::Envelope;
use crate::time::EventTime;

/// A version that ended longer before `as_of` than this belongs to the history trees.
pub(super) const HOT: Duration = Duration::from_secs(60);
/// Two neighbouring trees are merged unless the older is at least this many times the newer.
const GROWTH: usize = 4;

#[derive(Copy, Clone, Debug)]
pub(super) struct Entry {
    bounds: AABB<[f64; 2]>,
    slot: VersionSlot,
}

impl Entry {
    pub(super) fn new(envelope: &Envelope, slot: VersionSlot) -> Self {
        Self {
            bounds: bounds_of(envelope),
            slot,
        }
    }
}

impl RTreeObject for Entry {
    type Envelope = AABB<[f64; 2]>;

    fn envelope(&self) -> Self::Envelope {
        self.bounds
    }
}

#[derive(Clone, Default)]
pub(super) struct Rtree {
    /// From the largest and oldest to the smallest and newest.
    hot: Vec<Arc<RTree<Entry>>>,
    past: Vec<Arc<RTree<Entry>>>,
    /// No version in `past` is in force from here on.
    past_until: Option<EventTime>,
}

/// An envelope as rstar has it.
pub(super) fn bounds_of(envelope: &Envelope) -> AABB<[f64; 2]> {
    AABB::from_corners(
        [envelope.lon_min, envelope.lat_min],
        [envelope.lon_max, envelope.lat_max],
    )
}

/// Calls `found` for everything in a tree whose envelope holds the point. By rstar's inner iteration: its iterators keep the
/// nodes that are still to be looked at on a stack, which took half of a search.
pub(super) fn probe<T>(tree: &RTree<T>, point: [f64; 2], found: &mut impl FnMut(&T))
where
    T: RTreeObject<Envelope = AABB<[f64; 2]>>,
{
    let point = AABB::from_point(point);
    let whole = tree.locate_in_envelope_intersecting_int(point, |one| {
        found(one);
        ControlFlow::<()>::Continue(())
    });
    debug_assert!(whole.is_continue(), "nothing ends the search early");
}

/// Calls `candidate` for every slot of these trees whose envelope holds the point.
fn probe_trees(
    trees: &[Arc<RTree<Entry>>],
    point: [f64; 2],
    candidate: &mut impl FnMut(VersionSlot),
) {
    for tree in trees {
        probe(tree, point, &mut |entry| candidate(entry.slot));
    }
}

impl Rtree {
    /// All versions, packed at once.
    pub(super) fn of(versions: &VersionTable, as_of: EventTime) -> Self {
        let mut entries = Vec::with_capacity(versions.len());
        for (slot, version) in versions.iter() {
            let envelopes = version.zone().area.envelopes();
            entries.extend(envelopes.iter().map(|envelope| Entry::new(envelope, slot)));
        }
        let mut engine = Self::default();
        engine.pack(entries, versions, as_of);
        engine
    }

    /// Calls `candidate` for every slot whose envelope holds the position.
    pub(super) fn candidates(&self, query: &Query, mut candidate: impl FnMut(VersionSlot)) {
        let lon = query.position.lon;
        self.probe(lon, query, &mut candidate);
        if lon.abs() == 180.0 {
            // The same place has two longitudes.
            self.probe(-lon, query, &mut candidate);
        }
    }

    fn probe(&self, lon: f64, query: &Query, candidate: &mut impl FnMut(VersionSlot)) {
        probe_trees(&self.hot, [lon, query.position.lat], candidate);
        if self.past_until.is_some_and(|until| query.at < until) {
            probe_trees(&self.past, [lon, query.position.lat], candidate);
        }
    }

    /// Adds entries, merges what has become too many trees, and moves what ended long before `as_of` to the past.
    pub(super) fn add(
        &mut self,
        entries: Vec<Entry>,
        versions: &mut VersionTable,
        as_of: EventTime,
    ) {
        if !entries.is_empty() {
            self.hot.push(Arc::new(RTree::bulk_load(entries)));
        }
        let total: usize = self
            .hot
            .iter()
            .chain(&self.past)
            .map(|tree| tree.size())
            .sum();
        // More dead entries than live ones: pack everything, and slots may be used again.
        if versions.emptied_count() > 64 && versions.emptied_count() * 2 > total {
            let all = self.hot.drain(..).chain(self.past.drain(..)).collect();
            self.past_until = None;
            self.pack(entries_of(all), versions, as_of);
            versions.recycle();
            return;
        }
        let mut merged = Vec::new();
        while self.hot.len() >= 2 {
            let newest = self.hot[self.hot.len() - 1].size()
                + merged
                    .iter()
                    .map(|tree: &Arc<RTree<Entry>>| tree.size())
                    .sum::<usize>();
            if self.hot[self.hot.len() - 2].size() >= GROWTH * newest {
                break;
            }
            merged.extend(self.hot.pop());
        }
        if !merged.is_empty() {
            merged.extend(self.hot.pop());
            self.pack(entries_of(merged), versions, as_of);
        }
    }

    /// Packs entries into one hot tree, and one of the past.
    fn pack(&mut self, entries: Vec<Entry>, versions: &VersionTable, as_of: EventTime) {
        let cold_before = as_of.minus(HOT);
        let mut hot = Vec::new();
        let mut past = Vec::new();
        for entry in entries {
            let Some(version) = versions.get(entry.slot) else {
                continue;
            };
            match version.end() {
                Some(end) if end <= cold_before => past.push(entry),
                _ => hot.push(entry),
            }
        }
        if !hot.is_empty() {
            self.hot.push(Arc::new(RTree::bulk_load(hot)));
        }
        self.add_to_the_past(past, versions);
    }

    /// Adds entries of versions that ended long ago.
    fn add_to_the_past(&mut self, mut past: Vec<Entry>, versions: &VersionTable) {
        let ends = past.iter().filter_map(|entry| versions.get(entry.slot));
        let until = ends.filter_map(super::ZoneVersion::end).max();
        self.past_until = self.past_until.max(until);
        if past.is_empty() {
            return;
        }
        while let Some(tree) = self.past.pop_if(|tree| tree.size() < GROWTH * past.len()) {
            past.extend(
                tree.iter()
                    .filter(|entry| versions.get(entry.slot).is_some())
                    .copied(),
            );
        }
        self.past.push(Arc::new(RTree::bulk_load(past)));
    }

    /// Entries in all trees, dead ones included.
    pub(super) fn entry_count(&self) -> usize {
        self.hot
            .iter()
            .chain(&self.past)
            .map(|tree| tree.size())
            .sum()
    }
}

fn entries_of(trees: Vec<Arc<RTree<Entry>>>) -> Vec<Entry> {
    trees.iter().flat_map(|tree| tree.iter()).copied().collect()
}
