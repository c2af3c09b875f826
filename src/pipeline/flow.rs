//! Backpressure (DESIGN 8): how many records may be taken now, and which partitions to pause or resume.
//!
//! Pausing throws away what the client has fetched, so a short stall only stops taking; a long one pauses all owned
//! partitions, and a partition that waits while others do not is paused alone. Resume at half (hysteresis).
//! What the client was told is kept through revokes, as the client keeps it too, and is told again on assignment (I9).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::partition::PartitionId;
use crate::time::MonoTime;

/// A stall longer than this pauses.
pub const STALL_BEFORE_PAUSE: Duration = Duration::from_secs(1);

/// The bounds of one worker (I7).
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// `delivery.hold_max`.
    pub hold_max: usize,
    /// `delivery.hold_max_bytes`.
    pub hold_max_bytes: usize,
    /// `delivery.in_flight_max`.
    pub in_flight_max: usize,
    /// `delivery.in_flight_max_bytes`.
    pub in_flight_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_max: 200_000,
            hold_max_bytes: 134_217_728,
            in_flight_max: 100_000,
            in_flight_max_bytes: 67_108_864,
        }
    }
}

/// Why partitions are paused: a metric label.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PauseCause {
    /// The hold queue is full, or this partition's share of it.
    Hold,
    /// Too much output is unacknowledged.
    InFlight,
    /// Most of its records are invalid: the breaker of the dead letters is open.
    Invalid,
}

impl PauseCause {
    /// Every cause there is.
    pub const ALL: [Self; 3] = [Self::Hold, Self::InFlight, Self::Invalid];

    /// The stable text of the cause.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::InFlight => "in_flight",
            Self::Invalid => "invalid",
        }
    }
}

/// The verdict of one turn. `pause` and `resume` hold only changes, and only owned partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// How many records may be taken from the source queue at most; 0 = stop taking, and go on polling.
    pub take: usize,
    /// Partitions to pause now.
    pub pause: Vec<PartitionId>,
    /// Partitions to resume now.
    pub resume: Vec<PartitionId>,
}

/// Records and bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Usage {
    fn reaches(self, records: usize, bytes: usize) -> bool {
        self.records >= records || self.bytes >= bytes
    }

    fn at_most_half(self, records: usize, bytes: usize) -> bool {
        self.records <= records / 2 && self.bytes <= bytes / 2
    }
}

/// One owned partition, as backpressure sees it.
#[derive(Copy, Clone, Debug)]
pub(crate) struct PartitionUsage {
    pub(crate) partition: PartitionId,
    pub(crate) held: Usage,
    /// The breaker of the dead letters holds it.
    pub(crate) invalid: bool,
    /// Assigned since the last verdict: the client is told again.
    pub(crate) fresh: bool,
}

/// The state behind the verdicts.
#[derive(Debug)]
pub(crate) struct FlowControl {
    limits: Limits,
    hold_full: bool,
    in_flight_full: bool,
    stalled_since: Option<MonoTime>,
    /// Whether the stall is long: all owned partitions are paused.
    long_stall: bool,
    /// Partitions paused by themselves, with the usage at which they were.
    alone: BTreeMap<PartitionId, Usage>,
    /// Partitions that the breaker holds.
    invalid: BTreeSet<PartitionId>,
    /// The partitions that the client was last told to pause, owned or not.
    told: BTreeSet<PartitionId>,
}

impl FlowControl {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            hold_full: false,
            in_flight_full: false,
            stalled_since: None,
            long_stall: false,
            alone: BTreeMap::new(),
            invalid: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Why this partition is paused, if the client was told to.
    pub(crate) fn paused(&self, partition: PartitionId) -> Option<PauseCause> {
        let for_output = self.long_stall && self.in_flight_full;
        let cause = if for_output {
            PauseCause::InFlight
        } else if self.invalid.contains(&partition) {
            PauseCause::Invalid
        } else {
            PauseCause::Hold
        };
        self.told.contains(&partition).then_some(cause)
    }

    /// Works out the verdict; `flow` is filled anew.
    pub(crate) fn verdict(
        &mut self,
        held: Usage,
        in_flight: Usage,
        owned: &[PartitionUsage],
        now: MonoTime,
        flow: &mut Flow,
    ) {
        self.fill(held, in_flight, now);
        self.judge_alone(held, owned);
        self.invalid.clear();
        let invalid = owned.iter().filter(|usage| usage.invalid);
        self.invalid.extend(invalid.map(|usage| usage.partition));
        flow.take = if self.hold_full || self.in_flight_full {
            0
        } else {
            // A record that is taken is held or in flight: neither bound can be passed by what is taken here.
            (self.limits.hold_max - held.records).min(self.limits.in_flight_max - in_flight.records)
        };
        flow.pause.clear();
        flow.resume.clear();
        for usage in owned {
            let partition = usage.partition;
            let wanted = self.long_stall || usage.invalid || self.alone.contains_key(&partition);
            let told = self.told.contains(&partition);
            if wanted && (!told || usage.fresh) {
                self.told.insert(partition);
                flow.pause.push(partition);
            } else if !wanted && told {
                self.told.remove(&partition);
                flow.resume.push(partition);
            }
        }
    }

    /// The worker's own queues: full at the bound, open again at half of it.
    fn fill(&mut self, held: Usage, in_flight: Usage, now: MonoTime) {
        let Limits {
            hold_max,
            hold_max_bytes,
            in_flight_max,
            in_flight_max_bytes,
        } = self.limits;
        let turn = |full: &mut bool, usage: Usage, records, bytes| {
            *full = if *full {
                !usage.at_most_half(records, bytes)
            } else {
                usage.reaches(records, bytes)
            };
        };
        turn(&mut self.hold_full, held, hold_max, hold_max_bytes);
        turn(
            &mut self.in_flight_full,
            in_flight,
            in_flight_max,
            in_flight_max_bytes,
        );
        if self.hold_full || self.in_flight_full {
            let since = *self.stalled_since.get_or_insert(now);
            self.long_stall |= now.since(since) > STALL_BEFORE_PAUSE;
        } else {
            self.stalled_since = None;
            self.long_stall = false;
        }
    }

    /// One partition must not take the room of those that flow: it is paused once it holds as much as is left free,
    /// while some other holds nothing. (Where all wait, the worker's own bound acts.)
    fn judge_alone(&mut self, held: Usage, owned: &[PartitionUsage]) {
        self.alone.retain(|partition, paused_at| {
            owned.iter().any(|usage| {
                usage.partition == *partition
                    && !usage.held.at_most_half(paused_at.records, paused_at.bytes)
            })
        });
        if held.records == 0 || !owned.iter().any(|usage| usage.held.records == 0) {
            return;
        }
        let free = Usage {
            records: self.limits.hold_max.saturating_sub(held.records),
            bytes: self.limits.hold_max_bytes.saturating_sub(held.bytes),
        };
        for usage in owned {
            if usage.held.records > 0 && usage.held.reaches(free.records, free.bytes) {
                self.alone.entry(usage.partition).or_insert(usage.held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        hold_max: 100,
        hold_max_bytes: 1_000,
        in_flight_max: 50,
        in_flight_max_bytes: 500,
    };

    struct World {
        control: FlowControl,
        flow: Flow,
        now: MonoTime,
    }

    impl World {
        fn new() -> Self {
            Self {
                control: FlowControl::new(LIMITS),
                flow: Flow::default(),
                now: MonoTime::default(),
            }
        }

        /// Gives a verdict for what partitions 0.. hold and for the records in flight.
        fn ask(&mut self, held: &[usize], in_flight: usize) -> &Flow {
            let owned: Vec<_> = held
                .iter()
                .enumerate()
                .map(|(partition, records)| PartitionUsage {
                    partition: PartitionId(partition as i32),
                    held: Usage {
                        records: *records,
                        bytes: *records,
                    },
                    invalid: false,
                    fresh: false,
                })
                .collect();
            self.ask_owned(&owned, in_flight)
        }

        fn ask_owned(&mut self, owned: &[PartitionUsage], in_flight: usize) -> &Flow {
            let records = owned.iter().map(|usage| usage.held.records).sum();
            let bytes = owned.iter().map(|usage| usage.held.bytes).sum();
            let in_flight = Usage {
                records: in_flight,
                bytes: in_flight,
            };
            let held = Usage { records, bytes };
            self.control
                .verdict(held, in_flight, owned, self.now, &mut self.flow);
            &self.flow
        }

        fn wait(&mut self, by: Duration) {
            self.now = self.now.plus(by);
        }
    }

    fn partitions(ids: &[i32]) -> Vec<PartitionId> {
        ids.iter().map(|id| PartitionId(*id)).collect()
    }

    #[test]
    fn what_may_be_taken_never_passes_a_bound() {
        let mut world = World::new();
        assert_eq!(world.ask(&[0, 0], 0).take, 50);
        assert_eq!(world.ask(&[40, 40], 0).take, 20);
        assert_eq!(world.ask(&[40, 40], 45).take, 5);
    }

    #[test]
    fn a_short_stall_stops_taking_and_pauses_nothing() {
        let mut world = World::new();
        assert_eq!(world.ask(&[0, 0], 50), &Flow::default());
        world.wait(STALL_BEFORE_PAUSE);
        assert_eq!(
            world.ask(&[0, 0], 26),
            &Flow::default(),
            "above half it stays stopped"
        );
        assert_eq!(
            world.ask(&[0, 0], 25),
            &Flow {
                take: 25,
                ..Flow::default()
            }
        );
    }

    #[test]
    fn a_long_stall_pauses_once_and_resumes_at_half() {
        let mut world = World::new();
        world.ask(&[0, 0], 50);
        world.wait(STALL_BEFORE_PAUSE + Duration::from_micros(1));
        assert_eq!(world.ask(&[0, 0], 50).pause, partitions(&[0, 1]));
        assert_eq!(
            world.control.paused(PartitionId(0)),
            Some(PauseCause::InFlight)
        );
        assert_eq!(world.ask(&[0, 0], 50), &Flow::default(), "edge-triggered");
        assert_eq!(world.ask(&[0, 0], 26), &Flow::default());
        let resumed = Flow {
            take: 25,
            pause: vec![],
            resume: partitions(&[0, 1]),
        };
        assert_eq!(world.ask(&[0, 0], 25), &resumed);
        assert_eq!(world.ask(&[0, 0], 0).resume, vec![]);
    }

    #[test]
    fn a_partition_that_waits_alone_is_paused_alone() {
        let mut world = World::new();
        assert_eq!(world.ask(&[49, 0], 0).pause, vec![]);
        let flow = world.ask(&[50, 0], 0);
        assert_eq!((flow.take, &flow.pause), (50, &partitions(&[0])));
        assert_eq!(world.control.paused(PartitionId(0)), Some(PauseCause::Hold));
        assert_eq!(world.ask(&[26, 0], 0).resume, vec![]);
        assert_eq!(world.ask(&[25, 0], 0).resume, partitions(&[0]));
    }

    #[test]
    fn where_all_wait_none_is_paused_before_the_stall_is_long() {
        let mut world = World::new();
        assert_eq!(world.ask(&[60, 40], 0), &Flow::default());
        world.wait(Duration::from_secs(2));
        assert_eq!(world.ask(&[60, 40], 0).pause, partitions(&[0, 1]));
        assert_eq!(world.ask(&[30, 20], 0).resume, partitions(&[0, 1]));
    }

    #[test]
    fn one_oversized_record_is_admitted_and_then_nothing() {
        let mut world = World::new();
        let usage = |bytes| PartitionUsage {
            partition: PartitionId(0),
            held: Usage { records: 1, bytes },
            invalid: false,
            fresh: false,
        };
        assert!(world.ask(&[0], 0).take > 0);
        assert_eq!(world.ask_owned(&[usage(1_000_000)], 0).take, 0);
        assert!(world.ask(&[0], 0).take > 0);
    }

    #[test]
    fn fs_01_fs_02_an_assigned_partition_gets_our_own_pause_state() {
        let mut world = World::new();
        world.ask(&[0, 0], 50);
        world.wait(Duration::from_secs(2));
        world.ask(&[0, 0], 50);
        // Partition 1 is revoked while paused; the stall ends; it comes back: the client still has it paused.
        assert_eq!(world.ask(&[0], 10).resume, partitions(&[0]));
        let usage = |partition| PartitionUsage {
            partition: PartitionId(partition),
            held: Usage::default(),
            invalid: false,
            fresh: true,
        };
        assert_eq!(
            world.ask_owned(&[usage(0), usage(1)], 10).resume,
            partitions(&[1])
        );
        // Assigned during a long stall: paused at once, and told again although the client was told before.
        world.ask(&[0, 0], 50);
        world.wait(Duration::from_secs(2));
        assert_eq!(world.ask(&[0, 0], 50).pause, partitions(&[0, 1]));
        let flow = world.ask_owned(&[usage(0), usage(1), usage(2)], 50);
        assert_eq!(flow.pause, partitions(&[0, 1, 2]));
    }
}
