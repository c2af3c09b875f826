//! From one tree to the next: what changes meet is written anew, once for all of them, and the rest is shared.
//!
//! Above pages a zone that goes is met where its shape says that it is, exactly as it was put there. Within a page it is
//! found by its slot. A leaf keeps what is written of the zones that stay, and is drawn anew only where it is to be split
//! or merged.

use std::ops::Range;

use super::build::Builder;
use super::grid::Tile;
use super::leaf;
use super::page::{BRANCH_LEVELS, Branch, Child, Node, Page, PageWriter, Slot, Written};
use super::work::Work;
use crate::geometry::Area;

/// Finds the areas of the zones that stay.
pub(super) type AreaOf<'f, 'a> = &'f dyn Fn(u32) -> &'a Area;

/// Zones that come and zones that go, of one tile.
pub(super) struct Delta<'a> {
    pub(super) added: Work<'a>,
    pub(super) removed: Work<'a>,
}

impl Delta<'_> {
    pub(super) fn new() -> Self {
        Self {
            added: Work::default(),
            removed: Work::rough(),
        }
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    /// Whether nothing of it is outside a tile.
    fn is_within(&self, tile: Tile) -> bool {
        self.added.is_within(tile) && self.removed.is_within(tile)
    }

    /// Where one zone covers a tile, and nothing else was there: it comes again, unless it goes.
    fn keep_cover(&mut self, zone: u32) {
        if !self.removed.has(zone) {
            self.added.covers.push(zone);
        }
    }
}

/// The same within a page.
struct Inside<'d, 'a> {
    added: Work<'a>,
    removed: &'d [u32],
}

impl Inside<'_, '_> {
    fn stays(&self, slot: u32) -> bool {
        !self.removed.contains(&slot)
    }

    /// Whether nothing comes to, and nothing goes from what is neither a node nor below one.
    fn leaves_alone(&self, slot: Slot<'_>) -> bool {
        self.added.is_empty() && !self.takes_from(slot)
    }

    fn takes_from(&self, slot: Slot<'_>) -> bool {
        match slot {
            Slot::Empty => false,
            Slot::Cover(zone) => !self.stays(zone),
            Slot::Leaf(leaf) => leaf.zones().any(|zone| !self.stays(zone)),
            Slot::Node(_) => !self.removed.is_empty(),
        }
    }
}

pub(super) struct Changer<'f, 'a> {
    pub(super) builder: Builder<'a>,
    pub(super) area_of: AreaOf<'f, 'a>,
    /// The covers of the leaf at hand.
    covers: Vec<u32>,
}

impl<'f, 'a> Changer<'f, 'a> {
    pub(super) fn new(builder: Builder<'a>, area_of: AreaOf<'f, 'a>) -> Self {
        Self {
            builder,
            area_of,
            covers: Vec::new(),
        }
    }

    /// A tile that may be a branch after a change.
    pub(super) fn child(&mut self, old: &Child, tile: Tile, delta: &mut Delta<'a>) -> Child {
        if delta.is_empty() {
            return old.clone();
        }
        match old {
            Child::Empty => self.builder.child(tile, &mut delta.added),
            Child::Cover(zone) => {
                delta.keep_cover(*zone);
                self.builder.child(tile, &mut delta.added)
            }
            Child::Branch(branch) => self.branch(branch, tile, delta),
            Child::Far(far) if delta.is_within(far.tile) => {
                let mut part = Delta {
                    added: self.builder.take(),
                    removed: self.builder.take(),
                };
                delta.added.part(far.tile, false, &mut part.added);
                delta.removed.part(far.tile, false, &mut part.removed);
                let child = self.child(&far.child, far.tile, &mut part);
                self.builder.give_back(part.added);
                self.builder.give_back(part.removed);
                Child::far(far.tile, child)
            }
            Child::Far(far) => {
                let (slot, part) = tile.branch_slot_of(far.tile);
                let child = if part == far.tile {
                    far.child.clone()
                } else {
                    old.clone()
                };
                self.branch(&Branch::of_one(slot, child), tile, delta)
            }
            Child::Page(page) => match self.page(page, tile, delta) {
                Ok(page) => page,
                Err(mut work) => self.builder.branch(tile, &mut work),
            },
        }
    }

    fn branch(&mut self, old: &Branch, tile: Tile, delta: &mut Delta<'a>) -> Child {
        old.fetch_counts();
        let mut covers = old.covers.to_vec();
        covers.retain(|zone| !delta.removed.has(*zone));
        covers.extend_from_slice(&delta.added.covers);
        let mut new = Branch::new(covers.into());
        self.quarters(&old.slots, &mut new.slots, 0, tile, delta);
        if delta.removed.is_empty() || !self.is_small(&new.slots) {
            return new.into_child(tile);
        }
        let mut work = Work::default();
        for zone in &new.covers {
            self.keep(&mut work, *zone, tile);
        }
        self.keep_slots(&mut work, &new.slots, tile);
        self.builder.child(tile, &mut work)
    }

    /// The quarters of slots of a branch that are a tile `depth` levels below it.
    fn quarters(
        &mut self,
        old: &[Child],
        new: &mut [Child],
        depth: u32,
        tile: Tile,
        delta: &mut Delta<'a>,
    ) {
        let (mut added, mut removed) = (self.builder.take_four(), self.builder.take_four());
        // What covers all of a branch stands there and nowhere below.
        delta.added.quarters(tile, depth > 0, &mut added);
        delta.removed.quarters(tile, depth > 0, &mut removed);
        let each = old.len() / 4;
        let parts = added.into_iter().zip(removed);
        let slots = old.chunks(each).zip(new.chunks_mut(each));
        for (number, ((added, removed), (old, new))) in parts.zip(slots).enumerate() {
            let mut part = Delta { added, removed };
            self.slots(old, new, depth + 1, tile.quarter(number), &mut part);
            self.builder.give_back(part.added);
            self.builder.give_back(part.removed);
        }
    }

    /// Slots of a branch that are a tile `depth` levels below it.
    fn slots(
        &mut self,
        old: &[Child],
        new: &mut [Child],
        depth: u32,
        tile: Tile,
        delta: &mut Delta<'a>,
    ) {
        if delta.is_empty() {
            return new.clone_from_slice(old);
        }
        if depth == BRANCH_LEVELS {
            new[0] = self.child(&old[0], tile, delta);
            return;
        }
        if Child::are_one(old, depth) {
            match &old[0] {
                Child::Page(page) => match self.page(page, tile, delta) {
                    Ok(page) => new.fill(page),
                    Err(mut work) => self.builder.fill(new, depth, tile, &mut work),
                },
                Child::Cover(zone) => {
                    delta.keep_cover(*zone);
                    self.builder.slots(new, depth, tile, &mut delta.added);
                }
                Child::Empty | Child::Branch(_) | Child::Far(_) => {
                    self.builder.slots(new, depth, tile, &mut delta.added);
                }
            }
            return;
        }
        self.quarters(old, new, depth, tile, delta);
        if !delta.removed.is_empty() && self.is_small(new) {
            let mut work = Work::default();
            self.keep_slots(&mut work, new, tile);
            self.builder.slots(new, depth, tile, &mut work);
        }
    }

    /// Whether tiles have so little that they should be one page.
    fn is_small(&self, slots: &[Child]) -> bool {
        let words: Option<usize> = Child::tiles(slots).map(Child::page_len).sum();
        words.is_some_and(|words| words <= self.builder.limits.page_words_max / 4)
    }

    /// Adds all zones of slots that are no branches.
    fn keep_slots(&self, work: &mut Work<'a>, slots: &[Child], tile: Tile) {
        for child in Child::tiles(slots) {
            match child {
                Child::Cover(zone) => self.keep(work, *zone, tile),
                Child::Page(page) => self.keep_all(work, page.word().slot(), tile),
                Child::Empty | Child::Branch(_) | Child::Far(_) => {}
            }
        }
    }

    /// A page after a change, or its zones if it is to be split.
    fn page(&mut self, old: &Page, tile: Tile, delta: &mut Delta<'a>) -> Result<Child, Work<'a>> {
        let removed: Vec<u32> = delta.removed.zones().collect();
        let mut inside = Inside {
            added: std::mem::take(&mut delta.added),
            removed: &removed,
        };
        let mut writer = self.builder.take_writer();
        writer.begin();
        let word = self.slot(&mut writer, old.word().slot(), tile, &mut inside);
        let page = if self.builder.is_too_large(&writer, word) {
            let mut work = Work::default();
            self.keep_all(&mut work, Slot::Node(writer.node(word)), tile);
            Err(work)
        } else {
            Ok(writer.finish(word, old.span))
        };
        self.builder.give_back_writer(writer);
        delta.added = inside.added;
        page
    }

    /// A tile within a page after a change.
    fn slot(
        &mut self,
        writer: &mut PageWriter,
        old: Slot<'_>,
        tile: Tile,
        inside: &mut Inside<'_, 'a>,
    ) -> Written {
        if inside.leaves_alone(old) {
            return writer.copy(old);
        }
        if let Slot::Node(node) = old {
            let word = self.node(writer, node, tile, inside);
            if inside.removed.is_empty() || !word.is_node() || !self.is_to_fold(writer.node(word)) {
                return word;
            }
            let mut work = Work::default();
            self.keep_all(&mut work, Slot::Node(writer.node(word)), tile);
            writer.take_back(word);
            return self.builder.slot(writer, tile, &mut work);
        }
        if let Some(word) = self.patch(writer, old, tile, inside, false) {
            return word;
        }
        let mut work = Work::default();
        self.gather(&mut work, old, tile, inside);
        self.builder.slot(writer, tile, &mut work)
    }

    fn node(
        &mut self,
        writer: &mut PageWriter,
        old: Node<'_>,
        tile: Tile,
        inside: &mut Inside<'_, 'a>,
    ) -> Written {
        let mut covers = old.covers().to_vec();
        covers.retain(|zone| inside.stays(*zone));
        covers.extend_from_slice(&inside.added.covers);
        let from = writer.begin_node(&covers);
        let mut parts = self.builder.take_four();
        inside.added.quarters(tile, false, &mut parts);
        for (number, added) in parts.into_iter().enumerate() {
            let mut part = Inside {
                added,
                removed: inside.removed,
            };
            self.quarter(writer, from, old, number, tile.quarter(number), &mut part);
            self.builder.give_back(part.added);
        }
        writer.finish_node(from)
    }

    fn quarter(
        &mut self,
        writer: &mut PageWriter,
        from: usize,
        old: Node<'_>,
        number: usize,
        tile: Tile,
        inside: &mut Inside<'_, 'a>,
    ) {
        let all = 4 * number..4 * number + 4;
        let is_one = old.is_one(number);
        if is_one {
            let one = old.slot(all.start);
            let word = if inside.leaves_alone(one) {
                Some(writer.copy(one))
            } else {
                self.patch(writer, one, tile, inside, true)
            };
            if let Some(word) = word {
                return writer.put(from, all, word);
            }
        }
        if is_one || self.is_to_merge(old, all.clone(), inside) {
            let mut work = Work::default();
            let last = if is_one { all.start + 1 } else { all.end };
            for slot in all.start..last {
                self.gather(&mut work, old.slot(slot), tile, inside);
            }
            return self.builder.quarter(writer, from, number, tile, &mut work);
        }
        let mut parts = self.builder.take_four();
        inside.added.quarters(tile, true, &mut parts);
        for (slot, added) in all.zip(parts) {
            let mut part = Inside {
                added,
                removed: inside.removed,
            };
            let word = self.slot(writer, old.slot(slot), tile.quarter(slot % 4), &mut part);
            writer.put(from, slot..slot + 1, word);
            self.builder.give_back(part.added);
        }
    }

    /// Writes what ends the way down as it is, without those that go and with those that come; `None` if it is to be split.
    fn patch(
        &mut self,
        writer: &mut PageWriter,
        old: Slot<'_>,
        tile: Tile,
        inside: &mut Inside<'_, 'a>,
        is_quarter: bool,
    ) -> Option<Written> {
        let edges_max = self.builder.limits.edges_max;
        if inside.added.has_coarse_rim(tile) || inside.added.edge_count() > 64 * edges_max {
            return None;
        }
        inside.added.list_pieces(tile);
        self.covers.clear();
        let (covers, groups) = match old {
            Slot::Leaf(leaf) => (leaf.covers(), Some(leaf.groups())),
            _ => (&[][..], None),
        };
        let cover = match old {
            Slot::Cover(zone) => Some(zone),
            _ => None,
        };
        let stays = |zone: &u32| inside.stays(*zone);
        self.covers.extend(covers.iter().copied().filter(stays));
        self.covers.extend(cover.filter(stays));
        self.covers.extend_from_slice(&inside.added.covers);

        let from = leaf::begin(&mut writer.words, &self.covers);
        let begun = writer.words.len();
        self.builder.begin_count();
        let mut coming = &inside.added.edged[..];
        for group in groups.into_iter().flatten() {
            let goes = |zone: u32| !inside.stays(zone);
            let has_room = group.slots.len() < leaf::GROUP && !coming.is_empty();
            if !has_room && !group.slots.iter().any(|zone| goes(*zone)) {
                self.builder.count_edges(&group);
                writer.words.extend_from_slice(group.words());
                continue;
            }
            if !has_room && self.builder.write_without(writer, &group, goes) {
                continue;
            }
            self.builder.draft.load(&group, goes);
            coming = self.fill(writer, tile, coming, inside);
        }
        while !coming.is_empty() {
            self.builder.draft.clear();
            coming = self.fill(writer, tile, coming, inside);
        }
        let is_splitting = self.builder.has_too_many(tile);
        let has_groups = writer.words.len() > begun;
        if is_splitting || (!has_groups && self.covers.len() < 2) {
            writer.words.truncate(from);
            return (!is_splitting).then(|| match self.covers[..] {
                [zone] => Written::cover(zone),
                _ => Written::EMPTY,
            });
        }
        leaf::finish(&mut writer.words, from, is_quarter);
        Some(writer.leaf(from))
    }

    /// Draws into the draft as many of those that come as it has room for, and writes it; gives the others.
    fn fill<'e>(
        &mut self,
        writer: &mut PageWriter,
        tile: Tile,
        coming: &'e [super::work::Edged<'a>],
        inside: &Inside<'_, 'a>,
    ) -> &'e [super::work::Edged<'a>] {
        let mut drawn = 0;
        while self.builder.draft.has_room() && drawn < coming.len() {
            let zone = &coming[drawn];
            self.builder.draw(tile, zone, &inside.added.pieces);
            drawn += 1;
        }
        let (drawn, rest) = coming.split_at(drawn);
        if !self.builder.draft.is_empty() {
            self.builder.count_draft();
            self.builder.write_draft(tile, drawn, &mut writer.words);
        }
        rest
    }

    /// Adds the zones of what ends the way down, without those that go and with those that come.
    fn gather(&self, work: &mut Work<'a>, old: Slot<'_>, tile: Tile, inside: &Inside<'_, 'a>) {
        let mut stay = |zone: u32| {
            if inside.stays(zone) {
                self.keep(work, zone, tile);
            }
        };
        match old {
            Slot::Empty | Slot::Node(_) => {}
            Slot::Cover(zone) => stay(zone),
            Slot::Leaf(leaf) => leaf.zones().for_each(stay),
        }
        for zone in inside.added.zones() {
            self.keep(work, zone, tile);
        }
    }

    /// Adds all zones of a tile.
    fn keep_all(&self, work: &mut Work<'a>, slot: Slot<'_>, tile: Tile) {
        match slot {
            Slot::Empty => {}
            Slot::Cover(zone) => self.keep(work, zone, tile),
            Slot::Leaf(leaf) => leaf.zones().for_each(|zone| self.keep(work, zone, tile)),
            Slot::Node(node) => {
                for zone in node.covers() {
                    self.keep(work, *zone, tile);
                }
                for slot in node.tiles() {
                    self.keep_all(work, slot, tile);
                }
            }
        }
    }

    fn keep(&self, work: &mut Work<'a>, zone: u32, tile: Tile) {
        if !work.has(zone) {
            work.add(zone, (self.area_of)(zone), tile);
        }
    }

    /// Whether four slots, of which something goes, have so little left that they should be one.
    fn is_to_merge(&self, old: Node<'_>, all: Range<usize>, inside: &Inside<'_, 'a>) -> bool {
        let mut edges = 0;
        let is_small = all.clone().all(|number| match old.slot(number) {
            Slot::Node(_) => false,
            Slot::Leaf(leaf) => {
                edges += leaf.edge_count();
                edges <= self.builder.limits.edges_max / 2
            }
            Slot::Empty | Slot::Cover(_) => true,
        });
        is_small
            && all
                .into_iter()
                .any(|number| inside.takes_from(old.slot(number)))
    }

    /// Whether a node has so little that it should be a leaf.
    fn is_to_fold(&self, node: Node<'_>) -> bool {
        let mut edges = 0;
        node.tiles().all(|slot| match slot {
            Slot::Node(_) => false,
            Slot::Leaf(leaf) => {
                edges += leaf.edge_count();
                edges <= self.builder.limits.edges_max / 2
            }
            Slot::Empty | Slot::Cover(_) => true,
        })
    }
}
