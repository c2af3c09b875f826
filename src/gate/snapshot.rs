//! What readers load: an immutable head over a shared immutable index, published by one pointer swap. Owns I4, I11 and,
//! with the gate, I3.
//!
//! Retired heads wait in a list until their last reader has left and are freed there, never by a worker. Heads are small;
//! what holds memory is their indexes, so `max_live_snapshots` bounds those ([`LiveIndexes`]).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use crate::index::Index;
use crate::time::EventTime;

/// Counts the indexes of one process; for logs and metrics only.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What is to be said of answers that cannot be vouched for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Degraded {
    /// Nothing: they can.
    #[default]
    No,
    /// Events are matched as ever and flagged: a change came more than a minute late (DESIGN 4, *Late change*).
    Flagged,
    /// `as_of` stands for long: events are flagged, and matched at once at it where it does not reach them (*Start over*).
    AtOnce,
}

impl Degraded {
    /// Whether answers are flagged `degraded`.
    #[must_use]
    pub const fn is_flagged(self) -> bool {
        !matches!(self, Self::No)
    }
}

/// The zones as they can be asked for, up to `as_of`.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The shared index.
    pub index: Arc<Index>,
    /// Which index it is: +1 for each new one (I3).
    pub epoch: Epoch,
    /// Up to here everything is in the index.
    pub as_of: EventTime,
    /// From here on answers are exact.
    pub floor: EventTime,
    /// Whether answers are to be flagged `degraded`.
    pub degraded: Degraded,
}

/// Where the current snapshot stands. Readers load it once per batch.
#[derive(Debug, Default)]
pub struct SnapshotCell(ArcSwapOption<Snapshot>);

impl SnapshotCell {
    /// The current snapshot; `None` before the bootstrap (I14).
    ///
    /// A full `Arc` and not a guard: the retire list reads its count to know when the last reader has left.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.0.load_full()
    }

    /// Publishes a snapshot and gives the one it replaces, for the retire list.
    ///
    /// # Panics
    /// If the snapshot goes back behind the published one (I1, I3).
    #[must_use]
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        if let Some(current) = self.0.load().as_deref() {
            assert!(snapshot.as_of >= current.as_of, "I1: as_of never goes back");
            assert!(
                snapshot.epoch == current.epoch || snapshot.epoch.0 == current.epoch.0 + 1,
                "I3: the epoch rises by one per new index"
            );
        }
        self.0.swap(Some(snapshot))
    }
}

/// Snapshots that were replaced and may still have readers.
#[derive(Debug, Default)]
pub struct RetireList(VecDeque<Arc<Snapshot>>);

impl RetireList {
    /// Takes a replaced snapshot.
    pub fn retire(&mut self, snapshot: Arc<Snapshot>) {
        self.0.push_back(snapshot);
    }

    /// Frees every snapshot whose last reader has left; gives how many.
    pub fn reclaim(&mut self) -> usize {
        let before = self.0.len();
        // The list's own reference is the last one: nobody can make another, as it is no longer published.
        self.0.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        before - self.0.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The published indexes that are still in memory, however many heads share each.
#[derive(Debug, Default)]
pub struct LiveIndexes(Vec<Weak<Index>>);

impl LiveIndexes {
    /// Takes note of what is published now.
    pub fn published(&mut self, snapshot: &Snapshot) {
        let index = Arc::downgrade(&snapshot.index);
        if self.0.last().is_none_or(|last| !last.ptr_eq(&index)) {
            self.0.push(index);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&mut self) -> usize {
        self.0.retain(|index| index.strong_count() > 0);
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::EngineKind;

    fn snapshot(epoch: u64, as_of: i64) -> Arc<Snapshot> {
        Arc::new(Snapshot {
            index: Arc::new(Index::empty(EngineKind::Rtree)),
            epoch: Epoch(epoch),
            as_of: EventTime::clamped(as_of),
            floor: EventTime::MIN,
            degraded: Degraded::No,
        })
    }

    #[test]
    fn an_index_counts_once_however_many_heads_share_it_and_until_the_last_is_freed() {
        let mut live = LiveIndexes::default();
        let mut retired = RetireList::default();
        let first = snapshot(1, 10);
        let head = Arc::new(Snapshot {
            as_of: EventTime::clamped(11),
            ..(*first).clone()
        });
        let second = snapshot(2, 20);
        for published in [&first, &head, &second] {
            live.published(published);
        }
        assert_eq!(live.count(), 2);
        let reader = head.clone();
        retired.retire(first);
        retired.retire(head);
        assert_eq!((retired.reclaim(), live.count()), (1, 2));
        drop(reader);
        assert_eq!((retired.reclaim(), live.count()), (1, 1));
    }

    #[test]
    fn i11_a_retired_snapshot_is_freed_by_the_list_when_its_last_reader_has_left() {
        let cell = SnapshotCell::default();
        let mut retired = RetireList::default();
        assert!(cell.load().is_none());
        assert!(cell.publish(snapshot(1, 10)).is_none());
        let reader = cell.load().expect("published");
        retired.retire(cell.publish(snapshot(2, 20)).expect("the one before"));
        assert_eq!((retired.reclaim(), retired.is_empty()), (0, false));
        drop(reader);
        assert_eq!((retired.reclaim(), retired.is_empty()), (1, true));
    }

    #[test]
    #[should_panic(expected = "I1")]
    fn i1_a_snapshot_with_an_earlier_as_of_is_not_published() {
        let cell = SnapshotCell::default();
        drop(cell.publish(snapshot(1, 10)));
        drop(cell.publish(snapshot(1, 9)));
    }

    #[test]
    #[should_panic(expected = "I3")]
    fn i3_an_epoch_cannot_be_left_out() {
        let cell = SnapshotCell::default();
        drop(cell.publish(snapshot(1, 10)));
        drop(cell.publish(snapshot(3, 10)));
    }
}
