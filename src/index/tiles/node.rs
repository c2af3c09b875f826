//! A node: sixteen tiles two levels down, with the leaves among them in one run of words. Immutable and shared; a change
//! writes a new one.

use std::sync::Arc;

use super::leaf::{self, Leaf};

const KIND: u32 = 3 << 30;
const COVER: u32 = 1 << 30;
const LEAF: u32 = 2 << 30;
const CHILD: u32 = 3 << 30;

/// Sixteen tiles, those of a quarter next to each other.
#[derive(Debug, Default)]
pub(super) struct Node {
    slots: [u32; 16],
    /// How many zones cover all of it: their slots are the first of the words. None of them stands further down.
    covers: u32,
    words: Box<[u32]>,
    children: Box<[Arc<Node>]>,
}

/// What a slot of a node holds.
#[derive(Copy, Clone)]
pub(super) enum Slot<'a> {
    Empty,
    /// One zone covers it, and no other is there.
    Cover(u32),
    Leaf(Leaf<'a>),
    Child(&'a Arc<Node>),
}

impl Node {
    #[inline]
    pub(super) fn slot(&self, number: usize) -> Slot<'_> {
        let word = self.slots[number & 15];
        let value = word & !KIND;
        match word & KIND {
            COVER => Slot::Cover(value),
            LEAF => Slot::Leaf(Leaf::at(&self.words, value as usize)),
            CHILD => Slot::Child(&self.children[value as usize]),
            _ => Slot::Empty,
        }
    }

    #[inline]
    pub(super) fn covers(&self) -> &[u32] {
        &self.words[..self.covers as usize]
    }

    /// Whether the four slots of a quarter are one tile: a leaf, one zone, or nothing.
    pub(super) fn is_one(&self, quarter: usize) -> bool {
        let four = &self.slots[4 * quarter..4 * quarter + 4];
        match self.slot(4 * quarter) {
            Slot::Leaf(leaf) => leaf.is_quarter(),
            Slot::Child(_) => false,
            Slot::Empty | Slot::Cover(_) => four.iter().all(|word| *word == four[0]),
        }
    }

    pub(super) fn has_children(&self) -> bool {
        !self.children.is_empty()
    }

    /// The slots that are tiles of their own: of a quarter that is one, the first.
    pub(super) fn tiles(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..16)
            .filter(|number| number % 4 == 0 || !self.is_one(number / 4))
            .map(|number| self.slot(number))
    }

    /// The bytes that it and all below it occupy.
    pub(super) fn byte_len(&self) -> usize {
        let below: usize = self.children.iter().map(|child| child.byte_len()).sum();
        size_of::<Self>() + size_of_val(&*self.words) + size_of_val(&*self.children) + 16 + below
    }
}

/// A node in the making.
pub(super) struct NodeBuilder {
    slots: [u32; 16],
    covers: u32,
    pub(super) words: Vec<u32>,
    children: Vec<Arc<Node>>,
}

impl NodeBuilder {
    pub(super) fn new(covers: &[u32]) -> Self {
        Self {
            slots: [0; 16],
            covers: covers.len() as u32,
            words: covers.to_vec(),
            children: Vec::new(),
        }
    }

    /// Whether anything is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.covers == 0 && self.slots == [0; 16]
    }

    fn put(&mut self, at: std::ops::Range<usize>, word: u32) {
        self.slots[at].fill(word);
    }

    pub(super) fn put_cover(&mut self, at: std::ops::Range<usize>, slot: u32) {
        assert!(
            slot < COVER,
            "fewer than 2^30 zone versions fit into memory"
        );
        self.put(at, COVER | slot);
    }

    /// Puts the leaf that begins at `from` of the words and ends with them.
    pub(super) fn put_leaf(&mut self, at: std::ops::Range<usize>, from: usize) {
        assert!(
            self.words.len() < COVER as usize,
            "a node stays below 4 GiB"
        );
        leaf::finish(&mut self.words, from, at.len() == 4);
        self.put(at, LEAF | from as u32);
    }

    pub(super) fn put_child(&mut self, at: usize, child: Arc<Node>) {
        self.put(at..at + 1, CHILD | self.children.len() as u32);
        self.children.push(child);
    }

    /// Takes over what another node has there.
    pub(super) fn copy(&mut self, at: std::ops::Range<usize>, slot: Slot<'_>) {
        match slot {
            Slot::Empty => {}
            Slot::Cover(zone) => self.put_cover(at, zone),
            Slot::Child(child) => self.put_child(at.start, child.clone()),
            Slot::Leaf(leaf) => {
                let from = self.words.len();
                self.words.extend_from_slice(leaf.words());
                self.put_leaf(at, from);
            }
        }
    }

    pub(super) fn finish(self) -> Node {
        Node {
            slots: self.slots,
            covers: self.covers,
            words: self.words.into_boxed_slice(),
            children: self.children.into_boxed_slice(),
        }
    }
}
