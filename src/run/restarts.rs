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
}
