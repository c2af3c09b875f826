//! From staged changes to a new index: one build in flight, tried again, split, and in the end the one change at fault
//! refused (DESIGN 6). What becomes visible becomes visible all together: an index is given out only when all of its
//! changes are in it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::index::{BuildFailure, Built, Index};
use crate::time::EventTime;
use crate::zone::StagedChange;

/// So often a build is tried before it is split.
const TRIES: u32 = 3;

/// A promotion under way.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    /// Parts still to be built, in order; the first is in flight.
    parts: VecDeque<Arc<[StagedChange]>>,
    tries: u32,
    /// With the parts that are built.
    index: Arc<Index>,
}

/// What a finished build leads to.
#[derive(Debug)]
pub(super) enum Step {
    /// Build this next, on this index.
    Build(Arc<Index>, Arc<[StagedChange]>),
    /// All is built.
    Done(Arc<Index>),
    /// This change cannot be built; ask [`Promotion::next`] how to go on.
    Refused(Box<StagedChange>, BuildFailure),
}

impl Promotion {
    pub(super) fn new(index: Arc<Index>, changes: Vec<StagedChange>) -> Self {
        Self {
            parts: VecDeque::from([changes.into()]),
            tries: 0,
            index,
        }
    }

    pub(super) fn changes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts
            .iter()
            .flat_map(|part| part.iter())
            .map(|change| change.bytes)
            .sum()
    }

    /// The earliest commit time that is not visible yet.
    pub(super) fn earliest(&self) -> Option<EventTime> {
        self.parts
            .iter()
            .flat_map(|part| part.iter())
            .map(|change| change.commit_time)
            .min()
    }

    pub(super) fn next(&self) -> Step {
        match self.parts.front() {
            Some(part) => Step::Build(self.index.clone(), part.clone()),
            None => Step::Done(self.index.clone()),
        }
    }

    pub(super) fn built(&mut self, built: Built) -> Step {
        self.parts
            .pop_front()
            .expect("what was built was the first part");
        self.tries = 0;
        self.index = Arc::new(built.index);
        self.next()
    }

    pub(super) fn failed(&mut self, failure: BuildFailure) -> Step {
        self.tries += 1;
        let part = self
            .parts
            .front()
            .expect("what failed was the first part")
            .clone();
        if self.tries < TRIES {
            return self.next();
        }
        self.parts.pop_front();
        self.tries = 0;
        if let [change] = &*part {
            return Step::Refused(Box::new(change.clone()), failure);
        }
        let (first, second) = part.split_at(part.len() / 2);
        self.parts.push_front(second.into());
        self.parts.push_front(first.into());
        // A split part has had its tries: one more each is enough to find the change at fault.
        self.tries = TRIES - 1;
        self.next()
    }

    /// Puts a change in place of one that was refused.
    pub(super) fn replace(&mut self, change: StagedChange) {
        self.parts.push_front(Arc::new([change]));
    }
}
