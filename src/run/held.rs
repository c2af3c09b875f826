//! What the daemon tells of partitions that the breaker of the dead letters holds (FS-44).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Clock;
use crate::http::Check;
use crate::kafka::worker::WorkerWindow;
use crate::pipeline::HeldPartition;
use crate::rejection::RejectionReason;

/// One of them in `/v1/status`.
pub(super) fn status(held: &HeldPartition) -> Value {
    let (now, wall) = (Clock::mono(), Clock::wall());
    json!({
        "partition": held.partition.0,
        "since": wall.minus(now.since(held.since)).to_string(),
        "reason": held.reason.map(RejectionReason::as_str),
        "next_probe": held.probe_at.map(|at| wall.plus(at.since(now)).to_string()),
    })
}

/// The check of `/readyz`: not ready while a partition is held.
pub(super) fn check(workers: &[Arc<WorkerWindow>]) -> Check {
    let held: Vec<String> = workers
        .iter()
        .flat_map(|window| window.seen().held_partitions.clone())
        .map(|held| {
            let reason = held.reason.map_or("invalid", RejectionReason::as_str);
            format!("{} ({reason})", held.partition)
        })
        .collect();
    Check {
        name: "telemetry",
        ok: held.is_empty(),
        detail: if held.is_empty() {
            String::new()
        } else {
            format!(
                "most records are invalid, held partitions: {}",
                held.join(", ")
            )
        },
    }
}
