//! Lookups: a group of places goes down the tree together, a level at a time, so that the memory of many is fetched at once;
//! then each is judged by its leaf. Allocates nothing once its buffers are warm.

use super::Tiles;
use super::grid::{Key, LEVEL_MAX, Reach};
use super::page::{BRANCH_LEVELS, BRANCH_SLOTS, Child, Word};
use super::slots::{Begun, Standing};
use crate::fetch::fetch;
use crate::index::past::Bygone;
use crate::index::versions::{VersionSlot, VersionTable};
use crate::index::{Hits, Query, TOGETHER};
use crate::time::EventTime;

/// Lines of memory that a node stands in, and a leaf of the usual size.
const NODE_LINES: usize = 2;
/// See [`NODE_LINES`].
const LEAF_LINES: usize = 3;

/// Ends the list of a place's zones met on the way.
const NONE: u32 = u32::MAX;

/// Zones that cover a branch or a node, met on the way down: a list for each place, as links.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<(u32, u32)>);

/// The way of a place: where it has come to, and the list of what it passed.
#[derive(Copy, Clone)]
struct Way<'a> {
    word: Word<'a>,
    /// So many bits of the path lie below the tile that the word is of, or that of its slot.
    below: u32,
    list: u32,
}

const BEGIN: Way<'_> = Way {
    word: Word::EMPTY,
    below: 0,
    list: NONE,
};

impl<'a> Way<'a> {
    /// Goes on into a node, if that is where it has come to.
    #[inline(always)]
    fn step(&mut self, path: u64, passed: &mut Passed) -> bool {
        let Some(node) = self.word.node() else {
            return false;
        };
        passed.pass(&mut self.list, node.covers());
        self.below -= 4;
        self.word = node.word((path >> self.below) as usize % 16);
        true
    }
}

impl Tiles {
    /// Answers all queries.
    pub(in crate::index) fn lookup(
        &self,
        queries: &[Query],
        versions: &VersionTable,
        hits: &mut Hits,
    ) {
        let mut passed = std::mem::take(&mut hits.passed);
        let mut bygone = std::mem::take(&mut hits.bygone);
        for together in queries.chunks(TOGETHER) {
            let mut keys = [Key::default(); TOGETHER];
            let mut paths = [0; TOGETHER];
            let mut ways = [BEGIN; TOGETHER];
            let mut ends = [0; TOGETHER];
            let (mut farthest, mut earliest) = (Reach::default(), EventTime::MAX);
            for ((key, path), query) in keys.iter_mut().zip(&mut paths).zip(together) {
                *key = Key::of(query.position);
                *path = key.path();
                farthest.take_in(query.position);
                earliest = earliest.min(query.at);
            }
            let (paths, ways) = (&paths[..together.len()], &mut ways[..together.len()]);
            passed.0.clear();
            self.descend(paths, ways, &mut passed);
            let asking = Asking {
                tiles: self,
                versions,
                passed: &passed,
                begun: self.cohorts.begun(earliest),
                is_after_all: earliest >= self.noted_until,
            };
            let is_at_the_end = farthest.is_at_the_end_of_the_world();
            let mut several = 0_u32;
            let bygones = if self.past.may_have_been_in_force(earliest) {
                self.look_into_the_past(together, versions, &mut bygone)
            } else {
                &[]
            };
            let mut bygones = bygones.iter().peekable();
            let asked = together.iter().zip(&keys).zip(ways).zip(&mut ends);
            for (number, (((query, key), way), end)) in asked.enumerate() {
                let from = hits.slots.len();
                if is_at_the_end {
                    asking.near_the_end_of_the_world(query, way, *key, hits);
                } else {
                    asking.finish::<false>(query, way, *key, hits);
                }
                while let Some((_, slot)) = bygones.next_if(|(of, _)| *of == number) {
                    hits.slots.push(*slot);
                }
                if hits.slots.len() > from + 1 {
                    several |= 1 << number;
                }
                *end = hits.slots.len();
            }
            let before = hits.ends.len();
            hits.ends.extend_from_slice(&ends[..together.len()]);
            while several != 0 {
                hits.several
                    .push(before + several.trailing_zeros() as usize);
                several &= several - 1;
            }
            // Few are sorted with those of the next places: what they wait for then, they wait for at once.
            if hits.several.len() >= TOGETHER / 2 {
                hits.sort(versions);
            }
        }
        hits.sort(versions);
        hits.passed = passed;
        hits.bygone = bygone;
    }

    /// Down to what ends the way of each place, in stages: what a stage reads of memory is fetched for all places before
    /// the next one looks at it. Within a stage a place goes by itself: what is near the root is at hand.
    #[inline]
    fn descend<'a>(&'a self, paths: &[u64], ways: &mut [Way<'a>], passed: &mut Passed) {
        let first = paths.first().copied().unwrap_or_default();
        let differing = paths.iter().fold(0, |bits, path| bits | (path ^ first));
        let mut list = NONE;
        let start = (&self.root, 2 * LEVEL_MAX);
        // Near each other, as most are, they go the first part of the way as one.
        let start = down_together(start, first, differing, &mut list, passed);
        for path in paths {
            fetch_below(start, *path);
        }
        for (way, path) in ways.iter_mut().zip(paths) {
            way.list = list;
            let (child, below) = down(start, *path, &mut way.list, passed);
            match child {
                Child::Page(page) => {
                    way.below = below + 2 * page.span as u32;
                    way.word = page.word();
                }
                Child::Cover(slot) => way.word = Word::of_cover(*slot),
                _ => {}
            }
            way.word.fetch::<NODE_LINES>();
        }
        // The shorter these loops, the more places' memory the processor waits for at once.
        for (way, path) in ways.iter_mut().zip(paths) {
            way.step(*path, passed);
            way.word.fetch::<LEAF_LINES>();
        }
        for (way, path) in ways.iter_mut().zip(paths) {
            // What has ended was asked for above.
            if way.step(*path, passed) {
                while way.step(*path, passed) {}
                way.word.fetch::<LEAF_LINES>();
            }
        }
    }

    /// Finds the versions of the past that cover places, by the number of the query.
    #[inline(never)]
    fn look_into_the_past<'b>(
        &self,
        queries: &[Query],
        versions: &VersionTable,
        bygone: &'b mut Bygone,
    ) -> &'b [(usize, VersionSlot)] {
        self.past.candidates(queries, bygone);
        // As in `descend`: all wait at once for what the next loop reads.
        for (_, slot) in &bygone.slots {
            versions.fetch(*slot);
        }
        let found = bygone.slots.iter();
        for version in found.filter_map(|(_, slot)| versions.get(*slot)) {
            version.zone().area.fetch();
        }
        bygone.slots.retain(|(number, slot)| {
            let query = &queries[*number];
            versions.get(*slot).is_some_and(|version| {
                version.is_in_force(query.at) && version.zone().area.covers(query.position)
            })
        });
        &bygone.slots
    }
}

impl Passed {
    /// Notes the zones that cover what a place passes.
    #[inline(always)]
    fn pass(&mut self, list: &mut u32, covers: &[u32]) {
        if !covers.is_empty() {
            *list = self.note(*list, covers);
        }
    }

    #[inline(never)]
    fn note(&mut self, mut list: u32, covers: &[u32]) -> u32 {
        for slot in covers {
            self.0.push((*slot, list));
            list = self.0.len() as u32 - 1;
        }
        list
    }
}

/// Down to the page of a place, or what else there is, and how many bits of its path are left there.
#[inline(always)]
fn down<'a>(
    (mut child, mut below): (&'a Child, u32),
    path: u64,
    list: &mut u32,
    passed: &mut Passed,
) -> (&'a Child, u32) {
    while let Child::Branch(branch) = child {
        passed.pass(list, &branch.covers);
        below -= 2 * BRANCH_LEVELS;
        child = &branch.slots[(path >> below) as usize % BRANCH_SLOTS];
    }
    if let Child::Far(_) = child {
        down_together((child, below), path, 0, list, passed)
    } else {
        (child, below)
    }
}

/// Asks for the slot of a place in the branch below this one, if that is what is there: the first of its way that is not at hand.
#[inline(always)]
fn fetch_below((child, below): (&Child, u32), path: u64) {
    let slot = |below: u32| (path >> (below - 2 * BRANCH_LEVELS)) as usize % BRANCH_SLOTS;
    if let Child::Branch(branch) = child
        && let Child::Branch(next) = &branch.slots[slot(below)]
    {
        fetch(&raw const next.slots[slot(below - 2 * BRANCH_LEVELS)]);
    }
}

/// The same as far as paths that differ in these bits go the same way.
#[inline(never)]
fn down_together<'a>(
    (mut child, mut below): (&'a Child, u32),
    path: u64,
    differing: u64,
    list: &mut u32,
    passed: &mut Passed,
) -> (&'a Child, u32) {
    loop {
        match child {
            Child::Branch(branch) if differing >> (below - 2 * BRANCH_LEVELS) == 0 => {
                passed.pass(list, &branch.covers);
                below -= 2 * BRANCH_LEVELS;
                child = &branch.slots[(path >> below) as usize % BRANCH_SLOTS];
            }
            Child::Far(far) if differing >> far.path.0 == 0 => {
                if path >> far.path.0 != far.path.1 {
                    return (&Child::Empty, below);
                }
                below = far.path.0;
                child = &far.child;
            }
            _ => return (child, below),
        }
    }
}

/// What is the same for all places that go down together.
struct Asking<'a> {
    tiles: &'a Tiles,
    versions: &'a VersionTable,
    passed: &'a Passed,
    /// What is settled and in force.
    begun: Begun,
    /// Whether all else in the tree has begun, and what has an end has ended.
    is_after_all: bool,
}

impl Asking<'_> {
    /// Takes a zone that covers the place.
    #[inline(always)]
    fn hit<const AT_END: bool>(&self, query: &Query, slot: u32, hits: &mut Hits) {
        if !AT_END && self.is_settled(slot) {
            hits.slots.push(VersionSlot(slot));
        } else {
            self.look_up(query, slot, !AT_END, hits);
        }
    }

    /// Whether the zone is in force without being looked up.
    #[inline(always)]
    fn is_settled(&self, slot: u32) -> bool {
        self.tiles.slots.is_settled(slot, self.begun)
    }

    /// The same where it is to be looked up when it is in force, or whether it covers the place.
    #[inline(never)]
    fn look_up(&self, query: &Query, slot: u32, is_sure: bool, hits: &mut Hits) {
        if self.is_after_all {
            // Where changes come fast this spares the way to the version's own memory.
            match self.tiles.slots.get(slot) {
                Standing::Ended => return,
                Standing::Dated if is_sure => return hits.slots.push(VersionSlot(slot)),
                _ => {}
            }
        }
        if let Some(version) = self.versions.get(VersionSlot(slot))
            && (self.is_settled(slot) || version.is_in_force(query.at))
            && (is_sure || version.zone().area.covers(query.position))
        {
            hits.slots.push(VersionSlot(slot));
        }
    }

    /// Takes zones that cover a leaf.
    #[inline(never)]
    fn hit_all<const AT_END: bool>(&self, query: &Query, slots: &[u32], hits: &mut Hits) {
        for slot in slots {
            self.hit::<AT_END>(query, *slot, hits);
        }
    }

    /// Takes the zones that a place passed on its way.
    #[inline(never)]
    fn hit_passed<const AT_END: bool>(&self, query: &Query, mut list: u32, hits: &mut Hits) {
        while let Some((slot, next)) = self.passed.0.get(list as usize) {
            self.hit::<AT_END>(query, *slot, hits);
            list = *next;
        }
    }

    /// Takes what there is at the end of a way. `AT_END`: the place is on a border of the map, where tiles end: `covers`
    /// decides.
    #[inline(always)]
    fn finish<const AT_END: bool>(&self, query: &Query, way: &Way<'_>, key: Key, hits: &mut Hits) {
        if way.list != NONE {
            self.hit_passed::<AT_END>(query, way.list, hits);
        }
        let Some(leaf) = way.word.leaf() else {
            if let Some(slot) = way.word.covering() {
                self.hit::<AT_END>(query, slot, hits);
            }
            return;
        };
        let covers = leaf.covers();
        if !covers.is_empty() {
            self.hit_all::<AT_END>(query, covers, hits);
        }
        let level = LEVEL_MAX - way.below / 2 - u32::from(leaf.is_quarter());
        let (x, y) = key.local(level);
        for group in leaf.groups() {
            let verdict = group.judge(x, y);
            let unsure = if AT_END { 0xff } else { verdict.unsure };
            let mut found = verdict.inside | unsure;
            while found != 0 {
                let bit = found.trailing_zeros();
                found &= found - 1;
                let Some(slot) = group.slots.get(bit as usize) else {
                    break;
                };
                if unsure >> bit & 1 != 0 {
                    self.look_up(query, *slot, false, hits);
                } else {
                    self.hit::<AT_END>(query, *slot, hits);
                }
            }
        }
    }

    /// The same where the place may be on a border of the map. One on the antimeridian stands at both ends of it: it goes down
    /// again.
    #[inline(never)]
    fn near_the_end_of_the_world(&self, query: &Query, way: &Way<'_>, key: Key, hits: &mut Hits) {
        let mut at = query.position;
        if at.lon.abs() != 180.0 && at.lat != 90.0 {
            return self.finish::<false>(query, way, key, hits);
        }
        self.finish::<true>(query, way, key, hits);
        if at.lon.abs() == 180.0 {
            at.lon = -at.lon;
            let key = Key::of(at);
            let (mut ways, mut passed) = ([BEGIN], Passed::default());
            self.tiles.descend(&[key.path()], &mut ways, &mut passed);
            let again = Asking {
                passed: &passed,
                ..*self
            };
            again.finish::<true>(query, &ways[0], key, hits);
        }
    }
}
