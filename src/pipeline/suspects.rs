//! Finds the one record that a broker refuses, where a refusal fails a whole batch and aborts its transaction (KAFKA
//! 0.7, 0.8): each try takes half of what is left under suspicion, until one record is.
//!
//! With a transaction a try costs an abort, so n records need log2(n) of them; without suspects it costs nothing.

use std::collections::BTreeMap;

use crate::partition::{Offset, PartitionId};
use crate::pipeline::repair::Refusal;

/// The records of one partition, in order, among which the refused one is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lineup {
    offsets: Vec<Offset>,
    /// How many of them the next try takes.
    half: usize,
}

impl Lineup {
    fn new(offsets: Vec<Offset>) -> Self {
        let half = offsets.len().div_ceil(2);
        Self { offsets, half }
    }

    /// The last record that the next try takes.
    fn last(&self) -> Offset {
        self.offsets[self.half - 1]
    }
}

/// All partitions under suspicion.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    lineups: BTreeMap<PartitionId, Lineup>,
    condemned: BTreeMap<PartitionId, (Offset, Refusal)>,
}

impl Suspects {
    pub(crate) fn is_empty(&self) -> bool {
        self.lineups.is_empty() && self.condemned.is_empty()
    }

    /// Outputs of these records were refused, and nothing of them was committed.
    pub(crate) fn refused(
        &mut self,
        partition: PartitionId,
        mut offsets: Vec<Offset>,
        refusal: Refusal,
    ) {
        offsets.sort_unstable();
        offsets.dedup();
        match offsets[..] {
            [] => {}
            [only] => {
                self.lineups.remove(&partition);
                self.condemned.insert(partition, (only, refusal));
            }
            _ => {
                self.lineups.insert(partition, Lineup::new(offsets));
            }
        }
    }

    /// Everything below `next` was committed.
    pub(crate) fn committed(&mut self, partition: PartitionId, next: Offset) {
        if let Some(lineup) = self.lineups.get_mut(&partition) {
            // Those that passed are in the clear; offsets may have gaps, so the records count, not their distance.
            let cleared = lineup.offsets.partition_point(|offset| *offset < next);
            if cleared == lineup.offsets.len() {
                self.lineups.remove(&partition);
            } else if cleared > 0 {
                *lineup = Lineup::new(lineup.offsets.split_off(cleared));
            }
        }
        if self
            .condemned
            .get(&partition)
            .is_some_and(|(offset, _)| *offset < next)
        {
            self.condemned.remove(&partition);
        }
    }

    /// Whether this record waits for the outcome of the records before it.
    pub(crate) fn must_wait(&self, partition: PartitionId, offset: Offset) -> bool {
        self.lineups
            .get(&partition)
            .is_some_and(|lineup| offset > lineup.last())
    }

    /// Why the broker refuses this very record, if it does: it goes to the dead letters.
    pub(crate) fn condemned(&self, partition: PartitionId, offset: Offset) -> Option<Refusal> {
        let (at_fault, refusal) = self.condemned.get(&partition)?;
        (*at_fault == offset).then_some(*refusal)
    }

    /// The partition is no longer ours; its next owner finds out by itself.
    pub(crate) fn forget(&mut self, partition: PartitionId) {
        self.lineups.remove(&partition);
        self.condemned.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: PartitionId = PartitionId(0);

    proptest! {
        /// One bad record anywhere among `count`, offsets with gaps: it and only it is condemned, in log2 tries.
        #[test]
        fn fs_41_the_refused_record_is_found_in_few_tries(count in 1usize..3_000, bad in any::<prop::sample::Index>(), gap in 1i64..4) {
            let offsets: Vec<Offset> = (0..count as i64).map(|n| Offset(7 + n * gap)).collect();
            let bad = offsets[bad.index(count)];
            let mut suspects = Suspects::default();
            let mut next = offsets[0];
            let mut aborts = 0;
            loop {
                let attempt: Vec<Offset> = offsets
                    .iter()
                    .copied()
                    .filter(|at| *at >= next && !suspects.must_wait(P, *at))
                    .collect();
                let Some(last) = attempt.last() else { break };
                let sent: Vec<Offset> = attempt.iter().copied().filter(|at| suspects.condemned(P, *at).is_none()).collect();
                if sent.contains(&bad) {
                    aborts += 1;
                    prop_assert!(aborts < 40, "it does not end");
                    // The whole batch fails with one of its records.
                    suspects.refused(P, sent, Refusal::TooLarge);
                } else {
                    prop_assert!(attempt.iter().all(|at| suspects.condemned(P, *at).is_none() || *at == bad));
                    next = last.next();
                    suspects.committed(P, next);
                }
            }
            prop_assert!(next > *offsets.last().unwrap());
            prop_assert!(suspects.is_empty());
            prop_assert!(aborts <= 2 + (count as f64).log2().ceil() as u32, "{aborts} aborts for {count}");
        }
    }
}
