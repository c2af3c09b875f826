//! The breaker of the dead letters (FS-44): where most records of a partition are invalid, a bad deploy upstream say, the
//! partition is held rather than its topic drained into the dead letters.
//!
//! ```text
//!   Closed ──more than `percent` of `window` records refused──► Open ──retry──► Probing ──most are valid──► Closed
//!                                                                ▲                │
//!                                                                └── not so: the next wait is twice as long
//! ```
//!
//! Asked of each record before its output is written; one that may not go waits in the hold queue, in order.

use std::time::Duration;

use crate::partition::PartitionId;
use crate::rejection::RejectionReason;
use crate::time::MonoTime;

/// How many records a probe lets through before it is judged, at most.
const PROBE: u32 = 32;
/// The wait doubles so often at most.
const DOUBLINGS_MAX: u32 = 4;

/// When the breaker opens.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BreakerRules {
    /// More refused than this share of `window` opens it; 0 = never.
    pub percent: u32,
    /// Records of one partition that are judged together.
    pub window: u32,
    /// From its opening to the first probe.
    pub retry: Duration,
}

impl Default for BreakerRules {
    fn default() -> Self {
        Self {
            percent: 50,
            window: 1_000,
            retry: Duration::from_secs(30),
        }
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: MonoTime },
    Probing,
}

/// One partition's breaker.
#[derive(Copy, Clone, Debug)]
struct Partition {
    state: State,
    seen: u32,
    refused: u32,
    /// Since when it is not closed.
    since: MonoTime,
    /// Probes in a row that found no better.
    failed_probes: u32,
    /// Why its last invalid record was.
    reason: Option<RejectionReason>,
}

impl Partition {
    const NEW: Self = Self {
        state: State::Closed,
        seen: 0,
        refused: 0,
        since: MonoTime::from_micros(0),
        failed_probes: 0,
        reason: None,
    };

    fn turn(&mut self, state: State) {
        self.state = state;
        (self.seen, self.refused) = (0, 0);
    }
}

/// What has changed of a partition's breaker: for the log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum BreakerChange {
    /// Most of its records were invalid: it is held for so long.
    Opened {
        /// Until the next probe.
        wait: Duration,
        /// Why the last invalid record was.
        reason: Option<RejectionReason>,
    },
    /// A few records are let through.
    Probing,
    /// Most of them were valid: it goes on.
    Closed,
}

/// A partition that the breaker holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct HeldPartition {
    /// Which.
    pub partition: PartitionId,
    /// Since when.
    pub since: MonoTime,
    /// When the next probe begins; `None` while one is under way.
    pub probe_at: Option<MonoTime>,
    /// Why the last invalid record was.
    pub reason: Option<RejectionReason>,
}

/// The breakers of all partitions of a worker. They outlive what an aborted transaction or a refused batch begins anew,
/// and end with the ownership.
#[derive(Debug)]
pub(crate) struct Breaker {
    rules: BreakerRules,
    /// By partition number: asked for every record.
    partitions: Vec<Partition>,
    changes: Vec<(PartitionId, BreakerChange)>,
}

impl Breaker {
    pub(crate) fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            partitions: Vec::new(),
            changes: Vec::new(),
        }
    }

    fn of(&mut self, partition: PartitionId) -> &mut Partition {
        let place = partition.0 as usize;
        if self.partitions.len() <= place {
            self.partitions.resize(place + 1, Partition::NEW);
        }
        &mut self.partitions[place]
    }

    /// Whether the output of the partition's next record may be written, a dead letter or not. Each record is asked for
    /// once with the answer "yes", right before it is written.
    pub(crate) fn admits(
        &mut self,
        partition: PartitionId,
        is_refused: bool,
        now: MonoTime,
    ) -> bool {
        let BreakerRules {
            percent, window, ..
        } = self.rules;
        if percent == 0 {
            return true;
        }
        let one = self.of(partition);
        if let State::Open { until } = one.state {
            if now < until {
                return false;
            }
            one.turn(State::Probing);
            self.changes.push((partition, BreakerChange::Probing));
        }
        let one = self.of(partition);
        let is_probe = one.state == State::Probing;
        let judged = if is_probe { PROBE.min(window) } else { window };
        let refused = one.refused + u32::from(is_refused);
        if u64::from(refused) * 100 > u64::from(percent) * u64::from(judged) {
            self.open(partition, now);
            return false;
        }
        one.refused = refused;
        one.seen += 1;
        if one.seen >= judged {
            one.turn(State::Closed);
            if is_probe {
                one.failed_probes = 0;
                self.changes.push((partition, BreakerChange::Closed));
            }
        }
        true
    }

    fn open(&mut self, partition: PartitionId, now: MonoTime) {
        let retry = self.rules.retry;
        let one = self.of(partition);
        if one.state == State::Probing {
            one.failed_probes = (one.failed_probes + 1).min(DOUBLINGS_MAX);
        } else {
            one.since = now;
        }
        let wait = retry * (1 << one.failed_probes);
        one.turn(State::Open {
            until: now.plus(wait),
        });
        let reason = one.reason;
        self.changes
            .push((partition, BreakerChange::Opened { wait, reason }));
    }

    /// Remembers why a record of the partition is invalid, to be told when it is held.
    pub(crate) fn met(&mut self, partition: PartitionId, reason: RejectionReason) {
        self.of(partition).reason = Some(reason);
    }

    /// Whether the partition is to be paused: it is held, or has enough waiting for a probe.
    pub(crate) fn pauses(
        &self,
        partition: PartitionId,
        held_records: usize,
        now: MonoTime,
    ) -> bool {
        self.partitions
            .get(partition.0 as usize)
            .is_some_and(|one| match one.state {
                State::Closed => false,
                State::Open { until } => now < until,
                State::Probing => held_records > 0,
            })
    }

    /// The partition is no longer ours; its next owner finds out by itself.
    pub(crate) fn forget(&mut self, partition: PartitionId) {
        if let Some(one) = self.partitions.get_mut(partition.0 as usize) {
            *one = Partition::NEW;
        }
    }

    pub(crate) fn held(&self) -> Vec<HeldPartition> {
        let not_closed = self
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, one)| one.state != State::Closed);
        not_closed
            .map(|(place, one)| HeldPartition {
                partition: PartitionId(place as i32),
                since: one.since,
                probe_at: match one.state {
                    State::Open { until } => Some(until),
                    State::Closed | State::Probing => None,
                },
                reason: one.reason,
            })
            .collect()
    }

    pub(crate) fn take_changes(&mut self) -> Vec<(PartitionId, BreakerChange)> {
        std::mem::take(&mut self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);
    const RULES: BreakerRules = BreakerRules {
        percent: 50,
        window: 100,
        retry: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_micros(seconds * 1_000_000)
    }

    /// Offers records until one is not admitted; gives how many were.
    fn admitted(breaker: &mut Breaker, is_refused: bool, most: u32, now: MonoTime) -> u32 {
        (0..most)
            .find(|_| !breaker.admits(P, is_refused, now))
            .unwrap_or(most)
    }

    #[test]
    fn fs_44_half_of_a_window_of_invalid_records_goes_and_then_none() {
        let mut breaker = Breaker::new(RULES);
        assert_eq!(admitted(&mut breaker, true, 1_000, at(0)), 50);
        assert_eq!(
            admitted(&mut breaker, false, 1_000, at(9)),
            0,
            "order is kept"
        );
        assert!(breaker.pauses(P, 0, at(9)) && !breaker.pauses(PartitionId(2), 0, at(9)));
        assert!(breaker.admits(PartitionId(2), true, at(9)), "others flow");
    }

    #[test]
    fn a_share_at_the_limit_never_opens_it() {
        let mut breaker = Breaker::new(RULES);
        for number in 0..10_000 {
            assert!(breaker.admits(P, number % 2 == 0, at(0)), "{number}");
        }
        assert!(breaker.held().is_empty());
    }

    #[test]
    fn more_than_the_share_opens_it_within_two_windows() {
        let mut breaker = Breaker::new(RULES);
        let opened = (0..1_000).find(|number| !breaker.admits(P, number % 5 < 3, at(0)));
        assert!(opened.is_some_and(|at| at < 200), "{opened:?}");
    }

    #[test]
    fn fs_81_a_probe_of_valid_records_closes_it() {
        let mut breaker = Breaker::new(RULES);
        breaker.met(P, RejectionReason::WrongType);
        admitted(&mut breaker, true, 1_000, at(0));
        let held = breaker.held();
        assert_eq!((held.len(), held[0].probe_at), (1, Some(at(10))));
        assert_eq!(held[0].reason, Some(RejectionReason::WrongType));
        assert!(!breaker.pauses(P, 0, at(10)) && breaker.admits(P, false, at(10)));
        assert!(breaker.pauses(P, 1, at(10)), "what waits goes first");
        assert_eq!(breaker.held()[0].probe_at, None);
        assert_eq!(admitted(&mut breaker, false, 1_000, at(10)), 1_000);
        assert!(breaker.held().is_empty());
        let told: Vec<_> = breaker
            .take_changes()
            .into_iter()
            .map(|(_, change)| change)
            .collect();
        let opened = BreakerChange::Opened {
            wait: RULES.retry,
            reason: Some(RejectionReason::WrongType),
        };
        assert_eq!(
            told,
            [opened, BreakerChange::Probing, BreakerChange::Closed]
        );
    }

    #[test]
    fn each_failed_probe_lets_few_through_and_doubles_the_wait_up_to_a_bound() {
        let mut breaker = Breaker::new(RULES);
        admitted(&mut breaker, true, 1_000, at(0));
        let mut now = 10;
        for wait in [20, 40, 80, 160, 160, 160] {
            assert_eq!(admitted(&mut breaker, true, 1_000, at(now)), PROBE / 2);
            assert_eq!(breaker.held()[0].probe_at, Some(at(now + wait)));
            assert_eq!(breaker.held()[0].since, at(0));
            now += wait;
        }
        // Once closed it begins with the short wait.
        admitted(&mut breaker, false, PROBE, at(now));
        admitted(&mut breaker, true, 1_000, at(now));
        assert_eq!(breaker.held()[0].probe_at, Some(at(now + 10)));
    }

    #[test]
    fn at_0_percent_it_never_opens_and_a_new_ownership_begins_closed() {
        let mut off = Breaker::new(BreakerRules {
            percent: 0,
            ..RULES
        });
        assert_eq!(admitted(&mut off, true, 10_000, at(0)), 10_000);
        let mut breaker = Breaker::new(RULES);
        admitted(&mut breaker, true, 1_000, at(0));
        breaker.forget(P);
        assert!(breaker.held().is_empty() && breaker.admits(P, true, at(0)));
    }
}
