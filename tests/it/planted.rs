//! The witness is tested on a real Kafka: a relay with a defect stands behind a healthy daemon, and the audit finds that
//! defect and no other.

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::eventually;
use crate::support::kafka::bootstrap;
use crate::support::stage::Stage;
use crate::support::tamper::{Plant, Relay};
use crate::support::zones::rectangle;

const PATIENCE: Duration = Duration::from_secs(120);

/// What the audit calls it, and how often it must find it.
fn finding(plant: Plant) -> (&'static str, std::ops::RangeInclusive<u64>) {
    match plant {
        Plant::Lost => ("lost", 1..=1),
        Plant::Doubled => ("duplicate", 1..=1),
        Plant::Swapped => ("reordered", 1..=1),
        Plant::WrongZone => ("wrong", 1..=1),
        Plant::PromotedTooEarly => ("wrong", 5..=5),
        Plant::CommitPastAcknowledged => ("committed_early", 1..=u64::MAX),
    }
}

fn count(report: &Value, finding: &str) -> u64 {
    let partitions = report["findings"][finding].as_object();
    let tallies = partitions.into_iter().flatten();
    tallies.map(|(_, one)| one["count"].as_u64().unwrap()).sum()
}

/// Nothing but this was found.
fn assert_found(plant: Plant, report: &Value) {
    let (kind, times) = finding(plant);
    assert_eq!(report["clean"], false, "{plant:?}: {report:#}");
    assert!(
        times.contains(&count(report, kind)),
        "{plant:?}: {report:#}"
    );
    let is_early = plant == Plant::PromotedTooEarly;
    let violations = report["gate_violations"].as_u64().unwrap();
    assert_eq!(violations > 0, is_early, "{plant:?}: {report:#}");
    for (other, _) in report["findings"].as_object().unwrap() {
        assert_eq!(other, kind, "{plant:?}: {report:#}");
    }
}

#[test]
fn each_planted_defect_turns_the_audit_red_by_its_name_and_a_faithful_relay_does_not() {
    let name = format!("planted-{}", std::process::id());
    let extra = format!("[delivery]\nmode = \"exactly_once\"\ninstance = \"{name}\"\n");
    let (Some(mut stage), Some(address)) = (Stage::new("planted", &extra), bootstrap()) else {
        return;
    };
    stage.create_topics(2, &[]);
    let zone = rectangle("elsewhere", 50.0, 50.0, 51.0, 51.0, "");
    stage.write("zones", [(None, "elsewhere".to_owned(), zone)]);
    let mut daemon = stage.daemon("planted");
    daemon.wait_ready();
    let relays: Vec<_> = [None]
        .into_iter()
        .chain(Plant::ALL.map(Some))
        .map(|plant| (plant, Relay::start(&stage, address, 1, plant)))
        .collect();
    // A commit that is too early is seen by who looks at that time only.
    let plain = stage.config.clone();
    let early = relays
        .iter()
        .find(|(plant, _)| *plant == Some(Plant::CommitPastAcknowledged));
    stage.config.clone_from(&early.unwrap().1.config);
    let arguments = ["--follow", "--every", "1s", "--exactly-once"];
    let mut following = stage.beside("verify", &arguments);
    stage.config = plain;
    let written = stage
        .beside(
            "simulate",
            &["--rate", "400", "--for", "10s", "--invalid", "0.01"],
        )
        .wait_written(PATIENCE);
    for (plant, relay) in &relays {
        stage.wait_committed(&relay.group, PATIENCE);
        if *plant == Some(Plant::CommitPastAcknowledged) {
            let report = eventually("the audit has judged all of it", PATIENCE, || {
                let (_, report) = following.reported()?;
                (report["judged"] == written["events"]).then_some(report)
            });
            assert_found(Plant::CommitPastAcknowledged, &report);
            following.stop();
            let (status, _) = following.wait(PATIENCE);
            assert_eq!(status.code(), Some(1), "{}", following.log());
            continue;
        }
        stage.config.clone_from(&relay.config);
        let report = stage.verify(&["--exactly-once"]);
        match plant {
            None => assert_eq!(report["clean"], true, "{report:#}"),
            Some(plant) => assert_found(*plant, &report),
        }
        assert_eq!(report["judged"], written["events"], "{plant:?}: {report:#}");
    }
    daemon.stop();
}
