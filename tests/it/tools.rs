//! The commands on the embedded mock cluster, run as the binary: zones in and out of the topic, a simulated world in it,
//! and what `verify` says where there is nothing to judge.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use ringfence::codec::zone_change::{ZoneRules, decode};
use ringfence::geometry::ShapeRules;
use ringfence::kafka::admin::Admin;
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::reader::TopicReader;

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
fn a_witness_who_saw_nothing_clears_nobody() {
    let cluster = Cluster::start();
    let verdict = cluster.run(&["verify"]);
    assert_eq!(code(&verdict), 1);
    assert!(
        text(&verdict.stdout).contains("nothing to judge"),
        "{}",
        text(&verdict.stderr)
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
