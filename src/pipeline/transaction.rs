//! When a transaction of the worker is filled, drained and committed (DESIGN 7, `exactly_once`).
//!
//! ```text
//!   Idle ──first output──► Filling ──interval over──► Draining ──all acknowledged──► commit ──► Idle
//!                             └────── a refusal, a fence, a lost partition ──► abort, rewind ──► Idle
//! ```
//!
//! Pure: it says what to do next; the edge makes the calls and says how they ended.

use std::cell::Cell;
use std::time::Duration;

use crate::time::MonoTime;

/// What the worker does next.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take records; their outputs go into the open transaction.
    Fill,
    /// Take nothing and send nothing: what is in flight is waited for.
    Drain,
    /// Everything in it is acknowledged: send the offsets and commit.
    Commit,
}

/// Aborts in a row, without a commit between them, after which the clients are made anew: a refused record costs two
/// (KAFKA 0.8: the transaction after it fails once too), so a handful is more than a passing trouble gives.
const ABORTS_MAX: u32 = 8;

/// The transactions of one worker.
#[derive(Debug)]
pub struct Cycle {
    interval: Duration,
    /// Since when there is something to commit.
    filled_since: Option<MonoTime>,
    aborts_in_a_row: u32,
}

impl Cycle {
    /// One transaction every `interval` at most.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            filled_since: None,
            aborts_in_a_row: 0,
        }
    }

    /// To be asked in every turn. `in_flight`: outputs not yet acknowledged; `is_advanced`: offsets are finished and not
    /// yet committed.
    pub fn step(&mut self, in_flight: usize, is_advanced: bool, now: MonoTime) -> Step {
        if self.filled_since.is_none() && (in_flight > 0 || is_advanced) {
            self.filled_since = Some(now);
        }
        match self.filled_since {
            Some(since) if now.since(since) >= self.interval => {
                if in_flight == 0 {
                    Step::Commit
                } else {
                    Step::Drain
                }
            }
            Some(_) | None => Step::Fill,
        }
    }

    /// How long the open transaction has been filled.
    #[must_use]
    pub fn age(&self, now: MonoTime) -> Duration {
        self.filled_since
            .map_or(Duration::ZERO, |since| now.since(since))
    }

    /// The transaction was committed.
    pub fn committed(&mut self) {
        self.filled_since = None;
        self.aborts_in_a_row = 0;
    }

    /// The transaction was aborted, and the engine rewound. False: so often in a row that something else must be done.
    #[must_use]
    pub fn aborted(&mut self) -> bool {
        self.filled_since = None;
        self.aborts_in_a_row += 1;
        self.aborts_in_a_row < ABORTS_MAX
    }

    /// The abort was on the way to a refused record, which each try narrows down: it is no sign of trouble.
    pub fn narrowed(&mut self) {
        self.aborts_in_a_row = 0;
    }
}

/// Tells a process that stood still (stopped, frozen with its machine) from a worker that waited for a broker.
///
/// Who stood still for as long as the group waits has lost its partitions, and its name may be a successor's; who waited
/// has not: the client's own threads went on. A wait is made of pieces, none as long as the limit.
#[derive(Debug)]
pub struct StandStill {
    limit: Duration,
    seen_at: Cell<MonoTime>,
}

impl StandStill {
    /// Seen moving at `now`.
    #[must_use]
    pub fn new(limit: Duration, now: MonoTime) -> Self {
        Self {
            limit,
            seen_at: Cell::new(now),
        }
    }

    /// To be asked in every turn: for how long the process stood still since the last one, if for too long.
    pub fn turned(&self, now: MonoTime) -> Option<Duration> {
        let stood_still = now.since(self.seen_at.replace(now));
        (stood_still >= self.limit).then_some(stood_still)
    }

    /// The worker waited from `begun` to `now`. It covers up nothing: neither a stand still before it nor one within.
    pub fn waited(&self, begun: MonoTime, now: MonoTime) {
        let is_short =
            begun.since(self.seen_at.get()) < self.limit && now.since(begun) < self.limit;
        if is_short {
            self.seen_at.set(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_micros(millis * 1_000)
    }

    #[test]
    fn it_commits_once_the_interval_is_over_and_nothing_is_in_flight() {
        let mut cycle = Cycle::new(INTERVAL);
        assert_eq!(cycle.step(0, false, at(0)), Step::Fill);
        assert_eq!(cycle.step(5, false, at(50)), Step::Fill);
        assert_eq!(
            cycle.step(5, true, at(149)),
            Step::Fill,
            "counted from the first output"
        );
        assert_eq!(cycle.step(3, true, at(150)), Step::Drain);
        assert_eq!(cycle.step(0, true, at(160)), Step::Commit);
        cycle.committed();
        assert_eq!(cycle.step(0, false, at(1_000)), Step::Fill);
    }

    #[test]
    fn fs_39_offsets_without_any_output_are_committed_too() {
        let mut cycle = Cycle::new(INTERVAL);
        assert_eq!(cycle.step(0, true, at(0)), Step::Fill);
        assert_eq!(cycle.step(0, true, at(100)), Step::Commit);
    }

    #[test]
    fn fs_35_aborts_in_a_row_are_bounded_and_a_commit_ends_the_row() {
        let mut cycle = Cycle::new(INTERVAL);
        for _ in 1..ABORTS_MAX {
            assert!(cycle.aborted());
        }
        assert!(!cycle.aborted());
        cycle.committed();
        assert!(cycle.aborted());
    }

    #[test]
    fn fs_32_waits_are_no_stand_still_and_hide_none() {
        let still = StandStill::new(Duration::from_secs(6), at(0));
        // Two answers of 5 s each.
        still.waited(at(10), at(5_010));
        still.waited(at(5_020), at(10_020));
        assert_eq!(still.turned(at(10_030)), None);
        assert_eq!(still.turned(at(16_029)), None);
        assert_eq!(
            still.turned(at(22_029)),
            Some(Duration::from_secs(6)),
            "nobody waited for anything"
        );
        still.waited(at(23_000), at(29_000));
        assert!(
            still.turned(at(29_000)).is_some(),
            "no wait is as long as that: it was stopped within"
        );
        still.waited(at(36_000), at(36_100));
        assert!(
            still.turned(at(36_200)).is_some(),
            "it was stopped before it began to wait"
        );
    }
}
