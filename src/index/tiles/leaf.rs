//! A leaf: what one tile knows of its zones, as a run of words.
//!
//! ```text
//! words of the leaf, bit 31: it is a quarter · zones that cover it · their slots… · groups…
//! group of up to 8 zones: head (base, always exact, zones, blocks) · slots… · 4 · blocks + 1 vertices · a mask word a block
//! ```
//! Vertices are in units of the tile, offset by the margin, x below y. Edge *i* leads from vertex *i* to the next one and
//! belongs to the zones in its byte of the masks; none lifts the pen. A border that zones share is there once.
//!
//! Boundaries are rounded to units (by ≤ 0.71 of one) and so is the asking place (by ≤ 1.42): which side of a boundary it is
//! on is known where it is more than 3 units away from it, and asked of `covers` elsewhere.

use super::edges::{crossings, near};

/// Zones in a group.
pub(super) const GROUP: usize = 8;
const BLOCKS_MAX: usize = (1 << 11) - 1;
/// Of the head of a group: it has edges without length.
const POINTS: u32 = 1 << 31;
const QUARTER: u32 = 1 << 31;

/// A leaf as it stands in its page; what follows it there may follow here.
#[derive(Copy, Clone)]
pub(super) struct Leaf<'a>(&'a [u32]);

impl<'a> Leaf<'a> {
    /// The leaf that begins here. What it has is not read before it is asked for.
    #[inline]
    pub(super) fn at(words: &'a [u32], from: usize) -> Self {
        Self(&words[from..])
    }

    /// Whether it stands for four slots of its node.
    pub(super) fn is_quarter(self) -> bool {
        self.0[0] & QUARTER != 0
    }

    #[inline]
    pub(super) fn words(self) -> &'a [u32] {
        &self.0[..(self.0[0] & !QUARTER) as usize]
    }

    /// The slots that cover it whole.
    #[inline]
    pub(super) fn covers(self) -> &'a [u32] {
        &self.0[2..2 + self.0[1] as usize]
    }

    /// The others.
    #[inline]
    pub(super) fn groups(self) -> Groups<'a> {
        Groups(&self.words()[2 + self.0[1] as usize..])
    }

    /// How many edges it has, about.
    pub(super) fn edge_count(self) -> usize {
        self.groups().map(|group| 4 * group.masks.len()).sum()
    }

    /// The slots of all its zones.
    pub(super) fn zones(self) -> impl Iterator<Item = u32> {
        let edged = self.groups().flat_map(|group| group.slots);
        self.covers().iter().chain(edged).copied()
    }
}

/// The groups of a leaf.
pub(super) struct Groups<'a>(&'a [u32]);

impl<'a> Groups<'a> {
    /// Those that these words are.
    pub(super) fn of(words: &'a [u32]) -> Self {
        Self(words)
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    #[inline]
    fn next(&mut self) -> Option<Group<'a>> {
        let words = self.0;
        let (head, rest) = words.split_first()?;
        let head = Head(*head);
        let (slots, rest) = rest.split_at(head.zones());
        let blocks = head.blocks();
        let (vertices, rest) = rest.split_at(4 * blocks + 1);
        let (masks, rest) = rest.split_at(blocks);
        self.0 = rest;
        Some(Group {
            words: &words[..words.len() - rest.len()],
            head,
            slots,
            vertices,
            masks,
        })
    }
}

/// Bits 0–7 base, 8–15 always exact, 16–19 zones, 20–30 blocks, 31 whether edges without length are there.
#[derive(Copy, Clone)]
pub(super) struct Head(u32);

impl Head {
    fn zones(self) -> usize {
        (self.0 >> 16 & 0xf) as usize
    }

    fn blocks(self) -> usize {
        (self.0 >> 20) as usize & BLOCKS_MAX
    }
}

/// Some of the zones that have a boundary in a leaf.
#[derive(Copy, Clone)]
pub(super) struct Group<'a> {
    words: &'a [u32],
    head: Head,
    pub(super) slots: &'a [u32],
    vertices: &'a [u32],
    masks: &'a [u32],
}

/// Where bits move to; 0 for those that go.
struct Bits([u8; GROUP]);

impl Bits {
    fn moved(&self, mask: u8) -> u8 {
        let (mut mask, mut moved) = (mask, 0);
        while mask != 0 {
            moved |= self.0[mask.trailing_zeros() as usize];
            mask &= mask - 1;
        }
        moved
    }
}

/// What a group says of a place, a bit for each of its zones.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// They cover it, where they are not unsure.
    pub(super) inside: u32,
    /// It is too near to their boundaries.
    pub(super) unsure: u32,
}

impl<'a> Group<'a> {
    /// Its words.
    pub(super) fn words(&self) -> &'a [u32] {
        self.words
    }

    /// Where the bits of the zones that stay come to stand when the others go.
    fn bits_that_stay(&self, goes: impl Fn(u32) -> bool) -> Bits {
        let mut bits = Bits([0; GROUP]);
        let mut next = 1;
        for (bit, slot) in bits.0.iter_mut().zip(self.slots) {
            if !goes(*slot) {
                *bit = next;
                next <<= 1;
            }
        }
        bits
    }

    /// Writes it without the zones that go, its edges strung as they are; `false`, and nothing written, where more than half
    /// of what is strung would be nobody's.
    pub(super) fn write_without(&self, goes: impl Fn(u32) -> bool, words: &mut Vec<u32>) -> bool {
        let bits = self.bits_that_stay(&goes);
        let from = words.len();
        words.push(0);
        words.extend(self.slots.iter().copied().filter(|slot| !goes(*slot)));
        let count = words.len() - from - 1;
        if count == 0 {
            words.truncate(from);
            return true;
        }
        words[from] = u32::from(bits.moved(self.head.0 as u8))
            | u32::from(bits.moved((self.head.0 >> 8) as u8)) << 8
            | (count as u32) << 16
            | (self.masks.len() as u32) << 20
            | self.head.0 & POINTS;
        words.extend_from_slice(self.vertices);
        let mut nobodys = 0;
        words.extend(self.masks.iter().map(|four| {
            let four = four.to_le_bytes().map(|mask| bits.moved(mask));
            nobodys += four.iter().filter(|mask| **mask == 0).count();
            u32::from_le_bytes(four)
        }));
        let is_written = nobodys <= 2 * self.masks.len();
        if !is_written {
            words.truncate(from);
        }
        is_written
    }

    /// Its edges, the ends of each in order, with the zones they belong to.
    pub(super) fn edges(&self) -> impl Iterator<Item = ([u32; 2], u8)> {
        let masks = self.masks.iter().flat_map(|four| four.to_le_bytes());
        let edge = |ends: &[u32]| [ends[0].min(ends[1]), ends[0].max(ends[1])];
        let edges = self.vertices.windows(2).map(edge);
        edges.zip(masks).filter(|(_, mask)| *mask != 0)
    }

    /// Of the place in this unit.
    #[inline(always)]
    pub(super) fn judge(self, x: u32, y: u32) -> Verdict {
        let (toggled, is_on_line) = crossings(self.vertices, self.masks, x, y);
        let mut unsure = self.head.0 >> 8 & 0xff;
        if is_on_line | (self.head.0 & POINTS != 0) {
            unsure |= near(self.vertices, self.masks, x, y);
        }
        Verdict {
            inside: (self.head.0 ^ toggled) & 0xff,
            unsure,
        }
    }
}

/// A group in the making: its zones, their edges, and what is known of each.
#[derive(Default)]
pub(super) struct Draft {
    slots: Vec<u32>,
    base: u8,
    exact: u8,
    /// Zones of which it is still to be told what of the tile is inside.
    unknown: u8,
    chains: Chains,
}

impl Draft {
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.chains.edges.clear();
        (self.base, self.exact, self.unknown) = (0, 0, 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < GROUP
    }

    /// Begins with what is written of a group, without the zones that go. What was told of those that stay holds on: it
    /// depends on their own edges alone.
    pub(super) fn load(&mut self, group: &Group<'_>, goes: impl Fn(u32) -> bool) {
        self.clear();
        let bits = group.bits_that_stay(&goes);
        self.slots
            .extend(group.slots.iter().copied().filter(|slot| !goes(*slot)));
        self.base = bits.moved(group.head.0 as u8);
        self.exact = bits.moved((group.head.0 >> 8) as u8);
        for (edge, mask) in group.edges() {
            let mask = bits.moved(mask);
            if mask != 0 {
                self.chains.edges.push((edge, mask));
            }
        }
    }

    /// Takes in a zone; gives its bit.
    pub(super) fn add(&mut self, slot: u32) -> u8 {
        let bit = 1 << self.slots.len();
        self.slots.push(slot);
        self.unknown |= bit;
        bit
    }

    /// The exact `covers` is to decide of this zone, wherever in the tile a place is.
    pub(super) fn is_always_exact(&mut self, bit: u8) {
        self.unknown &= !bit;
        self.exact |= bit;
    }

    /// Gives the zone with this bit an edge. One that it has twice is there twice: both count.
    pub(super) fn add_edge(&mut self, edge: [u32; 2], bit: u8) {
        let edges = &mut self.chains.edges;
        let shared = edges
            .iter_mut()
            .find(|(known, mask)| *known == edge && mask & bit == 0);
        match shared {
            Some((_, mask)) => *mask |= bit,
            None => edges.push((edge, bit)),
        }
    }

    /// Gives the zone a boundary that is a single unit, unless an edge of its own ends there.
    pub(super) fn add_point(&mut self, at: u32, bit: u8) {
        let is_there = |(edge, mask): &([u32; 2], u8)| mask & bit != 0 && edge.contains(&at);
        if !self.chains.edges.iter().any(is_there) {
            self.add_edge([at, at], bit);
        }
    }

    /// Its edges.
    pub(super) fn edges(&self) -> impl Iterator<Item = [u32; 2]> {
        self.chains.edges.iter().map(|(edge, _)| *edge)
    }

    /// Writes the group. `covers` says whether the zone in a slot covers the corner of a unit; `probes` are the units to ask
    /// for until every zone has been told inside from outside, and zones that were not are always exact.
    pub(super) fn write(
        &mut self,
        probes: impl Iterator<Item = (u32, u32)>,
        mut covers: impl FnMut(u32, u32, u32) -> bool,
        words: &mut Vec<u32>,
    ) {
        let chains = &mut self.chains;
        chains.string();
        let has_points = chains.edges.iter().any(|(edge, _)| edge[0] == edge[1]);
        if chains.masks.len() > BLOCKS_MAX {
            chains.vertices.truncate(1);
            chains.masks.clear();
            self.unknown = 0;
            self.exact = u8::MAX >> (GROUP - self.slots.len());
        }
        for (x, y) in probes {
            if self.unknown == 0 {
                break;
            }
            let (toggled, is_on_line) = crossings(&chains.vertices, &chains.masks, x, y);
            let mut clear = self.unknown;
            if is_on_line || has_points {
                clear &= !(near(&chains.vertices, &chains.masks, x, y) as u8);
            }
            self.unknown &= !clear;
            while clear != 0 {
                let zone = clear.trailing_zeros();
                clear &= clear - 1;
                let is_toggled = toggled >> zone & 1 != 0;
                let slot = self.slots[zone as usize];
                self.base |= u8::from(covers(slot, x, y) != is_toggled) << zone;
            }
        }
        self.exact |= self.unknown;
        words.push(
            u32::from(self.base)
                | u32::from(self.exact) << 8
                | (self.slots.len() as u32) << 16
                | (chains.masks.len() as u32) << 20
                | if has_points { POINTS } else { 0 },
        );
        words.extend_from_slice(&self.slots);
        words.extend_from_slice(&chains.vertices);
        words.extend_from_slice(&chains.masks);
    }
}

/// The edges of a group, each once, with the zones they belong to, and the runs that they are strung to.
#[derive(Default)]
struct Chains {
    edges: Vec<([u32; 2], u8)>,
    vertices: Vec<u32>,
    masks: Vec<u32>,
    bytes: Vec<u8>,
    used: Vec<bool>,
}

impl Chains {
    /// Strings the edges together as they follow each other.
    fn string(&mut self) {
        self.vertices.clear();
        self.masks.clear();
        self.bytes.clear();
        self.used.clear();
        self.used.resize(self.edges.len(), false);
        for first in 0..self.edges.len() {
            if self.used[first] {
                continue;
            }
            let mut next = Some((first, self.begin(first)));
            if !self.vertices.is_empty() {
                self.bytes.push(0);
            }
            if let Some((edge, from)) = next {
                self.vertices.push(self.edges[edge].0[from]);
            }
            while let Some((edge, from)) = next {
                let (ends, mask) = self.edges[edge];
                let tail = ends[1 - from];
                self.used[edge] = true;
                self.vertices.push(tail);
                self.bytes.push(mask);
                next = self.follower(edge, tail);
            }
        }
        if self.vertices.is_empty() {
            self.vertices.push(0);
        }
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
            let last = self.vertices[self.vertices.len() - 1];
            self.vertices.push(last);
        }
        self.masks.extend(
            self.bytes
                .chunks_exact(4)
                .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])),
        );
    }

    /// At which end to begin: away from the edge that comes next.
    fn begin(&self, edge: usize) -> usize {
        let ends = self.edges[edge].0;
        usize::from(
            self.edges
                .get(edge + 1)
                .is_some_and(|(next, _)| next.contains(&ends[0])),
        )
    }

    /// Edges come ring after ring: the one that follows is among the next few.
    fn follower(&self, edge: usize, tail: u32) -> Option<(usize, usize)> {
        (edge + 1..self.edges.len().min(edge + 6))
            .filter(|next| !self.used[*next])
            .find_map(|next| {
                let ends = self.edges[next].0;
                let from = ends.iter().position(|end| *end == tail)?;
                Some((next, from))
            })
    }
}

/// Writes the begin of a leaf; gives its place for [`finish`].
pub(super) fn begin(words: &mut Vec<u32>, covers: &[u32]) -> usize {
    let from = words.len();
    words.push(0);
    words.push(covers.len() as u32);
    words.extend_from_slice(covers);
    from
}

/// Ends the leaf that begins here.
pub(super) fn finish(words: &mut [u32], from: usize, is_quarter: bool) {
    let len = (words.len() - from) as u32;
    words[from] = len | if is_quarter { QUARTER } else { 0 };
}
