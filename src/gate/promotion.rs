//! From staged changes to a new index: one build in flight, tried again, split, and in the end the one change at fault
//! refused (DESIGN 6). What becomes visible becomes visible all together: an index is given out only when all of its
//! changes are in it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::index::{Built, Index};
use crate::time::{EventTime, MonoTime};
use crate::zone::StagedChange;

/// So often a build is tried before it is split.
const TRIES: u32 = 3;
/// The pause after a first failure; it doubles with each one in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// No pause is longer: even a bisection of 10,000 changes to one at fault ends within 15 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long nothing is tried after so many failures in a row (at least one): what made a build fail may pass, and one
/// that always fails must not keep a core busy.
pub(super) fn pause_after(failures: u32) -> Duration {
    let doubled = failures.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doubled).min(LONGEST_PAUSE)
}

/// A part of a promotion, with how often it was tried.
#[derive(Clone, Debug)]
struct Part {
    changes: Arc<[StagedChange]>,
    tries: u32,
}

/// A promotion under way.
#[derive(Clone, Debug)]
pub(super) struct Promotion {
    /// Parts still to be built, in order; the first is in flight, or waits for its next try.
    parts: VecDeque<Part>,
    failures_in_row: u32,
    /// Nothing is tried before; `None` after a success.
    not_before: Option<MonoTime>,
    /// With the parts that are built.
    index: Arc<Index>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// Build this, on this index.
    Build(Arc<Index>, Arc<[StagedChange]>),
    /// The last build failed: ask again later.
    Pause,
    /// All is built.
    Done(Arc<Index>),
}

impl Promotion {
    pub(super) fn new(index: Arc<Index>, changes: Vec<StagedChange>) -> Self {
        let changes = changes.into();
        Self {
            parts: VecDeque::from([Part { changes, tries: 0 }]),
            failures_in_row: 0,
            not_before: None,
            index,
        }
    }

    /// All changes that are not built yet.
    pub(super) fn changes(&self) -> impl Iterator<Item = &StagedChange> {
        self.parts.iter().flat_map(|part| part.changes.iter())
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.changes.len()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.changes().map(|change| change.bytes).sum()
    }

    /// The earliest commit time that is not visible yet.
    pub(super) fn earliest(&self) -> Option<EventTime> {
        self.changes().map(|change| change.commit_time).min()
    }

    pub(super) fn next(&self, now: MonoTime) -> Step {
        match self.parts.front() {
            Some(_) if self.not_before.is_some_and(|not_before| now < not_before) => Step::Pause,
            Some(part) => Step::Build(self.index.clone(), part.changes.clone()),
            None => Step::Done(self.index.clone()),
        }
    }

    pub(super) fn built(&mut self, built: Built) {
        self.parts
            .pop_front()
            .expect("what was built was the first part");
        self.failures_in_row = 0;
        self.not_before = None;
        self.index = Arc::new(built.index);
    }

    /// Whether one more failure of this part is one too many.
    pub(super) fn has_failed_for_good(&self) -> bool {
        self.parts
            .front()
            .is_some_and(|part| part.tries + 1 >= TRIES)
    }

    /// Takes note of a failure; gives the change at fault once it is found, which is no part of the promotion any more.
    pub(super) fn failed(&mut self, now: MonoTime) -> Option<StagedChange> {
        self.failures_in_row += 1;
        self.not_before = Some(now.plus(pause_after(self.failures_in_row)));
        let part = self
            .parts
            .front_mut()
            .expect("what failed was the first part");
        part.tries += 1;
        if part.tries < TRIES {
            return None;
        }
        let changes = part.changes.clone();
        self.parts.pop_front();
        if let [change] = &*changes {
            return Some(change.clone());
        }
        let (first, second) = changes.split_at(changes.len() / 2);
        for half in [second, first] {
            // A split part has had its tries: one more each is enough to find the change at fault.
            self.parts.push_front(Part {
                changes: half.into(),
                tries: TRIES - 1,
            });
        }
        None
    }

    /// Puts a change in place of one that was refused.
    pub(super) fn replace(&mut self, change: StagedChange) {
        self.parts.push_front(Part {
            changes: Arc::new([change]),
            tries: 0,
        });
    }
}
