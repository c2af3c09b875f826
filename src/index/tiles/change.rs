//! From one tree to the next: what changes meet is written anew, once for all of them, and the rest is shared.

use std::ops::Range;
use std::sync::Arc;

use super::build::Builder;
use super::grid::Tile;
use super::node::{Node, NodeBuilder, Slot};
use super::work::Work;
use crate::geometry::Area;

/// Finds the areas of the zones that stay.
pub(super) type AreaOf<'f, 'a> = &'f dyn Fn(u32) -> &'a Area;

/// Zones that come and zones that go, of one tile.
#[derive(Default)]
pub(super) struct Delta<'a> {
    pub(super) added: Work<'a>,
    pub(super) removed: Work<'a>,
}

impl<'a> Delta<'a> {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }

    fn quarter(&self, tile: Tile, with_covers: bool) -> Self {
        let mut part = Self::default();
        self.added.quarter(tile, with_covers, &mut part.added);
        self.removed.quarter(tile, with_covers, &mut part.removed);
        part
    }
}

pub(super) struct Changer<'f, 'a> {
    pub(super) builder: Builder<'a>,
    pub(super) area_of: AreaOf<'f, 'a>,
}

impl<'a> Changer<'_, 'a> {
    /// The node of a tile after a change; `None` if nothing is left in it.
    pub(super) fn node(&mut self, old: &Node, tile: Tile, delta: &Delta<'a>) -> Option<Node> {
        let mut covers: Vec<u32> = old.covers().to_vec();
        covers.retain(|slot| !delta.removed.covers.contains(slot));
        covers.extend_from_slice(&delta.added.covers);
        let mut nb = NodeBuilder::new(&covers);
        for quarter in 0..4 {
            let part = tile.quarter(quarter);
            let inside = delta.quarter(part, false);
            self.quarter(&mut nb, old, quarter, part, &inside);
        }
        (!nb.is_empty()).then(|| nb.finish())
    }

    fn quarter(
        &mut self,
        nb: &mut NodeBuilder,
        old: &Node,
        quarter: usize,
        tile: Tile,
        delta: &Delta<'a>,
    ) {
        let all = 4 * quarter..4 * quarter + 4;
        let is_one = old.is_one(quarter);
        if delta.is_empty() {
            if is_one {
                nb.copy(all.clone(), old.slot(all.start));
            } else {
                all.for_each(|number| nb.copy(number..number + 1, old.slot(number)));
            }
            return;
        }
        let has_removed = !delta.removed.is_empty();
        if is_one || (has_removed && self.is_to_merge(old, all.clone())) {
            let mut work = Work::default();
            let last = if is_one { all.start + 1 } else { all.end };
            for number in all.start..last {
                self.gather(&mut work, old.slot(number), tile, delta);
            }
            self.arrive(&mut work, delta, tile);
            self.builder.quarter(nb, quarter, tile, &mut work);
            return;
        }
        for number in all {
            let part = tile.quarter(number % 4);
            let inside = delta.quarter(part, true);
            self.slot(nb, old.slot(number), number, part, &inside);
        }
    }

    fn slot(
        &mut self,
        nb: &mut NodeBuilder,
        old: Slot<'_>,
        number: usize,
        tile: Tile,
        delta: &Delta<'a>,
    ) {
        if delta.is_empty() {
            return nb.copy(number..number + 1, old);
        }
        if let Slot::Child(child) = old {
            let Some(node) = self.node(child, tile, delta) else {
                return;
            };
            if delta.removed.is_empty() || !self.is_to_fold(&node) {
                return nb.put_child(number, Arc::new(node));
            }
            let mut work = Work::default();
            for slot in node.covers() {
                self.keep(&mut work, *slot, tile);
            }
            let none = Delta::default();
            for slot in node.tiles() {
                self.gather(&mut work, slot, tile, &none);
            }
            return self.builder.slot(nb, number, tile, &mut work);
        }
        let mut work = Work::default();
        self.gather(&mut work, old, tile, delta);
        self.arrive(&mut work, delta, tile);
        self.builder.slot(nb, number, tile, &mut work);
    }

    /// Adds the zones of a slot that stay.
    fn gather(&self, work: &mut Work<'a>, slot: Slot<'_>, tile: Tile, delta: &Delta<'a>) {
        match slot {
            Slot::Empty | Slot::Child(_) => {}
            Slot::Cover(zone) => self.stay(work, zone, tile, delta),
            Slot::Leaf(leaf) => {
                for zone in leaf.covers() {
                    self.stay(work, *zone, tile, delta);
                }
                for group in leaf.groups() {
                    for zone in group.slots {
                        self.stay(work, *zone, tile, delta);
                    }
                }
            }
        }
    }

    fn stay(&self, work: &mut Work<'a>, zone: u32, tile: Tile, delta: &Delta<'a>) {
        if !delta.removed.has(zone) {
            self.keep(work, zone, tile);
        }
    }

    fn keep(&self, work: &mut Work<'a>, zone: u32, tile: Tile) {
        if !work.has(zone) {
            work.add(zone, (self.area_of)(zone), tile);
        }
    }

    /// Adds the zones that come.
    fn arrive(&self, work: &mut Work<'a>, delta: &Delta<'a>, tile: Tile) {
        work.covers.extend_from_slice(&delta.added.covers);
        for edged in &delta.added.edged {
            work.add(edged.slot, edged.area, tile);
        }
    }

    /// Whether four slots have so little that they should be one.
    fn is_to_merge(&self, old: &Node, mut all: Range<usize>) -> bool {
        let mut edges = 0;
        all.all(|number| match old.slot(number) {
            Slot::Child(_) => false,
            Slot::Leaf(leaf) => {
                edges += leaf.edge_count();
                edges <= self.builder.edges_max / 2
            }
            Slot::Empty | Slot::Cover(_) => true,
        })
    }

    /// Whether a node has so little that it should be a leaf.
    fn is_to_fold(&self, node: &Node) -> bool {
        let edges = node.tiles().map(|slot| match slot {
            Slot::Leaf(leaf) => leaf.edge_count(),
            _ => 0,
        });
        !node.has_children() && edges.sum::<usize>() <= self.builder.edges_max / 2
    }
}
