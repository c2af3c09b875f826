//! From the zones of a tile to its pages: split while a tile has more distinct edges than a leaf should, and into pages
//! while they have more words than a page should.

use super::grid::{LEVEL_MAX, MARGIN, SIDE, Tile};
use super::leaf::{self, Draft, GROUP};
use super::page::{BRANCH_LEVELS, Branch, Child, PageWriter, Span, Written};
use super::work::{Border, Edged, Work};
use crate::geometry::{Area, Segment};

/// Units beyond the tile from which on an edge does not count any more.
const BEYOND: u32 = MARGIN / 2;
/// Places to ask for in a leaf before a zone is given up on as always exact.
const PROBES: u32 = 32;
/// No tile below this level has tiles two levels down.
const NODE_LEVEL_MAX: u32 = LEVEL_MAX - 2;
/// No tile below this level can be a branch.
const BRANCH_LEVEL_MAX: u32 = LEVEL_MAX - BRANCH_LEVELS;

/// What tiles and pages are split above.
#[derive(Copy, Clone, Debug)]
pub(super) struct Limits {
    /// Distinct edges of a leaf: 16 are judged in about the time that the way to them takes.
    pub(super) edges_max: usize,
    /// Words of a page: a change copies a page for each place that it meets, at 4 KiB about as long as what it writes anew
    /// takes.
    pub(super) page_words_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            edges_max: 16,
            page_words_max: 1_024,
        }
    }
}

/// A tile with fewer edges is built by one thread.
const EDGES_PER_THREAD: usize = 50_000;

/// Builds tiles; keeps its buffers.
pub(super) struct Builder<'a> {
    pub(super) limits: Limits,
    works: Vec<Work<'a>>,
    writers: Vec<PageWriter>,
    pub(super) draft: Draft,
    distinct: Vec<[u32; 2]>,
    heights: Vec<u32>,
    points: Vec<u32>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            works: Vec::new(),
            writers: Vec::new(),
            draft: Draft::default(),
            distinct: Vec::new(),
            heights: Vec::new(),
            points: Vec::new(),
        }
    }

    /// An empty work; [`Self::give_back`] takes it for the next time.
    pub(super) fn take(&mut self) -> Work<'a> {
        self.works.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut work: Work<'a>) {
        work.clear();
        self.works.push(work);
    }

    /// Four of them.
    pub(super) fn take_four(&mut self) -> [Work<'a>; 4] {
        std::array::from_fn(|_| self.take())
    }

    pub(super) fn give_back_four(&mut self, works: [Work<'a>; 4]) {
        works.into_iter().for_each(|work| self.give_back(work));
    }

    /// The same of pages in the making.
    pub(super) fn take_writer(&mut self) -> PageWriter {
        self.writers.pop().unwrap_or_default()
    }

    pub(super) fn give_back_writer(&mut self, writer: PageWriter) {
        self.writers.push(writer);
    }

    /// All that is in a tile that may be a branch.
    pub(super) fn child(&mut self, tile: Tile, work: &mut Work<'a>) -> Child {
        self.page(tile, work, Span::Slot)
            .unwrap_or_else(|| self.branch(tile, work))
    }

    /// The same if it is no more than a page.
    fn page(&mut self, tile: Tile, work: &mut Work<'a>, span: Span) -> Option<Child> {
        let is_last = tile.level > BRANCH_LEVEL_MAX && span == Span::Slot;
        // An edge takes about a word and a half, with what stands around it.
        if work.edge_count() > self.limits.page_words_max && !is_last {
            return None;
        }
        let mut writer = self.take_writer();
        writer.begin();
        let word = self.slot(&mut writer, tile, work);
        let page =
            (!self.is_too_large(&writer, word) || is_last).then(|| writer.finish(word, span));
        self.give_back_writer(writer);
        page
    }

    /// Whether a page is to be split.
    pub(super) fn is_too_large(&self, writer: &PageWriter, word: Written) -> bool {
        word.is_node() && writer.words.len() > self.limits.page_words_max
    }

    /// All that is in a tile, as a branch if it can be one.
    pub(super) fn branch(&mut self, tile: Tile, work: &mut Work<'a>) -> Child {
        let mut branch = Branch::new(work.covers.clone().into());
        self.fill(&mut branch.slots, 0, tile, work);
        branch.into_child(tile)
    }

    /// Fills the slots of a branch that are a tile `depth` levels below it.
    pub(super) fn slots(
        &mut self,
        slots: &mut [Child],
        depth: u32,
        tile: Tile,
        work: &mut Work<'a>,
    ) {
        if depth == BRANCH_LEVELS {
            slots[0] = self.child(tile, work);
        } else if let Some(page) = self.page(tile, work, Span::at_depth(depth)) {
            slots.fill(page);
        } else {
            self.fill(slots, depth, tile, work);
        }
    }

    /// The same where it is more than a page.
    pub(super) fn fill(
        &mut self,
        slots: &mut [Child],
        depth: u32,
        tile: Tile,
        work: &mut Work<'a>,
    ) {
        let mut parts = self.take_four();
        // What covers all of a branch stands there and nowhere below.
        work.quarters(tile, depth > 0, &mut parts);
        let each = slots.len() / 4;
        let quarters = slots.chunks_mut(each).zip(&mut parts).enumerate();
        if work.edge_count() < EDGES_PER_THREAD {
            for (number, (slots, part)) in quarters {
                self.slots(slots, depth + 1, tile.quarter(number), part);
            }
        } else {
            // What comes out is the same, whichever thread builds which quarter and when.
            let limits = self.limits;
            rayon::scope(|scope| {
                for (number, (slots, part)) in quarters {
                    scope.spawn(move |_| {
                        Self::new(limits).slots(slots, depth + 1, tile.quarter(number), part);
                    });
                }
            });
        }
        self.give_back_four(parts);
    }

    fn node(&mut self, writer: &mut PageWriter, tile: Tile, work: &mut Work<'a>) -> Written {
        let from = writer.begin_node(&work.covers);
        let mut parts = self.take_four();
        work.quarters(tile, false, &mut parts);
        for (number, part) in parts.iter_mut().enumerate() {
            self.quarter(writer, from, number, tile.quarter(number), part);
        }
        self.give_back_four(parts);
        writer.finish_node(from)
    }

    /// Fills a quarter of the node that begins at `from`.
    pub(super) fn quarter(
        &mut self,
        writer: &mut PageWriter,
        from: usize,
        number: usize,
        tile: Tile,
        work: &mut Work<'a>,
    ) {
        if self.is_small(tile, work) {
            let word = self.end(writer, tile, work, true);
            return writer.put(from, 4 * number..4 * number + 4, word);
        }
        let mut parts = self.take_four();
        work.quarters(tile, true, &mut parts);
        for (place, part) in parts.iter_mut().enumerate() {
            let word = self.slot(writer, tile.quarter(place), part);
            let slot = 4 * number + place;
            writer.put(from, slot..slot + 1, word);
        }
        self.give_back_four(parts);
    }

    /// A tile within a page.
    pub(super) fn slot(
        &mut self,
        writer: &mut PageWriter,
        tile: Tile,
        work: &mut Work<'a>,
    ) -> Written {
        if tile.level > NODE_LEVEL_MAX || self.is_small(tile, work) {
            self.end(writer, tile, work, false)
        } else {
            self.node(writer, tile, work)
        }
    }

    /// Whether the tile need not be split.
    fn is_small(&mut self, tile: Tile, work: &mut Work<'a>) -> bool {
        if work.has_coarse_rim(tile) || work.unlisted() > 64 * self.limits.edges_max {
            return false;
        }
        work.list_pieces(tile);
        if work.pieces.len() <= self.limits.edges_max {
            return true;
        }
        let cut = Cut::new(tile);
        self.distinct.clear();
        for piece in &work.pieces {
            let Some(edge) = cut.edge(piece) else {
                continue;
            };
            if edge[0] != edge[1] && !cut.is_in_the_strip(edge) && !cut.is_beyond(edge) {
                note_distinct(&mut self.distinct, edge);
                if self.distinct.len() > self.limits.edges_max {
                    return false;
                }
            }
        }
        true
    }

    /// Ends the way down: nothing, one zone, or a leaf.
    fn end(
        &mut self,
        writer: &mut PageWriter,
        tile: Tile,
        work: &mut Work<'a>,
        is_quarter: bool,
    ) -> Written {
        if work.edged.is_empty() {
            match work.covers[..] {
                [] => return Written::EMPTY,
                [slot] => return Written::cover(slot),
                _ => {}
            }
        }
        work.list_pieces(tile);
        let from = leaf::begin(&mut writer.words, &work.covers);
        for zones in work.edged.chunks(GROUP) {
            self.draft.clear();
            for zone in zones {
                self.draw(tile, zone, &work.pieces);
            }
            self.write_draft(tile, zones, &mut writer.words);
        }
        leaf::finish(&mut writer.words, from, is_quarter);
        writer.leaf(from)
    }

    /// Takes a zone into the draft, its pieces cut to the tile.
    pub(super) fn draw(&mut self, tile: Tile, zone: &Edged<'a>, pieces: &[Segment]) {
        let bit = self.draft.add(zone.slot);
        let Border::Pieces { from, to } = zone.border else {
            return self.draft.is_always_exact(bit);
        };
        let cut = Cut::new(tile);
        self.heights.clear();
        self.points.clear();
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
                self.points.push(edge[0]);
            } else {
                self.draft.add_edge(edge, bit);
            }
        }
        close_on_the_left(&mut self.heights, bit, &mut self.draft);
        for at in &self.points {
            self.draft.add_point(*at, bit);
        }
    }

    /// Writes the draft. `drawn` are those of its zones that were drawn now.
    pub(super) fn write_draft(&mut self, tile: Tile, drawn: &[Edged<'a>], words: &mut Vec<u32>) {
        let probes = (0..PROBES).map(|turn| {
            // The middle first, then places all over (the golden ratio's multiples spread evenly).
            let place = |step: u32| (SIDE / 2).wrapping_add(turn.wrapping_mul(step)) & (SIDE - 1);
            (place(10_125), place(7_211))
        });
        let is_in_the_world = |(x, y): &(u32, u32)| {
            let at = tile.position(*x, *y);
            at.lon.abs() < 180.0 && at.lat.abs() < 90.0
        };
        let area = |slot: u32| -> &'a Area {
            let zone = drawn.iter().find(|zone| zone.slot == slot);
            zone.expect("only a zone drawn now is still unknown").area
        };
        self.draft.write(
            probes.filter(is_in_the_world),
            |slot, x, y| area(slot).covers(tile.position(x, y)),
            words,
        );
    }

    /// Writes a group without the zones that go, its edges strung as they are; not where that would leave many to nobody.
    pub(super) fn write_without(
        &mut self,
        writer: &mut PageWriter,
        group: &leaf::Group<'_>,
        goes: impl Fn(u32) -> bool,
    ) -> bool {
        let from = writer.words.len();
        let is_written = group.write_without(goes, &mut writer.words);
        if let Some(group) = leaf::Groups::of(&writer.words[from..]).next() {
            self.count_edges(&group);
        }
        is_written
    }

    /// Counts distinct edges as [`Self::is_small`] does: begins.
    pub(super) fn begin_count(&mut self) {
        self.distinct.clear();
    }

    /// Counts the edges that are written of a group.
    pub(super) fn count_edges(&mut self, group: &leaf::Group<'_>) {
        count(&mut self.distinct, group.edges().map(|(edge, _)| edge));
    }

    /// Counts the edges of the draft.
    pub(super) fn count_draft(&mut self) {
        count(&mut self.distinct, self.draft.edges());
    }

    /// Whether more were counted than a leaf of this tile should have.
    pub(super) fn has_too_many(&self, tile: Tile) -> bool {
        self.distinct.len() > self.limits.edges_max && tile.level <= NODE_LEVEL_MAX
    }
}

fn note_distinct(distinct: &mut Vec<[u32; 2]>, edge: [u32; 2]) {
    if !distinct.contains(&edge) {
        distinct.push(edge);
    }
}

/// Neither single units count nor what [`close_on_the_left`] added, which alone stands at the very left.
fn count(distinct: &mut Vec<[u32; 2]>, edges: impl Iterator<Item = [u32; 2]>) {
    for edge in edges {
        let is_closing = (edge[0] | edge[1]) & 0xffff == 0;
        if edge[0] != edge[1] && !is_closing {
            note_distinct(distinct, edge);
        }
    }
}

/// Closes what ends in the strip left of the tile: from each loose end straight up, which leaves, taken in pairs, what is
/// between two of them. No place of the tile lies in that strip, so any way through it will do.
fn close_on_the_left(heights: &mut [u32], bit: u8, draft: &mut Draft) {
    heights.sort_unstable();
    let mut pair = None;
    let mut close = |low: u32, high: u32| {
        // An edge is left of the places above its lower end, up to its upper one.
        if low < high && low < MARGIN + SIDE - 1 && high >= MARGIN {
            draft.add_edge([low << 16, high << 16], bit);
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
        let is_within = |at: [f64; 2]| {
            (0..2).all(|axis| at[axis] >= self.low[axis] && at[axis] <= self.high[axis])
        };
        if is_within(from) && is_within(to) {
            let round = |at: [f64; 2]| {
                let unit = |place: f64| (place + f64::from(MARGIN) + 0.5) as u32;
                unit(at[0]) | unit(at[1]) << 16
            };
            let (one, other) = (round(from), round(to));
            return Some([one.min(other), one.max(other)]);
        }
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
