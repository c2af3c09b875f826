//! How each version stands in the tree, two bits a slot, copied on write by chunks.

use std::sync::Arc;

/// How a version stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not in the tree.
    Away,
    /// In the tree; from when on it is in force is to be looked up. It has no end.
    Dated,
    /// In the tree, and in force for every instant from [`super::Tiles::settled_from`] on.
    Settled,
    /// In the tree, and has an end: when it is in force is to be looked up.
    Ended,
}

/// A change copies a chunk or few, and counts a reference to every other one.
const WORDS: usize = 512;
const PER_WORD: usize = 32;

#[derive(Clone, Default)]
pub(super) struct Slots(Vec<Arc<[u64; WORDS]>>);

impl Slots {
    pub(super) fn get(&self, slot: u32) -> Standing {
        let slot = slot as usize;
        let Some(chunk) = self.0.get(slot / (WORDS * PER_WORD)) else {
            return Standing::Away;
        };
        match chunk[slot / PER_WORD % WORDS] >> (2 * (slot % PER_WORD)) & 3 {
            0 => Standing::Away,
            1 => Standing::Dated,
            2 => Standing::Settled,
            _ => Standing::Ended,
        }
    }

    /// The same as to get [`Standing::Settled`].
    #[inline(always)]
    pub(super) fn is_settled(&self, slot: u32) -> bool {
        let slot = slot as usize;
        let shift = 2 * (slot % PER_WORD);
        let chunk = self.0.get(slot / (WORDS * PER_WORD));
        chunk.is_some_and(|chunk| {
            chunk[slot / PER_WORD % WORDS] >> shift & 3 == Standing::Settled as u64
        })
    }

    pub(super) fn set(&mut self, slot: u32, standing: Standing) {
        let slot = slot as usize;
        let chunk = slot / (WORDS * PER_WORD);
        while self.0.len() <= chunk {
            self.0.push(Arc::new([0; WORDS]));
        }
        let word = &mut Arc::make_mut(&mut self.0[chunk])[slot / PER_WORD % WORDS];
        let shift = 2 * (slot % PER_WORD);
        *word = *word & !(3 << shift) | (standing as u64) << shift;
    }
}
