//! The entries of a timeline in their order. Few stand side by side; many in a tree that shares what a change leaves
//! alone, so that the thousandth change of a zone costs what its hundredth did.

use std::sync::Arc;

use imbl::Vector;

use super::timeline::TimelineEntry;

/// So many are copied with each change rather than kept in a tree, whose smallest node is as large.
const FEW: usize = 64;

/// A sequence of entries. Cloning shares them.
#[derive(Clone, Debug)]
pub enum Entries {
    /// Side by side, at most 64.
    Few(Arc<[TimelineEntry]>),
    /// In a tree, more.
    Many(Vector<TimelineEntry>),
}

impl Entries {
    /// One.
    pub(super) fn one(entry: TimelineEntry) -> Self {
        Self::Few(Arc::new([entry]))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&TimelineEntry> {
        match self {
            Self::Few(few) => few.get(place),
            Self::Many(many) => many.get(place),
        }
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&TimelineEntry> {
        self.get(self.len().checked_sub(1)?)
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &TimelineEntry> {
        self.starting_at(0)
    }

    /// Those from a place on.
    pub(super) fn starting_at(
        &self,
        first: usize,
    ) -> impl DoubleEndedIterator<Item = &TimelineEntry> {
        let all = first..self.len();
        all.map(|place| self.get(place).expect("a place below the length"))
    }

    /// How many come before the first that is not `before`; those that are come first.
    pub(super) fn partition_point(&self, before: impl Fn(&TimelineEntry) -> bool) -> usize {
        match self {
            Self::Few(few) => few.partition_point(before),
            Self::Many(many) => {
                // Never equal: the place where one such would stand.
                let side = |entry: &TimelineEntry| {
                    if before(entry) {
                        std::cmp::Ordering::Less
                    } else {
                        std::cmp::Ordering::Greater
                    }
                };
                many.binary_search_by(side).unwrap_or_else(|place| place)
            }
        }
    }

    /// Puts `entries` in the place of `replaced`.
    pub(super) fn splice(
        &mut self,
        replaced: std::ops::Range<usize>,
        entries: impl IntoIterator<Item = TimelineEntry>,
    ) {
        *self = match self {
            Self::Few(few) => {
                let mut next = Vec::with_capacity(few.len() + 2);
                next.extend_from_slice(few);
                next.splice(replaced, entries);
                if next.len() > FEW {
                    Self::Many(next.into())
                } else {
                    Self::Few(next.into())
                }
            }
            Self::Many(many) => {
                let mut next = many.clone();
                let after = next.split_off(replaced.end);
                next.truncate(replaced.start);
                next.extend(entries);
                next.append(after);
                if next.len() > FEW {
                    Self::Many(next)
                } else {
                    Self::Few(next.into_iter().collect())
                }
            }
        };
    }
}

impl Default for Entries {
    fn default() -> Self {
        Self::Few(Arc::new([]))
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Entries {}
