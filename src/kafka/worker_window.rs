//! What is seen of a worker from outside: written by it, read by anyone, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::partition::{Offset, PartitionId};
use crate::pipeline::{Counters, HeldPartition, PauseCause};
use crate::time::MonoTime;

/// What is seen of a worker from outside.
#[derive(Clone, Debug, Default)]
pub struct WorkerSeen {
    /// Its counters.
    pub counters: Counters,
    /// The partitions it owns, with the next offset to commit where one is known.
    pub owned: Vec<(PartitionId, Option<Offset>)>,
    /// How many records of each are not finished yet, where that is known.
    pub lag: Vec<(PartitionId, u64)>,
    /// How often partitions were assigned to it.
    pub assignments: u64,
    /// How many partitions are paused, by cause.
    pub paused: Vec<(PauseCause, usize)>,
    /// Partitions that the breaker of the dead letters holds (FS-44).
    pub held_partitions: Vec<HeldPartition>,
    /// How often it has opened.
    pub breaker_opened: u64,
    /// Batches that the broker refused for some of their records, which were then sent one by one.
    pub batches_refused: u64,
    /// Partitions whose position was out of range, and the records lost by it as far as known.
    pub out_of_range: u64,
    /// See [`WorkerSeen::out_of_range`].
    pub out_of_range_lost: u64,
}

/// The window into a worker: written by it, read by anyone.
#[derive(Debug, Default)]
pub struct WorkerWindow {
    pub(super) seen: ArcSwap<WorkerSeen>,
    pub(super) beat_micros: AtomicU64,
    /// Its clients are being closed.
    is_ending: AtomicBool,
    /// How often it was doubted that its producer's name is its own, and up to which of these times it has shown that it is.
    doubts: AtomicU64,
    proven: AtomicU64,
}

impl WorkerWindow {
    /// What is seen of the worker, at most a tenth of a second old while it turns.
    #[must_use]
    pub fn seen(&self) -> Arc<WorkerSeen> {
        self.seen.load_full()
    }

    /// It turns no more: from `now` on its clients are closed, which may have to wait for brokers (FS-80).
    pub(crate) fn end_begins(&self, now: MonoTime) {
        self.beat_micros.store(now.micros(), Ordering::Relaxed);
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Nobody turns here until a worker is made anew: there is no beat to judge by (FS-80).
    pub(crate) fn rest(&self) {
        self.beat_micros.store(0, Ordering::Relaxed);
        self.is_ending.store(false, Ordering::Relaxed);
    }

    /// Whether it has no turn to come: the beat is when its clients began to be closed.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// Another worker of its process has lost a name: it is to show that its own producer's is its own still.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::Relaxed);
    }

    /// How often [`Self::doubt`] was called: to be asked before the coordinator is.
    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    /// The coordinator of transactions has taken it for the owner of its name, asked after so many doubts.
    pub(super) fn proven(&self, doubts: u64) {
        self.proven.store(doubts, Ordering::Relaxed);
    }

    /// Whether it has yet to show that its name is its own.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.proven.load(Ordering::Relaxed) != self.doubts()
    }

    /// When the worker last turned (FS-06); zero while none does.
    #[must_use]
    pub fn beat(&self) -> MonoTime {
        MonoTime::from_micros(self.beat_micros.load(Ordering::Relaxed))
    }
}
