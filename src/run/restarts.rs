//! Whether a worker that ended over an error is made anew: pure.

use std::time::Duration;

use crate::kafka::worker::WorkerError;
use crate::time::MonoTime;

/// A worker whose client failed is made anew so many times within [`RESTARTS_WITHIN`].
const RESTARTS_MAX: usize = 5;
/// See [`RESTARTS_MAX`].
const RESTARTS_WITHIN: Duration = Duration::from_secs(600);
/// A static member that is fenced again within this time has a living double. Of two processes of one name each fences the
/// other as it comes back, so the one that was there first is also the first to be fenced twice: it ends, and the other stays.
///
/// With transactions each of the two has two names, the producer's and the member's, and takes them in this order. The
/// producer's decides, so that of any number of processes one stays: who has lost it ends, and never takes either name again
/// ([`WorkerError::Fenced`]); who has lost the member's alone is made anew ([`WorkerError::Transaction`]), which takes that
/// back from one that will be told of the other.
///
/// Each worker has names of its own, and two processes may each get some of them: the first worker's decide for the process.
/// Another that loses its own comes back as often as it takes; with transactions only once the first has shown that it has
/// its producer's name still, so that of the two processes only one takes names back. (Somebody else's producer of one of these
/// names would be fenced again and again, once a second.)
const DOUBLE_WITHIN: Duration = Duration::from_secs(60);

/// The worker whose names decide for its process.
pub(super) const DECIDING: usize = 0;

/// When a worker is made anew.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Anew {
    /// After a moment.
    Soon,
    /// Once the deciding worker has shown that its name is its own still.
    OnceProven,
}

/// When a worker was made anew of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    at: Vec<MonoTime>,
    fenced_at: Option<MonoTime>,
}

impl Restarts {
    /// Notes that this worker is made anew, or says why the process is to end.
    pub(super) fn admit(
        &mut self,
        worker: usize,
        error: &WorkerError,
        now: MonoTime,
    ) -> Result<Anew, String> {
        self.at.retain(|at| now.since(*at) < RESTARTS_WITHIN);
        if worker != DECIDING {
            match error {
                WorkerError::Fenced(_) => return Ok(Anew::OnceProven),
                WorkerError::Transaction(error) if error.is_fenced_member() => {
                    return Ok(Anew::OnceProven);
                }
                error if error.is_fenced_member() => return Ok(Anew::Soon),
                _ => {}
            }
        }
        if error.is_fenced_member() {
            let before = self.fenced_at.replace(now);
            if before.is_some_and(|at| now.since(at) < DOUBLE_WITHIN) {
                return Err(format!(
                    "fenced: another process is the same member of the group; each process needs a `delivery.instance` of \
                     its own ({error})"
                ));
            }
        }
        if error.is_outage() {
            return Ok(Anew::Soon);
        }
        if !error.is_passing() || self.at.len() >= RESTARTS_MAX {
            return Err(error.to_string());
        }
        self.at.push(now);
        Ok(Anew::Soon)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};

    use super::*;
    use crate::kafka::EdgeError;

    fn fatal(code: RDKafkaErrorCode) -> WorkerError {
        WorkerError::Edge(EdgeError::Cluster {
            doing: "consume topic `t`".to_owned(),
            source: KafkaError::MessageConsumptionFatal(code),
        })
    }

    fn second(second: u64) -> MonoTime {
        MonoTime::from_micros(second * 1_000_000)
    }

    #[test]
    fn a_worker_is_made_anew_five_times_in_ten_minutes_and_no_more() {
        let mut restarts = Restarts::default();
        let error = fatal(RDKafkaErrorCode::Fatal);
        for at in 0..5 {
            restarts.admit(DECIDING, &error, second(at)).unwrap();
        }
        assert!(restarts.admit(DECIDING, &error, second(599)).is_err());
        restarts.admit(DECIDING, &error, second(600)).unwrap();
    }

    #[test]
    fn fs_80_outages_are_outlived_however_many_there_are() {
        let mut restarts = Restarts::default();
        let source = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
        let outage = WorkerError::Outage(EdgeError::Cluster {
            doing: "commit the transaction".to_owned(),
            source,
        });
        for at in 0..100 {
            restarts.admit(DECIDING, &outage, second(at)).unwrap();
        }
        restarts
            .admit(DECIDING, &fatal(RDKafkaErrorCode::Fatal), second(100))
            .unwrap();
    }

    #[test]
    fn fs_78_a_static_member_that_is_fenced_comes_back_once_and_ends_where_its_double_lives() {
        let mut restarts = Restarts::default();
        let error = fatal(RDKafkaErrorCode::FencedInstanceId);
        restarts.admit(DECIDING, &error, second(0)).unwrap();
        let why = restarts
            .clone()
            .admit(DECIDING, &error, second(59))
            .unwrap_err();
        assert!(
            why.contains("delivery.instance") && why.contains("fenced"),
            "{why}"
        );
        // An outage an hour later is another matter.
        restarts.admit(DECIDING, &error, second(3_600)).unwrap();
    }

    #[test]
    fn fs_38_whose_producer_is_fenced_ends_at_once() {
        let judged =
            Restarts::default().admit(DECIDING, &WorkerError::Fenced("w-0".to_owned()), second(1));
        assert!(judged.is_err());
    }

    #[test]
    fn fs_78_only_the_first_worker_decides_for_its_process_and_the_others_come_back() {
        let fenced = WorkerError::Fenced("w-1".to_owned());
        let member = fatal(RDKafkaErrorCode::FencedInstanceId);
        let mut restarts = Restarts::default();
        for at in 0..100 {
            let of_a_producer = restarts.admit(1, &fenced, second(at));
            let of_a_member = restarts.admit(1, &member, second(at));
            assert_eq!(of_a_producer, Ok(Anew::OnceProven));
            assert_eq!(of_a_member, Ok(Anew::Soon));
        }
        let other = WorkerError::StoodStill(Duration::from_secs(60));
        assert!(restarts.admit(1, &other, second(100)).is_err());
    }

    /// What becomes of processes of one name. A proof is a step of its own here, and never wrong.
    mod doubles {
        use std::collections::{BTreeMap, BTreeSet};

        use super::*;

        #[derive(Copy, Clone, Debug, PartialEq)]
        enum At {
            /// Waits for its process's first worker to show that its name is its own.
            Proof,
            /// About to register its producer.
            Producer,
            /// About to join the group.
            Member,
            /// At work, until it is told that it has lost a name.
            Work,
            Ended,
        }

        #[derive(Clone, Debug)]
        struct Process {
            workers: Vec<(At, Restarts)>,
            is_doubted: bool,
        }

        /// How workers are told of what they have lost.
        #[derive(Copy, Clone, Debug, PartialEq)]
        enum Told {
            /// Static members outside of transactions: by the group, of the one name that they have.
            ByGroup,
            /// Static members: by the group, or when they write.
            ByBoth,
            /// Dynamic members have one name: when they write.
            ByWriting,
            /// Dynamic members, of which the first workers have no partition: those are told when they are asked.
            FirstWorkersIdle,
        }

        #[derive(Clone, Debug)]
        struct World {
            told: Told,
            processes: Vec<Process>,
            /// Who has each name of each worker: the producer's, the member's.
            owners: Vec<(Option<usize>, Option<usize>)>,
        }

        impl World {
            /// The worker takes its next step, in one of the ways it may come to be told of a loss. `None` = there is none.
            fn step(&self, one: usize, worker: usize, asks_first: bool) -> Option<Self> {
                let mut next = self.clone();
                let process = &mut next.processes[one];
                let (at, restarts) = &mut process.workers[worker];
                let (producer, member) = &mut next.owners[worker];
                match *at {
                    At::Ended => return None,
                    At::Proof if process.is_doubted => return None,
                    At::Proof => *at = At::Producer,
                    At::Producer => {
                        (*producer, *at) = (Some(one), At::Member);
                        process.is_doubted &= worker != DECIDING;
                    }
                    At::Member => {
                        if self.has_members() {
                            *member = Some(one);
                        }
                        *at = At::Work;
                    }
                    At::Work => {
                        let is_asked = worker == DECIDING && process.is_doubted;
                        let is_idle = worker == DECIDING && self.told == Told::FirstWorkersIdle;
                        let has_producer = !self.has_producers() || *producer == Some(one);
                        let has_member = !self.has_members() || *member == Some(one);
                        let fenced = WorkerError::Fenced("w-0".to_owned());
                        let error = match (has_producer, has_member) {
                            (true, true) if is_asked => {
                                process.is_doubted = false;
                                return Some(next);
                            }
                            (true, true) => return None,
                            // As a member in peace it goes on until it writes.
                            (false, true) if !is_asked && (is_idle || !asks_first) => return None,
                            // Told by the group, it asks the coordinator of transactions.
                            (false, _) => fenced,
                            (true, false) if !self.has_producers() => {
                                fatal(RDKafkaErrorCode::FencedInstanceId)
                            }
                            (true, false) => WorkerError::Transaction(lost_its_member()),
                        };
                        match restarts.admit(worker, &error, second(1)) {
                            Ok(Anew::Soon) => *at = At::Producer,
                            Ok(Anew::OnceProven) => {
                                (*at, process.is_doubted) = (At::Proof, true);
                            }
                            Err(_) => {
                                for (at, _) in &mut process.workers {
                                    *at = At::Ended;
                                }
                            }
                        }
                    }
                }
                Some(next)
            }

            fn is_at_work(&self, one: usize) -> bool {
                let workers = &self.processes[one].workers;
                workers.iter().all(|(at, _)| *at == At::Work)
            }

            fn has_all(&self, one: usize) -> bool {
                let is_its = |(producer, member): &(Option<usize>, Option<usize>)| {
                    (!self.has_producers() || *producer == Some(one))
                        && (!self.has_members() || *member == Some(one))
                };
                self.owners.iter().all(is_its)
            }

            /// Whether two processes can have one producer's name.
            fn has_producers(&self) -> bool {
                self.told != Told::ByGroup
            }

            /// Whether two processes can be one member.
            fn has_members(&self) -> bool {
                matches!(self.told, Told::ByGroup | Told::ByBoth)
            }

            /// Every order of steps, to each end; from wherever they have come there is a way to one.
            fn explore(self, mut at_end: impl FnMut(&Self)) {
                let key = |world: &Self| format!("{:?}{:?}", world.processes, world.owners);
                let mut came_from = BTreeMap::<String, Vec<String>>::new();
                let mut ends = Vec::new();
                came_from.insert(key(&self), Vec::new());
                let mut open = vec![self];
                while let Some(world) = open.pop() {
                    let here = key(&world);
                    let mut is_end = true;
                    for one in 0..world.processes.len() {
                        for worker in 0..world.owners.len() {
                            let ways = [true, false].map(|first| world.step(one, worker, first));
                            for next in ways.into_iter().flatten() {
                                is_end = false;
                                let known = came_from.entry(key(&next)).or_insert_with(|| {
                                    open.push(next);
                                    Vec::new()
                                });
                                known.push(here.clone());
                            }
                        }
                    }
                    if is_end {
                        at_end(&world);
                        ends.push(here);
                    }
                }
                let mut leads_to_an_end = BTreeSet::new();
                while let Some(world) = ends.pop() {
                    if leads_to_an_end.insert(world.clone()) {
                        ends.extend(came_from[&world].iter().cloned());
                    }
                }
                let is_stuck = |world: &&String| !leads_to_an_end.contains(*world);
                assert_eq!(came_from.keys().find(is_stuck), None, "they go on for ever");
            }

            /// The process that is at work at the end, with all names; the others have ended, or write nothing.
            fn stayed(&self) -> usize {
                let count = self.processes.len();
                let stayed = (0..count).find(|one| self.is_at_work(*one) && self.has_all(*one));
                let stayed = stayed.unwrap_or_else(|| panic!("none stays: {self:?}"));
                for one in (0..count).filter(|one| *one != stayed) {
                    let workers = &self.processes[one].workers;
                    let has_ended = workers.iter().all(|(at, _)| *at == At::Ended);
                    let has_none = || self.told == Told::FirstWorkersIdle && workers.len() == 1;
                    assert!(has_ended || has_none(), "more than one: {self:?}");
                }
                stayed
            }
        }

        fn lost_its_member() -> EdgeError {
            match fatal(RDKafkaErrorCode::FencedInstanceId) {
                WorkerError::Edge(error) => error,
                _ => unreachable!(),
            }
        }

        fn processes(count: usize, workers: usize, told: Told) -> World {
            let process = Process {
                workers: vec![(At::Producer, Restarts::default()); workers],
                is_doubted: false,
            };
            World {
                told,
                processes: vec![process; count],
                owners: vec![(None, None); workers],
            }
        }

        const WAYS: [Told; 4] = [
            Told::ByGroup,
            Told::ByBoth,
            Told::ByWriting,
            Told::FirstWorkersIdle,
        ];

        #[test]
        fn fs_78_of_processes_of_one_name_one_stays_in_whatever_order_they_take_and_lose_it() {
            for (count, workers) in [(2, 1), (3, 1), (4, 1), (2, 2)] {
                for told in WAYS {
                    let mut stayed = BTreeSet::new();
                    processes(count, workers, told).explore(|end| {
                        stayed.insert(end.stayed());
                    });
                    assert_eq!(stayed, (0..count).collect(), "each may be the one");
                }
            }
        }

        #[test]
        fn fs_78_one_that_has_all_names_when_others_begin_is_the_one_that_ends() {
            for (count, workers) in [(2, 1), (3, 1), (4, 1), (2, 2), (2, 3)] {
                // Outside of transactions it may outlive two others, which fence each other first.
                let ways = WAYS.into_iter();
                for told in ways.filter(|told| *told != Told::ByGroup || count == 2) {
                    let mut begin = processes(count, workers, told);
                    for (at, _) in &mut begin.processes[0].workers {
                        *at = At::Work;
                    }
                    begin.owners = vec![(Some(0), Some(0)); workers];
                    begin.explore(|end| assert_ne!(end.stayed(), 0));
                }
            }
        }
    }
}
