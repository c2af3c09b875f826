//! What readers load: an immutable head over a shared immutable index, published by one pointer swap. Owns I4, I11 and,
//! with the gate, I3.
//!
//! Retired heads wait in a list until their last reader has left and are freed there, never by a worker.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

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
    pub degraded: bool,
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

    /// How many snapshots live: those that wait here and the published one.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.len() + 1
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
            degraded: false,
        })
    }

    #[test]
    fn i11_a_retired_snapshot_is_freed_by_the_list_when_its_last_reader_has_left() {
        let cell = SnapshotCell::default();
        let mut retired = RetireList::default();
        assert!(cell.load().is_none());
        assert!(cell.publish(snapshot(1, 10)).is_none());
        let reader = cell.load().expect("published");
        retired.retire(cell.publish(snapshot(2, 20)).expect("the one before"));
        assert_eq!((retired.reclaim(), retired.live()), (0, 2));
        drop(reader);
        assert_eq!((retired.reclaim(), retired.live()), (1, 1));
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
