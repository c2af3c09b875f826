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
const DOUBLE_WITHIN: Duration = Duration::from_secs(60);

/// When a worker was made anew of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    at: Vec<MonoTime>,
    fenced_at: Option<MonoTime>,
}

impl Restarts {
    /// Notes that it is made anew, or says why the process is to end.
    pub(super) fn admit(&mut self, error: &WorkerError, now: MonoTime) -> Result<(), String> {
        self.at.retain(|at| now.since(*at) < RESTARTS_WITHIN);
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
            return Ok(());
        }
        if !error.is_passing() || self.at.len() >= RESTARTS_MAX {
            return Err(error.to_string());
        }
        self.at.push(now);
        Ok(())
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
            restarts.admit(&error, second(at)).unwrap();
        }
        assert!(restarts.admit(&error, second(599)).is_err());
        restarts.admit(&error, second(600)).unwrap();
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
            restarts.admit(&outage, second(at)).unwrap();
        }
        restarts
            .admit(&fatal(RDKafkaErrorCode::Fatal), second(100))
            .unwrap();
    }

    #[test]
    fn fs_78_a_static_member_that_is_fenced_comes_back_once_and_ends_where_its_double_lives() {
        let mut restarts = Restarts::default();
        let error = fatal(RDKafkaErrorCode::FencedInstanceId);
        restarts.admit(&error, second(0)).unwrap();
        let why = restarts.clone().admit(&error, second(59)).unwrap_err();
        assert!(
            why.contains("delivery.instance") && why.contains("fenced"),
            "{why}"
        );
        // An outage an hour later is another matter.
        restarts.admit(&error, second(3_600)).unwrap();
    }

    #[test]
    fn fs_38_whose_producer_is_fenced_ends_at_once() {
        let judged = Restarts::default().admit(&WorkerError::Fenced("w-0".to_owned()), second(1));
        assert!(judged.is_err());
    }

    /// What becomes of processes of one name in `exactly_once`.
    mod doubles {
        use std::collections::BTreeSet;

        use super::*;

        #[derive(Copy, Clone, Debug, PartialEq)]
        enum At {
            /// About to register its producer.
            Producer,
            /// About to join the group.
            Member,
            /// At work, until it is told that it has lost a name.
            Work,
            Ended,
        }

        #[derive(Clone, Debug)]
        struct World {
            processes: Vec<(At, Restarts)>,
            /// Who has each name.
            producer: Option<usize>,
            member: Option<usize>,
        }

        impl World {
            /// The process takes its next step, in one of the ways it may come to be told of a loss. `None` = there is none.
            fn step(&self, one: usize, asks_its_producer_first: bool) -> Option<Self> {
                let mut next = self.clone();
                let (at, restarts) = &mut next.processes[one];
                match *at {
                    At::Producer => (next.producer, *at) = (Some(one), At::Member),
                    At::Member => (next.member, *at) = (Some(one), At::Work),
                    At::Ended => return None,
                    At::Work => {
                        let has = (self.producer == Some(one), self.member == Some(one));
                        let error = match (has, asks_its_producer_first) {
                            ((true, true), _) => return None,
                            ((false, _), true) => WorkerError::Fenced("w-0".to_owned()),
                            // Told by the group, it asks the coordinator of transactions.
                            ((false, false), false) => WorkerError::Fenced("w-0".to_owned()),
                            ((true, false), _) => WorkerError::Transaction(lost_its_member()),
                            // As a member in peace it goes on until it writes.
                            ((false, true), false) => return None,
                        };
                        *at = match restarts.admit(&error, second(1)) {
                            Ok(()) => At::Producer,
                            Err(_) => At::Ended,
                        };
                    }
                }
                Some(next)
            }

            /// Every order of steps, to each end.
            fn explore(self, mut at_end: impl FnMut(&Self)) {
                let mut seen = BTreeSet::new();
                let mut open = vec![self];
                while let Some(world) = open.pop() {
                    if !seen.insert(format!("{world:?}")) {
                        continue;
                    }
                    let before = open.len();
                    for one in 0..world.processes.len() {
                        open.extend(
                            [true, false]
                                .map(|first| world.step(one, first))
                                .into_iter()
                                .flatten(),
                        );
                    }
                    if open.len() == before {
                        let left =
                            |at: &At| world.processes.iter().filter(|(is, _)| is == at).count();
                        let all = world.processes.len();
                        assert_eq!(
                            (left(&At::Work), left(&At::Ended)),
                            (1, all - 1),
                            "{world:?}"
                        );
                        at_end(&world);
                    }
                }
            }
        }

        fn lost_its_member() -> EdgeError {
            match fatal(RDKafkaErrorCode::FencedInstanceId) {
                WorkerError::Edge(error) => error,
                _ => unreachable!(),
            }
        }

        fn processes(count: usize) -> World {
            World {
                processes: vec![(At::Producer, Restarts::default()); count],
                producer: None,
                member: None,
            }
        }

        #[test]
        fn fs_78_of_processes_of_one_name_one_stays_in_whatever_order_they_take_and_lose_it() {
            for count in 2..5 {
                let mut stayed = BTreeSet::new();
                processes(count).explore(|end| {
                    stayed.insert(end.producer);
                });
                assert_eq!(
                    stayed,
                    (0..count).map(Some).collect(),
                    "each may be the one"
                );
            }
        }

        #[test]
        fn fs_78_one_that_has_both_names_when_others_begin_is_the_one_that_ends() {
            for count in 2..5 {
                let mut begin = processes(count);
                begin.processes[0].0 = At::Work;
                (begin.producer, begin.member) = (Some(0), Some(0));
                begin.explore(|end| assert_eq!(end.processes[0].0, At::Ended));
            }
        }
    }
}
