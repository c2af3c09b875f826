//! The commands on the embedded mock cluster, run as the binary: zones in and out of the topic, a simulated world in it,
//! and what `verify` says where there is nothing to judge.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ringfence::codec::zone_change::{ZoneRules, decode};
use ringfence::geometry::ShapeRules;
use ringfence::kafka::admin::Admin;
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::reader::TopicReader;

use crate::support::daemon::{Daemon, eventually, ringfence, ringfence_ok};
use crate::support::stage::Stage;

struct Cluster(EmbeddedCluster);

impl Cluster {
    fn start() -> Self {
        let cluster = EmbeddedCluster::start(1).unwrap();
        for (topic, partitions) in [
            ("zones", 3),
            ("telemetry", 4),
            ("telemetry.enriched", 4),
            ("telemetry.dead-letter", 1),
        ] {
            cluster.create_topic(topic, partitions).unwrap();
        }
        Self(cluster)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .arg("--set")
            .arg(format!(
                "kafka.bootstrap.servers={}",
                self.0.bootstrap_servers()
            ))
            .args(["--set", "gate.create_time_margin_ms=500"])
            .args(args)
            .output()
            .unwrap()
    }

    fn read(&self, topic: &str) -> Vec<(String, Option<Vec<u8>>)> {
        let settings = Settings::new(&self.0.bootstrap_servers(), "test");
        let admin = Admin::new(&settings, Duration::from_secs(10)).unwrap();
        let mut records = Vec::new();
        let reader = TopicReader::all(&settings, &admin, topic).unwrap();
        let patience = Duration::from_secs(20);
        reader
            .read_all(patience, |record| {
                let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                records.push((key, record.value.map(<[u8]>::to_vec)));
            })
            .unwrap();
        records
    }
}

fn code(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("{}", text(&output.stderr)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert_eq!(
        code(output),
        0,
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn square(id: &str, size: u32) -> String {
    format!(
        "{{\"type\":\"Feature\",\"id\":\"{id}\",\"properties\":{{}},\"geometry\":{{\"type\":\"Polygon\",\
         \"coordinates\":[[[0,0],[{size},0],[{size},{size}],[0,{size}],[0,0]]]}}}}"
    )
}

/// Crosses itself.
fn bow(id: &str) -> String {
    square(id, 1).replace("[1,0],[1,1]", "[1,1],[1,0]")
}

fn file(name: &str, features: &[String]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(name).tempfile().unwrap();
    let text = format!(
        "{{\"type\":\"FeatureCollection\",\"features\":[{}]}}",
        features.join(",\n")
    );
    if name.ends_with(".gz") {
        let mut gzip = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap();
    } else {
        file.write_all(text.as_bytes()).unwrap();
    }
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    Path::to_str(file.path()).unwrap()
}

fn exported(text: &str) -> Vec<String> {
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let features = json["features"].as_array().unwrap();
    features
        .iter()
        .map(|feature| feature["id"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_invalid_zone_ends_an_import_before_anything_is_written_unless_skipped() {
    let cluster = Cluster::start();
    let zones = file(
        ".geojson",
        &[square("b", 1), bow("bad"), square("a", 2), square("b", 3)],
    );
    let refused = cluster.run(&["zones", "import", path(&zones)]);
    assert_eq!(code(&refused), 1);
    let complaint = text(&refused.stderr);
    assert!(
        complaint.contains("`bad`: self_intersection"),
        "{complaint}"
    );
    assert!(complaint.contains("`b`: its id came before"), "{complaint}");
    assert_eq!(cluster.read("zones"), []);
    let said = done(&cluster.run(&["zones", "import", "--skip-invalid", path(&zones)]));
    assert!(
        said.contains("imported 2 zones, 2 invalid left out"),
        "{said}"
    );
    let instants: Vec<i64> = cluster
        .read("zones")
        .iter()
        .map(|(_, value)| {
            let json: serde_json::Value = serde_json::from_slice(value.as_ref().unwrap()).unwrap();
            json["properties"]["effective_at"].as_i64().unwrap()
        })
        .collect();
    assert!(
        instants.len() == 2 && instants[0] == instants[1],
        "one instant: {instants:?}"
    );
}

#[test]
fn zones_go_in_come_out_are_replaced_and_deleted() {
    let cluster = Cluster::start();
    let first = file(".geojson.gz", &[square("a", 1), square("b", 1)]);
    done(
        &cluster
            .run(&["zones", "import", "--lead", "0ms", path(&first)])
            .ok_or_late(),
    );
    assert_eq!(
        exported(&done(&cluster.run(&["zones", "export"]))),
        ["a", "b"]
    );
    let soon = ringfence::clock::Clock::wall()
        .plus(Duration::from_secs(3600))
        .millis()
        .to_string();
    let second = file(".geojson", &[square("b", 2), square("c", 1)]);
    let args = [
        "zones",
        "import",
        "--replace",
        "--effective-at",
        &soon,
        path(&second),
    ];
    let said = done(&cluster.run(&args));
    assert!(said.contains("imported 2 zones, 1 removed"), "{said}");
    assert_eq!(
        exported(&done(&cluster.run(&["zones", "export"]))),
        ["a", "b"]
    );
    assert_eq!(
        exported(&done(&cluster.run(&["zones", "export", "--at", &soon]))),
        ["b", "c"]
    );
    assert!(done(&cluster.run(&["zones", "get", "b"])).contains("[1,1]"));
    assert_eq!(
        code(&cluster.run(&["zones", "get", "c"])),
        1,
        "only announced"
    );
    assert_eq!(
        done(&cluster.run(&["zones", "history", "b"]))
            .lines()
            .count(),
        2
    );
    assert_eq!(code(&cluster.run(&["zones", "delete", "b", "nobody"])), 1);
    assert_eq!(
        exported(&done(&cluster.run(&["zones", "export"]))),
        ["a", "b"],
        "nothing was deleted"
    );
    done(&cluster.run(&["zones", "delete", "b"]));
    assert_eq!(exported(&done(&cluster.run(&["zones", "export"]))), ["a"]);
    assert_eq!(
        exported(&done(&cluster.run(&["zones", "export", "--at", &soon]))),
        ["c"],
        "the deletion cancelled what was scheduled for `b`"
    );
}

#[test]
fn a_change_that_the_daemon_would_reject_for_its_instant_is_not_written() {
    let cluster = Cluster::start();
    let zones = file(".geojson", &[square("a", 1)]);
    let refused = |args: &[&str]| {
        let output = cluster.run(args);
        let said = text(&output.stderr);
        assert_eq!(code(&output), 2, "{args:?}: {said}");
        assert!(
            said.contains("`gate.max_schedule_ms` (259200000)"),
            "{said}"
        );
    };
    for far in [
        ["--lead", "10d"],
        ["--lead", "99999999999999ms"],
        ["--effective-at", "2999-01-01T00:00:00Z"],
    ] {
        refused(&["zones", "import", far[0], far[1], path(&zones)]);
    }
    assert_eq!(cluster.read("zones"), []);
    done(
        &cluster
            .run(&["zones", "import", "--lead", "0ms", path(&zones)])
            .ok_or_late(),
    );
    refused(&[
        "zones",
        "delete",
        "a",
        "--effective-at",
        "2999-01-01T00:00:00Z",
    ]);
    assert_eq!(cluster.read("zones").len(), 1);
    // The lead that an import takes by itself is no exception.
    let short = ["--set", "gate.max_schedule_ms=1000"];
    let output = cluster.run(&[&short[..], &["zones", "import", path(&zones)]].concat());
    assert_eq!(code(&output), 2, "{}", text(&output.stderr));
}

#[test]
fn an_import_says_what_it_left_out_wrote_over_or_will_never_see_in_force() {
    let cluster = Cluster::start();
    let with = |id: &str, properties: &str| {
        square(id, 1).replace(
            "\"properties\":{}",
            &format!("\"properties\":{{{properties}}}"),
        )
    };
    let zones = file(
        ".geojson",
        &[
            square("a", 1),
            bow("bad"),
            with("over", "\"expires_at\":\"2020-01-01T00:00:00Z\""),
            with("own", "\"effective_at\":\"2020-01-01T00:00:00Z\""),
        ],
    );
    let output = cluster.run(&["--json", "zones", "import", "--skip-invalid", path(&zones)]);
    let report: serde_json::Value = serde_json::from_str(&done(&output)).unwrap();
    for (name, count) in [
        ("imported", 2),
        ("written", 3),
        ("invalid", 1),
        ("over", 1),
        ("rescheduled", 1),
        ("removed", 0),
        ("late", 0),
    ] {
        assert_eq!(report[name], count, "{name}: {report}");
    }
    let said = text(&output.stderr);
    assert!(
        said.contains("never in force: `over` (2020-01-01T00:00:00"),
        "{said}"
    );
    assert!(
        said.contains("1 zones name an `effective_at` of their own"),
        "{said}"
    );
    assert_eq!(
        exported(&done(&cluster.run(&[
            "zones",
            "export",
            "--at",
            "32503680000000"
        ]))),
        ["a", "own"]
    );
}

#[test]
fn a_file_in_another_coordinate_system_is_refused_wherever_it_says_so() {
    let cluster = Cluster::start();
    let crs = |name: &str| {
        format!("\"crs\":{{\"type\":\"name\",\"properties\":{{\"name\":\"{name}\"}}}}")
    };
    let zone = square("a", 1);
    let mercator = crs("urn:ogc:def:crs:EPSG::3857");
    let folder = tempfile::tempdir().unwrap();
    let zones = folder.path().join("zones.geojson");
    let name = zones.to_str().unwrap();
    for file in [
        format!("{{\"type\":\"FeatureCollection\",{mercator},\"features\":[{zone}]}}"),
        format!("{{\"type\":\"FeatureCollection\",\"features\":[{zone}],{mercator}}}"),
        format!("{}\n", zone.replacen('{', &format!("{{{mercator},"), 1)),
    ] {
        std::fs::write(&zones, file).unwrap();
        for args in [["zones", "import", name], ["match", "--zones", name]] {
            let output = cluster.run(&args);
            let said = text(&output.stderr);
            assert_eq!(code(&output), 1, "{args:?}: {said}");
            assert!(
                said.contains("EPSG::3857") && said.contains("ogr2ogr"),
                "{said}"
            );
        }
    }
    assert_eq!(cluster.read("zones"), []);
    let home = crs("urn:ogc:def:crs:OGC:1.3:CRS84");
    let file = format!("{{\"type\":\"FeatureCollection\",{home},\"features\":[{zone}]}}");
    std::fs::write(&zones, file).unwrap();
    done(&cluster.run(&["zones", "import", name]));
    let both = cluster.run(&["match", "--zones", "-"]);
    assert_eq!(code(&both), 2, "{}", text(&both.stderr));
}

#[test]
fn a_deletion_that_comes_too_late_is_given_an_advice_that_it_can_follow() {
    // Stamps of the broker's own tell it: not on the mock.
    let Some(stage) = Stage::new("too-late", "") else {
        return;
    };
    stage.create_topics(1, &["--replication", "1"]);
    let zones = file(".geojson", &[square("a", 1)]);
    ringfence_ok(&stage.config, &["zones", "import", path(&zones)]);
    let past = "2020-01-01T00:00:00Z";
    let output = ringfence(
        &stage.config,
        &["zones", "delete", "a", "--effective-at", past],
    );
    let said = text(&output.stderr);
    assert_eq!(code(&output), 1, "{said}");
    assert!(
        said.contains("1 of them reached the topic after") && !said.contains("--lead"),
        "{said}"
    );
}

#[test]
fn who_stops_reading_is_no_failure_and_a_full_disk_is_one_that_is_said() {
    let cluster = Cluster::start();
    let zones: Vec<String> = (0..2_000)
        .map(|n| square(&format!("zone-{n}"), 1))
        .collect();
    let zones = file(".geojson", &zones);
    done(&cluster.run(&["zones", "import", path(&zones)]));
    let run = |args: &[&str], out: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args([
                "--set",
                &format!("kafka.bootstrap.servers={}", cluster.0.bootstrap_servers()),
            ])
            .args(args)
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for args in [["zones", "export"].as_slice(), &["config", "show"]] {
        // A pipe that nobody reads from any more.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(args, writer.into()).wait_with_output().unwrap();
        assert_eq!(
            (code(&output), text(&output.stderr).as_str()),
            (0, ""),
            "{args:?}"
        );
    }
    for args in [
        ["zones", "export"].as_slice(),
        &["config", "show"],
        &["check", "--offline"],
    ] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = run(args, full.into()).wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(
            code(&output) == 1 && said.contains("No space left"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_named_while_it_is_waited_for() {
    for args in [
        ["zones", "export"].as_slice(),
        &["dead-letters", "list"],
        &["verify"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(["--set", "kafka.bootstrap.servers=127.0.0.1:1"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        lines.read_line(&mut said).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            said.contains("no answer yet from the cluster at `127.0.0.1:1`"),
            "{args:?}: {said}"
        );
    }
}

/// An import without lead is told that its records came after the instant: that is what it asked for here.
trait OkOrLate {
    fn ok_or_late(self) -> Self;
}

impl OkOrLate for Output {
    fn ok_or_late(mut self) -> Self {
        if text(&self.stderr).contains("reached the topic after that instant") {
            self.status = std::process::ExitStatus::default();
        }
        self
    }
}

#[test]
fn a_start_without_any_zone_says_what_it_waits_for() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("ringfence.toml");
    let servers = cluster.0.bootstrap_servers();
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{servers}\"\n[gate]\ncreate_time_margin_ms = 500\n[workers]\ncount = 1\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut daemon = Daemon::start(&config, folder.path(), "run");
    let what = "a zone in force: `ringfence zones import` brings some";
    eventually(
        "its log says so, and again",
        Duration::from_secs(30),
        || (daemon.log().matches(what).count() >= 2).then_some(()),
    );
    let status = daemon.status().expect("it answers");
    let said = status["waiting_for"].as_str().unwrap();
    assert!(said.contains(what), "{status:#}");
    let nothing_to_read = serde_json::json!({ "read": 0, "of": 0, "zones": 0 });
    assert_eq!(status["gate"]["reading"], nothing_to_read);
    for told in ["read", "of", "percent", "zones", "per_second"] {
        assert!(daemon.log().contains(told), "{told}");
    }
    let zones = file(".geojson", &[square("a", 1)]);
    done(&cluster.run(&["zones", "import", path(&zones)]));
    daemon.wait_ready();
    let status = daemon.status().expect("it answers");
    assert_eq!(status["waiting_for"], "");
    assert_eq!(status["gate"]["reading"], serde_json::Value::Null);
    daemon.stop();
}

#[test]
fn a_simulated_world_has_its_rate_its_zones_and_its_faults() {
    let cluster = Cluster::start();
    let args = [
        "simulate",
        "--rate",
        "2000",
        "--zones",
        "30",
        "--zone-rate",
        "20",
        "--invalid",
        "0.1",
    ];
    let more = [
        "--duplicate",
        "0.05",
        "--late",
        "0.1",
        "--for",
        "2s",
        "--seed",
        "5",
        "--json",
    ];
    let said = done(&cluster.run(&[args.as_slice(), &more].concat()));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let count = |name: &str| usize::try_from(said[name].as_u64().unwrap()).unwrap();
    assert!((3_000..=4_500).contains(&count("events")), "{said}");
    assert!((200..=600).contains(&count("invalid")), "{said}");
    assert!(count("twice") > 50 && count("clipped") == 0, "{said}");
    assert_eq!(cluster.read("telemetry").len(), count("events"));
    let zones = cluster.read("zones");
    assert_eq!(zones.len(), count("zone_changes"));
    let rules = ZoneRules::new(ShapeRules::default(), 1 << 20, &[]);
    for (key, value) in &zones {
        decode(Some(key.as_bytes()), value.as_deref(), &rules).unwrap();
    }
    // A smaller world after it removes what it does not have.
    let args = [
        "simulate",
        "--rate",
        "10",
        "--zones",
        "4",
        "--zone-rate",
        "0",
        "--for",
        "1s",
    ];
    done(&cluster.run(&args));
    let left = exported(&done(&cluster.run(&["zones", "export"])));
    assert_eq!(
        left.iter().filter(|id| id.starts_with("jigsaw-")).count(),
        4,
        "{left:?}"
    );
}

#[test]
fn more_than_can_be_written_ends_in_time_and_what_is_beyond_reason_is_refused() {
    let cluster = Cluster::start();
    let begun = ringfence::clock::Clock::mono();
    let flood = [
        "--rate",
        "10000000",
        "--zone-rate",
        "1000000",
        "--zones",
        "30",
    ];
    let output = cluster.run(&[&["simulate", "--for", "1s"], &flood[..]].concat());
    let took = ringfence::clock::Clock::mono().since(begun);
    assert!(
        took < Duration::from_secs(60),
        "{took:?}: {}",
        text(&output.stderr)
    );
    for (option, value) in [
        ("--rate", "10000001"),
        ("--zone-rate", "18446744073709551615"),
        ("--zones", "100000000"),
        ("--zones", "0"),
        ("--entities", "100000000"),
    ] {
        let output = cluster.run(&["simulate", "--for", "1s", option, value]);
        let said = text(&output.stderr);
        assert!(
            code(&output) == 2 && said.contains(value) && said.contains(option),
            "{said}"
        );
    }
}

#[test]
fn a_demo_refuses_what_it_would_not_look_at() {
    for arguments in [
        ["-c", "/nonexistent", "demo"].as_slice(),
        &["demo", "-c", "/nonexistent"],
        &["demo", "--set", "workers.count=banana"],
        &["--set", "nope.x=1", "demo"],
        &["demo", "--rate", "0"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(code(&output), 2, "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_witness_who_saw_nothing_clears_nobody() {
    let cluster = Cluster::start();
    let verdict = cluster.run(&["verify"]);
    assert_eq!(code(&verdict), 1);
    assert!(
        text(&verdict.stdout).contains("nothing to judge"),
        "{}",
        text(&verdict.stderr)
    );
    let absent = cluster.run(&["verify", "--against", "nosuch"]);
    let said = text(&absent.stderr);
    assert_eq!(code(&absent), 1);
    assert!(
        said.contains("topic `nosuch` does not exist") && !said.contains("topics create"),
        "{said}"
    );
    let verdict = cluster.run(&["--set", "enriched.headers=false", "verify"]);
    assert_eq!(code(&verdict), 2, "{}", text(&verdict.stderr));
}

#[test]
fn the_demo_ends_with_a_clean_verdict_over_every_event_it_wrote() {
    let output = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["demo", "--for", "3s", "--rate", "500", "--json"])
        .output()
        .unwrap();
    let said: serde_json::Value = serde_json::from_str(&done(&output)).unwrap();
    assert_eq!(said["clean"], true, "{said}");
    assert_eq!(said["audit"]["judged"], said["written"]["events"], "{said}");
    assert_eq!(
        said["audit"]["dead_letters"], said["written"]["invalid"],
        "{said}"
    );
    assert!(
        said["audit"]["jigsaw_checked"].as_u64().unwrap() > 500,
        "{said}"
    );
}
