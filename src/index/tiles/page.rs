//! The memory of the tree: branches of 64 tiles down to pages. A page is all that is below its tile, in one run of words:
//! what a change meets is a page or few, written anew as a whole, and one way down touches few places in memory.
//!
//! ```text
//! page: leaves and nodes
//! node: 16 words, of the tiles two levels down, those of a quarter next to each other · zones that cover it · length · their
//!       slots… · leaves and nodes that its words name…
//! word: 2 bits kind (nothing, one zone that covers it, leaf, node) · the zone's slot, or where it begins in words from the
//!       begin of the node (of the page) that the word stands in; of a node, 1 bit whether zones cover it
//! ```
//! Places are relative, so a node is copied into another page as it stands. Nothing here is changed once it is published (I4).

use std::ops::Range;
use std::sync::Arc;

use super::grid::Tile;
use super::leaf::Leaf;
use crate::fetch::{LINE, fetch};

const KIND: u32 = 3 << 30;
const COVER: u32 = 1 << 30;
const LEAF: u32 = 2 << 30;
const NODE: u32 = 3 << 30;
/// Of the word of a node: zones cover it.
const COVERED: u32 = 1 << 29;
/// Words before the slots of the zones that cover a node: its tiles, their number, its length.
const HEAD: usize = 18;

/// Levels from a branch to its slots.
pub(super) const BRANCH_LEVELS: u32 = 3;
/// Tiles of a branch.
pub(super) const BRANCH_SLOTS: usize = 1 << (2 * BRANCH_LEVELS);

/// How many levels above the slots of its branch a page's tile is: it stands in all slots of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Span {
    Slot,
    Four,
    Sixteen,
}

impl Span {
    /// Of a tile so many levels below its branch.
    pub(super) fn at_depth(depth: u32) -> Self {
        match BRANCH_LEVELS - depth {
            0 => Self::Slot,
            1 => Self::Four,
            _ => Self::Sixteen,
        }
    }
}

/// All that is below a tile.
#[derive(Clone)]
pub(super) struct Page {
    words: Arc<[u32]>,
    /// What its tile is.
    word: u32,
    pub(super) span: Span,
}

impl Page {
    #[inline]
    pub(super) fn word(&self) -> Word<'_> {
        Word {
            word: self.word,
            from: &self.words,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }
}

/// What a tile is, above pages. The kind stands in a byte of its own: one hidden in what a kind has is dearer to tell.
#[derive(Clone, Default)]
#[repr(u8)]
pub(super) enum Child {
    #[default]
    Empty,
    /// One zone covers it, and no other is there.
    Cover(u32),
    Branch(Arc<Branch>),
    Page(Page),
    /// All that is in it is in one tile far below.
    Far(Arc<Far>),
}

/// What is in a tile so small that the way to it is not worth a branch each.
pub(super) struct Far {
    pub(super) tile: Tile,
    /// How many bits a path has below the tile's own, and its own.
    pub(super) path: (u32, u64),
    /// What the tile is: may be a branch.
    pub(super) child: Child,
}

/// 64 tiles three levels down, those of each tile between next to each other.
pub(super) struct Branch {
    /// The zones that cover all of it; none of them stands further down.
    pub(super) covers: Box<[u32]>,
    pub(super) slots: [Child; BRANCH_SLOTS],
}

impl Branch {
    pub(super) fn new(covers: Box<[u32]>) -> Self {
        Self {
            covers,
            slots: [const { Child::Empty }; BRANCH_SLOTS],
        }
    }

    /// Looks at what stands with each of its slots: so a copy, which counts a reference to each and waits for the memory that
    /// the count stands in, one after the other, finds it at hand.
    pub(super) fn fetch_counts(&self) {
        let counts = self.slots.iter().map(|slot| match slot {
            Child::Empty | Child::Cover(_) => 0,
            Child::Branch(branch) => Arc::strong_count(branch),
            Child::Page(page) => Arc::strong_count(&page.words),
            Child::Far(far) => Arc::strong_count(far),
        });
        std::hint::black_box(counts.sum::<usize>());
    }

    /// A branch that has one thing only, to be put under a tile above it.
    pub(super) fn of_one(slot: usize, child: Child) -> Self {
        let mut branch = Self::new(Box::default());
        branch.slots[slot] = child;
        branch
    }

    /// What a tile with this branch is.
    pub(super) fn into_child(mut self, tile: Tile) -> Child {
        let is_there = |child: &Child| !matches!(child, Child::Empty);
        let first = self.slots.iter().position(is_there);
        match first {
            None if self.covers.is_empty() => Child::Empty,
            Some(slot)
                if self.covers.is_empty() && !self.slots[slot + 1..].iter().any(is_there) =>
            {
                let child = std::mem::take(&mut self.slots[slot]);
                match child {
                    Child::Branch(_) => Child::far(tile.branch_part(slot), child),
                    Child::Far(_) => child,
                    _ => Child::Branch(Self::of_one(slot, child).into()),
                }
            }
            _ => Child::Branch(self.into()),
        }
    }
}

impl Child {
    /// This, in a tile below.
    pub(super) fn far(tile: Tile, child: Self) -> Self {
        match child {
            Self::Empty | Self::Far(_) => child,
            child => Self::Far(Arc::new(Far {
                tile,
                path: tile.path(),
                child,
            })),
        }
    }

    /// Whether slots of a branch so many levels below it are one tile: a page, one zone, or nothing.
    pub(super) fn are_one(slots: &[Self], depth: u32) -> bool {
        match &slots[0] {
            Self::Empty => slots.iter().all(|slot| matches!(slot, Self::Empty)),
            Self::Cover(zone) => slots
                .iter()
                .all(|slot| matches!(slot, Self::Cover(other) if other == zone)),
            Self::Page(page) => page.span == Span::at_depth(depth),
            Self::Branch(_) | Self::Far(_) => slots.len() == 1,
        }
    }

    /// The tiles that these slots of a branch are: of several that are one page, the first.
    pub(super) fn tiles(slots: &[Self]) -> impl Iterator<Item = &Self> {
        slots.iter().enumerate().filter_map(|(number, slot)| {
            let is_first = match slot {
                Self::Page(page) => number.is_multiple_of(1 << (2 * page.span as usize)),
                _ => true,
            };
            is_first.then_some(slot)
        })
    }

    /// The words of its page; `None` if it is more than a page.
    pub(super) fn page_len(&self) -> Option<usize> {
        match self {
            Self::Empty | Self::Cover(_) => Some(0),
            Self::Page(page) => Some(page.len()),
            Self::Branch(_) | Self::Far(_) => None,
        }
    }

    /// The bytes that it and all below it occupy.
    pub(super) fn byte_len(&self) -> usize {
        const COUNTS: usize = 16;
        match self {
            Self::Empty | Self::Cover(_) => 0,
            Self::Page(page) => COUNTS + size_of_val(&*page.words),
            Self::Far(far) => COUNTS + size_of::<Far>() + far.child.byte_len(),
            Self::Branch(branch) => {
                let below: usize = Self::tiles(&branch.slots).map(Self::byte_len).sum();
                COUNTS + size_of::<Branch>() + size_of_val(&*branch.covers) + below
            }
        }
    }
}

/// A word, and where the places that it may name begin.
#[derive(Copy, Clone)]
pub(super) struct Word<'a> {
    word: u32,
    from: &'a [u32],
}

/// What a tile within a page is.
#[derive(Copy, Clone)]
pub(super) enum Slot<'a> {
    Empty,
    /// One zone covers it, and no other is there.
    Cover(u32),
    Leaf(Leaf<'a>),
    Node(Node<'a>),
}

impl<'a> Word<'a> {
    pub(super) const EMPTY: Self = Self { word: 0, from: &[] };

    /// Of a tile that a zone covers.
    #[inline(always)]
    pub(super) fn of_cover(slot: u32) -> Self {
        Self {
            word: COVER | slot,
            from: &[],
        }
    }

    /// Asks for each line of memory that a node, or a leaf of the usual size, stands in, whatever its own size. Where the
    /// tile is neither it asks for where its words begin, which is at hand or nowhere: to tell that by a branch costs more.
    #[inline(always)]
    pub(super) fn fetch<const LINES: usize>(self) {
        const _: () = assert!(LEAF >> 31 == 1 && NODE >> 31 == 1 && COVER >> 31 == 0);
        let is_stored = (self.word.cast_signed() >> 31).cast_unsigned();
        let begin = (self.word & !KIND & !COVERED & is_stored) as usize;
        let at = self.from.as_ptr().wrapping_add(begin).cast::<u8>();
        for line in 0..LINES {
            fetch(at.wrapping_add(line * LINE));
        }
    }

    #[inline]
    pub(super) fn slot(self) -> Slot<'a> {
        let leaf = self.leaf().map(Slot::Leaf);
        let node = || self.node().map(Slot::Node);
        let cover = || self.covering().map(Slot::Cover);
        leaf.or_else(node).or_else(cover).unwrap_or(Slot::Empty)
    }

    /// The leaf that the tile is.
    #[inline(always)]
    pub(super) fn leaf(self) -> Option<Leaf<'a>> {
        let begin = (self.word & !KIND) as usize;
        (self.word & KIND == LEAF).then(|| Leaf::at(self.from, begin))
    }

    /// The node that the tile is.
    #[inline(always)]
    pub(super) fn node(self) -> Option<Node<'a>> {
        let begin = (self.word & !KIND & !COVERED) as usize;
        (self.word & KIND == NODE).then(|| Node {
            words: &self.from[begin..],
            is_covered: self.word & COVERED != 0,
        })
    }

    /// The zone that covers the tile, if no other is there.
    #[inline(always)]
    pub(super) fn covering(self) -> Option<u32> {
        (self.word & KIND == COVER).then_some(self.word & !KIND)
    }
}

/// Sixteen tiles two levels down.
#[derive(Copy, Clone)]
pub(super) struct Node<'a> {
    /// What follows it in its page may follow here.
    words: &'a [u32],
    is_covered: bool,
}

impl<'a> Node<'a> {
    #[inline]
    pub(super) fn word(self, number: usize) -> Word<'a> {
        Word {
            word: self.words[number & 15],
            from: self.words,
        }
    }

    #[inline]
    pub(super) fn slot(self, number: usize) -> Slot<'a> {
        self.word(number).slot()
    }

    /// The zones that cover all of it; none of them stands further down.
    #[inline]
    pub(super) fn covers(self) -> &'a [u32] {
        if self.is_covered {
            &self.words[HEAD..HEAD + self.words[16] as usize]
        } else {
            // The number stands in another line of the cache than the tiles.
            &[]
        }
    }

    fn words(self) -> &'a [u32] {
        &self.words[..self.words[17] as usize]
    }

    /// Whether the four slots of a quarter are one tile: a leaf, one zone, or nothing.
    pub(super) fn is_one(self, quarter: usize) -> bool {
        let four = &self.words[4 * quarter..4 * quarter + 4];
        match self.slot(4 * quarter) {
            Slot::Leaf(leaf) => leaf.is_quarter(),
            Slot::Node(_) => false,
            Slot::Empty | Slot::Cover(_) => four.iter().all(|word| *word == four[0]),
        }
    }

    /// The slots that are tiles of their own: of a quarter that is one, the first.
    pub(super) fn tiles(self) -> impl Iterator<Item = Slot<'a>> {
        (0..16)
            .filter(move |number| number % 4 == 0 || !self.is_one(number / 4))
            .map(move |number| self.slot(number))
    }
}

/// A page in the making. Words are told apart from the places they stand in: [`Self::put`] names those.
#[derive(Default)]
pub(super) struct PageWriter {
    pub(super) words: Vec<u32>,
}

/// A word to be put somewhere, its place not relative yet.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) struct Written {
    kind: u32,
    value: u32,
    covered: u32,
}

impl Written {
    pub(super) const EMPTY: Self = Self {
        kind: 0,
        value: 0,
        covered: 0,
    };

    pub(super) fn cover(slot: u32) -> Self {
        assert!(
            slot < COVER,
            "fewer than 2^30 zone versions fit into memory"
        );
        Self {
            kind: COVER,
            value: slot,
            covered: 0,
        }
    }

    pub(super) fn is_node(self) -> bool {
        self.kind == NODE
    }
}

impl PageWriter {
    /// Begins a page.
    pub(super) fn begin(&mut self) {
        self.words.clear();
    }

    /// Ends it: `word` is its tile's.
    pub(super) fn finish(&mut self, word: Written, span: Span) -> Child {
        match word.kind {
            0 => Child::Empty,
            COVER => Child::Cover(word.value),
            kind => Child::Page(Page {
                words: Arc::from(&*self.words),
                word: kind | word.value | word.covered,
                span,
            }),
        }
    }

    /// Begins a node; gives its place.
    pub(super) fn begin_node(&mut self, covers: &[u32]) -> usize {
        let from = self.words.len();
        self.words.resize(from + HEAD, 0);
        self.words[from + 16] = covers.len() as u32;
        self.words.extend_from_slice(covers);
        from
    }

    /// Ends the node that begins here, and all in it; one with nothing in it goes.
    pub(super) fn finish_node(&mut self, from: usize) -> Written {
        if self.words[from..from + 17].iter().all(|word| *word == 0) {
            self.words.truncate(from);
            return Written::EMPTY;
        }
        self.words[from + 17] = (self.words.len() - from) as u32;
        self.written_node(from)
    }

    fn written_node(&self, from: usize) -> Written {
        let is_covered = self.words[from + 16] > 0;
        Written {
            covered: if is_covered { COVERED } else { 0 },
            ..self.written(NODE, from)
        }
    }

    fn written(&self, kind: u32, from: usize) -> Written {
        assert!(
            self.words.len() < COVERED as usize,
            "a page stays below 2 GiB"
        );
        Written {
            kind,
            value: from as u32,
            covered: 0,
        }
    }

    /// The leaf that begins here and ends with the words.
    pub(super) fn leaf(&self, from: usize) -> Written {
        self.written(LEAF, from)
    }

    /// Puts a word into these slots of what begins at `from`.
    pub(super) fn put(&mut self, from: usize, slots: Range<usize>, word: Written) {
        let value = match word.kind {
            LEAF | NODE => word.value - from as u32,
            _ => word.value,
        };
        self.words[from + slots.start..from + slots.end].fill(word.kind | word.covered | value);
    }

    /// Takes over what another page has.
    pub(super) fn copy(&mut self, slot: Slot<'_>) -> Written {
        let from = self.words.len();
        match slot {
            Slot::Empty => Written::EMPTY,
            Slot::Cover(zone) => Written::cover(zone),
            Slot::Leaf(leaf) => {
                self.words.extend_from_slice(leaf.words());
                self.leaf(from)
            }
            Slot::Node(node) => {
                self.words.extend_from_slice(node.words());
                self.written_node(from)
            }
        }
    }

    /// The node that was written here.
    pub(super) fn node(&self, word: Written) -> Node<'_> {
        debug_assert!(word.is_node());
        Node {
            words: &self.words[word.value as usize..],
            is_covered: word.covered != 0,
        }
    }

    /// Takes back what was written from here on.
    pub(super) fn take_back(&mut self, word: Written) {
        self.words.truncate(word.value as usize);
    }
}
