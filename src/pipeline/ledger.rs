//! What became of each record of one partition, in reading order, and how far its offset may be committed.
//!
//! I6: the committable offset is that right after the longest finished prefix; held records and unacknowledged outputs
//! are unfinished. Records are numbered by a sequence of their own, as offsets have gaps (compaction, transactions).

use std::collections::VecDeque;

use crate::enriched::Token;
use crate::partition::Offset;
use crate::rejection::RejectionReason;

/// What an output in flight becomes when it is acknowledged.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    Enriched,
    Forwarded,
    DeadLetter(RejectionReason),
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Read, not sent: held, or about to be sent within the same call.
    Waiting,
    InFlight(OutputKind),
    Finished,
    /// Given back unread: unfinished for good, in this ownership.
    Released,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    offset: Offset,
    /// Of the output in flight.
    bytes: u32,
    state: State,
}

/// The ledger of one ownership of one partition.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The sequence of the first entry.
    base: u64,
    entries: VecDeque<Entry>,
    /// Right after the finished prefix; `None` until a record is finished.
    committable: Option<Offset>,
    in_flight_bytes: usize,
}

impl Ledger {
    /// Enters a record and gives its sequence. Offsets rise strictly.
    pub(crate) fn read(&mut self, offset: Offset) -> u64 {
        debug_assert!(
            self.entries.back().is_none_or(|last| last.offset < offset),
            "records are read in offset order"
        );
        self.entries.push_back(Entry {
            offset,
            bytes: 0,
            state: State::Waiting,
        });
        self.base + self.entries.len() as u64 - 1
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        // Tokens carry the low bits only: the distance is taken modulo them, and is far below their range.
        let distance = sequence.wrapping_sub(self.base) & Token::SEQUENCE_MASK;
        usize::try_from(distance)
            .ok()
            .filter(|index| *index < self.entries.len())
    }

    fn entry(&mut self, sequence: u64) -> &mut Entry {
        let index = self
            .index(sequence)
            .expect("an unfinished record is in the ledger");
        &mut self.entries[index]
    }

    /// The offset of an unfinished record.
    pub(crate) fn offset(&self, sequence: u64) -> Option<Offset> {
        self.index(sequence).map(|index| self.entries[index].offset)
    }

    /// The record's output was handed to the sink. A refused one may be sent again, as a dead letter.
    pub(crate) fn sent(&mut self, sequence: u64, kind: OutputKind, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let entry = self.entry(sequence);
        assert!(
            entry.state == State::Waiting,
            "a record has one output in flight at most"
        );
        entry.state = State::InFlight(kind);
        entry.bytes = bytes;
        self.in_flight_bytes += bytes as usize;
    }

    /// What the record's output in flight is; `None` where there is none.
    pub(crate) fn in_flight_kind(&self, sequence: u64) -> Option<OutputKind> {
        match self.entries[self.index(sequence)?].state {
            State::InFlight(kind) => Some(kind),
            State::Waiting | State::Finished | State::Released => None,
        }
    }

    /// The record's output was refused: the record waits again. Gives the output's bytes; `None` where none is in flight.
    pub(crate) fn refused(&mut self, sequence: u64) -> Option<usize> {
        self.end(sequence, State::Waiting)
    }

    /// The record's output was acknowledged. Gives its bytes; `None` where none is in flight.
    pub(crate) fn acked(&mut self, sequence: u64) -> Option<usize> {
        let bytes = self.end(sequence, State::Finished)?;
        self.advance();
        Some(bytes)
    }

    fn end(&mut self, sequence: u64, state: State) -> Option<usize> {
        self.in_flight_kind(sequence)?;
        let entry = self.entry(sequence);
        entry.state = state;
        let bytes = entry.bytes as usize;
        self.in_flight_bytes -= bytes;
        Some(bytes)
    }

    /// The record is given back: it stays unfinished for good, and nothing is committed past it. Gives the bytes of its
    /// output, if that was in flight.
    pub(crate) fn released(&mut self, sequence: u64) -> usize {
        if let Some(bytes) = self.end(sequence, State::Released) {
            return bytes;
        }
        let entry = self.entry(sequence);
        assert!(
            entry.state == State::Waiting,
            "what is given back is unfinished"
        );
        entry.state = State::Released;
        0
    }

    /// The record needs no output: it was dropped by a stated rule.
    pub(crate) fn dropped(&mut self, sequence: u64) {
        let entry = self.entry(sequence);
        assert!(
            entry.state == State::Waiting,
            "a dropped record has no output"
        );
        entry.state = State::Finished;
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(first) = self.entries.front()
            && first.state == State::Finished
        {
            let next = first.offset.next();
            assert!(
                self.committable.is_none_or(|before| before < next),
                "I6: commits only advance"
            );
            self.committable = Some(next);
            self.entries.pop_front();
            self.base += 1;
        }
    }

    /// The offset to commit; `None` until a record is finished.
    pub(crate) fn committable(&self) -> Option<Offset> {
        self.committable
    }

    /// Records that are neither finished nor released, where none is held: those with an output in flight, and those
    /// whose dead letter is still to be sent.
    pub(crate) fn unacknowledged(&self) -> usize {
        let is_open = |entry: &&Entry| matches!(entry.state, State::Waiting | State::InFlight(_));
        self.entries.iter().filter(is_open).count()
    }

    /// The oldest record that is not finished; `None` where all that was read is.
    pub(crate) fn oldest_unfinished(&self) -> Option<Offset> {
        self.entries.front().map(|entry| entry.offset)
    }

    /// The last record with an output in flight.
    pub(crate) fn last_in_flight(&self) -> Option<Offset> {
        let mut newest_first = self.entries.iter().rev();
        newest_first
            .find(|entry| matches!(entry.state, State::InFlight(_)))
            .map(|entry| entry.offset)
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_in_offsets_are_committed_over() {
        let mut ledger = Ledger::default();
        let first = ledger.read(Offset(3));
        let second = ledger.read(Offset(90));
        assert_eq!(ledger.committable(), None);
        ledger.sent(second, OutputKind::Enriched, 10);
        ledger.acked(second);
        assert_eq!(ledger.committable(), None, "the first is unfinished");
        ledger.dropped(first);
        assert_eq!(ledger.committable(), Some(Offset(91)));
    }

    #[test]
    fn a_second_ack_of_one_output_changes_nothing() {
        let mut ledger = Ledger::default();
        let _blocking = ledger.read(Offset(0));
        let record = ledger.read(Offset(1));
        ledger.sent(record, OutputKind::Forwarded, 7);
        assert_eq!(ledger.acked(record), Some(7));
        assert_eq!(ledger.acked(record), None);
        assert_eq!((ledger.unacknowledged(), ledger.in_flight_bytes()), (1, 0));
    }

    #[test]
    fn a_refused_output_keeps_the_commit_back_until_its_dead_letter_is_acked() {
        let mut ledger = Ledger::default();
        let record = ledger.read(Offset(5));
        ledger.sent(record, OutputKind::Enriched, 100);
        assert!(ledger.refused(record).is_some());
        assert_eq!((ledger.committable(), ledger.in_flight_bytes()), (None, 0));
        ledger.sent(
            record,
            OutputKind::DeadLetter(RejectionReason::TooLarge),
            50,
        );
        assert_eq!(ledger.in_flight_bytes(), 50);
        ledger.acked(record);
        assert_eq!(ledger.committable(), Some(Offset(6)));
    }

    #[test]
    fn sequences_beyond_the_bits_of_a_token_are_found() {
        let mut ledger = Ledger {
            base: Token::SEQUENCE_MASK - 1,
            ..Ledger::default()
        };
        for offset in 0..4 {
            let sequence = ledger.read(Offset(offset));
            ledger.sent(sequence, OutputKind::Enriched, 1);
            let token = Token::new(0, 0, sequence);
            assert_eq!(ledger.offset(token.sequence()), Some(Offset(offset)));
        }
    }

    proptest! {
        /// I6 against a set: `Read`, then any record finished in any order.
        #[test]
        fn i6_committable_is_that_of_a_naive_set(
            gaps in prop::collection::vec(1i64..5, 1..60),
            finish in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
            reads_between in prop::collection::vec(0usize..3, 120),
        ) {
            let mut ledger = Ledger::default();
            let mut offset = 0;
            let mut offsets = gaps.iter().map(|gap| { offset += gap; Offset(offset) });
            let mut naive: Vec<(u64, Offset, bool)> = Vec::new();
            for (step, pick) in finish.iter().enumerate() {
                for _ in 0..reads_between[step] {
                    if let Some(offset) = offsets.next() {
                        naive.push((ledger.read(offset), offset, false));
                    }
                }
                if naive.is_empty() { continue; }
                let at = pick.index(naive.len());
                if !naive[at].2 {
                    naive[at].2 = true;
                    if at % 3 == 0 {
                        ledger.dropped(naive[at].0);
                    } else {
                        ledger.sent(naive[at].0, OutputKind::Enriched, at);
                        prop_assert!(ledger.acked(naive[at].0).is_some());
                    }
                }
                let expected = naive.iter().take_while(|(_, _, done)| *done).last();
                prop_assert_eq!(ledger.committable(), expected.map(|(_, offset, _)| offset.next()));
                prop_assert_eq!(ledger.in_flight_bytes(), 0);
            }
        }
    }
}
