//! Years-old positions of real buses and cabs over a real Kafka, enriched with real zones as they stand at one instant
//! (`match_from` = `match_until`), and held against an oracle that knows nothing of Ringfence (issue 3, point 11, and
//! "holds when" 5).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfence::clock::Clock;
use serde_json::Value;

use crate::support::daemon::{eventually, ringfence};
use crate::support::stage::Stage;

/// The folder of the real data, or `None` with a word of it.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("RINGFENCE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    if folder.join("README.md").exists() {
        Some(folder)
    } else {
        eprintln!(
            "skipped: no real data at {} (set RINGFENCE_DATA)",
            folder.display()
        );
        None
    }
}

/// The data rows of a comma separated file, gunzipped; a field may be quoted.
pub(crate) fn rows(path: &Path) -> Vec<Vec<String>> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).expect("the data file opens"))
        .read_to_string(&mut text)
        .expect("the data file is UTF-8");
    text.lines()
        .skip(1)
        .map(|line| {
            let mut fields = vec![String::new()];
            let mut quoted = false;
            for c in line.chars() {
                match c {
                    '"' => quoted = !quoted,
                    ',' if !quoted => fields.push(String::new()),
                    c => fields.last_mut().expect("there is a field").push(c),
                }
            }
            fields
        })
        .collect()
}

/// The ids of a file's invalid zones, as its own list has them.
pub(crate) fn invalid_zones(data: &Path, file: &str) -> Vec<String> {
    let listed = rows(&data.join("invalid-zones.csv.gz")).into_iter();
    // file, zone_id, reason
    listed
        .filter(|row| row[0] == file)
        .map(|row| row[1].clone())
        .collect()
}

/// The zones as they are at one instant, and a telemetry topic that holds the years-old positions of an oracle.
struct Reprocessing {
    stage: Stage,
    instant: i64,
    oracle: Vec<Vec<String>>,
}

impl Reprocessing {
    fn prepare(name: &str, data: &Path, zones: &str, oracle: &str) -> Option<Self> {
        let stage = Stage::new(name, "")?;
        // The stamps of the past would be beyond any retention.
        stage.create_topics(8, &["--retention", "-1"]);
        let file = data.join(zones);
        let file = file.to_str().expect("a plain path");
        let import = ["--json", "zones", "import", file, "--id", "zone_id"];
        let import: Vec<&str> = import.iter().copied().chain(["--skip-invalid"]).collect();
        // On a busy machine some may come later than the instant that the run asked for: all act before the one below.
        let report = ringfence(&stage.config, &import).stdout;
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        assert_eq!(report["failed"], 0, "{report}");
        let effective_at = report["effective_at"].as_i64().expect("an instant");
        let instant = effective_at.max(Clock::wall().millis()) + 1_000;
        let mut config = std::fs::OpenOptions::new()
            .append(true)
            .open(&stage.config)
            .expect("the file is there");
        writeln!(
            config,
            "[gate]\nmatch_from = {instant}\nmatch_until = {instant}"
        )
        .expect("the folder is writable");
        let oracle = rows(&data.join(oracle));
        // row, entity, ts, lat, lon, zones, boundary, ambiguous
        let events = oracle.iter().enumerate().map(|(number, row)| {
            let time = instant_of(&row[2]);
            let (lat, lon) = (&row[3], &row[4]);
            (
                None,
                row[1].clone(),
                format!(
                    r#"{{"id":"{}","ts":"{time}","number":{number},"lat":{lat},"lon":{lon}}}"#,
                    row[1]
                ),
            )
        });
        stage.write("telemetry", events);
        Some(Self {
            stage,
            instant,
            oracle,
        })
    }

    /// The zones of a row that are in force: all that the oracle knows but the invalid ones.
    fn expected<'a>(&'a self, number: usize, invalid: &[String]) -> Vec<&'a str> {
        self.oracle[number][5]
            .split('|')
            .filter(|id| !id.is_empty() && !invalid.iter().any(|bad| bad == id))
            .collect()
    }
}

/// RFC 3339, whichever way the data set wrote it.
fn instant_of(text: &str) -> String {
    if text.contains('T') {
        text.to_owned()
    } else {
        format!("{}Z", text.replacen(' ', "T", 1))
    }
}

fn real_positions_get_the_zones_of_the_oracle(name: &str, zones: &str, oracle: &str) {
    let Some(data) = data() else { return };
    let Some(job) = Reprocessing::prepare(name, &data, zones, oracle) else {
        return;
    };
    let stage = &job.stage;
    // One that lies ahead is refused at start: nothing is known of it yet.
    eventually("the instant has come", Duration::from_secs(60), || {
        (Clock::wall().millis() > job.instant + 1_000).then_some(())
    });
    let mut daemon = stage.daemon("run");
    daemon.wait_ready();
    stage.wait_committed(stage.group(), Duration::from_secs(180));
    let out_of_range = |row: &&Vec<String>| {
        row[3].parse::<f64>().is_ok_and(|lat| lat.abs() > 90.0)
            || row[4].parse::<f64>().is_ok_and(|lon| lon.abs() > 180.0)
    };
    let refused = job.oracle.iter().filter(out_of_range).count();
    let enriched = stage.read("enriched");
    assert_eq!(
        enriched.len(),
        job.oracle.len() - refused,
        "each record once"
    );
    assert_eq!(
        stage.read("dead").len(),
        refused,
        "and the refused ones too"
    );
    let invalid = invalid_zones(&data, zones);
    let (mut wrong, mut memberships) = (0, 0);
    for record in &enriched {
        let value: Value = serde_json::from_slice(&record.value).expect("JSON");
        let number = value["number"].as_u64().expect("a number") as usize;
        let found: Vec<&str> = value["zones"]
            .as_array()
            .expect("zones")
            .iter()
            .map(|id| id.as_str().expect("an id"))
            .collect();
        memberships += found.len();
        if found != job.expected(number, &invalid) {
            wrong += 1;
            eprintln!("row {:?}: found {found:?}", job.oracle[number]);
        }
        let instant = job.instant.to_string();
        assert_eq!(record.header("ringfence-at"), Some(instant.as_str()));
        assert_eq!(record.header("ringfence-flags"), None, "{record:?}");
    }
    eprintln!(
        "{name}: {} records, {memberships} memberships, {wrong} wrong",
        enriched.len()
    );
    assert_eq!(wrong, 0, "wrong memberships of {}", enriched.len());
    daemon.stop();
}

#[test]
fn a_years_old_file_of_buses_gets_the_zones_of_one_instant() {
    real_positions_get_the_zones_of_the_oracle(
        "data-austin",
        "austin-zones.geojson",
        "oracle-austin-bus-capmetro-austin-zones.csv.gz",
    );
}

#[test]
fn a_years_old_file_of_cabs_gets_the_overlapping_zones_of_one_instant() {
    real_positions_get_the_zones_of_the_oracle(
        "data-layers",
        "nyc-overlapping-layers.geojson.gz",
        "oracle-nyc-taxi-2013-events-nyc-overlapping-layers.csv.gz",
    );
}
