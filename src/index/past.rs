//! Versions that ended well before `as_of` (DESIGN 6), beside the tiles: asked only for instants before the last of those ends.
//!
//! A few immutable grids, merged as a binary counter merges digits. A grid files each envelope under the cells that it touches,
//! at the finest level where these are four at most, by a hash of the cell: a place that has no history is told by one look
//! at a table for each level in use, where the search of an R*-tree goes down several ways. A replay asks this of every event.
//! That is so for envelopes about as high as wide and of a few sizes, as most of one topic are; the others of a grid stand in
//! an R*-tree, as cells would be crowded with strips, and levels many.
//! What is under one cell stands by the time it began, as a tree of times: a zone that changed a hundred thousand times in one
//! place is searched, not gone through.
//!
//! What a grid says of a version's times is as it was when it was filed. A version is cut at most, so none is missed for
//! that; the caller asks the version itself.

use std::sync::Arc;

use rstar::{AABB, RTree, RTreeObject};

use super::Query;
use super::rtree;
use super::versions::{VersionSlot, VersionTable};
use crate::geometry::{Envelope, Position};
use crate::time::EventTime;

/// Two neighbouring grids are merged unless the older is at least this many times the newer.
const GROWTH: usize = 4;
/// So many levels of a grid are in use: those with the most envelopes.
const LEVELS: usize = 4;
/// Envelopes that are more than about four times as wide as high, or the reverse, are in no cell: powers of two.
const SLENDER: u32 = 2;

/// Versions that ended long ago.
#[derive(Clone, Default)]
pub(super) struct Past {
    /// From the largest and oldest to the smallest and newest.
    grids: Vec<Arc<Grid>>,
}

/// An envelope of a version.
#[derive(Clone)]
struct Piece {
    bounds: Envelope,
    valid_from: EventTime,
    end: EventTime,
    slot: VersionSlot,
}

impl RTreeObject for Piece {
    type Envelope = AABB<[f64; 2]>;

    fn envelope(&self) -> Self::Envelope {
        rtree::bounds_of(&self.bounds)
    }
}

impl Piece {
    fn is_in_force(&self, at: EventTime) -> bool {
        self.valid_from <= at && at < self.end
    }
}

struct Grid {
    /// By when they began.
    pieces: Vec<Piece>,
    /// Those that are in no cell.
    others: RTree<Piece>,
    /// The pieces of each bucket, one bucket after the other, each bucket a tree (see [`search`]).
    filed: Vec<Filed>,
    /// Where in `filed` each bucket begins, and where the last one ends; as many buckets as a power of two.
    begins: Vec<u32>,
    /// The levels in use, each a bit: a cell of level `n` is 2^n units wide.
    levels: u64,
    /// None of its versions is in force before it, and none from there on.
    valid_from: EventTime,
    end: EventTime,
}

/// A piece under a cell.
struct Filed {
    /// The last end of the pieces of the subtree that this one is the root of.
    reach: EventTime,
    piece: u32,
}

/// Finishes the tree of a bucket: its root stands in the middle, before it what began before. Gives its reach.
fn fill(filed: &mut [Filed], pieces: &[Piece]) -> EventTime {
    let middle = filed.len() / 2;
    let (before, rest) = filed.split_at_mut(middle);
    let Some((root, after)) = rest.split_first_mut() else {
        return EventTime::MIN;
    };
    let below = fill(before, pieces).max(fill(after, pieces));
    root.reach = below.max(pieces[root.piece as usize].end);
    root.reach
}

/// Looks at the pieces that may have been in force then, in the order of their begin; `look` says whether one had begun. An
/// interval tree (Cormen et al., Introduction to Algorithms, 14.3), and as deep as the logarithm of the number of pieces.
fn search(filed: &[Filed], at: EventTime, look: &mut impl FnMut(u32) -> bool) {
    let Some(root) = filed.get(filed.len() / 2) else {
        return;
    };
    if root.reach <= at {
        return;
    }
    search(&filed[..filed.len() / 2], at, look);
    if look(root.piece) {
        search(&filed[filed.len() / 2 + 1..], at, look);
    }
}

/// A place in units, from the south-western corner of the map; never descends where a coordinate ascends.
#[derive(Copy, Clone)]
struct Units {
    x: u64,
    y: u64,
}

impl Units {
    fn of(lon: f64, lat: f64) -> Self {
        const PER_DEGREE: f64 = (1_u64 << 32) as f64 / 360.0;
        Self {
            x: ((lon + 180.0) * PER_DEGREE) as u64,
            y: ((lat + 90.0) * PER_DEGREE) as u64,
        }
    }

    fn cell(self, level: u32) -> (u64, u64) {
        (self.x >> level, self.y >> level)
    }
}

/// The bucket of a cell, of 2^`bits` (one at least): Fibonacci hashing (Knuth, TAOCP 3, 6.4).
#[inline]
fn bucket((x, y): (u64, u64), level: u32, bits: u32) -> usize {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let cell = x | y << 33;
    let hash = (cell.wrapping_mul(GOLDEN) ^ u64::from(level)).wrapping_mul(GOLDEN);
    (hash >> (u64::BITS - bits)) as usize
}

/// So many bits has the difference of two coordinates.
fn bits(from: u64, to: u64) -> u32 {
    u64::BITS - (to - from).leading_zeros()
}

/// The level at which an envelope touches four cells at most; `None` of one that is much wider than high, or the reverse.
fn level(bounds: &Envelope) -> Option<u32> {
    let (from, to) = corners(bounds);
    let (wide, high) = (bits(from.x, to.x), bits(from.y, to.y));
    // What is less than a cell wide touches two.
    (wide.abs_diff(high) <= SLENDER).then_some(wide.max(high))
}

/// The cells of a level that an envelope touches.
fn cells(bounds: &Envelope, level: u32) -> impl Iterator<Item = (u64, u64)> + use<> {
    let (from, to) = corners(bounds);
    let ((left, low), (right, high)) = (from.cell(level), to.cell(level));
    (left..=right).flat_map(move |x| (low..=high).map(move |y| (x, y)))
}

fn corners(bounds: &Envelope) -> (Units, Units) {
    (
        Units::of(bounds.lon_min, bounds.lat_min),
        Units::of(bounds.lon_max, bounds.lat_max),
    )
}

/// The levels with the most envelopes, each a bit.
fn levels_of(pieces: &[Piece]) -> u64 {
    let mut counts = [(0_usize, 0); u64::BITS as usize];
    for level in pieces.iter().filter_map(|piece| level(&piece.bounds)) {
        counts[level as usize].0 += 1;
        counts[level as usize].1 = level;
    }
    counts.sort_unstable_by(|one, other| other.cmp(one));
    let used = counts[..LEVELS].iter().filter(|(count, _)| *count > 0);
    used.fold(0, |levels, (_, level)| levels | 1 << level)
}

impl Grid {
    /// `None` of nothing.
    fn of(pieces: Vec<Piece>) -> Option<Self> {
        let valid_from = pieces.iter().map(|piece| piece.valid_from).min()?;
        let end = pieces.iter().map(|piece| piece.end).max()?;
        let levels = levels_of(&pieces);
        let is_in_cells =
            |piece: &Piece| level(&piece.bounds).is_some_and(|level| levels >> level & 1 != 0);
        let (mut pieces, others): (Vec<_>, Vec<_>) = pieces.into_iter().partition(is_in_cells);
        pieces.sort_unstable_by_key(|piece| piece.valid_from);
        let (filed, begins) = file(&pieces);
        Some(Self {
            pieces,
            others: RTree::bulk_load(others),
            filed,
            begins,
            levels,
            valid_from,
            end,
        })
    }

    /// Envelopes in it.
    fn len(&self) -> usize {
        self.pieces.len() + self.others.size()
    }

    /// Those of versions that did not go.
    fn alive<'a>(&'a self, versions: &'a VersionTable) -> impl Iterator<Item = Piece> + 'a {
        let all = self.pieces.iter().chain(self.others.iter());
        all.filter(|piece| versions.get(piece.slot).is_some())
            .cloned()
    }

    /// Calls `candidate` for every version whose envelope holds the place and that was in force then. Twice where two of its
    /// envelopes do, or its cells of two levels share a bucket.
    fn candidates(
        &self,
        at: EventTime,
        place: Position,
        units: Units,
        candidate: &mut impl FnMut(VersionSlot),
    ) {
        if at < self.valid_from || at >= self.end {
            return;
        }
        let bits = (self.begins.len() - 1).trailing_zeros();
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            let bucket = bucket(units.cell(level), level, bits);
            let (from, to) = (self.begins[bucket], self.begins[bucket + 1]);
            search(&self.filed[from as usize..to as usize], at, &mut |piece| {
                let piece = &self.pieces[piece as usize];
                if piece.is_in_force(at) && piece.bounds.covers(place) {
                    candidate(piece.slot);
                }
                piece.valid_from <= at
            });
        }
        if self.others.size() > 0 {
            rtree::probe(&self.others, [place.lon, place.lat], &mut |piece| {
                if piece.is_in_force(at) {
                    candidate(piece.slot);
                }
            });
        }
    }
}

/// Files pieces under their cells, by bucket; gives also where each bucket begins, and where the last one ends.
fn file(pieces: &[Piece]) -> (Vec<Filed>, Vec<u32>) {
    let level = |piece: &Piece| level(&piece.bounds).expect("pieces in cells have a level");
    let in_cells = |piece: &Piece| cells(&piece.bounds, level(piece)).count();
    let count: usize = pieces.iter().map(in_cells).sum();
    // Half of the buckets stay empty at least.
    let bits = (2 * count.max(1)).next_power_of_two().trailing_zeros();
    let mut in_buckets = Vec::with_capacity(count);
    for (number, piece) in pieces.iter().enumerate() {
        let level = level(piece);
        let buckets = cells(&piece.bounds, level).map(|cell| bucket(cell, level, bits));
        in_buckets.extend(buckets.map(|bucket| (bucket as u32, number as u32)));
    }
    in_buckets.sort_unstable();
    // Two of its cells may share a bucket.
    in_buckets.dedup();
    let mut begins = vec![0; (1 << bits) + 1];
    for (bucket, _) in &in_buckets {
        begins[*bucket as usize + 1] += 1;
    }
    for at in 1..begins.len() {
        begins[at] += begins[at - 1];
    }
    let reach = EventTime::MIN;
    let filed = in_buckets
        .into_iter()
        .map(|(_, piece)| Filed { reach, piece });
    let mut filed: Vec<_> = filed.collect();
    for ends in begins.windows(2) {
        fill(&mut filed[ends[0] as usize..ends[1] as usize], pieces);
    }
    (filed, begins)
}

impl Past {
    /// Whether anything may have been in force then, or later.
    pub(super) fn may_have_been_in_force(&self, at: EventTime) -> bool {
        self.grids.iter().any(|grid| at < grid.end)
    }

    /// Calls `candidate` for every slot whose envelope holds the position, and that was in force as it was filed; for some of
    /// them twice.
    pub(super) fn candidates(&self, query: &Query, mut candidate: impl FnMut(VersionSlot)) {
        let mut place = query.position;
        self.probe(query.at, place, &mut candidate);
        if place.lon.abs() == 180.0 {
            // The same place has two longitudes.
            place.lon = -place.lon;
            self.probe(query.at, place, &mut candidate);
        }
    }

    fn probe(&self, at: EventTime, place: Position, candidate: &mut impl FnMut(VersionSlot)) {
        let units = Units::of(place.lon, place.lat);
        for grid in &self.grids {
            grid.candidates(at, place, units, candidate);
        }
    }

    /// Adds versions that ended long ago.
    pub(super) fn add(&mut self, slots: &[VersionSlot], versions: &VersionTable) {
        let mut pieces = Vec::new();
        for slot in slots {
            let Some(version) = versions.get(*slot) else {
                continue;
            };
            let end = version.end().expect("what is past has ended");
            let envelopes = version.zone().area.envelopes();
            pieces.extend(envelopes.iter().map(|bounds| Piece {
                bounds: *bounds,
                valid_from: version.valid_from(),
                end,
                slot: *slot,
            }));
        }
        self.file(pieces, versions);
    }

    fn file(&mut self, mut pieces: Vec<Piece>, versions: &VersionTable) {
        if pieces.is_empty() {
            return;
        }
        while let Some(grid) = self.grids.pop_if(|grid| grid.len() < GROWTH * pieces.len()) {
            pieces.extend(grid.alive(versions));
        }
        self.grids.extend(Grid::of(pieces).map(Arc::new));
    }

    /// Files everything anew once most of it is of versions that went, whose slots may then be used again.
    pub(super) fn forget_emptied(&mut self, versions: &mut VersionTable) {
        let emptied = versions.emptied_count();
        if emptied > 64 && emptied * 2 > self.entry_count() {
            let mut pieces = Vec::new();
            for grid in self.grids.drain(..) {
                pieces.extend(grid.alive(versions));
            }
            self.file(pieces, versions);
            versions.recycle();
        }
    }

    /// Envelopes of versions, those that went included.
    pub(super) fn entry_count(&self) -> usize {
        self.grids.iter().map(|grid| grid.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(slot: usize, (lon, lat, wide, high): (f64, f64, f64, f64)) -> Piece {
        Piece {
            bounds: Envelope {
                lon_min: lon,
                lat_min: lat,
                lon_max: (lon + wide).min(180.0),
                lat_max: (lat + high).min(90.0),
            },
            valid_from: EventTime::from_millis(slot as i64 % 7).unwrap(),
            end: EventTime::from_millis(10 + slot as i64 % 5).unwrap(),
            slot: VersionSlot(slot as u32),
        }
    }

    fn place() -> impl Strategy<Value = (f64, f64)> {
        let lon = prop_oneof![-180.0..=180.0, Just(180.0), Just(-180.0), -0.01..0.01];
        let lat = prop_oneof![-90.0..=90.0, Just(90.0), Just(-90.0), -0.01..0.01];
        (lon, lat)
    }

    fn extent() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(360.0), 0.0..1e-6, 0.0..0.01, 0.0..40.0]
    }

    fn rectangle() -> impl Strategy<Value = (f64, f64, f64, f64)> {
        (place(), extent(), extent()).prop_map(|((lon, lat), wide, high)| (lon, lat, wide, high))
    }

    /// What is found there, each once.
    fn found(grid: &Grid, at: EventTime, place: Position) -> Vec<VersionSlot> {
        let mut found = Vec::new();
        let units = Units::of(place.lon, place.lat);
        grid.candidates(at, place, units, &mut |slot| found.push(slot));
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn of_a_hundred_thousand_versions_of_one_zone_few_are_looked_at() {
        const COUNT: usize = 100_000;
        let millis = |millis: usize| EventTime::from_millis(millis as i64).unwrap();
        let versions = (0..COUNT).map(|number| Piece {
            valid_from: millis(2 * number),
            end: millis(2 * number + 1),
            ..piece(number, (1.0, 1.0, 1.0, 1.0))
        });
        let grid = Grid::of(versions.collect()).unwrap();
        for number in [0, 1, 12_345, COUNT - 1] {
            for (at, is_found) in [(2 * number, true), (2 * number + 1, false)] {
                let (mut looked_at, mut found) = (0, Vec::new());
                search(&grid.filed[..COUNT], millis(at), &mut |piece| {
                    looked_at += 1;
                    let piece = &grid.pieces[piece as usize];
                    if piece.is_in_force(millis(at)) {
                        found.push(piece.slot);
                    }
                    piece.valid_from <= millis(at)
                });
                assert!(looked_at <= 40, "{looked_at} at {at}");
                let expected = is_found.then_some(VersionSlot(number as u32));
                assert_eq!(found, Vec::from_iter(expected));
            }
        }
    }

    #[test]
    fn strips_and_rare_sizes_crowd_no_cell() {
        let strips = (0..1_000).map(|number| (0.0, number as f64 * 1e-4, 1.0, 1e-4));
        let squares = (0..1_000).map(|number| {
            let size = 1e-4 * f64::from(1 << (number % 12));
            (number as f64 * 0.1, 2.0, size, size)
        });
        let rectangles = strips.chain(squares).enumerate();
        let pieces = rectangles.map(|(slot, one)| piece(slot, one));
        let grid = Grid::of(pieces.collect()).unwrap();
        assert_eq!(grid.len(), 2_000);
        assert!(grid.levels.count_ones() <= LEVELS as u32);
        assert!(grid.others.size() >= 1_000 && grid.pieces.len() >= 300);
        let fullest = grid.begins.windows(2).map(|ends| ends[1] - ends[0]).max();
        assert!(fullest < Some(10), "{fullest:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_grid_finds_what_holds_the_place_and_was_in_force_and_nothing_else(
            rectangles in prop::collection::vec(rectangle(), 1..60),
            places in prop::collection::vec(place(), 1..30),
            millis in -1_i64..16,
        ) {
            let pieces: Vec<_> = rectangles.iter().enumerate().map(|(slot, one)| piece(slot, *one)).collect();
            let at = EventTime::from_millis(millis).unwrap();
            let corners = pieces.iter().flat_map(|piece| {
                let Envelope { lon_min, lat_min, lon_max, lat_max } = piece.bounds;
                [(lon_min, lat_min), (lon_min, lat_max), (lon_max, lat_min), (lon_max, lat_max)]
            });
            let places: Vec<_> = places.into_iter().chain(corners).collect();
            let grid = Grid::of(pieces.clone()).unwrap();
            for (lon, lat) in places {
                let place = Position { lon, lat };
                let expected: Vec<_> = (pieces.iter())
                    .filter(|piece| piece.is_in_force(at) && piece.bounds.covers(place))
                    .map(|piece| piece.slot)
                    .collect();
                prop_assert_eq!(found(&grid, at, place), expected, "{:?}", place);
            }
        }

        #[test]
        fn an_envelope_is_filed_under_four_cells_at_most(one in rectangle()) {
            let bounds = piece(0, one).bounds;
            if let Some(level) = level(&bounds) {
                prop_assert!(cells(&bounds, level).count() <= 4);
                prop_assert!(level < u64::BITS);
            }
        }
    }
}
