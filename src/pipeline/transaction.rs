//! When a transaction of the worker is filled, drained and committed (DESIGN 7, `exactly_once`).
//!
//! ```text
//!   Idle ──first output──► Filling ──interval over──► Draining ──all acknowledged──► Ending ──committed──► Idle
//!                             │                          └─── outputs wait for the next one ───┘
//!                             └────── a refusal, a fence, a lost partition ──► abort, rewind ──► (Resting) ──► Idle
//! ```
//!
//! Pure: it says what to do next; the edge makes the calls and says how they ended.

use std::cell::Cell;
use std::time::Duration;

use crate::enriched::Token;
use crate::time::MonoTime;

/// What the worker does next.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take nothing yet: the last transactions were aborted, one after the other.
    Rest,
    /// Take records; their outputs go into the open transaction.
    Fill,
    /// Take records; their outputs wait for the next transaction ([`NextOutputs`]), as the open one drains or is being
    /// ended.
    FillNext,
    /// As before; and everything in the open one is acknowledged: send the offsets and commit.
    End,
}

/// Aborts in a row, without a commit between them, after which the clients are made anew: a refused record costs two
/// (KAFKA 0.8: the transaction after it fails once too), so a handful is more than a passing trouble gives.
const ABORTS_MAX: u32 = 8;

/// How long the worker rests after the second abort in a row; twice as long after each one more. The first is cured by the
/// abort itself.
const REST: Duration = Duration::from_millis(100);
/// The longest rest.
const REST_MAX: Duration = Duration::from_secs(5);

/// What an abort says of what comes next.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    /// It was on the way to a refused record, which each try narrows down: no sign of trouble.
    Narrowing,
    /// An output was not delivered in time. All there is to do is to wait, as in the other mode, and the try was a wait.
    Waiting,
    /// Its coordinator was asked something by it: no sign of anything.
    Asked,
    /// Anything else: it may come again at once, and for ever.
    Trouble,
}

/// The transactions of one worker.
#[derive(Debug)]
pub struct Cycle {
    interval: Duration,
    /// Since when there is something to commit.
    filled_since: Option<MonoTime>,
    /// The calls that end it are under way.
    is_ending: bool,
    aborts_in_a_row: u32,
    rests_until: Option<MonoTime>,
}

impl Cycle {
    /// One transaction every `interval` at most.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            filled_since: None,
            is_ending: false,
            aborts_in_a_row: 0,
            rests_until: None,
        }
    }

    /// To be asked in every turn. `in_flight`: outputs of the open transaction that are not acknowledged; `is_advanced`:
    /// offsets are finished and not yet committed.
    ///
    /// From the end of the interval on nothing more goes into it, or it would never drain.
    pub fn step(&mut self, in_flight: usize, is_advanced: bool, now: MonoTime) -> Step {
        if self.rests_until.is_some_and(|until| now < until) {
            return Step::Rest;
        }
        if self.is_ending {
            return Step::FillNext;
        }
        if self.filled_since.is_none() && (in_flight > 0 || is_advanced) {
            self.filled_since = Some(now);
        }
        match self.filled_since {
            Some(since) if now.since(since) >= self.interval => {
                if in_flight == 0 {
                    Step::End
                } else {
                    Step::FillNext
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

    /// The calls that end the transaction are made from here on.
    pub fn ends(&mut self) {
        self.is_ending = true;
    }

    /// There is nothing to commit after all: the transaction goes on, as if it had just begun.
    pub fn was_empty(&mut self) {
        self.filled_since = None;
    }

    /// The transaction was committed.
    pub fn committed(&mut self) {
        self.filled_since = None;
        self.is_ending = false;
        self.aborts_in_a_row = 0;
    }

    /// The transaction was aborted at `now`, and the engine rewound. False: so often in a row that something else must be
    /// done.
    #[must_use]
    pub fn aborted(&mut self, why: Abort, now: MonoTime) -> bool {
        self.filled_since = None;
        self.is_ending = false;
        self.aborts_in_a_row = match why {
            Abort::Narrowing | Abort::Waiting => 0,
            Abort::Asked => self.aborts_in_a_row,
            Abort::Trouble => self.aborts_in_a_row + 1,
        };
        self.rests_until = (self.aborts_in_a_row > 1).then(|| {
            let rest = REST * 2_u32.saturating_pow(self.aborts_in_a_row - 2);
            now.plus(rest.min(REST_MAX))
        });
        self.aborts_in_a_row < ABORTS_MAX
    }
}

/// Outputs of the transaction after the open one, made while that one drains and is ended. A producer takes none meanwhile.
///
/// One producer and these, not two producers in turn: the second could take a partition only once its last record in the
/// first is acknowledged, which at full speed is so for all of them at the end of the drain, the longest part of what is to
/// be filled; and what two producers send to one partition nobody else keeps in order (I8). Here all outputs go one way, in
/// the order in which they were made, and the second transaction is not begun before the first is committed: so a transaction
/// that is aborted takes along what was made after it, and there is nothing else to rewind.
///
/// Bounded as they count as in flight (I7).
#[derive(Debug)]
pub struct NextOutputs<T> {
    outputs: Vec<(Token, T)>,
    is_filled: bool,
}

impl<T> Default for NextOutputs<T> {
    fn default() -> Self {
        Self {
            outputs: Vec::new(),
            is_filled: false,
        }
    }
}

impl<T> NextOutputs<T> {
    /// Whether outputs belong here.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.is_filled
    }

    /// From here on outputs belong here: the open transaction has all of its own.
    pub fn fill(&mut self) {
        self.is_filled = true;
    }

    /// An output more.
    pub fn push(&mut self, token: Token, output: T) {
        assert!(self.is_filled, "the open transaction takes outputs");
        self.outputs.push((token, output));
    }

    /// The next transaction is begun: gives its outputs in order, but for those whose ownership has ended (FS-07): their
    /// partition is another's, or is read again.
    #[must_use]
    pub fn begin(&mut self, is_owned: impl Fn(Token) -> bool) -> Vec<(Token, T)> {
        self.is_filled = false;
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.retain(|(token, _)| is_owned(*token));
        outputs
    }

    /// The transaction before was aborted: their records are read again.
    pub fn abort(&mut self) {
        self.is_filled = false;
        self.outputs.clear();
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
        assert_eq!(cycle.step(3, true, at(150)), Step::FillNext);
        assert_eq!(cycle.step(0, true, at(160)), Step::End);
        cycle.committed();
        assert_eq!(cycle.step(0, false, at(1_000)), Step::Fill);
    }

    #[test]
    fn while_it_is_ended_only_the_next_one_is_filled() {
        let mut cycle = Cycle::new(INTERVAL);
        assert_eq!(cycle.step(1, false, at(0)), Step::Fill);
        assert_eq!(cycle.step(0, true, at(100)), Step::End);
        cycle.ends();
        // Offsets that advance meanwhile are for the next one, as are outputs.
        assert_eq!(cycle.step(0, true, at(300)), Step::FillNext);
        assert_eq!(cycle.step(0, false, at(5_000)), Step::FillNext);
        cycle.committed();
        assert_eq!(cycle.step(7, false, at(5_001)), Step::Fill);
        assert_eq!(cycle.step(7, false, at(5_101)), Step::FillNext);
        assert_eq!(cycle.step(0, true, at(5_102)), Step::End);
        cycle.ends();
        assert!(cycle.aborted(Abort::Trouble, at(5_103)));
        assert_eq!(cycle.step(0, false, at(5_104)), Step::Fill);
    }

    #[test]
    fn fs_39_one_that_turns_out_to_be_empty_is_filled_again() {
        let mut cycle = Cycle::new(INTERVAL);
        assert_eq!(cycle.step(1, false, at(0)), Step::Fill);
        assert_eq!(cycle.step(0, false, at(100)), Step::End);
        cycle.was_empty();
        assert_eq!(cycle.step(1, false, at(101)), Step::Fill);
    }

    #[test]
    fn fs_07_outputs_of_the_next_transaction_keep_their_order_and_go_with_their_ownership() {
        let mut next = NextOutputs::default();
        assert!(!next.is_filled());
        next.fill();
        let tokens: Vec<_> = (0..6).map(|n| Token::new(n % 2, 0, n as u64)).collect();
        for (place, token) in tokens.iter().enumerate() {
            next.push(*token, place);
        }
        assert_eq!(
            next.begin(|token| token.slot() == 1),
            [1, 3, 5].map(|place| (tokens[place], place))
        );
        assert!(!next.is_filled());
        next.fill();
        next.push(tokens[0], 0);
        next.abort();
        assert!(!next.is_filled());
        assert_eq!(next.begin(|_| true), []);
    }

    #[test]
    fn fs_39_offsets_without_any_output_are_committed_too() {
        let mut cycle = Cycle::new(INTERVAL);
        assert_eq!(cycle.step(0, true, at(0)), Step::Fill);
        assert_eq!(cycle.step(0, true, at(100)), Step::End);
    }

    #[test]
    fn fs_35_aborts_in_a_row_are_bounded_and_a_commit_ends_the_row() {
        let mut cycle = Cycle::new(INTERVAL);
        for _ in 1..ABORTS_MAX {
            assert!(cycle.aborted(Abort::Trouble, at(0)));
        }
        assert!(!cycle.aborted(Abort::Trouble, at(0)));
        cycle.committed();
        assert!(cycle.aborted(Abort::Trouble, at(0)));
    }

    #[test]
    fn fs_35_the_worker_rests_between_aborts_in_a_row_and_longer_each_time() {
        let mut cycle = Cycle::new(INTERVAL);
        let mut now = at(0);
        let mut rests = Vec::new();
        for _ in 1..ABORTS_MAX {
            assert!(cycle.aborted(Abort::Trouble, now));
            let begun = now;
            while cycle.step(0, true, now) == Step::Rest {
                now = now.plus(Duration::from_millis(10));
            }
            rests.push(now.since(begun).as_millis());
            assert_eq!(cycle.step(0, true, now), Step::Fill, "then it begins anew");
        }
        assert_eq!(rests, [0, 100, 200, 400, 800, 1_600, 3_200]);
        // A single abort after a commit costs no time.
        cycle.committed();
        assert!(cycle.aborted(Abort::Trouble, now));
        assert_eq!(cycle.step(0, false, now), Step::Fill);
    }

    #[test]
    fn fs_35_aborts_of_outputs_that_wait_for_their_broker_or_narrow_a_refusal_down_never_end_the_row()
     {
        let mut cycle = Cycle::new(INTERVAL);
        for second in 0..100 {
            // The transaction after a failed one fails once too (KAFKA 0.8).
            assert!(cycle.aborted(Abort::Trouble, at(second * 1_000)));
            assert!(cycle.aborted(Abort::Waiting, at(second * 1_000)));
            assert_eq!(cycle.step(0, false, at(second * 1_000)), Step::Fill);
            assert!(cycle.aborted(Abort::Trouble, at(second * 1_000)));
            assert!(cycle.aborted(Abort::Narrowing, at(second * 1_000)));
        }
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
