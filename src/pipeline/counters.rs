//! What the pipeline counts. I5 as arithmetic: every consumed record is exactly one of enriched, dead-lettered,
//! dropped, forwarded, released, held or in flight; [`Counters::assert_sum`] is called after every input.

use crate::codec::headers::{Flag, Flags};
use crate::pipeline::ledger::OutputKind;
use crate::rejection::RejectionReason;

const REASONS: usize = RejectionReason::ALL.len();
const FLAGS: usize = Flag::ALL.len();

/// Counts by [`RejectionReason`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ReasonCounts {
    counts: [u64; REASONS],
    total: u64,
}

impl Default for ReasonCounts {
    fn default() -> Self {
        Self {
            counts: [0; REASONS],
            total: 0,
        }
    }
}

impl ReasonCounts {
    fn add(&mut self, reason: RejectionReason) {
        self.counts[reason as usize] += 1;
        self.total += 1;
    }

    /// How many had this reason.
    #[must_use]
    pub fn of(&self, reason: RejectionReason) -> u64 {
        self.counts[reason as usize]
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The reasons that were met, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (RejectionReason, u64)> {
        RejectionReason::ALL
            .iter()
            .map(|reason| (*reason, self.of(*reason)))
            .filter(|(_, count)| *count > 0)
    }
}

/// What one engine counts, since its start. `held` and `in_flight` are as of now.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records taken in: those of partitions owned at the time, each once.
    pub consumed: u64,
    /// Enriched and acknowledged.
    pub enriched: u64,
    /// Dead-lettered and acknowledged.
    pub dead_lettered: ReasonCounts,
    /// Dropped by `telemetry.on_invalid = "drop"`.
    pub dropped: ReasonCounts,
    /// Forwarded as they came, and acknowledged.
    pub forwarded: u64,
    /// Given back unfinished: when their partition was revoked, lost or drained, held ones unread and outputs that were not
    /// acknowledged in time; or the record that stopped the worker. The partition's next owner reads them again.
    pub released: u64,
    /// Waiting in hold queues.
    pub held: u64,
    /// Handed to the sink and not acknowledged, or refused by the broker and about to be dead-lettered.
    pub in_flight: u64,
    /// Outputs handed to the sink, by flag; a record counts once for each of its flags.
    pub flagged: [u64; FLAGS],
    /// Records of partitions that are not owned: ignored (FS-16).
    pub unowned: u64,
    /// Records at or below an offset that was read already: ignored.
    pub repeated: u64,
    /// Acknowledgements of an earlier ownership of a partition: ignored (FS-07).
    pub stale_acks: u64,
    /// Transactions committed (`exactly_once`).
    pub transactions_committed: u64,
    /// Transactions aborted: what was in them is read and written again, and counted again as consumed.
    pub transactions_aborted: u64,
}

impl Counters {
    /// How many outputs bore this flag.
    #[must_use]
    pub fn flagged(&self, flag: Flag) -> u64 {
        self.flagged[flag as usize]
    }

    pub(crate) fn flag(&mut self, flags: Flags) {
        if !flags.is_empty() {
            for flag in flags.iter() {
                self.flagged[flag as usize] += 1;
            }
        }
    }

    pub(crate) fn dropped(&mut self, reason: RejectionReason) {
        self.dropped.add(reason);
    }

    pub(crate) fn finished(&mut self, kind: OutputKind) {
        self.in_flight -= 1;
        match kind {
            OutputKind::Enriched => self.enriched += 1,
            OutputKind::Forwarded => self.forwarded += 1,
            OutputKind::DeadLetter(reason) => self.dead_lettered.add(reason),
        }
    }

    /// Asserts the sum rule (I5).
    ///
    /// # Panics
    /// Where a record was counted twice or not at all: a bug.
    pub fn assert_sum(&self) {
        let sum = self.enriched
            + self.dead_lettered.total
            + self.dropped.total
            + self.forwarded
            + self.released
            + self.held
            + self.in_flight;
        assert!(
            self.consumed == sum,
            "I5: consumed is the sum of the others: {self:?}"
        );
    }
}
