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
//! on is known where it is more than [`NEAR`] away from it, and asked of `covers` elsewhere.

/// Units within which only `covers` decides.
const NEAR: f32 = 3.0;
/// What rounding of `f32` may add to a product of two lengths: 2^30 at most, 24 bits of it kept, three roundings.
const SLACK: f32 = 512.0;
/// Zones in a group.
pub(super) const GROUP: usize = 8;
const BLOCKS_MAX: usize = (1 << 12) - 1;
const QUARTER: u32 = 1 << 31;

/// A leaf as it stands in its node.
#[derive(Copy, Clone)]
pub(super) struct Leaf<'a>(&'a [u32]);

impl<'a> Leaf<'a> {
    /// The leaf that begins here.
    pub(super) fn at(words: &'a [u32], from: usize) -> Self {
        let len = (words[from] & !QUARTER) as usize;
        Self(&words[from..from + len])
    }

    /// Whether it stands for four slots of its node.
    pub(super) fn is_quarter(self) -> bool {
        self.0[0] & QUARTER != 0
    }

    pub(super) fn words(self) -> &'a [u32] {
        self.0
    }

    /// The slots that cover it whole.
    pub(super) fn covers(self) -> &'a [u32] {
        &self.0[2..2 + self.0[1] as usize]
    }

    /// The others.
    pub(super) fn groups(self) -> Groups<'a> {
        Groups(&self.0[2 + self.0[1] as usize..])
    }

    /// How many edges it has, about.
    pub(super) fn edge_count(self) -> usize {
        self.groups().map(|group| 4 * group.masks.len()).sum()
    }
}

/// The groups of a leaf.
pub(super) struct Groups<'a>(&'a [u32]);

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    #[inline]
    fn next(&mut self) -> Option<Group<'a>> {
        let (head, rest) = self.0.split_first()?;
        let head = Head(*head);
        let (slots, rest) = rest.split_at(head.zones());
        let blocks = head.blocks();
        let (vertices, rest) = rest.split_at(if blocks == 0 { 0 } else { 4 * blocks + 1 });
        let (masks, rest) = rest.split_at(blocks);
        self.0 = rest;
        Some(Group {
            head,
            slots,
            vertices,
            masks,
        })
    }
}

/// Bits 0–7 base, 8–15 always exact, 16–19 zones, 20–31 blocks.
#[derive(Copy, Clone)]
pub(super) struct Head(u32);

impl Head {
    fn zones(self) -> usize {
        (self.0 >> 16 & 0xf) as usize
    }

    fn blocks(self) -> usize {
        (self.0 >> 20) as usize
    }
}

/// Some of the zones that have a boundary in a leaf.
#[derive(Copy, Clone)]
pub(super) struct Group<'a> {
    head: Head,
    pub(super) slots: &'a [u32],
    vertices: &'a [u32],
    masks: &'a [u32],
}

/// What a group says of a place, a bit for each of its zones.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// They cover it, where they are not unsure.
    pub(super) inside: u32,
    /// It is too near to their boundaries.
    pub(super) unsure: u32,
}

impl Group<'_> {
    /// Of the place in this unit.
    #[inline]
    pub(super) fn judge(self, x: u32, y: u32) -> Verdict {
        let (toggled, near) = crossings(self.vertices, self.masks, x, y);
        Verdict {
            inside: (self.head.0 ^ toggled) & 0xff,
            unsure: (self.head.0 >> 8 | near) & 0xff,
        }
    }
}

/// The zones with an odd number of edges to the left of a unit, and those with an edge near it.
#[inline]
fn crossings(vertices: &[u32], masks: &[u32], x: u32, y: u32) -> (u32, u32) {
    let (px, py) = (
        (x + super::grid::MARGIN) as f32,
        (y + super::grid::MARGIN) as f32,
    );
    let (mut toggled, mut near) = ([0_u32; 4], [0_u32; 4]);
    for (block, mask) in masks.iter().enumerate() {
        let Some(five) = vertices.get(4 * block..4 * block + 5) else {
            break;
        };
        let mask = mask.to_le_bytes().map(u32::from);
        let mut dx = [0_f32; 5];
        let mut dy = [0_f32; 5];
        for i in 0..5 {
            dx[i] = (five[i] & 0xffff) as i32 as f32 - px;
            dy[i] = (five[i] >> 16) as i32 as f32 - py;
        }
        for i in 0..4 {
            let (ax, ay, bx, by) = (dx[i], dy[i], dx[i + 1], dy[i + 1]);
            let cross = ax * by - bx * ay;
            let (from_below, to_below) = (ay <= 0.0, by <= 0.0);
            let passes_left = (from_below != to_below) & ((cross < 0.0) == from_below);
            let reach = NEAR * ((bx - ax).abs() + (by - ay).abs()) + SLACK;
            let is_near = (cross.abs() <= reach)
                & (ax.min(bx) <= NEAR)
                & (ax.max(bx) >= -NEAR)
                & (ay.min(by) <= NEAR)
                & (ay.max(by) >= -NEAR);
            toggled[i] ^= mask[i] & u32::from(passes_left).wrapping_neg();
            near[i] |= mask[i] & u32::from(is_near).wrapping_neg();
        }
    }
    (
        toggled.into_iter().fold(0, |all, one| all ^ one),
        near.into_iter().fold(0, |all, one| all | one),
    )
}

/// A group in the making: its edges, each once, with the zones they belong to.
#[derive(Default)]
pub(super) struct Chains {
    edges: Vec<([u32; 2], u8)>,
    vertices: Vec<u32>,
    masks: Vec<u32>,
    used: Vec<bool>,
}

impl Chains {
    pub(super) fn clear(&mut self) {
        self.edges.clear();
    }

    /// Gives the zone with this bit an edge. One that it has twice is there twice: both count.
    pub(super) fn add(&mut self, edge: [u32; 2], bit: u8) {
        let shared = self
            .edges
            .iter_mut()
            .find(|(known, mask)| *known == edge && mask & bit == 0);
        match shared {
            Some((_, mask)) => *mask |= bit,
            None => self.edges.push((edge, bit)),
        }
    }

    /// Gives the zone a boundary that is a single unit, unless an edge of its own ends there.
    pub(super) fn add_point(&mut self, at: u32, bit: u8) {
        let is_there = |(edge, mask): &([u32; 2], u8)| mask & bit != 0 && edge.contains(&at);
        if !self.edges.iter().any(is_there) {
            self.add([at, at], bit);
        }
    }

    /// Strings the edges together as they follow each other.
    fn string(&mut self) {
        self.vertices.clear();
        self.masks.clear();
        self.used.clear();
        self.used.resize(self.edges.len(), false);
        let mut masks: Vec<u8> = Vec::with_capacity(self.edges.len() * 5 / 4 + 4);
        for first in 0..self.edges.len() {
            if self.used[first] {
                continue;
            }
            let mut next = Some((first, self.begin(first)));
            if !self.vertices.is_empty() {
                masks.push(0);
            }
            if let Some((edge, from)) = next {
                self.vertices.push(self.edges[edge].0[from]);
            }
            while let Some((edge, from)) = next {
                let (ends, mask) = self.edges[edge];
                let tail = ends[1 - from];
                self.used[edge] = true;
                self.vertices.push(tail);
                masks.push(mask);
                next = self.follower(edge, tail);
            }
        }
        while !masks.len().is_multiple_of(4) {
            masks.push(0);
            let last = self.vertices[self.vertices.len() - 1];
            self.vertices.push(last);
        }
        self.masks.extend(
            masks
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

    /// Writes the group. `covers` says whether a zone of it, by its place, covers the corner of a unit; `probes` are the units
    /// to ask for until every zone has been told inside from outside, and zones that were not are always exact.
    pub(super) fn write(
        &mut self,
        slots: impl ExactSizeIterator<Item = u32>,
        always_exact: u8,
        probes: impl Iterator<Item = (u32, u32)>,
        mut covers: impl FnMut(usize, u32, u32) -> bool,
        words: &mut Vec<u32>,
    ) {
        self.string();
        let all = u8::MAX >> (GROUP - slots.len());
        let mut unknown = all & !always_exact;
        if self.masks.len() > BLOCKS_MAX {
            self.vertices.clear();
            self.masks.clear();
            unknown = 0;
        }
        let mut exact = all & !unknown;
        let mut base = 0_u8;
        for (x, y) in probes {
            if unknown == 0 {
                break;
            }
            let (toggled, near) = crossings(&self.vertices, &self.masks, x, y);
            let mut clear = unknown & !(near as u8);
            unknown &= !clear;
            while clear != 0 {
                let zone = clear.trailing_zeros();
                clear &= clear - 1;
                let is_toggled = toggled >> zone & 1 != 0;
                base |= u8::from(covers(zone as usize, x, y) != is_toggled) << zone;
            }
        }
        exact |= unknown;
        words.push(
            u32::from(base)
                | u32::from(exact) << 8
                | (slots.len() as u32) << 16
                | (self.masks.len() as u32) << 20,
        );
        words.extend(slots);
        words.extend_from_slice(&self.vertices);
        words.extend_from_slice(&self.masks);
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
