//! Lookups: a group of places goes down the tree together, a level at a time, so that the memory of many is fetched at once;
//! then each is judged by its leaf. Allocates nothing once its buffers are warm.

use super::Tiles;
use super::grid::{Key, LEVEL_MAX};
use super::leaf::Leaf;
use super::page::{BRANCH_LEVELS, BRANCH_SLOTS, Child, Page, Slot};
use super::slots::Standing;
use crate::index::versions::{VersionSlot, VersionTable};
use crate::index::{Hits, Query};

/// Places that go down together.
const TOGETHER: usize = 32;
/// Ends the list of a place's zones met on the way.
const NONE: u32 = u32::MAX;

/// Zones that cover a branch or a node, met on the way down: a list for each place, as links.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<(u32, u32)>);

/// Where the way of a place has come to.
#[derive(Copy, Clone)]
enum End<'a> {
    Nothing,
    Cover(u32),
    /// A page; so many bits of the path lie below its tile.
    Page(&'a Page, u32),
    /// A leaf; so many bits of the path lie below its tile, or that of its slot.
    Leaf(Leaf<'a>, u32),
}

/// The way of a place: where it has come to, and the list of what it passed.
#[derive(Copy, Clone)]
struct Way<'a> {
    end: End<'a>,
    list: u32,
}

const BEGIN: Way<'_> = Way {
    end: End::Nothing,
    list: NONE,
};

impl Tiles {
    /// Answers all queries.
    pub(in crate::index) fn lookup(
        &self,
        queries: &[Query],
        versions: &VersionTable,
        hits: &mut Hits,
    ) {
        let mut passed = std::mem::take(&mut hits.passed);
        for together in queries.chunks(TOGETHER) {
            let mut keys = [Key::default(); TOGETHER];
            let mut ways = [BEGIN; TOGETHER];
            let (keys, ways) = (&mut keys[..together.len()], &mut ways[..together.len()]);
            for (key, query) in keys.iter_mut().zip(together) {
                *key = Key::of(query.position);
            }
            passed.0.clear();
            self.descend(keys, ways, &mut passed);
            for ((query, key), way) in together.iter().zip(keys).zip(ways) {
                let asking = Asking {
                    tiles: self,
                    versions,
                    query,
                };
                let at = query.position;
                if at.lon.abs() == 180.0 || at.lat == 90.0 {
                    asking.at_the_end_of_the_world(way, *key, &passed, hits);
                } else {
                    asking.finish::<false>(way, *key, &passed, hits);
                }
                self.look_into_the_past(query, versions, hits);
                hits.close(versions);
            }
        }
        hits.passed = passed;
    }

    /// Down to what ends the way of each place, in stages: what a stage reads of memory is fetched for all places before
    /// the next one looks at it. Within a stage a place goes by itself: what is near the root is at hand.
    #[inline]
    fn descend<'a>(&'a self, keys: &[Key], ways: &mut [Way<'a>], passed: &mut Passed) {
        let mut paths = [0_u64; TOGETHER];
        let first = keys.first().map_or(0, |key| key.path());
        let mut differing = 0;
        for (path, key) in paths.iter_mut().zip(keys) {
            *path = key.path();
            differing |= *path ^ first;
        }
        let mut list = NONE;
        let start = (&self.root, 2 * LEVEL_MAX);
        // Near each other, as most are, they go the first part of the way as one.
        let start = down_branches(start, first, differing, |covers| {
            passed.pass(&mut list, covers);
        });
        let mut read = 0_u32;
        for (way, path) in ways.iter_mut().zip(paths) {
            way.list = list;
            let (child, below) = down_branches(start, path, 0, |covers| {
                passed.pass(&mut way.list, covers);
            });
            match child {
                Child::Page(page) => {
                    let below = below + 2 * page.span as u32;
                    read ^= page.fetch((path >> (below.max(4) - 4)) as usize % 16);
                    way.end = End::Page(page, below);
                }
                Child::Cover(slot) => way.end = End::Cover(*slot),
                _ => {}
            }
        }
        for (way, path) in ways.iter_mut().zip(paths) {
            let End::Page(page, mut below) = way.end else {
                continue;
            };
            let mut word = page.word();
            way.end = loop {
                match word.slot() {
                    Slot::Node(node) => {
                        passed.pass(&mut way.list, node.covers());
                        below -= 4;
                        word = node.word((path >> below) as usize % 16);
                    }
                    Slot::Leaf(leaf) => {
                        read ^= leaf.fetch();
                        break End::Leaf(leaf, below);
                    }
                    Slot::Cover(slot) => break End::Cover(slot),
                    Slot::Empty => break End::Nothing,
                }
            };
        }
        std::hint::black_box(read);
    }

    fn look_into_the_past(&self, query: &Query, versions: &VersionTable, hits: &mut Hits) {
        self.past.candidates_of_the_past(query, |slot| {
            if let Some(version) = versions.get(slot)
                && version.is_in_force(query.at)
                && version.zone().area.covers(query.position)
            {
                hits.slots.push(slot);
            }
        });
    }
}

impl Passed {
    /// Notes the zones that cover what a place passes.
    #[inline]
    fn pass(&mut self, list: &mut u32, covers: &[u32]) {
        for slot in covers {
            self.0.push((*slot, *list));
            *list = self.0.len() as u32 - 1;
        }
    }
}

/// Down to the page of a place, or what else there is, and how many bits of its path are left there: as far as paths that
/// differ in these bits go the same way.
#[inline]
fn down_branches<'a>(
    (mut child, mut below): (&'a Child, u32),
    path: u64,
    differing: u64,
    mut pass: impl FnMut(&'a [u32]),
) -> (&'a Child, u32) {
    loop {
        match child {
            Child::Branch(branch) if differing >> (below - 2 * BRANCH_LEVELS) == 0 => {
                pass(&branch.covers);
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

/// One query on its way.
struct Asking<'a> {
    tiles: &'a Tiles,
    versions: &'a VersionTable,
    query: &'a Query,
}

impl Asking<'_> {
    /// Takes a zone that covers the place.
    #[inline]
    fn hit(&self, slot: u32, hits: &mut Hits) {
        if self.is_settled(slot) {
            hits.slots.push(VersionSlot(slot));
        } else {
            self.look_up(slot, true, hits);
        }
    }

    /// Whether the zone is in force without being looked up.
    #[inline]
    fn is_settled(&self, slot: u32) -> bool {
        let settled_from = self.tiles.settled_from;
        self.tiles.slots.get(slot) == Standing::Settled
            && settled_from.is_none_or(|from| self.query.at >= from)
    }

    /// The same where it is to be looked up when it is in force, or whether it covers the place.
    #[inline(never)]
    fn look_up(&self, slot: u32, is_sure: bool, hits: &mut Hits) {
        if let Some(version) = self.versions.get(VersionSlot(slot))
            && (self.is_settled(slot) || version.is_in_force(self.query.at))
            && (is_sure || version.zone().area.covers(self.query.position))
        {
            hits.slots.push(VersionSlot(slot));
        }
    }

    /// Takes what there is at the end of a way. `AT_END`: the place is on a border of the map, where tiles end: `covers`
    /// decides.
    #[inline(always)]
    fn finish<const AT_END: bool>(
        &self,
        way: &Way<'_>,
        key: Key,
        passed: &Passed,
        hits: &mut Hits,
    ) {
        let hit = |slot: u32, hits: &mut Hits| {
            if AT_END {
                self.look_up(slot, false, hits);
            } else {
                self.hit(slot, hits);
            }
        };
        let mut list = way.list;
        while let Some((slot, next)) = passed.0.get(list as usize) {
            hit(*slot, hits);
            list = *next;
        }
        let (leaf, below) = match way.end {
            End::Cover(slot) => return hit(slot, hits),
            End::Leaf(leaf, below) => (leaf, below),
            End::Nothing | End::Page(..) => return,
        };
        for slot in leaf.covers() {
            hit(*slot, hits);
        }
        let level = LEVEL_MAX - below / 2 - u32::from(leaf.is_quarter());
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
                    self.look_up(*slot, false, hits);
                } else {
                    self.hit(*slot, hits);
                }
            }
        }
    }

    /// The same for a place on a border of the map. One on the antimeridian stands at both ends of it: it goes down again.
    #[inline(never)]
    fn at_the_end_of_the_world(&self, way: &Way<'_>, key: Key, passed: &Passed, hits: &mut Hits) {
        self.finish::<true>(way, key, passed, hits);
        let mut at = self.query.position;
        if at.lon.abs() == 180.0 {
            at.lon = -at.lon;
            let key = Key::of(at);
            let (mut ways, mut passed) = ([BEGIN], Passed::default());
            self.tiles.descend(&[key], &mut ways, &mut passed);
            self.finish::<true>(&ways[0], key, &passed, hits);
        }
    }
}
