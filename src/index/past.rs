//! Versions that ended well before `as_of` (DESIGN 6), beside the tiles: asked only for instants before the last of those ends.
//!
//! A few immutable grids, merged as a binary counter merges digits. A grid files each envelope under the cells that it touches,
//! at a level where these are four at most, by a hash of the cell: a place that has no history is told by one look
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

use super::rtree;
use super::versions::{VersionSlot, VersionTable};
use super::{Query, TOGETHER};
use crate::fetch::fetch;
use crate::geometry::{Envelope, Position};
use crate::time::EventTime;

/// Two neighbouring grids are merged unless the older is at least this many times the newer.
const GROWTH: usize = 4;
/// So many levels of a grid are in use: those with the most envelopes.
const LEVELS: usize = 4;
/// So many pieces are gone through rather than searched.
const FEW: usize = 8;
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

/// A piece under a cell: what tells most places and instants that it is not theirs, without a look at the piece.
struct Filed {
    /// The last end of the pieces of the subtree that this one is the root of.
    reach: EventTime,
    valid_from: EventTime,
    piece: u32,
    part: Part,
}

/// What an envelope takes of a cell that it touches, in 256ths of the cell's width and height.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    x: (u8, u8),
    y: (u8, u8),
}

impl Part {
    fn holds(self, (x, y): (u8, u8)) -> bool {
        self.x.0 <= x && x <= self.x.1 && self.y.0 <= y && y <= self.y.1
    }
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

/// Looks at the pieces that had begun then and may have been in force, in the order of their begin. An interval tree (Cormen et
/// al., Introduction to Algorithms, 14.3), and as deep as the logarithm of the number of pieces.
#[inline(always)]
fn search(filed: &[Filed], at: EventTime, look: &mut impl FnMut(&Filed)) {
    if filed.len() <= FEW {
        let begun = filed.iter().take_while(|filed| filed.valid_from <= at);
        begun.for_each(look);
    } else {
        search_many(filed, at, look);
    }
}

fn search_many(filed: &[Filed], at: EventTime, look: &mut impl FnMut(&Filed)) {
    let middle = filed.len() / 2;
    let root = &filed[middle];
    if root.reach <= at {
        return;
    }
    search(&filed[..middle], at, look);
    if root.valid_from <= at {
        look(root);
        search(&filed[middle + 1..], at, look);
    }
}

/// A place in units, from the south-western corner of the map; never descends where a coordinate ascends.
#[derive(Copy, Clone, Debug)]
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

    /// Where in its cell, in 256ths; never descends within the cell where a coordinate ascends.
    fn within_cell(self, level: u32) -> (u8, u8) {
        let within = |units: u64| ((units << 8 >> level) & 0xff) as u8;
        (within(self.x), within(self.y))
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

/// A level at which an envelope touches four cells at most; `None` of one that is much wider than high, or the reverse. Every
/// other level is used: envelopes that are much of a size would stand in two otherwise, and each is one more look.
fn level(bounds: &Envelope) -> Option<u32> {
    let (from, to) = corners(bounds);
    let (wide, high) = (bits(from.x, to.x), bits(from.y, to.y));
    // What is less than a cell wide touches two.
    (wide.abs_diff(high) <= SLENDER).then_some(wide.max(high).next_multiple_of(2))
}

/// The cells of a level that an envelope touches, and what it takes of each.
fn cells(bounds: &Envelope, level: u32) -> impl Iterator<Item = ((u64, u64), Part)> + use<> {
    let (from, to) = corners(bounds);
    let ((left, low), (right, high)) = (from.cell(level), to.cell(level));
    let (begin, end) = (from.within_cell(level), to.within_cell(level));
    let part = |cell: u64, first: u64, last: u64, begin: u8, end: u8| {
        let begin = if cell == first { begin } else { 0 };
        let end = if cell == last { end } else { u8::MAX };
        (begin, end)
    };
    (left..=right).flat_map(move |x| {
        (low..=high).map(move |y| {
            let part = Part {
                x: part(x, left, right, begin.0, end.0),
                y: part(y, low, high, begin.1, end.1),
            };
            ((x, y), part)
        })
    })
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

    /// Notes every version whose envelope holds the place and that was in force then, for each of some queries. More than once
    /// where two of its envelopes do, or where cells share a bucket.
    ///
    /// In stages, as places go down the tiles: what a stage reads of memory is fetched for all places before the next one looks
    /// at it.
    fn candidates(&self, queries: &[Asked], found: &mut Bygone) {
        found.pieces.clear();
        let bits = (self.begins.len() - 1).trailing_zeros();
        let mut levels = self.levels;
        while levels != 0 {
            let level = levels.trailing_zeros();
            levels &= levels - 1;
            for (part, queries) in queries.chunks(TOGETHER).enumerate() {
                let first = part * TOGETHER;
                self.search_level(level, bits, (first, queries), &mut found.pieces);
            }
        }
        for (_, piece) in &found.pieces {
            fetch(&raw const self.pieces[*piece as usize]);
        }
        for (asked, piece) in &found.pieces {
            let (asked, piece) = (&queries[*asked as usize], &self.pieces[*piece as usize]);
            if piece.is_in_force(asked.at) && piece.bounds.covers(asked.place) {
                found.slots.push((asked.query, piece.slot));
            }
        }
        if self.others.size() == 0 {
            return;
        }
        for asked in queries.iter().filter(|asked| self.had_any_at(asked.at)) {
            let place = [asked.place.lon, asked.place.lat];
            rtree::probe(&self.others, place, &mut |piece| {
                if piece.is_in_force(asked.at) {
                    found.slots.push((asked.query, piece.slot));
                }
            });
        }
    }

    /// Notes the pieces that may hold the place, by the number of who asked; `first` is that of the first one.
    fn search_level(
        &self,
        level: u32,
        bits: u32,
        (first, queries): (usize, &[Asked]),
        found: &mut Vec<(u32, u32)>,
    ) {
        let mut buckets = [None; TOGETHER];
        for (of, asked) in buckets.iter_mut().zip(queries) {
            if self.had_any_at(asked.at) {
                let bucket = bucket(asked.units.cell(level), level, bits);
                fetch(&raw const self.begins[bucket]);
                *of = Some(bucket);
            }
        }
        let mut filed: [&[Filed]; TOGETHER] = [&[]; TOGETHER];
        for (filed, bucket) in filed.iter_mut().zip(&buckets) {
            if let Some(bucket) = *bucket {
                *filed =
                    &self.filed[self.begins[bucket] as usize..self.begins[bucket + 1] as usize];
                fetch(filed.as_ptr());
            }
        }
        for (number, (filed, asked)) in filed.iter().zip(queries).enumerate() {
            let within = asked.units.within_cell(level);
            search(filed, asked.at, &mut |filed| {
                if filed.part.holds(within) {
                    found.push(((first + number) as u32, filed.piece));
                }
            });
        }
    }

    /// Whether any of its versions may have been in force then.
    fn had_any_at(&self, at: EventTime) -> bool {
        self.valid_from <= at && at < self.end
    }
}

/// A place and an instant of a query.
#[derive(Copy, Clone, Debug)]
struct Asked {
    query: usize,
    at: EventTime,
    place: Position,
    units: Units,
}

impl Asked {
    fn new(query: usize, at: EventTime, place: Position) -> Self {
        Self {
            query,
            at,
            place,
            units: Units::of(place.lon, place.lat),
        }
    }
}

/// What queries found in the past; reused, so a warm one allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Bygone {
    asked: Vec<Asked>,
    /// Who asked, and a piece that may be an answer.
    pieces: Vec<(u32, u32)>,
    /// The number of the query, which ascends, and what it found.
    pub(super) slots: Vec<(usize, VersionSlot)>,
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
        in_buckets.extend(cells(&piece.bounds, level).map(|(cell, part)| {
            let bucket = bucket(cell, level, bits) as u32;
            (bucket, number as u32, part)
        }));
    }
    // Two of its cells may share a bucket: it stands there twice, with what it takes of each.
    in_buckets.sort_unstable();
    let mut begins = vec![0; (1 << bits) + 1];
    for (bucket, ..) in &in_buckets {
        begins[*bucket as usize + 1] += 1;
    }
    for at in 1..begins.len() {
        begins[at] += begins[at - 1];
    }
    let filed = in_buckets.into_iter().map(|(_, piece, part)| Filed {
        reach: EventTime::MIN,
        valid_from: pieces[piece as usize].valid_from,
        piece,
        part,
    });
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

    /// Finds every slot whose envelope holds a query's position, and that was in force as it was filed; some of them more than once.
    pub(super) fn candidates(&self, queries: &[Query], found: &mut Bygone) {
        let mut asked = std::mem::take(&mut found.asked);
        asked.clear();
        found.slots.clear();
        for (number, query) in queries.iter().enumerate() {
            let place = query.position;
            asked.push(Asked::new(number, query.at, place));
            if place.lon.abs() == 180.0 {
                // The same place has two longitudes.
                let lon = -place.lon;
                asked.push(Asked::new(number, query.at, Position { lon, ..place }));
            }
        }
        for grid in &self.grids {
            grid.candidates(&asked, found);
        }
        if !found.slots.is_sorted() {
            found.slots.sort_unstable();
        }
        found.asked = asked;
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
                search(&grid.filed[..COUNT], millis(at), &mut |filed| {
                    looked_at += 1;
                    let piece = &grid.pieces[filed.piece as usize];
                    if piece.is_in_force(millis(at)) {
                        found.push(piece.slot);
                    }
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
            let corners = pieces.iter().flat_map(|piece| {
                let Envelope { lon_min, lat_min, lon_max, lat_max } = piece.bounds;
                [(lon_min, lat_min), (lon_min, lat_max), (lon_max, lat_min), (lon_max, lat_max)]
            });
            let places: Vec<_> = places.into_iter().chain(corners).collect();
            let grid = Grid::of(pieces.clone()).unwrap();
            let asked: Vec<_> = (places.into_iter().enumerate())
                .map(|(query, (lon, lat))| {
                    let at = EventTime::from_millis(millis + query as i64 % 3).unwrap();
                    Asked::new(query, at, Position { lon, lat })
                })
                .collect();
            let mut found = Bygone::default();
            grid.candidates(&asked, &mut found);
            found.slots.sort_unstable();
            found.slots.dedup();
            let expected: Vec<_> = (asked.iter())
                .flat_map(|asked| {
                    let is_found = |piece: &&Piece| piece.is_in_force(asked.at) && piece.bounds.covers(asked.place);
                    pieces.iter().filter(is_found).map(|piece| (asked.query, piece.slot))
                })
                .collect();
            prop_assert_eq!(found.slots, expected, "{:?}", asked);
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
