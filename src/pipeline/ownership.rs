//! The partitions of one worker: each owned partition has a slot with its ledger and hold queue, and an ownership
//! epoch that tells acknowledgements of this ownership from those of earlier ones (FS-07, FS-08).
//!
//! ```text
//!   Free ──assigned──► Owned ──revoking──► Revoking ──revoked──► Free (epoch + 1)
//!                        └───────────────── lost ─────────────────▲
//! ```

use crate::enriched::Token;
use crate::partition::{Offset, PartitionId};
use crate::pipeline::hold::HoldQueue;
use crate::pipeline::ledger::Ledger;

/// Where a slot is in the life of an ownership.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free,
    Owned,
    /// What is in flight may still be acknowledged; nothing is taken in.
    Revoking,
}

/// One partition's place.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) partition: PartitionId,
    pub(crate) epoch: u16,
    pub(crate) state: SlotState,
    pub(crate) ledger: Ledger,
    pub(crate) hold: HoldQueue,
    /// The offset of the last record taken in.
    pub(crate) last_read: Option<Offset>,
    /// The committable offset that was last handed out.
    pub(crate) reported: Option<Offset>,
    /// Assigned since the last verdict of backpressure.
    pub(crate) fresh: bool,
}

/// All slots, found by partition or by token.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// Partition number to slot, for those that are not free.
    by_partition: Vec<Option<u16>>,
}

impl Slots {
    /// The slot of a partition that is not free.
    pub(crate) fn find(&self, partition: PartitionId) -> Option<usize> {
        let place = usize::try_from(partition.0).ok()?;
        self.by_partition
            .get(place)
            .copied()
            .flatten()
            .map(usize::from)
    }

    /// The slot that a token is of; `None` where its ownership has ended.
    pub(crate) fn of_token(&self, token: Token) -> Option<usize> {
        let slot = self.slots.get(token.slot())?;
        (slot.state != SlotState::Free && slot.epoch == token.epoch()).then_some(token.slot())
    }

    /// Begins an ownership. `None` where a worker cannot own any more partitions.
    pub(crate) fn open(&mut self, partition: PartitionId) -> Option<usize> {
        debug_assert!(
            self.find(partition).is_none(),
            "an ownership ends before the next begins"
        );
        let place = usize::try_from(partition.0).ok()?;
        let free = self
            .slots
            .iter()
            .position(|slot| slot.state == SlotState::Free);
        let at = match free {
            Some(at) => at,
            None if self.slots.len() == Token::SLOTS => return None,
            None => {
                self.slots.push(Slot {
                    partition,
                    epoch: 0,
                    state: SlotState::Free,
                    ledger: Ledger::default(),
                    hold: HoldQueue::default(),
                    last_read: None,
                    reported: None,
                    fresh: false,
                });
                self.slots.len() - 1
            }
        };
        let slot = &mut self.slots[at];
        slot.partition = partition;
        slot.state = SlotState::Owned;
        slot.fresh = true;
        if self.by_partition.len() <= place {
            self.by_partition.resize(place + 1, None);
        }
        self.by_partition[place] = Some(u16::try_from(at).expect("slots fit a token"));
        Some(at)
    }

    /// Ends an ownership: everything of it is dropped, and its tokens are stale from now on.
    pub(crate) fn close(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        assert!(
            slot.state != SlotState::Free,
            "a free slot has no ownership to end"
        );
        slot.state = SlotState::Free;
        slot.epoch = (slot.epoch + 1) % Token::EPOCHS;
        slot.ledger = Ledger::default();
        slot.hold = HoldQueue::default();
        slot.last_read = None;
        slot.reported = None;
        slot.fresh = false;
        self.by_partition[slot.partition.0 as usize] = None;
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slots that are not free, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.state != SlotState::Free)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Slot)> {
        self.slots
            .iter_mut()
            .enumerate()
            .filter(|(_, slot)| slot.state != SlotState::Free)
    }
}

impl std::ops::Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, at: usize) -> &Slot {
        &self.slots[at]
    }
}

impl std::ops::IndexMut<usize> for Slots {
    fn index_mut(&mut self, at: usize) -> &mut Slot {
        &mut self.slots[at]
    }
}
