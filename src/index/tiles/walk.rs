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

/// What a place found at the end of its way.
#[derive(Copy, Clone)]
enum End<'a> {
    Nothing,
    Cover(u32),
    /// A leaf; so many bits of the path lie below its tile, or that of its slot.
    Leaf(Leaf<'a>, u32),
}

impl Tiles {
    /// Answers all queries.
    pub(in crate::index) fn lookup(
        &self,
        queries: &[Query],
        versions: &VersionTable,
        hits: &mut Hits,
    ) {
        for together in queries.chunks(TOGETHER) {
            self.look_up(together, versions, hits);
        }
    }

    fn look_up(&self, queries: &[Query], versions: &VersionTable, hits: &mut Hits) {
        let mut keys = [None; TOGETHER];
        for (key, query) in keys.iter_mut().zip(queries) {
            *key = Some(Key::of(query.position));
        }
        let mut ends = [End::Nothing; TOGETHER];
        let mut passed = std::mem::take(&mut hits.passed);
        passed.0.clear();
        let mut lists = [NONE; TOGETHER];
        self.descend(&keys, &mut ends, &mut passed, &mut lists);
        for (number, query) in queries.iter().enumerate() {
            let at = query.position;
            let asking = Asking {
                tiles: self,
                versions,
                query,
                is_world_end: at.lon.abs() == 180.0 || at.lat == 90.0,
            };
            let mut list = lists[number];
            while let Some((slot, next)) = passed.0.get(list as usize) {
                asking.hit(*slot, true, hits);
                list = *next;
            }
            asking.finish(ends[number], keys[number], hits);
            if at.lon.abs() == 180.0 {
                asking.other_name(hits);
            }
            self.look_into_the_past(query, versions, hits);
            hits.close(versions);
        }
        hits.passed = passed;
    }

    /// Down to what ends the way of each place, in stages: what a stage reads of memory is fetched for all places before
    /// the next one looks at it. Within a stage a place goes by itself: what is near the root is at hand.
    fn descend<'a>(
        &'a self,
        keys: &[Option<Key>; TOGETHER],
        ends: &mut [End<'a>; TOGETHER],
        passed: &mut Passed,
        lists: &mut [u32; TOGETHER],
    ) {
        let mut pages: [Option<(&Page, u32)>; TOGETHER] = [None; TOGETHER];
        let mut paths = [0_u64; TOGETHER];
        let mut read = 0_u32;
        for (number, key) in keys.iter().enumerate() {
            let Some(key) = key else { break };
            let path = key.path();
            paths[number] = path;
            let mut pass = |covers: &[u32]| passed.pass(&mut lists[number], covers);
            match down_branches(&self.root, path, &mut pass) {
                (Child::Page(page), below) => {
                    let below = below + 2 * page.span as u32;
                    read ^= page.fetch((path >> (below.max(4) - 4)) as usize % 16);
                    pages[number] = Some((page, below));
                }
                (Child::Cover(slot), _) => ends[number] = End::Cover(*slot),
                _ => {}
            }
        }
        for (number, page) in pages.iter().enumerate() {
            let Some((page, below)) = *page else {
                continue;
            };
            let mut below = below;
            let mut word = page.word();
            while let Slot::Node(node) = word.slot() {
                passed.pass(&mut lists[number], node.covers());
                below -= 4;
                word = node.word((paths[number] >> below) as usize % 16);
            }
            match word.slot() {
                Slot::Cover(slot) => ends[number] = End::Cover(slot),
                Slot::Leaf(leaf) => {
                    read ^= leaf.fetch();
                    ends[number] = End::Leaf(leaf, below);
                }
                Slot::Empty | Slot::Node(_) => {}
            }
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

/// Down to the page of a place, or what else there is, and how many bits of its path are left there.
#[inline]
fn down_branches<'a>(
    root: &'a Child,
    path: u64,
    pass: &mut impl FnMut(&'a [u32]),
) -> (&'a Child, u32) {
    let (mut child, mut below) = (root, 2 * LEVEL_MAX);
    loop {
        while let Child::Branch(branch) = child {
            pass(&branch.covers);
            below -= 2 * BRANCH_LEVELS;
            child = &branch.slots[(path >> below) as usize % BRANCH_SLOTS];
        }
        match child {
            Child::Far(far) if path >> far.path.0 == far.path.1 => {
                below = far.path.0;
                child = &far.child;
            }
            Child::Far(_) => return (&Child::Empty, 0),
            _ => return (child, below),
        }
    }
}

/// One query on its way.
struct Asking<'a> {
    tiles: &'a Tiles,
    versions: &'a VersionTable,
    query: &'a Query,
    /// It stands on a border of the map, where tiles end: `covers` decides.
    is_world_end: bool,
}

impl<'a> Asking<'a> {
    /// Takes a zone that covers the tile, or may: then `is_sure` is false.
    #[inline]
    fn hit(&self, slot: u32, is_sure: bool, hits: &mut Hits) {
        let is_exact = is_sure && !self.is_world_end;
        let is_settled = self.tiles.slots.get(slot) == Standing::Settled
            && self
                .tiles
                .settled_from
                .is_none_or(|from| self.query.at >= from);
        let slot = VersionSlot(slot);
        if is_exact && is_settled {
            return hits.slots.push(slot);
        }
        if let Some(version) = self.versions.get(slot)
            && (is_settled || version.is_in_force(self.query.at))
            && (is_exact || version.zone().area.covers(self.query.position))
        {
            hits.slots.push(slot);
        }
    }

    #[inline]
    fn finish(&self, end: End<'_>, key: Option<Key>, hits: &mut Hits) {
        match (end, key) {
            (End::Cover(slot), _) => self.hit(slot, true, hits),
            (End::Leaf(leaf, below), Some(key)) => {
                let level = LEVEL_MAX - below / 2 - u32::from(leaf.is_quarter());
                for slot in leaf.covers() {
                    self.hit(*slot, true, hits);
                }
                let (x, y) = key.local(level);
                for group in leaf.groups() {
                    let verdict = group.judge(x, y);
                    let unsure = if self.is_world_end {
                        0xff
                    } else {
                        verdict.unsure
                    };
                    if verdict.inside | unsure == 0 {
                        continue;
                    }
                    let mut found = verdict.inside | unsure;
                    while found != 0 {
                        let bit = found & found.wrapping_neg();
                        found ^= bit;
                        if let Some(slot) = group.slots.get(bit.trailing_zeros() as usize) {
                            self.hit(*slot, unsure & bit == 0, hits);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// A place on the antimeridian stands at both ends of the map. Rare: it goes down alone.
    fn other_name(&self, hits: &mut Hits) {
        let mut at = self.query.position;
        at.lon = -at.lon;
        let mut keys = [None; TOGETHER];
        keys[0] = Some(Key::of(at));
        let mut ends = [End::Nothing; TOGETHER];
        let (mut passed, mut lists) = (Passed::default(), [NONE; TOGETHER]);
        self.tiles
            .descend(&keys, &mut ends, &mut passed, &mut lists);
        for (slot, _) in &passed.0 {
            self.hit(*slot, false, hits);
        }
        self.finish(ends[0], keys[0], hits);
    }
}
