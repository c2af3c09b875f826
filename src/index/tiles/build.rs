//! From the zones of a tile to its node: split while a tile has more distinct edges than a leaf should.

use std::ops::Range;
use std::sync::Arc;

use super::grid::{LEVEL_MAX, MARGIN, SIDE, Tile};
use super::leaf::{self, Chains, GROUP};
use super::node::{Node, NodeBuilder};
use super::work::{Border, Edged, Work};
use crate::geometry::Segment;

/// A tile with more distinct edges is split.
pub(super) const EDGES_MAX: usize = 16;
/// Units beyond the tile from which on an edge does not count any more.
const BEYOND: u32 = MARGIN / 2;
/// Places to ask for in a leaf before a zone is given up on as always exact.
const PROBES: u32 = 32;
/// Builds nodes; keeps its buffers.
pub(super) struct Builder<'a> {
    pub(super) edges_max: usize,
    pool: Vec<[Work<'a>; 4]>,
    chains: Chains,
    distinct: Vec<[u32; 2]>,
    heights: Vec<u32>,
    points: Vec<(u32, u8)>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(edges_max: usize) -> Self {
        Self {
            edges_max,
            pool: Vec::new(),
            chains: Chains::default(),
            distinct: Vec::new(),
            heights: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Four empty works; [`Self::give_back`] takes them for the next time.
    pub(super) fn take(&mut self) -> [Work<'a>; 4] {
        self.pool.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, four: [Work<'a>; 4]) {
        self.pool.push(four);
    }

    /// The node of a tile.
    pub(super) fn node(&mut self, tile: Tile, work: &Work<'a>) -> Node {
        let mut nb = NodeBuilder::new(&work.covers);
        let mut parts = self.take();
        for (number, part) in parts.iter_mut().enumerate() {
            work.quarter(tile.quarter(number), false, part);
        }
        for (number, part) in parts.iter_mut().enumerate() {
            self.quarter(&mut nb, number, tile.quarter(number), part);
        }
        self.give_back(parts);
        nb.finish()
    }

    /// Fills a quarter of a node.
    pub(super) fn quarter(
        &mut self,
        nb: &mut NodeBuilder,
        number: usize,
        tile: Tile,
        work: &mut Work<'a>,
    ) {
        if self.is_small(tile, work) {
            self.end(nb, 4 * number..4 * number + 4, tile, work);
            return;
        }
        let mut parts = self.take();
        for (place, part) in parts.iter_mut().enumerate() {
            work.quarter(tile.quarter(place), true, part);
            self.slot(nb, 4 * number + place, tile.quarter(place), part);
        }
        self.give_back(parts);
    }

    /// Fills a slot of a node.
    pub(super) fn slot(
        &mut self,
        nb: &mut NodeBuilder,
        number: usize,
        tile: Tile,
        work: &mut Work<'a>,
    ) {
        if tile.level >= LEVEL_MAX || self.is_small(tile, work) {
            self.end(nb, number..number + 1, tile, work);
        } else {
            nb.put_child(number, Arc::new(self.node(tile, work)));
        }
    }

    /// Whether the tile need not be split.
    fn is_small(&mut self, tile: Tile, work: &mut Work<'a>) -> bool {
        if work.has_coarse_rim(tile) || work.unlisted() > 64 * self.edges_max {
            return false;
        }
        work.list_pieces(tile);
        if work.pieces.len() <= self.edges_max {
            return true;
        }
        let cut = Cut::new(tile);
        self.distinct.clear();
        for piece in &work.pieces {
            let Some(edge) = cut.edge(piece) else {
                continue;
            };
            if edge[0] != edge[1]
                && !cut.is_in_the_strip(edge)
                && !cut.is_beyond(edge)
                && !self.distinct.contains(&edge)
            {
                self.distinct.push(edge);
                if self.distinct.len() > self.edges_max {
                    return false;
                }
            }
        }
        true
    }

    /// Ends the way down: nothing, one zone, or a leaf.
    fn end(&mut self, nb: &mut NodeBuilder, at: Range<usize>, tile: Tile, work: &mut Work<'a>) {
        if work.edged.is_empty() {
            match work.covers[..] {
                [] => return,
                [slot] => return nb.put_cover(at, slot),
                _ => {}
            }
        }
        work.list_pieces(tile);
        let from = leaf::begin(&mut nb.words, &work.covers);
        for zones in work.edged.chunks(GROUP) {
            self.group(tile, zones, &work.pieces, &mut nb.words);
        }
        nb.put_leaf(at, from);
    }

    fn group(&mut self, tile: Tile, zones: &[Edged<'a>], pieces: &[Segment], words: &mut Vec<u32>) {
        let cut = Cut::new(tile);
        self.chains.clear();
        self.points.clear();
        let mut always_exact = 0_u8;
        for (number, zone) in zones.iter().enumerate() {
            let bit = 1_u8 << number;
            let Border::Pieces { from, to } = zone.border else {
                always_exact |= bit;
                continue;
            };
            self.heights.clear();
            for piece in &pieces[from..to] {
                let Some(edge) = cut.edge(piece) else {
                    continue;
                };
                if cut.is_in_the_strip(edge) {
                    continue;
                }
                self.heights.extend(cut.loose(edge));
                if cut.is_beyond(edge) {
                    continue;
                }
                if edge[0] == edge[1] {
                    self.points.push((edge[0], bit));
                } else {
                    self.chains.add(edge, bit);
                }
            }
            close_on_the_left(&mut self.heights, bit, &mut self.chains);
        }
        for (at, bit) in &self.points {
            self.chains.add_point(*at, *bit);
        }
        let probes = (0..PROBES).map(|turn| {
            // The middle first, then places all over (the golden ratio's multiples spread evenly).
            let place = |step: u32| (SIDE / 2).wrapping_add(turn.wrapping_mul(step)) & (SIDE - 1);
            (place(20_251), place(14_421))
        });
        let is_in_the_world = |(x, y): &(u32, u32)| {
            let at = tile.position(*x, *y);
            at.lon.abs() < 180.0 && at.lat.abs() < 90.0
        };
        self.chains.write(
            zones.iter().map(|zone| zone.slot),
            always_exact,
            probes.filter(is_in_the_world),
            |number, x, y| zones[number].area.covers(tile.position(x, y)),
            words,
        );
    }
}

/// Closes what ends in the strip left of the tile: from each loose end straight up, which leaves, taken in pairs, what is
/// between two of them. No place of the tile lies in that strip, so any way through it will do.
fn close_on_the_left(heights: &mut [u32], bit: u8, chains: &mut Chains) {
    heights.sort_unstable();
    let mut pair = None;
    let mut close = |low: u32, high: u32| {
        if low < high && low < MARGIN + SIDE && high > MARGIN {
            chains.add([low << 16, high << 16], bit);
        }
    };
    for height in heights.iter() {
        match pair.take() {
            None => pair = Some(*height),
            Some(low) => close(low, *height),
        }
    }
    if let Some(low) = pair {
        close(low, SIDE + 2 * MARGIN);
    }
}

/// Cuts pieces to the window of a tile, in its units.
struct Cut {
    west: f64,
    south: f64,
    units: f64,
    /// The bounds of the window; the western one not beyond the world's, where pieces over the antimeridian end.
    low: [f64; 2],
    high: [f64; 2],
    /// The westernmost unit that a place of the tile can be in. Pieces over the antimeridian may end just left of it.
    first: u32,
    /// What is wholly left of this one is near no place of the tile.
    strip: u32,
}

impl Cut {
    fn new(tile: Tile) -> Self {
        let (west, south, units) = (tile.west(), tile.south(), tile.units());
        let margin = f64::from(MARGIN);
        let left = ((-180.0 - west) * units - margin).max(-margin);
        Self {
            west,
            south,
            units,
            low: [left, -margin],
            high: [f64::from(SIDE) + margin; 2],
            first: (left + margin) as u32 + MARGIN,
            strip: (left + margin) as u32 + BEYOND,
        }
    }

    /// The part of a piece within the window, rounded, its ends in order; `None` if nothing of it is.
    fn edge(&self, piece: &Segment) -> Option<[u32; 2]> {
        let local = |lon: f64, lat: f64| {
            [
                (lon - self.west) * self.units,
                (lat - self.south) * self.units,
            ]
        };
        let from = local(piece.from.lon, piece.from.lat);
        let to = local(piece.to.lon, piece.to.lat);
        let (mut begin, mut end) = (0.0_f64, 1.0_f64);
        for axis in 0..2 {
            let step = to[axis] - from[axis];
            if step == 0.0 {
                if from[axis] < self.low[axis] || from[axis] > self.high[axis] {
                    return None;
                }
                continue;
            }
            let (one, other) = (
                (self.low[axis] - from[axis]) / step,
                (self.high[axis] - from[axis]) / step,
            );
            begin = begin.max(one.min(other));
            end = end.min(one.max(other));
        }
        if begin > end {
            return None;
        }
        let at = |part: f64| {
            let along = |axis: usize| {
                let place = if part == 0.0 {
                    from[axis]
                } else if part == 1.0 {
                    to[axis]
                } else {
                    from[axis] + part * (to[axis] - from[axis])
                };
                (place.clamp(self.low[axis], self.high[axis]) + f64::from(MARGIN) + 0.5) as u32
            };
            along(0) | along(1) << 16
        };
        let (one, other) = (at(begin), at(end));
        Some([one.min(other), one.max(other)])
    }

    /// The heights of its ends that no place of the tile has on its right. Ends that edges share cancel out.
    fn loose(&self, edge: [u32; 2]) -> impl Iterator<Item = u32> {
        let strip = self.first;
        edge.into_iter()
            .filter(move |end| end & 0xffff <= strip)
            .map(|end| end >> 16)
    }

    /// Whether it lies in the strip on the left. It and what closes its two ends come to nothing together, so neither is kept.
    fn is_in_the_strip(&self, edge: [u32; 2]) -> bool {
        edge.iter().all(|end| end & 0xffff < self.strip)
    }

    /// Whether no place of the tile has it on its left or near: it lies right of the tile, above or below it.
    fn is_beyond(&self, edge: [u32; 2]) -> bool {
        let both =
            |is: &dyn Fn(u32, u32) -> bool| edge.iter().all(|end| is(end & 0xffff, end >> 16));
        let far = MARGIN + SIDE + BEYOND;
        both(&|x, _| x > far) || both(&|_, y| y < BEYOND) || both(&|_, y| y > far)
    }
}
