//! The binary with wrong configurations: one row per key, each with the sentence that it must give, exit 78.

use std::process::{Command, Output};

use ringfence::config::keys::{KEYS, Kind};

fn ringfence(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
    // Nothing of the machine's own environment may set a key here.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGFENCE") {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("the binary runs")
}

fn refused(arguments: &[&str], expected: &str) {
    let output = ringfence(arguments, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
    assert!(
        said.contains(expected),
        "{arguments:?}: expected {expected:?} in: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    assert!(
        output.stdout.is_empty(),
        "a wrong configuration gives no report"
    );
}

/// A key, a wrong value as typed, and what must be said of it.
const ROWS: &[(&str, &str, &str)] = &[
    ("telemetry.topic", "", "must be the name of a Kafka topic"),
    ("telemetry.id", "id", "must be a JSON pointer"),
    ("telemetry.time", "now", "or \"record\", not \"now\""),
    ("telemetry.lat", "/a~2", "must be a JSON pointer"),
    ("telemetry.lon", "", "must be a JSON pointer"),
    (
        "telemetry.on_invalid",
        "ignore",
        "must be \"dead_letter\", \"forward\" or \"drop\", not \"ignore\"",
    ),
    (
        "telemetry.start",
        "beginning",
        "must be \"earliest\" or \"latest\"",
    ),
    (
        "telemetry.on_out_of_range",
        "reset",
        "must be \"stop\", \"earliest\" or \"latest\"",
    ),
    (
        "telemetry.max_bytes",
        "10",
        "a whole number of bytes from 1024",
    ),
    ("zones.topic", "zönes", "must be the name of a Kafka topic"),
    (
        "zones.on_invalid",
        "guess",
        "must be \"reject\" or \"repair\"",
    ),
    (
        "zones.max_vertices",
        "3",
        "a whole number of vertices from 4",
    ),
    ("zones.max_parts", "0", "from 1 to"),
    ("zones.max_bytes", "16MB", "a whole number of bytes"),
    (
        "zones.allow_empty",
        "yes",
        "must be true or false, not \"yes\"",
    ),
    ("enriched.topic", "a/b", "must be the name of a Kafka topic"),
    ("enriched.field", "", "a text that is not empty"),
    (
        "enriched.properties",
        "name,,kind",
        "a list of texts, none empty, none twice",
    ),
    ("enriched.headers", "1", "must be true or false"),
    (
        "enriched.header_form",
        "both",
        "must be \"several\" or \"one\"",
    ),
    (
        "enriched.partition",
        "random",
        "must be \"auto\", \"same\" or \"key\"",
    ),
    ("dead_letter.topic", "..", "or \"\" for none"),
    ("dead_letter.breaker_percent", "100", "percent from 0 to 99"),
    ("dead_letter.breaker_records", "9", "records from 10"),
    (
        "dead_letter.breaker_retry_ms",
        "30s",
        "a whole number of ms",
    ),
    ("gate.match", "newest", "must be \"event\" or \"latest\""),
    ("gate.settle_margin_ms", "-1", "a whole number of ms from 0"),
    (
        "gate.settle_margin_max_ms",
        "2s",
        "a whole number of ms from 0",
    ),
    (
        "gate.proof",
        "none",
        "must be \"end\" or \"marker\", not \"none\"",
    ),
    ("gate.proof_interval_ms", "0", "from 5 to"),
    (
        "gate.max_wait_ms",
        "99999999999999999999",
        "a whole number of ms",
    ),
    ("gate.max_ahead_ms", "0.5", "a whole number of ms"),
    ("gate.on_stall", "stop", "must be \"unsettled\" or \"wait\""),
    (
        "gate.on_late",
        "drop",
        "must be \"floor\" or \"dead_letter\"",
    ),
    ("gate.max_schedule_ms", "3d", "a whole number of ms"),
    ("gate.history_bytes", "", "a whole number of bytes"),
    (
        "gate.match_from",
        "yesterday",
        "an instant, RFC 3339 or epoch ms",
    ),
    (
        "gate.match_until",
        "2026-13-01T00:00:00Z",
        "an instant, RFC 3339 or epoch ms",
    ),
    (
        "gate.floor",
        "99999-01-01T00:00:00Z",
        "an instant, RFC 3339 or epoch ms",
    ),
    ("gate.create_time_margin_ms", "0", "from 1 to"),
    ("gate.allow_short_lag", "TRUE!", "must be true or false"),
    ("gate.staging_max", "0", "a whole number of changes from 1"),
    (
        "gate.staging_max_bytes",
        "1",
        "a whole number of bytes from 1048576",
    ),
    ("index.engine", "grid", "must be \"tiles\" or \"rtree\""),
    ("index.max_live_snapshots", "1", "from 2 to"),
    (
        "delivery.mode",
        "at_most_once",
        "must be \"at_least_once\" or \"exactly_once\"",
    ),
    ("delivery.instance", "", "a text that is not empty"),
    (
        "delivery.static_member",
        "true",
        "`delivery.static_member` needs `delivery.instance`",
    ),
    ("delivery.commit_ms", "0", "from 10 to"),
    (
        "delivery.in_flight_max",
        "none",
        "a whole number of records",
    ),
    (
        "delivery.in_flight_max_bytes",
        "0",
        "a whole number of bytes",
    ),
    ("delivery.hold_max", "-5", "a whole number of records"),
    ("delivery.hold_max_bytes", "1e9", "a whole number of bytes"),
    (
        "workers.count",
        "all",
        "a whole number of threads from 0 to 1024",
    ),
    ("http.listen", "9464", "an address with a port"),
    (
        "shutdown.drain_timeout_ms",
        "forever",
        "a whole number of ms",
    ),
];

#[test]
fn every_key_refuses_a_wrong_value_by_name() {
    for key in KEYS {
        assert!(
            ROWS.iter().any(|(name, ..)| *name == key.name),
            "no row for `{}`",
            key.name
        );
    }
    for (key, value, expected) in ROWS {
        let set = format!("{key}={value}");
        refused(&["--set", &set, "config", "show"], expected);
        refused(&["--set", &set, "config", "show"], &format!("`{key}`"));
    }
}

#[test]
fn every_key_refuses_a_wrong_toml_type() {
    let directory = tempfile::tempdir().expect("a directory");
    for key in KEYS {
        // A float is right for no key, a flag for the flags only.
        for wrong in ["1.5", "true", "{ unknown = 1 }", "[[1]]"] {
            if wrong == "true" && key.kind == Kind::Flag {
                continue;
            }
            let path = directory.path().join("wrong.toml");
            std::fs::write(
                &path,
                format!("[{}]\n{} = {wrong}\n", key.section(), key.leaf()),
            )
            .expect("written");
            let path = path.to_str().expect("UTF-8");
            refused(&["-c", path, "config", "show"], key.name);
            refused(&["-c", path, "config", "show"], "wrong.toml:2)");
        }
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_also_by_what_only_shows() {
    let several = [
        ("telemetry.topic=", "`telemetry.topic` must be"),
        ("gate.nonsense=1", "there is no key `gate.nonsense`"),
        (
            "kafka.foo.bar=1",
            "`kafka.foo.bar`: No such configuration property",
        ),
        ("kafka.acks=1", "is set by Ringfence itself"),
        ("gate.settle_margin_ms=9000", "must not be above"),
        ("kafka.\"linger.ms\"=soon", "`kafka.linger.ms`"),
    ];
    let mut arguments = Vec::new();
    for (set, _) in &several {
        arguments.extend(["--set", set]);
    }
    for command in [["config", "show"].as_slice(), &["check", "--offline"]] {
        for (_, expected) in &several {
            refused(&[arguments.as_slice(), command].concat(), expected);
        }
    }
}

#[test]
fn keys_may_be_typed_as_the_readme_prints_them() {
    let typed = "kafka.\"bootstrap.servers\"=127.0.0.1:9";
    let shown = ringfence(&["--set", typed, "config", "show"], &[]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.status.success() && text.contains("127.0.0.1:9"),
        "{text}"
    );
    refused(
        &["--set", "kafka.\"group.id=x", "config", "show"],
        "is not of the form",
    );
}

#[test]
fn keys_of_later_issues_and_misspelt_ones_do_not_exist() {
    for (key, near) in [
        ("zones.distribution", ""),
        ("zones.simplify_m", ""),
        ("delivery.sequence", ""),
        ("http.admin_token", ""),
        ("breaker.stall_ms", ""),
        ("gate.max_wait", "the nearest is `gate.max_wait_ms`"),
        (
            "gate.settle_margn_ms",
            "the nearest is `gate.settle_margin_ms`",
        ),
        ("telemetry.tpic", "the nearest is `telemetry.topic`"),
        ("deadletter.topic", "the nearest is `dead_letter.topic`"),
    ] {
        refused(
            &["--set", &format!("{key}=1"), "config", "show"],
            &format!("there is no key `{key}`"),
        );
        refused(&["--set", &format!("{key}=1"), "config", "show"], near);
    }
}

#[test]
fn owned_properties_are_refused_in_every_kafka_section() {
    for section in ["kafka", "kafka.consumer", "kafka.zones", "kafka.producer"] {
        for (property, _) in ringfence::config::librdkafka::OWNED {
            let set = format!("{section}.{property}=1");
            refused(
                &["--set", &set, "config", "show"],
                "is set by Ringfence itself",
            );
        }
    }
}

#[test]
fn files_that_are_no_configuration_are_told_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let deep = format!(
        "[gate]\nfloor = {}1{}\n",
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    for (path, expected) in [
        (
            write("binary.toml", &[0, 159, 146, 150]),
            "cannot read the configuration file",
        ),
        (write("broken.toml", b"[gate\n"), "not TOML"),
        (
            write(
                "twice.toml",
                b"[gate]\nmatch = \"event\"\nmatch = \"event\"\n",
            ),
            "not TOML",
        ),
        (write("deep.toml", deep.as_bytes()), "deep.toml:"),
        (
            write("flat.toml", b"topic = \"x\"\n"),
            "stands outside any section",
        ),
        (
            write(
                "dangling.toml",
                b"[http]\nlisten = { env = \"NOT_SET_ANYWHERE\" }\n",
            ),
            "`NOT_SET_ANYWHERE` is not set",
        ),
        (
            directory.path().join("absent.toml").display().to_string(),
            "cannot read the configuration file",
        ),
        (
            directory.path().display().to_string(),
            "cannot read the configuration file",
        ),
    ] {
        refused(&["-c", &path, "config", "show"], expected);
    }
    // An empty file is one that changes nothing.
    let empty = write("empty.toml", b"");
    assert!(
        ringfence(&["-c", &empty, "config", "show"], &[])
            .status
            .success()
    );
}

#[test]
fn variables_are_read_and_misspelt_ones_refused() {
    let right = ringfence(
        &["config", "show"],
        &[("RINGFENCE__GATE__MAX_WAIT_MS", "77")],
    );
    let shown = String::from_utf8_lossy(&right.stdout).into_owned();
    assert!(
        shown.contains("max_wait_ms = 77") && shown.contains("RINGFENCE__GATE__MAX_WAIT_MS"),
        "{shown}"
    );
    let wrong = ringfence(&["config", "show"], &[("RINGFENCE__GATE__MAX_WAIT", "77")]);
    assert_eq!(wrong.status.code(), Some(78));
}

#[test]
fn wrong_usage_exits_2_and_what_config_prints_is_read_back() {
    assert_eq!(ringfence(&["no-such-command"], &[]).status.code(), Some(2));
    assert_eq!(
        ringfence(&["--log", "xml", "config", "show"], &[])
            .status
            .code(),
        Some(2)
    );
    let directory = tempfile::tempdir().expect("a directory");
    for what in ["file", "show"] {
        let printed = ringfence(&["config", what], &[]);
        let path = directory.path().join(what);
        std::fs::write(&path, &printed.stdout).expect("written");
        let again = ringfence(
            &["-c", path.to_str().expect("UTF-8"), "config", "show"],
            &[],
        );
        assert!(
            again.status.success(),
            "{}",
            String::from_utf8_lossy(&again.stderr)
        );
    }
    let schema = ringfence(&["config", "schema"], &[]);
    assert!(serde_json::from_slice::<serde_json::Value>(&schema.stdout).is_ok());
}
