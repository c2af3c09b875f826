//! `/metrics` of a running daemon: what is scraped is what the table says, no more and no less, whatever ids, headers and
//! zones go through it; and observations that nobody scrapes do not pile up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringfence::clock::Clock;
use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use ringfence::metrics::{Kind, MATCH_DURATION, METRICS, install};
use ringfence::partition::PartitionId;

use crate::support::daemon::Daemon;
use crate::support::edge::{PATIENCE, wait_for};
use crate::support::in_process::cluster;
use crate::support::zones::rectangle;

/// Metrics that the daemon of these tests does not show, and why.
const SPECIAL: &[(&str, &str)] = &[
    (
        "ringfence_records_dropped_total",
        "only with `telemetry.on_invalid = \"drop\"`: here invalid records are dead-lettered",
    ),
    (
        "ringfence_gate_violation_lateness_seconds",
        "only after a gate violation, which a correct margin never lets happen",
    ),
    (
        "ringfence_transactions_total",
        "only with `delivery.mode = \"exactly_once\"`",
    ),
    (
        "ringfence_clock_difference_seconds",
        "needs broker stamps (LogAppendTime); the mock has none",
    ),
];

fn file_for(cluster: &EmbeddedCluster, folder: &Path) -> PathBuf {
    let path = folder.join("ringfence.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"g\"\n\
         [gate]\ncreate_time_margin_ms = 3000\nmax_ahead_ms = 100\n[workers]\ncount = 2\n",
        cluster.bootstrap_servers()
    );
    std::fs::write(&path, text).unwrap();
    path
}

struct Scrape {
    /// By family: its type, and the label names of each of its series.
    families: BTreeMap<String, (String, BTreeSet<Vec<String>>)>,
    /// Every series with its labels.
    series: BTreeSet<String>,
}

fn scrape(daemon: &Daemon) -> Scrape {
    let (code, text) = daemon.get("/metrics").unwrap();
    assert_eq!(code, 200);
    let mut families: BTreeMap<String, (String, BTreeSet<Vec<String>>)> = BTreeMap::new();
    let mut series = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            families.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (of, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = of.split_once('{').unwrap_or((of, ""));
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|part| name.strip_suffix(part))
            .find(|family| families.contains_key(*family))
            .unwrap_or(name);
        let mut names: Vec<String> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0.to_owned()))
            .collect();
        names.retain(|label| label != "le");
        families
            .get_mut(family)
            .unwrap_or_else(|| panic!("`{line}` has no TYPE line"))
            .1
            .insert(names);
        series.insert(of.to_owned());
    }
    Scrape { families, series }
}

fn write<'a>(
    settings: &Settings,
    topic: &str,
    records: impl IntoIterator<Item = (&'a str, String)>,
) {
    let writer = TopicWriter::new(settings).unwrap();
    let (mut sent, mut acknowledged) = (0, 0);
    for (number, (key, value)) in records.into_iter().enumerate() {
        let header = format!("h{number}\"}}\n");
        let record = Outgoing {
            topic,
            partition: Some(PartitionId(i32::try_from(number % 2).unwrap())),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[("x", Some(header.as_bytes()))],
            ..Outgoing::default()
        };
        assert!(writer.send(&record, number).unwrap());
        sent += 1;
        if sent - acknowledged >= 10_000 {
            assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok());
            acknowledged += 1;
        }
    }
    for _ in acknowledged..sent {
        assert!(writer.receipt(PATIENCE).unwrap().outcome.is_ok());
    }
}

fn event(id: &str, ts: i64) -> (&'static str, String) {
    let id = serde_json::to_string(id).unwrap();
    (
        "v",
        format!(r#"{{"id":{id},"ts":{ts},"lat":0.5,"lon":0.5}}"#),
    )
}

/// A daemon through which every kind of record has gone: enriched, invalid, flagged, zones applied and rejected.
fn busy_daemon(cluster: &EmbeddedCluster, folder: &Path) -> (Daemon, Settings) {
    let settings = Settings::new(&cluster.bootstrap_servers(), "g");
    write(
        &settings,
        "zones",
        [("a", rectangle("a", 0.0, 0.0, 1.0, 1.0, ""))],
    );
    let mut daemon = Daemon::start(&file_for(cluster, folder), folder, "metrics");
    daemon.wait_ready();
    let now = Clock::wall().millis();
    let live = [
        ("a", rectangle("a", 0.0, 0.0, 1.0, 2.0, "")),
        ("bad", "{".to_owned()),
    ];
    write(&settings, "zones", live);
    let mut events: Vec<_> = (0..300).map(|_| event("v", now)).collect();
    events.push(("v", "not json".to_owned()));
    events.push(event("ahead", now + 3_600_000));
    write(&settings, "telemetry", events);
    wait_for("every record has its end", || {
        let of = |name| daemon.metric(name, "").unwrap_or_default();
        of("ringfence_records_enriched_total") == 301.0
            && of("ringfence_records_dead_lettered_total") == 1.0
            && of("ringfence_zone_changes_total") == 3.0
            // The index before the last has been freed.
            && of("ringfence_snapshot_reclaim_duration_ms_count") >= 1.0
    });
    (daemon, settings)
}

#[test]
fn every_metric_of_the_table_is_scraped_as_it_says_and_no_other() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let (daemon, _) = busy_daemon(&cluster, folder.path());
    let scraped = scrape(&daemon);
    for metric in METRICS {
        let special = SPECIAL.iter().find(|(name, _)| *name == metric.name);
        match (scraped.families.get(metric.name), special) {
            (None, Some(_)) => {}
            (None, None) => panic!("`{}` is not in the scrape", metric.name),
            (Some(_), Some(_)) => panic!("`{}` is in the scrape: no exception", metric.name),
            (Some((kind, labels)), None) => {
                let expected = match metric.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram(_) => "histogram",
                };
                assert_eq!(kind, expected, "{}", metric.name);
                let declared: Vec<String> = metric
                    .labels
                    .iter()
                    .map(|label| (*label).to_owned())
                    .collect();
                assert_eq!(*labels, BTreeSet::from([declared]), "{}", metric.name);
            }
        }
    }
    for family in scraped.families.keys() {
        assert!(
            METRICS.iter().any(|metric| metric.name == family),
            "`{family}` is in no table"
        );
    }
    for (name, _) in SPECIAL {
        assert!(METRICS.iter().any(|metric| metric.name == *name), "{name}");
    }
}

#[test]
fn fs_73_ids_headers_and_zones_by_the_thousand_add_no_series_and_a_scrape_stays_quick() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let (daemon, settings) = busy_daemon(&cluster, folder.path());
    let before = scrape(&daemon).series;
    let zone_ids: Vec<String> = (0..2_000)
        .map(|number| format!("z{number}\"}} 1\n"))
        .collect();
    let zones = zone_ids.iter().map(|id| {
        let value = rectangle("ID", 10.0, 10.0, 11.0, 11.0, "")
            .replace("\"ID\"", &serde_json::to_string(id).unwrap());
        (id.as_str(), value)
    });
    write(&settings, "zones", zones);
    let now = Clock::wall().millis();
    let events = (0..20_000).map(|number| event(&format!("d{number}\",x=\"\n"), now));
    write(&settings, "telemetry", events);
    wait_for("all of them are through", || {
        daemon.metric("ringfence_records_enriched_total", "") == Some(20_301.0)
            && daemon.metric("ringfence_zone_changes_total", "result=\"applied\"") == Some(2_002.0)
    });
    let begun = Clock::mono();
    let after = scrape(&daemon).series;
    let took = Clock::mono().since(begun);
    assert!(took < Duration::from_secs(1), "a scrape took {took:?}");
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
}

/// How much memory this process has, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// The observations of a day on end, an upkeep every few thousand as the daemon's report does it, and no scrape.
#[test]
#[ignore = "the body of fs_74_…, which runs it in a process of its own, where nobody else uses memory"]
fn observations_without_a_scrape() {
    const ROUND: usize = 4_000_000;
    let exporter = install("none").unwrap();
    let histogram = MATCH_DURATION.histogram();
    let round = || {
        for number in 0..ROUND {
            histogram.record(1e-6 * (number % 100) as f64);
            if number % 5_000 == 0 {
                exporter.upkeep();
            }
        }
        resident()
    };
    let first = round();
    let last = (0..3).map(|_| round()).max().unwrap();
    // Kept, they would be 8 bytes each: 96 MB in three rounds.
    let grown = last.saturating_sub(first);
    assert!(grown < 8 << 20, "{grown} bytes more");
    println!("grown by {grown} bytes");
}

#[test]
fn fs_74_observations_that_nobody_scrapes_do_not_pile_up() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("metrics::observations_without_a_scrape")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("grown by"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
