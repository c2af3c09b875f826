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
/// With transactions each of the two has two names, the member's and the producer's, and takes both from its double. Whose
/// producer is fenced ends at once (FS-38), but for a static member that began within this time: that may be the younger one,
/// and its double one that has come back after it lost its member's name only (`FencedInstanceId`). To end it for that
/// would leave the older one. Two that take their names crosswise (both just begun, each first with one of them) may both end:
/// better than that both stay.
const DOUBLE_WITHIN: Duration = Duration::from_secs(60);

/// When a worker was made anew of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts {
    at: Vec<MonoTime>,
    /// When the worker began, as a static member.
    static_since: Option<MonoTime>,
    fenced_at: Option<MonoTime>,
}

impl Restarts {
    /// Notes that it begins, for the first time or anew.
    pub(super) fn begin(&mut self, is_static_member: bool, now: MonoTime) {
        self.static_since = is_static_member.then_some(now);
    }

    /// Notes that it is made anew, or says why the process is to end.
    pub(super) fn admit(&mut self, error: &WorkerError, now: MonoTime) -> Result<(), String> {
        self.at.retain(|at| now.since(*at) < RESTARTS_WITHIN);
        let is_young = (self.static_since).is_some_and(|since| now.since(since) < DOUBLE_WITHIN);
        let lost_its_names = is_young && matches!(error, WorkerError::Fenced(_));
        if error.is_fenced_member() || lost_its_names {
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
        if !(error.is_passing() || lost_its_names) || self.at.len() >= RESTARTS_MAX {
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
    fn fs_38_whose_producer_is_fenced_ends_at_once_unless_it_is_a_static_member_that_just_began() {
        let error = WorkerError::Fenced("w-0".to_owned());
        for (is_static, at, ends) in [(false, 1, true), (true, 60, true), (true, 59, false)] {
            let mut restarts = Restarts::default();
            restarts.begin(is_static, second(0));
            let judged = restarts.admit(&error, second(at));
            assert_eq!(judged.is_err(), ends, "{is_static} {at}");
        }
    }

    /// Each is told of one of the two names that the other took, whichever it uses first.
    #[test]
    fn fs_78_of_two_static_members_the_older_one_ends_whichever_name_each_loses_first() {
        let lost = |producer: bool| match producer {
            true => WorkerError::Fenced("w-0".to_owned()),
            false => fatal(RDKafkaErrorCode::FencedInstanceId),
        };
        for orders in 0..8 {
            let loses_producer = |nth: u32| orders >> nth & 1 == 1;
            for older_began in [0, 4_000] {
                let (mut older, mut younger) = (Restarts::default(), Restarts::default());
                older.begin(true, second(older_began));
                younger.begin(true, second(4_010));
                let mut now = 4_012;
                for nth in 0..3 {
                    let (loser, is_older) = match nth % 2 {
                        0 => (&mut older, true),
                        _ => (&mut younger, false),
                    };
                    let judged = loser.admit(&lost(loses_producer(nth)), second(now));
                    if judged.is_err() {
                        assert!(is_older, "{orders:03b} from {older_began}");
                        break;
                    }
                    assert!(nth < 2, "{orders:03b} from {older_began}: both go on");
                    loser.begin(true, second(now + 1));
                    now += 2;
                }
            }
        }
    }
}
