//! Where a worker begins to read the partitions that it is given.
//!
//! What is committed says so, else the configuration does. A start at the log end is a fact of the moment at which the
//! partition was first given to anybody: it is committed at once, or whoever is given the partition next would begin at
//! the log end of then, and what came in between would be lost.

use std::ops::Deref;
use std::time::Duration;

use super::{REBALANCE_WAIT, StartAt, Worker, WorkerError};
use crate::clock::Clock;
use crate::kafka::EdgeError;
use crate::kafka::member::Start;
use crate::partition::{Offset, PartitionId};
use crate::pipeline::Zones;

impl<Z, G, L> Worker<Z, L>
where
    Z: Zones,
    G: Deref<Target = Z>,
    L: Fn() -> G,
{
    pub(super) fn begin(&mut self, starts: &[(PartitionId, Start)]) -> Result<(), WorkerError> {
        let partitions: Vec<_> = starts.iter().map(|(partition, _)| *partition).collect();
        self.engine.assigned(&partitions);
        tracing::debug!(?starts, "begun");
        let mut chosen = Vec::new();
        for (partition, start) in starts {
            match start {
                Start::At(offset) => {
                    self.starts.insert(*partition, *offset);
                }
                Start::Chosen(offset) => {
                    self.starts.insert(*partition, *offset);
                    chosen.push((*partition, *offset));
                }
                Start::LogStart | Start::LogEnd => {
                    self.unstarted.insert(*partition);
                }
            }
        }
        self.member.assign(starts)?;
        self.commit_starts(&chosen);
        // The client keeps pauses through a revoke: it is told at once what holds now (FS-01, FS-02).
        self.apply_backpressure();
        Ok(())
    }

    /// Commits where these partitions begin, before anything of them is read. By the member itself also in `exactly_once`:
    /// no output goes with it.
    fn commit_starts(&self, starts: &[(PartitionId, Offset)]) {
        let begun = Clock::mono();
        while let Err(error) = self.member.commit(starts) {
            let now = Clock::mono();
            let is_passing = error.is_rebalancing() || error.is_retryable();
            if !is_passing || now.since(begun) >= REBALANCE_WAIT {
                tracing::warn!(%error, "the start at the log end is not committed: until records behind it are, a restart begins \
                     at the log end of then");
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
            self.beat();
            self.waited_since(now);
        }
        self.waited_since(begun);
    }

    /// The committed offset of each partition, else where the configuration says.
    pub(super) fn starting_offsets(
        &self,
        partitions: &[PartitionId],
    ) -> Result<Vec<(PartitionId, Start)>, EdgeError> {
        let start_of = |(partition, committed): (PartitionId, Option<Offset>)| {
            let is_new = partition.0 >= self.settings.partitions_at_start;
            let start = match (committed, self.settings.start) {
                (Some(offset), _) => Start::At(offset),
                (None, StartAt::Latest) if !is_new => Start::LogEnd,
                (None, StartAt::Latest | StartAt::Earliest) => Start::LogStart,
            };
            (partition, start)
        };
        let committed = self.committed(partitions)?.into_iter();
        let mut starts: Vec<_> = committed.map(start_of).collect();
        self.choose_ends(&mut starts);
        Ok(starts)
    }

    /// Makes an offset of each start at the log end. Where a partition does not answer the client finds it, once its leader
    /// is back: nobody waits for it here.
    fn choose_ends(&self, starts: &mut [(PartitionId, Start)]) {
        const PATIENCE: Duration = Duration::from_secs(5);
        let begun = Clock::mono();
        for (partition, start) in starts {
            let now = Clock::mono();
            if *start != Start::LogEnd || now.since(begun) >= PATIENCE {
                continue;
            }
            match self.member.log_bounds(*partition) {
                Ok((_, end)) => *start = Start::Chosen(end),
                Err(error) => tracing::warn!(%partition, %error,
                    "its log end is not known yet: until records behind it are committed, a restart begins at the log end of then"),
            }
            self.beat();
            self.waited_since(now);
        }
    }

    /// What the group has committed of these partitions.
    pub(super) fn committed(
        &self,
        partitions: &[PartitionId],
    ) -> Result<Vec<(PartitionId, Option<Offset>)>, EdgeError> {
        const TRIES: usize = 6;
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut tries = 1;
        loop {
            let begun = Clock::mono();
            let answer = self.member.committed(partitions);
            self.beat();
            self.waited_since(begun);
            match answer {
                Err(error) if error.is_retryable() && tries < TRIES => tries += 1,
                answer => return answer,
            }
        }
    }
}
