//! What is done to whom, and when: all of it from a seed, nothing of it done here.
//!
//! Faults come from bags: each kind is drawn before one is drawn again, so that a short run has met every kind too.

use std::time::Duration;

use ringfence::simulate::Rng;

/// What is done to one Ringfence process.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum ProcessFault {
    /// `kill -9`; it is started again.
    Kill,
    /// SIGTERM; it drains, ends with 0 and is started again.
    Terminate,
    /// SIGSTOP, and SIGCONT after longer than session and transaction live.
    Freeze,
    /// The same, and its successor starts under its name while it is frozen.
    Zombie,
    /// Ten members that join the group and leave it.
    Storm,
    /// Its wall clock steps by so much, and back a while later.
    Step { millis: i64 },
}

/// Whose broker is meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    ZonesLeader,
    ZonesFollower,
    GroupCoordinator,
    TransactionCoordinator,
}

/// What is done to the brokers, or to the network between them and the Ringfence processes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum ClusterFault {
    /// `kill -9`, and a start a few seconds later.
    KillBroker(Target),
    /// SIGTERM, and a start a few seconds later: its leaders move in good order.
    StopBroker(Target),
    /// SIGSTOP for a while.
    FreezeBroker(Target, Duration),
    /// All connections to a broker are cut, again and again.
    Cut(Target),
    /// Every answer and question comes so much later.
    Slow(Target, Duration),
    /// Connections stay, and nothing passes.
    Stall(Target, Duration),
}

/// How a fault is counted.
pub(super) fn kind(fault: ClusterFault) -> &'static str {
    match fault {
        ClusterFault::KillBroker(_) => "broker kill -9",
        ClusterFault::StopBroker(_) => "broker stop",
        ClusterFault::FreezeBroker(..) => "broker frozen",
        ClusterFault::Cut(_) => "connections cut",
        ClusterFault::Slow(..) => "connections slow",
        ClusterFault::Stall(..) => "connections stalled",
    }
}

/// One thing done to a process.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Strike {
    /// Since the last one.
    pub(super) after: Duration,
    /// Which process, or whichever is not already harmed.
    pub(super) victim: usize,
    pub(super) fault: ProcessFault,
}

/// The sequence of faults that a seed decides.
pub(super) struct Plan {
    strikes: Rng,
    rounds: Rng,
    strike_bag: Vec<ProcessFault>,
    kill_bag: Vec<Target>,
    other_bag: Vec<ClusterFault>,
    pub(super) processes: usize,
}

const TARGETS: [Target; 4] = [
    Target::ZonesLeader,
    Target::ZonesFollower,
    Target::GroupCoordinator,
    Target::TransactionCoordinator,
];

impl Plan {
    pub(super) fn new(seed: u64, processes: usize) -> Self {
        Self {
            // Two sequences: how many strikes a round has room for depends on the machine, which round comes does not.
            strikes: Rng::new(seed),
            rounds: Rng::new(!seed),
            strike_bag: Vec::new(),
            kill_bag: Vec::new(),
            other_bag: Vec::new(),
            processes,
        }
    }

    /// The next thing done to a process.
    pub(super) fn strike(&mut self) -> Strike {
        if self.strike_bag.is_empty() {
            let random = &mut self.strikes;
            let sign = if random.chance(0.5) { 1 } else { -1 };
            self.strike_bag = vec![
                ProcessFault::Terminate,
                ProcessFault::Freeze,
                ProcessFault::Zombie,
                ProcessFault::Storm,
                ProcessFault::Step {
                    millis: sign * random.between(50, 20_000),
                },
            ];
            // Kills are half of it.
            self.strike_bag.extend([ProcessFault::Kill; 5]);
            shuffle(&mut self.strike_bag, random);
        }
        let random = &mut self.strikes;
        Strike {
            after: Duration::from_millis(random.between(1_000, 6_000).unsigned_abs()),
            victim: usize::try_from(random.below(self.processes as u64)).expect("small"),
            fault: self.strike_bag.pop().expect("it was filled"),
        }
    }

    /// What is done to the cluster in the next round: a broker is killed, and before or after that something else befalls it.
    pub(super) fn round(&mut self) -> [ClusterFault; 2] {
        let kill = self.kill();
        let other = self.other();
        if self.rounds.chance(0.5) {
            [kill, other]
        } else {
            [other, kill]
        }
    }

    fn kill(&mut self) -> ClusterFault {
        if self.kill_bag.is_empty() {
            self.kill_bag = TARGETS.into();
            shuffle(&mut self.kill_bag, &mut self.rounds);
        }
        ClusterFault::KillBroker(self.kill_bag.pop().expect("it was filled"))
    }

    fn other(&mut self) -> ClusterFault {
        if self.other_bag.is_empty() {
            let random = &mut self.rounds;
            let mut seconds =
                |from, to| Duration::from_secs(random.between(from, to).unsigned_abs());
            let (freeze, stall) = (seconds(3, 14), seconds(3, 20));
            let delay = Duration::from_millis(random.between(20, 400).unsigned_abs());
            let mut any = || TARGETS[usize::try_from(random.below(4)).expect("small")];
            self.other_bag = vec![
                ClusterFault::StopBroker(any()),
                ClusterFault::FreezeBroker(any(), freeze),
                ClusterFault::Cut(any()),
                ClusterFault::Slow(any(), delay),
                ClusterFault::Stall(any(), stall),
            ];
            shuffle(&mut self.other_bag, random);
        }
        self.other_bag.pop().expect("it was filled")
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Rng) {
    for at in (1..items.len()).rev() {
        items.swap(
            at,
            usize::try_from(random.below(at as u64 + 1)).expect("within the bag"),
        );
    }
}

#[test]
fn a_seed_decides_the_faults_and_every_kind_comes_before_one_comes_again() {
    let kind_of = kind;
    let kind = |fault: &ProcessFault| std::mem::discriminant(fault);
    let is_kill = |fault: &ClusterFault| matches!(fault, ClusterFault::KillBroker(_));
    for seed in 0..50 {
        let (mut plan, mut again) = (Plan::new(seed, 3), Plan::new(seed, 3));
        // Rounds and strikes do not change each other.
        let mut strikes = Vec::new();
        for number in 0..20 {
            if number % 3 == 0 {
                again.round();
            }
            strikes.push(plan.strike());
            assert_eq!(strikes[number], again.strike(), "seed {seed}");
        }
        for bag in strikes.chunks(10) {
            let kills = bag.iter().filter(|one| one.fault == ProcessFault::Kill);
            assert_eq!(kills.count(), 5, "seed {seed}");
            let mut kinds: Vec<_> = Vec::new();
            for strike in bag {
                assert!(strike.victim < 3 && strike.after >= Duration::from_secs(1));
                if !kinds.contains(&kind(&strike.fault)) {
                    kinds.push(kind(&strike.fault));
                }
            }
            assert_eq!(kinds.len(), 6, "seed {seed}: {bag:?}");
        }
        let rounds: Vec<_> = (0..20).map(|_| plan.round()).collect();
        let faults: Vec<_> = rounds.iter().flatten().collect();
        for round in &rounds {
            let kills = round.iter().filter(|fault| is_kill(fault)).count();
            assert_eq!(kills, 1, "seed {seed}: {round:?}");
        }
        for target in TARGETS {
            let killed = faults
                .iter()
                .filter(|fault| ***fault == ClusterFault::KillBroker(target));
            assert_eq!(killed.count(), 5, "seed {seed}: {rounds:?}");
        }
        let others: Vec<_> = faults.iter().filter(|fault| !is_kill(fault)).collect();
        for bag in others.chunks(5) {
            let kinds: std::collections::BTreeSet<_> =
                bag.iter().map(|fault| kind_of(***fault)).collect();
            assert_eq!(kinds.len(), 5, "seed {seed}: {bag:?}");
        }
    }
    let first = |seed| {
        let mut plan = Plan::new(seed, 3);
        (0..10).map(|_| plan.strike()).collect::<Vec<_>>()
    };
    assert_ne!(first(1), first(2));
}
