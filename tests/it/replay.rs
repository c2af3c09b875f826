//! Two groups over the same topics write the same bytes, though each bootstraps from another state of a log that is
//! compacted all the time, and though their processes are stopped and killed within (I10; issue 3, "holds when" 5).

use std::path::PathBuf;
use std::time::Duration;

use crate::support::daemon::{Daemon, eventually};
use crate::support::stage::Stage;

/// The configuration of a second group that writes to a topic of its own.
fn second_group(stage: &Stage) -> PathBuf {
    let text = std::fs::read_to_string(&stage.config).expect("the file is there");
    let group = |name: &str| format!("\"group.id\" = \"{name}\"");
    let (enriched, again) = (stage.topic("enriched"), stage.topic("enriched.again"));
    let (dead, dead_again) = (stage.topic("dead"), stage.topic("dead.again"));
    let text = text
        .replace(&group(stage.group()), &group(&replay_group(stage)))
        .replace(&format!("\"{enriched}\""), &format!("\"{again}\""))
        .replace(&format!("\"{dead}\""), &format!("\"{dead_again}\""));
    let path = stage.path().join("replay.toml");
    std::fs::write(&path, text).expect("the folder is writable");
    path
}

fn replay_group(stage: &Stage) -> String {
    format!("{}-again", stage.group())
}

fn wait_enriched(daemon: &Daemon, count: f64) {
    eventually("the process enriches", Duration::from_secs(90), || {
        daemon
            .metric("ringfence_records_enriched_total", "")
            .filter(|enriched| *enriched > count)
    });
}

/// With a lag of 2 s a replay knows the zones exactly from about one second before its own start on (the floor: T + margin
/// − lag, and then the last announced move of before), whatever is older is flagged `late`. So the replay starts while
/// events still come, and has the same records live that the first group has; and a fifth of the events are seconds
/// old, so that the two answer for the past from histories that began at different times, with restarts in between.
#[test]
fn a_replay_over_a_compacted_topic_with_restarts_writes_the_same_bytes() {
    let Some(stage) = Stage::new("replay", "[gate]\nmax_schedule_ms = 1_000\n") else {
        return;
    };
    stage.create(
        "zones",
        4,
        &[
            ("cleanup.policy", "compact"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.compaction.lag.ms", "2000"),
            ("segment.ms", "1000"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ],
    );
    for (topic, partitions) in [
        ("telemetry", 4),
        ("enriched", 4),
        ("enriched.again", 4),
        ("dead", 1),
        ("dead.again", 1),
    ] {
        stage.create(topic, partitions, &[]);
    }
    // It knows every zone change, as it reads them before they are compacted away.
    let mut audit = stage.beside("verify", &["--follow"]);
    let mut simulation = stage.beside(
        "simulate",
        &[
            ["--rate", "1000"],
            ["--zones", "100"],
            ["--zone-rate", "40"],
            ["--late", "0.2"],
            ["--invalid", "0.01"],
            ["--seed", "11"],
            ["--for", "60s"],
        ]
        .concat(),
    );
    let mut first = stage.daemon("first");
    first.wait_ready();
    wait_enriched(&first, 3_000.0);
    first.stop();
    let mut first = stage.daemon("first-again");
    first.wait_ready();
    let compacted = eventually("the zones are compacted", Duration::from_secs(60), || {
        Some(stage.gaps("zones")).filter(|gaps| *gaps > 100)
    });
    let replay = second_group(&stage);
    let mut second = Daemon::start(&replay, stage.path(), "second");
    second.wait_ready();
    wait_enriched(&second, enriched_by_now(&stage) + 5_000.0);
    second.signal("KILL");
    let mut second = Daemon::start(&replay, stage.path(), "second-again");
    second.wait_ready();
    let summary = simulation.wait_written(Duration::from_secs(120));
    for group in [stage.group(), &replay_group(&stage)] {
        stage.wait_committed(group, Duration::from_secs(120));
    }
    let compacted_later = stage.gaps("zones");
    first.stop();
    second.stop();

    let report = stage.verify(&["--against", &stage.topic("enriched.again")]);
    eprintln!(
        "{report:#}\nof {summary}; {compacted} zone changes were compacted away before the replay began, {compacted_later} in the end"
    );
    assert!(compacted_later > compacted + 100, "and went on within");
    for difference in [
        "different",
        "only_left",
        "only_right",
        "beyond_left",
        "beyond_right",
        "unreadable",
    ] {
        assert_eq!(report[difference], 0, "{difference}: {report:#}");
    }
    let count = |name: &str| report[name].as_u64().expect("a count");
    assert_eq!(
        Some(count("pairs")),
        summary["events"]
            .as_u64()
            .map(|events| events - summary["invalid"].as_u64().unwrap_or(0)),
        "every event is in both"
    );
    assert!(count("compared") > 15_000, "{report:#}");
    audit.stop();
    let audit = audit.wait_ok(Duration::from_secs(120));
    assert_eq!(
        audit["clean"], true,
        "the first group's values are right: {audit:#}"
    );
}

/// How many events there are.
fn enriched_by_now(stage: &Stage) -> f64 {
    stage.read("telemetry").len() as f64
}
