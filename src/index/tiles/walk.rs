//! Lookups: a group of places goes down the tree together, a level at a time, so that the memory of many is fetched at once;
//! then each is judged by its leaf. Allocates nothing once its buffers are warm.

use super::Tiles;
use super::grid::Key;
use super::leaf::Leaf;
use super::node::{Node, Slot};
use super::slots::Standing;
use crate::index::versions::{VersionSlot, VersionTable};
use crate::index::{Hits, Query};

/// Places that go down together.
const TOGETHER: usize = 32;
/// Ends the list of a place's zones met on the way.
const NONE: u32 = u32::MAX;

/// Zones that cover a node, met on the way down: a list for each place, as links.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<(u32, u32)>);

/// What a place found at the end of its way.
#[derive(Copy, Clone)]
enum End<'a> {
    Nothing,
    Cover(u32),
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

    fn descend<'a>(
        &'a self,
        keys: &[Option<Key>; TOGETHER],
        ends: &mut [End<'a>; TOGETHER],
        passed: &mut Passed,
        lists: &mut [u32; TOGETHER],
    ) {
        let Some(root) = &self.root else { return };
        let (below, prefix) = root.tile.path();
        let mut paths = [0_u64; TOGETHER];
        let mut nodes: [&Node; TOGETHER] = [&root.node; TOGETHER];
        let mut going = [0_u8; TOGETHER];
        let mut count = 0;
        for (number, key) in keys.iter().enumerate() {
            let Some(key) = key else { break };
            paths[number] = key.path();
            going[count] = number as u8;
            count += usize::from(paths[number] >> below == prefix);
        }
        let (mut shift, mut level) = (below, root.tile.level);
        while count > 0 {
            shift -= 4;
            level += 2;
            let mut still = 0;
            for turn in 0..count {
                let number = usize::from(going[turn]) % TOGETHER;
                let node = nodes[number];
                for slot in node.covers() {
                    passed.0.push((*slot, lists[number]));
                    lists[number] = passed.0.len() as u32 - 1;
                }
                match node.slot((paths[number] >> shift & 15) as usize) {
                    Slot::Empty => {}
                    Slot::Cover(slot) => ends[number] = End::Cover(slot),
                    Slot::Leaf(leaf) => {
                        let level = level - u32::from(leaf.is_quarter());
                        ends[number] = End::Leaf(leaf, level);
                    }
                    Slot::Child(child) => {
                        nodes[number] = child;
                        going[still] = number as u8;
                        still += 1;
                    }
                }
            }
            count = still;
        }
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
            (End::Leaf(leaf, level), Some(key)) => {
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
                    for (bit, slot) in group.slots.iter().enumerate() {
                        if unsure >> bit & 1 != 0 {
                            self.hit(*slot, false, hits);
                        } else if verdict.inside >> bit & 1 != 0 {
                            self.hit(*slot, true, hits);
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
