//! The watermark of one zones partition: no change with commit time ≤ it is still to come. From proofs alone
//! (DESIGN 4): all below an end offset that was asked for at a known T has been staged, or a marker was read, which the
//! broker stamped later than all that stands before it.

use std::time::Duration;

use super::ProofKind;
use crate::partition::{Offset, PartitionId};
use crate::time::{EventTime, MonoTime};

/// What a partition says of the record with its largest timestamp (ListOffsets MAX_TIMESTAMP, KIP-734).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum MaxTimestamp {
    /// The broker does not know the question: the plain proof counts.
    Unsupported,
    /// That record is not below the end offset yet: a dead replica may hold more back. The proof does not count.
    Unanswered,
    /// Its offset.
    At(Offset),
}

/// A partition's answer in a round.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EndAnswer {
    /// The first offset of the log.
    pub log_start: Offset,
    /// The offset after its last record, as `read_uncommitted` sees it.
    pub log_end: Offset,
    /// Where the record with the largest timestamp is.
    pub max_timestamp: MaxTimestamp,
}

impl EndAnswer {
    /// Whether nothing older can be waiting behind the end offset.
    fn is_proof(&self) -> bool {
        match self.max_timestamp {
            MaxTimestamp::Unsupported => true,
            // An empty log has no largest timestamp.
            MaxTimestamp::Unanswered => self.log_start >= self.log_end,
            MaxTimestamp::At(offset) => offset < self.log_end || self.log_start >= self.log_end,
        }
    }
}

/// End offsets that were all asked for after `asked_at` had been read.
#[derive(Clone, Debug)]
pub struct ProofRound {
    /// T, read before the question.
    pub asked_at: EventTime,
    /// The answers that came.
    pub answers: Vec<(PartitionId, EndAnswer)>,
}

#[derive(Copy, Clone, Debug)]
struct Proof {
    end: Offset,
    asked_at: EventTime,
}

/// How the last round went for a partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum LastAnswer {
    None,
    Unanswered,
    End(Offset),
}

/// Reading progress, open proofs and the watermark of one partition.
#[derive(Clone, Debug)]
pub(super) struct PartitionWatermark {
    kind: ProofKind,
    /// The log end of the first answer: a marker below it was there before this reading began.
    counts_from: Option<Offset>,
    next_offset: Offset,
    /// As the client last said; `None` before it has.
    end_of_partition: Option<Offset>,
    /// The oldest and the newest open proof, so that a busy partition advances too.
    oldest: Option<Proof>,
    newest: Option<Proof>,
    watermark: Option<EventTime>,
    pub(super) last_answer: LastAnswer,
    pub(super) last_answer_at: MonoTime,
    /// Where the log began and ended by the last answer, proof or not.
    log: Option<(Offset, Offset)>,
    /// When it was last read to an end asked for.
    pub(super) reached_end_at: MonoTime,
    /// What was read when the last answer came.
    read_before: Offset,
}

/// The partition's log ends below what was read of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct LogTruncated {
    pub(super) read_to: Offset,
    pub(super) log_end: Offset,
}

impl PartitionWatermark {
    pub(super) fn new(kind: ProofKind, now: MonoTime) -> Self {
        Self {
            kind,
            counts_from: None,
            next_offset: Offset(0),
            end_of_partition: None,
            oldest: None,
            newest: None,
            watermark: None,
            last_answer: LastAnswer::None,
            last_answer_at: now,
            log: None,
            reached_end_at: now,
            read_before: Offset(0),
        }
    }

    /// It is read again from its start. What was read stays known, for the log may end below it by now.
    pub(super) fn start_over(&mut self, now: MonoTime) {
        *self = Self {
            read_before: self.read_before,
            ..Self::new(self.kind, now)
        };
    }

    pub(super) fn watermark(&self) -> Option<EventTime> {
        self.watermark
    }

    pub(super) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    pub(super) fn end_of_partition(&self) -> Option<Offset> {
        self.end_of_partition
    }

    /// All records below this are staged, or there are none.
    pub(super) fn staged_to(&self) -> Offset {
        self.next_offset
            .max(self.end_of_partition.unwrap_or_default())
    }

    /// How many offsets of the log are read, and how many there are; `None` before the first answer.
    pub(super) fn read_of(&self) -> Option<(u64, u64)> {
        let (start, end) = self.log?;
        let count = |to: Offset| u64::try_from(to.0 - start.0).unwrap_or(0);
        Some((count(self.staged_to().min(end)), count(end)))
    }

    pub(super) fn read_to(&mut self, next_offset: Offset, margin: Duration, now: MonoTime) {
        self.next_offset = self.next_offset.max(next_offset);
        self.settle(margin, now);
    }

    pub(super) fn end_reached(&mut self, next_offset: Offset, margin: Duration, now: MonoTime) {
        self.end_of_partition = self.end_of_partition.max(Some(next_offset));
        self.settle(margin, now);
    }

    /// Takes a round's answer: opens a proof where it is one.
    pub(super) fn answered(
        &mut self,
        asked_at: EventTime,
        answer: &EndAnswer,
        margin: Duration,
        now: MonoTime,
    ) -> Result<(), LogTruncated> {
        // An answer is older than what was read while it was under way. What the answer before it found read was read
        // before this one was asked for, as a broker has one round open at a time.
        if answer.log_end < self.read_before {
            return Err(LogTruncated {
                read_to: self.read_before,
                log_end: answer.log_end,
            });
        }
        self.read_before = self.read_before.max(self.staged_to());
        self.last_answer_at = now;
        self.log = Some((answer.log_start, answer.log_end));
        self.counts_from.get_or_insert(answer.log_end);
        // What may be held back behind the end is stamped before any marker that comes to stand behind it.
        if self.kind == ProofKind::End && !answer.is_proof() {
            self.last_answer = LastAnswer::Unanswered;
            return Ok(());
        }
        self.last_answer = LastAnswer::End(answer.log_end);
        let proof = Proof {
            end: answer.log_end,
            asked_at,
        };
        if self.oldest.is_none() {
            self.oldest = Some(proof);
        } else {
            self.newest = Some(proof);
        }
        self.settle(margin, now);
        Ok(())
    }

    /// A marker was read: the broker stamped all that stands before it no later. With `read_committed` what stands before
    /// it is decided, too.
    ///
    /// An old one proves as much of its own instant. But a reading from the start that stopped there would serve the zones
    /// of that time as if they were today's.
    pub(super) fn marker(&mut self, offset: Offset, stamp: EventTime, now: MonoTime) {
        if self.kind == ProofKind::Marker && self.counts_from.is_some_and(|from| offset >= from) {
            self.reached_end_at = now;
            self.proven(stamp.minus(Duration::from_millis(1)));
        }
    }

    fn proven(&mut self, to: EventTime) {
        // I1: a step back of T or of a stamp, or a grown margin, moves nothing back.
        self.watermark = Some(self.watermark.map_or(to, |before| before.max(to)));
    }

    pub(super) fn kind(&self) -> ProofKind {
        self.kind
    }

    fn settle(&mut self, margin: Duration, now: MonoTime) {
        let staged_to = self.staged_to();
        let is_met = |proof: &Option<Proof>| proof.is_some_and(|proof| staged_to >= proof.end);
        let met = if is_met(&self.newest) {
            self.oldest = None;
            self.newest.take()
        } else if is_met(&self.oldest) {
            std::mem::replace(&mut self.oldest, self.newest.take())
        } else {
            None
        };
        if let Some(proof) = met {
            self.reached_end_at = now;
            if self.kind == ProofKind::End {
                self.proven(proof.asked_at.minus(margin + Duration::from_millis(1)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_millis(250);

    fn t(millis: i64) -> EventTime {
        EventTime::clamped(millis)
    }

    fn end(offset: i64) -> EndAnswer {
        EndAnswer {
            log_start: Offset(0),
            log_end: Offset(offset),
            max_timestamp: MaxTimestamp::At(Offset(offset - 1)),
        }
    }

    fn fresh() -> PartitionWatermark {
        PartitionWatermark::new(ProofKind::End, MonoTime::default())
    }

    fn m() -> MonoTime {
        MonoTime::default()
    }

    #[test]
    fn fs_17_a_silent_partition_read_to_its_end_advances_with_every_proof() {
        let mut partition = fresh();
        partition.end_reached(Offset(5), MARGIN, m());
        for round in 1..100 {
            partition
                .answered(t(round * 1_000), &end(5), MARGIN, m())
                .expect("not truncated");
            assert_eq!(partition.watermark(), Some(t(round * 1_000 - 251)));
        }
    }

    #[test]
    fn fs_18_a_quiet_partition_behind_its_end_waits() {
        let mut partition = fresh();
        partition.read_to(Offset(3), MARGIN, m());
        for round in 1..100 {
            partition
                .answered(t(round * 1_000), &end(5), MARGIN, m())
                .expect("not truncated");
        }
        assert_eq!(partition.watermark(), None);
        partition.read_to(Offset(5), MARGIN, m());
        assert_eq!(
            partition.watermark(),
            Some(t(99_000 - 251)),
            "then the newest proof counts"
        );
    }

    #[test]
    fn a_marker_proves_all_that_is_stamped_before_it_whatever_the_ends_say() {
        let mut partition = PartitionWatermark::new(ProofKind::Marker, MonoTime::default());
        partition.marker(Offset(2), t(500), m());
        assert_eq!(
            partition.watermark(),
            None,
            "no end is known: it may be old"
        );
        partition
            .answered(t(1_000), &end(5), MARGIN, m())
            .expect("not truncated");
        partition.marker(Offset(4), t(700), m());
        assert_eq!(
            partition.watermark(),
            None,
            "it was there before the reading began"
        );
        partition.read_to(Offset(5), MARGIN, m());
        assert_eq!(partition.watermark(), None, "the end alone proves nothing");
        partition.marker(Offset(5), t(1_100), m());
        assert_eq!(partition.watermark(), Some(t(1_099)), "no margin");
        partition.marker(Offset(6), t(900), m());
        assert_eq!(partition.watermark(), Some(t(1_099)), "I1");
    }

    #[test]
    fn markers_of_others_prove_nothing_where_the_ends_do() {
        let mut partition = fresh();
        partition
            .answered(t(1_000), &end(5), MARGIN, m())
            .expect("not truncated");
        partition.marker(Offset(9), t(9_000), m());
        assert_eq!(partition.watermark(), None);
    }

    #[test]
    fn a_busy_partition_advances_by_its_oldest_proof() {
        let mut partition = fresh();
        partition
            .answered(t(1_000), &end(10), MARGIN, m())
            .expect("not truncated");
        partition
            .answered(t(2_000), &end(20), MARGIN, m())
            .expect("not truncated");
        partition
            .answered(t(3_000), &end(30), MARGIN, m())
            .expect("not truncated");
        partition.read_to(Offset(10), MARGIN, m());
        assert_eq!(partition.watermark(), Some(t(749)));
        partition.read_to(Offset(29), MARGIN, m());
        assert_eq!(
            partition.watermark(),
            Some(t(749)),
            "the middle one was let go for the newest"
        );
        partition.read_to(Offset(30), MARGIN, m());
        assert_eq!(partition.watermark(), Some(t(2_749)));
    }

    #[test]
    fn fs_57_a_tail_that_compaction_took_is_passed_by_the_end_of_partition_event() {
        let mut partition = fresh();
        partition
            .answered(t(1_000), &end(10), MARGIN, m())
            .expect("not truncated");
        partition.read_to(Offset(4), MARGIN, m());
        assert_eq!(partition.watermark(), None);
        partition.end_reached(Offset(10), MARGIN, m());
        assert_eq!(partition.watermark(), Some(t(749)));
    }

    #[test]
    fn a_proof_counts_only_if_the_largest_timestamp_is_below_the_end() {
        let answer = |max_timestamp| EndAnswer {
            log_start: Offset(0),
            log_end: Offset(5),
            max_timestamp,
        };
        for (max_timestamp, counts) in [
            (MaxTimestamp::Unanswered, false),
            (MaxTimestamp::At(Offset(5)), false),
            (MaxTimestamp::At(Offset(4)), true),
            (MaxTimestamp::Unsupported, true),
        ] {
            let mut partition = fresh();
            partition.end_reached(Offset(5), MARGIN, m());
            partition
                .answered(t(1_000), &answer(max_timestamp), MARGIN, m())
                .expect("not truncated");
            assert_eq!(partition.watermark().is_some(), counts, "{max_timestamp:?}");
        }
    }

    #[test]
    fn a_partition_that_never_had_a_record_is_proven_by_its_empty_log() {
        let mut partition = fresh();
        let empty = EndAnswer {
            log_start: Offset(0),
            log_end: Offset(0),
            max_timestamp: MaxTimestamp::Unanswered,
        };
        partition
            .answered(t(1_000), &empty, MARGIN, m())
            .expect("not truncated");
        assert_eq!(partition.watermark(), Some(t(749)));
    }

    #[test]
    fn fs_63_an_end_below_what_was_read_is_a_truncated_log() {
        let mut partition = fresh();
        partition
            .answered(t(1), &end(5), MARGIN, m())
            .expect("not truncated");
        partition.read_to(Offset(7), MARGIN, m());
        // Asked for before those records were read.
        partition
            .answered(t(2), &end(6), MARGIN, m())
            .expect("not truncated");
        assert_eq!(
            partition.answered(t(3), &end(6), MARGIN, m()),
            Err(LogTruncated {
                read_to: Offset(7),
                log_end: Offset(6)
            })
        );
    }

    #[test]
    fn i1_a_step_back_of_t_leaves_the_watermark_where_it_is() {
        let mut partition = fresh();
        partition
            .answered(t(10_000), &end(0), MARGIN, m())
            .expect("not truncated");
        partition
            .answered(t(1_000), &end(0), MARGIN, m())
            .expect("not truncated");
        assert_eq!(partition.watermark(), Some(t(9_749)));
    }
}
