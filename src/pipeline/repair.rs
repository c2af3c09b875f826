//! What becomes of a batch that the broker refused for one of its records (KAFKA 0.7): the error names the batch, not
//! the record at fault, and the client's queue behind the gap must not overtake it (I8).
//!
//! ```text
//!   Batches ──refused──► Refused ──begin_one_by_one──► OneByOne ──all of it finished──► Mended ──back_to_batches──► Batches
//! ```
//!
//! The producer gives up at the gap. Every owned partition goes back to its oldest unfinished record, and what was in
//! flight is sent again, each output in a request of its own: what is refused now is at fault itself, and is
//! dead-lettered. What had been delivered beyond the gap is written twice (at least once), never out of order.

use std::collections::BTreeMap;

use crate::partition::{Offset, PartitionId};
use crate::pipeline::engine::Engine;
use crate::pipeline::view::Zones;
use crate::rejection::{Rejection, RejectionReason};

/// Why the broker (or the client) does not take a record, however often it is sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Larger than the topic takes.
    TooLarge,
    /// Against another rule of the topic: its timestamp, or no key where the topic is compacted.
    Invalid,
}

impl Refusal {
    pub(super) fn rejection(self) -> Rejection {
        match self {
            Self::TooLarge => Rejection::new(
                RejectionReason::TooLarge,
                "the broker refused the enriched record as too large",
            ),
            Self::Invalid => Rejection::new(
                RejectionReason::BrokerRefused,
                "the broker refused the enriched record: its timestamp, or no key on a compacted topic",
            ),
        }
    }
}

/// How outputs are to be sent.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Sending {
    /// In batches, as the client likes.
    Batches,
    /// Part of what is in flight was refused: give the producer up, call [`Engine::begin_one_by_one`], read every owned
    /// partition again from its oldest unfinished record.
    Refused,
    /// Each in a request of its own, one request at a time.
    OneByOne,
    /// What was refused is dealt with, nothing is in flight: call [`Engine::back_to_batches`].
    Mended,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Batches,
    Refused,
    OneByOne,
    /// As `OneByOne`; nothing new is sent, so that the producer can be changed.
    Draining,
}

/// Where the engine is in it.
#[derive(Debug)]
pub(super) struct Repair {
    state: State,
    /// Never goes back to batches.
    for_good: bool,
    /// The last record of each partition that was in flight when the batch was refused.
    until: BTreeMap<PartitionId, Offset>,
}

impl Repair {
    pub(super) fn new(one_by_one_for_good: bool) -> Self {
        Self {
            state: if one_by_one_for_good {
                State::OneByOne
            } else {
                State::Batches
            },
            for_good: one_by_one_for_good,
            until: BTreeMap::new(),
        }
    }

    /// Whether a refusal is of one record alone, whose original is kept.
    pub(super) fn is_one_by_one(&self) -> bool {
        matches!(self.state, State::OneByOne | State::Draining)
    }

    /// Whether nothing new is to be sent.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Refused | State::Draining)
    }

    /// A batch was refused.
    pub(super) fn refused(&mut self) {
        debug_assert!(
            !self.is_one_by_one(),
            "one by one, the record at fault is known"
        );
        self.state = State::Refused;
    }
}

impl<Z: Zones> Engine<Z> {
    /// How outputs are to be sent from here on. To be asked in every turn, after the acknowledgements.
    pub fn sending(&mut self) -> Sending {
        if self.repair.state == State::OneByOne && !self.repair.for_good {
            let slots = &self.slots;
            self.repair.until.retain(|partition, last| {
                slots.find(*partition).is_some_and(|slot| {
                    slots[slot]
                        .ledger
                        .committable()
                        .is_none_or(|next| next <= *last)
                })
            });
            if self.repair.until.is_empty() {
                self.repair.state = State::Draining;
            }
        }
        match self.repair.state {
            State::Batches => Sending::Batches,
            State::Refused => Sending::Refused,
            State::Draining if self.counters.in_flight == 0 => Sending::Mended,
            State::OneByOne | State::Draining => Sending::OneByOne,
        }
    }

    /// Gives back everything that is unfinished, and owns the same partitions anew: they are to be read again from their
    /// oldest unfinished record, and every output is to be sent in a request of its own. Acknowledgements of what was
    /// sent before are stale. Ask [`Self::backpressure`] right after.
    pub fn begin_one_by_one(&mut self) {
        let owned = self.owned();
        self.repair.until = self
            .slots
            .iter()
            .filter_map(|(_, slot)| Some((slot.partition, slot.ledger.last_in_flight()?)))
            .collect();
        self.repair.state = State::OneByOne;
        self.writer.rules.keep_originals = true;
        self.assigned(&owned);
    }

    /// The producer sends batches again.
    ///
    /// # Panics
    /// Before [`Sending::Mended`]: what is in flight one by one could be overtaken.
    pub fn back_to_batches(&mut self) {
        assert_eq!(
            self.sending(),
            Sending::Mended,
            "I8: what is in flight one by one is awaited"
        );
        self.repair.state = State::Batches;
        self.writer.rules.keep_originals = false;
    }
}
