//! The engine's dealings with its edge beside records: assignment, revokes, acknowledgements, commits, backpressure.

use crate::enriched::Token;
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::pipeline::breaker::{BreakerChange, HeldPartition};
use crate::pipeline::counters::Counters;
use crate::pipeline::engine::Engine;
use crate::pipeline::flow::{Flow, PartitionUsage, PauseCause, Usage};
use crate::pipeline::hold::HoldQueue;
use crate::pipeline::ownership::SlotState;
use crate::pipeline::repair::Refusal;
use crate::pipeline::stop::{Stop, StopReason};
use crate::pipeline::view::Zones;
use crate::time::Now;

/// What became of an output.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AckResult {
    /// The broker has it.
    Delivered,
    /// The broker (or the client) refused it; where batches are sent, it or another record of its batch.
    Refused(Refusal),
    /// The client gave it up because of another output: a batch that was refused, or an error of its own.
    Abandoned,
    /// The client has given up on it: the worker must stop, and read it again after a restart.
    Failed,
}

impl<Z: Zones> Engine<Z> {
    /// Begins to own these partitions. One that is owned already begins anew: its revoke was missed (FS-08), what it had
    /// is released. Ask [`Self::backpressure`] right after, before any of their records.
    pub fn assigned(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            if let Some(slot) = self.slots.find(*partition) {
                self.close(slot);
            }
            if self.slots.open(*partition).is_none() {
                let position = RecordPosition {
                    partition: *partition,
                    offset: Offset(0),
                };
                self.stop(StopReason::TooManyPartitions, position);
            }
        }
        self.counters.assert_sum();
    }

    /// Begins to give these partitions back: nothing more of them is taken in, held events are released unread. What is
    /// in flight may still be acknowledged, until [`Self::revoked`].
    pub fn revoking(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            if let Some(slot) = self.slots.find(*partition) {
                self.slots[slot].state = SlotState::Revoking;
                self.release_held(slot);
            }
        }
        self.counters.assert_sum();
    }

    /// Outputs of this partition that are not acknowledged.
    #[must_use]
    pub fn in_flight(&self, partition: PartitionId) -> usize {
        self.slots.find(partition).map_or(0, |slot| {
            self.slots[slot].ledger.unacknowledged() - self.slots[slot].hold.len()
        })
    }

    /// Gives these partitions back: adds the offsets to commit to `commits`. What is still in flight is released, and its
    /// acknowledgements are stale from here on. A partition that [`Self::revoking`] was not asked for is left alone: it
    /// was assigned again in between (FS-08).
    pub fn revoked(
        &mut self,
        partitions: &[PartitionId],
        commits: &mut Vec<(PartitionId, Offset)>,
    ) {
        for partition in partitions {
            let revoking = self
                .slots
                .find(*partition)
                .filter(|slot| self.slots[*slot].state == SlotState::Revoking);
            if let Some(slot) = revoking {
                commits.extend(
                    self.slots[slot]
                        .ledger
                        .committable()
                        .map(|next| (*partition, next)),
                );
                self.suspects.forget(*partition);
                self.breaker.forget(*partition);
                self.close(slot);
            }
        }
        self.counters.assert_sum();
    }

    /// These partitions are another member's already: everything of them is dropped at once, nothing is to be committed
    /// (FS-11).
    pub fn lost(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.suspects.forget(*partition);
            self.breaker.forget(*partition);
            if let Some(slot) = self.slots.find(*partition) {
                self.close(slot);
            }
        }
        self.counters.assert_sum();
    }

    /// Stops the intake of all partitions for a shutdown: as [`Self::revoking`] for all. Drained once
    /// [`Self::in_flight_count`] is 0; go on with acknowledgements and turns until then.
    pub fn drain(&mut self) {
        let owned = self.owned();
        self.revoking(&owned);
    }

    fn release_held(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        let count = slot.hold.len();
        self.held_bytes -= slot.hold.bytes();
        for place in 0..count {
            let sequence = slot.hold.get(place).expect("within its length").sequence;
            slot.ledger.released(sequence);
        }
        slot.hold = HoldQueue::default();
        self.counters.held -= count as u64;
        self.counters.released += count as u64;
    }

    fn close(&mut self, slot: usize) {
        self.release_held(slot);
        let ledger = &self.slots[slot].ledger;
        let unsent = ledger.unacknowledged() as u64;
        self.in_flight_bytes -= ledger.in_flight_bytes();
        self.counters.in_flight -= unsent;
        self.counters.released += unsent;
        self.writer.forget_partition(self.slots[slot].partition);
        self.slots.close(slot);
    }

    /// Takes the acknowledgement of an output. Of an ownership that has ended it is counted and ignored (FS-07).
    pub fn acked(&mut self, token: Token, result: AckResult) {
        let Some(slot) = self.slots.of_token(token) else {
            self.counters.stale_acks += 1;
            return;
        };
        let sequence = token.sequence();
        let ledger = &mut self.slots[slot].ledger;
        let Some(kind) = ledger.in_flight_kind(sequence) else {
            self.counters.stale_acks += 1;
            return;
        };
        let offset = ledger.offset(sequence).expect("it is in flight");
        let position = RecordPosition {
            partition: self.slots[slot].partition,
            offset,
        };
        match result {
            AckResult::Delivered => {
                let bytes = self.slots[slot]
                    .ledger
                    .acked(sequence)
                    .expect("it is in flight");
                self.in_flight_bytes -= bytes;
                self.counters.finished(kind);
                self.writer.forget(token);
            }
            // It stays in flight until it is given back: which record is at fault is not known.
            AckResult::Refused(_) | AckResult::Abandoned if !self.repair.is_one_by_one() => {
                self.repair.refused();
            }
            AckResult::Refused(refusal) if self.config.dead_letter_max_bytes.is_none() => {
                self.give_up(slot, sequence);
                self.stop(StopReason::NoDeadLetterTopic(refusal.rejection()), position);
            }
            AckResult::Refused(refusal) if self.writer.can_resend(token) => {
                let bytes = self.slots[slot]
                    .ledger
                    .refused(sequence)
                    .expect("it is in flight");
                self.in_flight_bytes -= bytes;
                self.refused.push((token, refusal));
            }
            AckResult::Refused(refusal) => {
                self.give_up(slot, sequence);
                self.stop(StopReason::Refused(refusal), position);
            }
            AckResult::Failed | AckResult::Abandoned => {
                self.give_up(slot, sequence);
                self.stop(StopReason::DeliveryFailed, position);
            }
        }
    }

    /// A record that gets no output any more: it is given back, so that a drain does not wait for it, and nothing is
    /// committed past it.
    pub(super) fn give_up(&mut self, slot: usize, sequence: u64) {
        self.in_flight_bytes -= self.slots[slot].ledger.released(sequence);
        self.counters.in_flight -= 1;
        self.counters.released += 1;
    }

    /// The record of an output in flight; `None` where its ownership has ended.
    #[must_use]
    pub fn position(&self, token: Token) -> Option<RecordPosition> {
        let slot = self.slots.of_token(token)?;
        let ledger = &self.slots[slot].ledger;
        ledger.in_flight_kind(token.sequence())?;
        Some(RecordPosition {
            partition: self.slots[slot].partition,
            offset: ledger.offset(token.sequence())?,
        })
    }

    /// Whether [`Self::take_commits`] has something to give.
    #[must_use]
    pub fn is_advanced(&self) -> bool {
        self.slots
            .iter()
            .any(|(_, slot)| slot.ledger.committable() != slot.reported)
    }

    /// The transaction that these offsets were in is committed.
    pub fn transaction_committed(&mut self, commits: &[(PartitionId, Offset)]) {
        self.counters.transactions_committed += 1;
        if !self.suspects.is_empty() {
            for (partition, next) in commits {
                self.suspects.committed(*partition, *next);
            }
        }
    }

    /// The open transaction is aborted: everything of the partitions still owned is dropped, hold queues and ledgers
    /// included, and they are owned anew, to be read from what is committed (DESIGN 7). Gives these partitions.
    ///
    /// `refused`: records of which one is what the broker refuses; it is narrowed down, then dead-lettered.
    pub fn transaction_aborted(
        &mut self,
        refused: &[(RecordPosition, Refusal)],
    ) -> Vec<PartitionId> {
        self.counters.transactions_aborted += 1;
        let mut refused = refused.to_vec();
        refused.sort_unstable_by_key(|(position, _)| (position.partition, position.offset));
        for of_partition in refused.chunk_by(|(a, _), (b, _)| a.partition == b.partition) {
            let (first, refusal) = of_partition[0];
            if of_partition.len() == 1
                && self
                    .suspects
                    .condemned(first.partition, first.offset)
                    .is_some()
            {
                // Its dead letter was refused too: nothing is left but to stop.
                self.stop(StopReason::Refused(refusal), first);
            }
            let offsets = of_partition.iter().map(|(position, _)| position.offset);
            self.suspects
                .refused(first.partition, offsets.collect(), refusal);
        }
        let owned: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.state == SlotState::Owned)
            .map(|(_, slot)| slot.partition)
            .collect();
        for partition in &owned {
            let slot = self.slots.find(*partition).expect("it was just listed");
            self.close(slot);
            self.slots
                .open(*partition)
                .expect("its slot was just freed");
        }
        self.counters.assert_sum();
        owned
    }

    /// Adds to `commits` the offset of each partition where it has advanced since the last call. An offset that could not
    /// be committed is for the edge to try again: [`Self::committable`] says it at any time.
    pub fn take_commits(&mut self, commits: &mut Vec<(PartitionId, Offset)>) {
        for (_, slot) in self.slots.iter_mut() {
            let next = slot.ledger.committable();
            if next != slot.reported {
                slot.reported = next;
                commits.extend(next.map(|next| (slot.partition, next)));
            }
        }
    }

    /// The next offset of this partition's finished prefix (I6); `None` where it is not owned or nothing is finished.
    #[must_use]
    pub fn committable(&self, partition: PartitionId) -> Option<Offset> {
        self.slots
            .find(partition)
            .and_then(|slot| self.slots[slot].ledger.committable())
    }

    /// Where this partition would have to be read again from: right after its finished prefix, or at the first record read
    /// where nothing is finished. `None` where nothing was read in this ownership.
    #[must_use]
    pub fn unfinished_from(&self, partition: PartitionId) -> Option<Offset> {
        let ledger = &self.slots[self.slots.find(partition)?].ledger;
        ledger.committable().or_else(|| ledger.oldest_unfinished())
    }

    /// How many records may be taken now, and which owned partitions to pause or resume. To be asked in every turn and
    /// right after every assignment; each change is said once.
    pub fn backpressure(&mut self, now: Now, flow: &mut Flow) {
        let held = Usage {
            records: self.counters.held as usize,
            bytes: self.held_bytes,
        };
        let in_flight = Usage {
            records: self.counters.in_flight as usize,
            bytes: self.in_flight_bytes,
        };
        self.usages.clear();
        for (_, slot) in self.slots.iter_mut() {
            if slot.state == SlotState::Owned {
                let held = slot.hold.len();
                self.usages.push(PartitionUsage {
                    partition: slot.partition,
                    invalid: self.breaker.pauses(slot.partition, held, now.mono),
                    held: Usage {
                        records: slot.hold.len(),
                        bytes: slot.hold.bytes(),
                    },
                    fresh: std::mem::take(&mut slot.fresh),
                });
            }
        }
        self.control
            .verdict(held, in_flight, &self.usages, now.mono, flow);
        if self.stop.is_some() || self.usages.is_empty() || self.repair.is_closed() {
            flow.take = 0;
        }
    }

    /// How many owned partitions are paused for this cause.
    #[must_use]
    pub fn paused_count(&self, cause: PauseCause) -> usize {
        self.slots
            .iter()
            .filter(|(_, slot)| self.control.paused(slot.partition) == Some(cause))
            .count()
    }

    /// Whether this partition is owned and paused.
    #[must_use]
    pub fn is_paused(&self, partition: PartitionId) -> bool {
        self.slots.find(partition).is_some() && self.control.paused(partition).is_some()
    }

    /// The partitions that are held as most of their records are invalid (FS-44).
    #[must_use]
    pub fn held_partitions(&self) -> Vec<HeldPartition> {
        self.breaker.held()
    }

    /// What has changed of them since the last call.
    pub fn take_breaker_changes(&mut self) -> Vec<(PartitionId, BreakerChange)> {
        self.breaker.take_changes()
    }

    /// The owned partitions, those being revoked included, in order.
    #[must_use]
    pub fn owned(&self) -> Vec<PartitionId> {
        let mut owned: Vec<_> = self.slots.iter().map(|(_, slot)| slot.partition).collect();
        owned.sort_unstable();
        owned
    }

    /// Outputs that are not acknowledged.
    #[must_use]
    pub fn in_flight_count(&self) -> usize {
        self.counters.in_flight as usize
    }

    /// Records that wait in hold queues.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.counters.held as usize
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why the worker must stop, if it must: drain, commit what [`Self::take_commits`] gives, and end with this error.
    #[must_use]
    pub fn stopped(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }
}
