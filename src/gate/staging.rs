//! Changes that are accepted, ordered and invisible: waiting for the low watermark, or to be built ahead of it. Bounded
//! in changes and bytes (I7); one oversized change is always admitted.

use crate::time::EventTime;
use crate::zone::StagedChange;

#[derive(Clone, Debug)]
pub(super) struct Staging {
    changes: Vec<StagedChange>,
    bytes: usize,
    earliest: Option<EventTime>,
    pause_at: usize,
    pause_at_bytes: usize,
    paused: bool,
}

impl Staging {
    pub(super) fn new(pause_at: usize, pause_at_bytes: usize) -> Self {
        Self {
            changes: Vec::new(),
            bytes: 0,
            earliest: None,
            pause_at,
            pause_at_bytes,
            paused: false,
        }
    }

    pub(super) fn stage(&mut self, change: StagedChange) {
        self.earliest = Some(
            self.earliest
                .map_or(change.commit_time, |first| first.min(change.commit_time)),
        );
        self.bytes += change.bytes;
        self.changes.push(change);
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &StagedChange> {
        self.changes.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The earliest commit time that waits here.
    pub(super) fn earliest(&self) -> Option<EventTime> {
        self.earliest
    }

    /// Takes all changes with commit time ≤ `cut`.
    pub(super) fn take_until(&mut self, cut: EventTime) -> Vec<StagedChange> {
        let (taken, left) = std::mem::take(&mut self.changes)
            .into_iter()
            .partition(|change| change.commit_time <= cut);
        self.put_back(left);
        taken
    }

    /// Takes everything, to be built ahead of the watermark.
    pub(super) fn take_all(&mut self) -> Vec<StagedChange> {
        let taken = std::mem::take(&mut self.changes);
        self.put_back(Vec::new());
        taken
    }

    fn put_back(&mut self, left: Vec<StagedChange>) {
        self.bytes = left.iter().map(|change| change.bytes).sum();
        self.earliest = left.iter().map(|change| change.commit_time).min();
        self.changes = left;
    }

    /// Whether it is so full that the builder should begin to empty it, before reading must stop.
    pub(super) fn should_build_ahead(&self) -> bool {
        self.changes.len() * 2 >= self.pause_at || self.bytes * 2 >= self.pause_at_bytes
    }

    /// Whether the zone partitions are to be paused or resumed now; `held` counts what the builder still has.
    pub(super) fn turn(&mut self, held_changes: usize, held_bytes: usize) -> Option<bool> {
        let (changes, bytes) = (self.changes.len() + held_changes, self.bytes + held_bytes);
        if !self.paused && (changes >= self.pause_at || bytes >= self.pause_at_bytes) {
            self.paused = true;
            return Some(true);
        }
        if self.paused && changes * 2 <= self.pause_at && bytes * 2 <= self.pause_at_bytes {
            self.paused = false;
            return Some(false);
        }
        None
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }
}
