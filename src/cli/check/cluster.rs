//! What `check` makes of the permissions (KIP-430) and of the largest timestamps (KIP-734). What the cluster does not tell
//! is reported as not checked.

use super::{Finding, Known, Role, note, problem, warning};
use crate::config::{Config, DeliveryMode};
use crate::kafka::EdgeError;
use crate::kafka::ffi::Operation;
use crate::kafka::permission::{Allowed, LargestStamps, Questions};

/// One thing that `run` does, and whether it may.
struct Need {
    /// `topic `x``, or `group `x``.
    on: String,
    operation: Operation,
    /// What for.
    purpose: &'static str,
    allowed: Result<Allowed, EdgeError>,
}

/// Asks for the permissions and for the largest timestamps.
pub(super) fn ask(
    config: &Config,
    known: &[Known],
    questions: &Questions,
    findings: &mut Vec<Finding>,
) {
    let mut needs = Vec::new();
    for topic in known.iter().filter(|topic| topic.topic.is_some()) {
        let (operation, purpose) = match topic.role {
            Role::Telemetry => (Operation::Read, "read the events"),
            Role::Zones => (Operation::Read, "read the zone changes"),
            Role::Enriched => (Operation::Write, "write the enriched events"),
            Role::DeadLetter => (Operation::Write, "write what is refused"),
        };
        let allowed = questions.allowed_on_topic(&topic.name);
        // A cluster that does not tell is not asked four times, each in vain for the whole patience.
        let is_untold = matches!(allowed, Ok(Allowed::Untold));
        needs.push(Need {
            on: format!("topic `{}`", topic.name),
            operation,
            purpose,
            allowed,
        });
        if is_untold {
            break;
        }
    }
    let is_told = !needs
        .iter()
        .any(|need| matches!(need.allowed, Ok(Allowed::Untold)));
    if is_told {
        let group = config.kafka.common().get("group.id").unwrap_or_default();
        needs.push(Need {
            on: format!("group `{group}`"),
            operation: Operation::Read,
            purpose: "join it and commit offsets",
            allowed: questions.allowed_on_group(group),
        });
    }
    judge_needs(&needs, findings);
    if config.delivery.mode == DeliveryMode::ExactlyOnce {
        findings.push(note(
            "no cluster tells whether transactional ids may be used: not checked (WRITE on TransactionalId is needed)",
        ));
    }
    let zones = known.iter().find(|topic| topic.role == Role::Zones);
    if let Some((zones, topic)) = zones.and_then(|zones| Some((zones, zones.topic.as_ref()?))) {
        findings.push(match questions.largest_stamps(&zones.name, &topic.ids()) {
            Ok(stamps) => judge_stamps(&zones.name, &stamps),
            Err(error) => problem(
                error.to_string(),
                "allow the principal to read the zones topic",
            ),
        });
    }
}

fn judge_needs(needs: &[Need], findings: &mut Vec<Finding>) {
    let before = findings.len();
    for need in needs {
        let word = match need.operation {
            Operation::Read => "READ",
            Operation::Write => "WRITE",
            Operation::Other => "DESCRIBE",
        };
        let on = &need.on;
        match &need.allowed {
            Ok(Allowed::Told(allowed)) if allowed.contains(&need.operation) => {}
            Ok(Allowed::Told(allowed)) => findings.push(problem(
                if allowed.is_empty() {
                    format!("the principal may do nothing with {on}, needed to {}", need.purpose)
                } else {
                    format!("the principal has no {word} permission on {on}, needed to {}", need.purpose)
                },
                format!("grant it {word} on {on}"),
            )),
            Ok(Allowed::Untold) => findings.push(warning(
                "the cluster does not tell what the principal may do: permissions are not checked",
                "see to it that it has READ on the telemetry and zones topics and on the group, WRITE on the other two topics",
            )),
            Err(error) => findings.push(warning(
                format!("{error}: the permission is not checked"),
                "ask again when the cluster is well",
            )),
        }
    }
    if findings.len() == before && !needs.is_empty() {
        let names: Vec<_> = needs.iter().map(|need| need.on.as_str()).collect();
        findings.push(note(format!(
            "the principal may do what `run` needs: {}",
            names.join(", ")
        )));
    }
}

fn judge_stamps(zones: &str, stamps: &LargestStamps) -> Finding {
    match stamps {
        LargestStamps::Told => note(
            "the brokers tell which record has the largest timestamp: no proof counts while a dying replica holds one back",
        ),
        LargestStamps::Unknown => warning(
            "the brokers do not tell which record has the largest timestamp (KIP-734): plain end offsets count as proofs, \
             and a change that a dying replica holds back for seconds is read late",
            "use brokers of Kafka 3.0 or later; or alarm on `ringfence_gate_violations_total`",
        ),
        LargestStamps::Unanswered(partitions) => {
            let ids: Vec<_> = partitions.iter().map(ToString::to_string).collect();
            warning(
                format!(
                    "asked for seconds which record of `{zones}` has the largest timestamp, the brokers did not say for partition {}: \
                     a replica is dead or far behind, and the gate waits for it",
                    ids.join(", ")
                ),
                "bring its replicas back in sync (brokers before Kafka 3.0 never answer: use later ones)",
            )
        }
        LargestStamps::Empty => note(format!(
            "`{zones}` is empty: whether the brokers tell the largest timestamp shows with its first record"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Weight;
    use super::*;
    use crate::partition::PartitionId;

    fn judged(allowed: Vec<Result<Allowed, EdgeError>>) -> Vec<Finding> {
        let needs: Vec<Need> = allowed
            .into_iter()
            .map(|allowed| Need {
                on: "topic `t`".to_owned(),
                operation: Operation::Write,
                purpose: "write",
                allowed,
            })
            .collect();
        let mut findings = Vec::new();
        judge_needs(&needs, &mut findings);
        findings
    }

    #[test]
    fn what_may_not_be_done_is_a_problem_and_what_is_not_told_a_warning() {
        let told = |operations: &[Operation]| Ok(Allowed::Told(operations.to_vec()));
        for (allowed, weight, words) in [
            (
                told(&[Operation::Read, Operation::Write]),
                Weight::Note,
                "may do what `run` needs: topic `t`",
            ),
            (
                told(&[Operation::Read]),
                Weight::Problem,
                "no WRITE permission on topic `t`",
            ),
            (told(&[]), Weight::Problem, "may do nothing with topic `t`"),
            (
                Ok(Allowed::Untold),
                Weight::Warning,
                "permissions are not checked",
            ),
            (
                Err(EdgeError::TimedOut("ask".to_owned())),
                Weight::Warning,
                "the permission is not checked",
            ),
        ] {
            let findings = judged(vec![allowed]);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].weight, weight, "{findings:?}");
            assert!(findings[0].what.contains(words), "{findings:?}");
        }
        let mixed = judged(vec![told(&[Operation::Write]), told(&[Operation::Read])]);
        assert_eq!(mixed.len(), 1, "no praise beside a problem: {mixed:?}");
    }

    #[test]
    fn a_largest_timestamp_that_is_not_told_is_a_warning() {
        for (stamps, weight) in [
            (LargestStamps::Told, Weight::Note),
            (LargestStamps::Empty, Weight::Note),
            (LargestStamps::Unknown, Weight::Warning),
            (
                LargestStamps::Unanswered(vec![PartitionId(3)]),
                Weight::Warning,
            ),
        ] {
            assert_eq!(judge_stamps("zones", &stamps).weight, weight, "{stamps:?}");
        }
    }
}
