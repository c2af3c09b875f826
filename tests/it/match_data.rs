//! `match` on real zones against the exact oracles of the shared data (`$RINGFENCE_DATA`, or `../shared/data`): zero
//! wrong memberships. Says so and passes where the data is absent.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ringfence::cli::matching::{Matcher, ZoneSet};
use ringfence::config::{Config, Sources, load};
use ringfence::index::EngineKind;

fn data() -> Option<PathBuf> {
    let named = std::env::var_os("RINGFENCE_DATA").map(PathBuf::from);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("../shared/data"), here.join("../../shared/data")];
    let found = named
        .into_iter()
        .chain(places)
        .find(|path| path.join("README.md").exists());
    if found.is_none() {
        eprintln!("skipped: no test data at $RINGFENCE_DATA or ../shared/data");
    }
    found
}

fn lines(path: &Path) -> impl Iterator<Item = String> {
    let file = std::fs::File::open(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .skip(1)
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

/// A row of an oracle: place and zones.
struct Row {
    number: String,
    lat: f64,
    lon: f64,
    lat_text: String,
    lon_text: String,
    zones: Vec<String>,
}

fn rows(path: &Path) -> impl Iterator<Item = Row> {
    lines(path).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        Row {
            number: fields[0].to_owned(),
            lat: fields[3].parse().unwrap(),
            lon: fields[4].parse().unwrap(),
            lat_text: fields[3].to_owned(),
            lon_text: fields[4].to_owned(),
            zones: fields[5]
                .split('|')
                .filter(|id| !id.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    })
}

fn config() -> Config {
    load(&Sources::default())
        .expect("the defaults are valid")
        .config
}

fn zones_file(data: &Path, name: &str) -> PathBuf {
    let plain = data.join(format!("{name}.geojson"));
    if plain.exists() {
        plain
    } else {
        data.join(format!("{name}.geojson.gz"))
    }
}

/// The event of a row, numbers with the digits of the oracle.
fn event(row: &Row) -> String {
    format!(
        "{{\"id\":\"{}\",\"ts\":1700000000000,\"lat\":{},\"lon\":{}}}",
        row.number, row.lat_text, row.lon_text
    )
}

/// The matcher, and the zones it refused: they are in the oracles all the same.
fn matcher(data: &Path, zones: &str, engine: EngineKind) -> (Matcher, BTreeSet<String>) {
    let config = config();
    let mut refused = BTreeSet::new();
    let mut set = ZoneSet::new(&config);
    let mut refuse = |why: ringfence::cli::matching::Refused| {
        refused.insert(why.zone.expect("the zones of the data have ids"));
    };
    set.read_file(&zones_file(data, zones), &mut refuse)
        .unwrap();
    assert!(!set.is_empty());
    let listed = lines(&data.join("invalid-zones.csv.gz"))
        .filter(|line| line.starts_with(&format!("{zones}.geojson")))
        .count();
    assert_eq!(refused.len(), listed, "{zones}: {refused:?}");
    (Matcher::new(&config, set, engine, None).unwrap(), refused)
}

fn compare(data: &Path, zones: &str, oracle: &str) -> usize {
    let (mut matcher_of_rtree, refused) = matcher(data, zones, EngineKind::Rtree);
    let (mut matcher, _) = matcher(data, zones, EngineKind::Tiles);
    let (mut compared, mut wrong) = (0, Vec::new());
    for row in rows(&data.join(oracle)) {
        let event = event(&row);
        let enriched = matcher.enrich(event.as_bytes());
        assert_eq!(
            enriched,
            matcher_of_rtree.enrich(event.as_bytes()),
            "{oracle} row {}: both engines give the same bytes",
            row.number
        );
        if row.lat.abs() > 90.0 || row.lon.abs() > 180.0 {
            assert!(enriched.is_err(), "{oracle} row {}", row.number);
            continue;
        }
        let value: serde_json::Value = serde_json::from_slice(enriched.unwrap()).unwrap();
        let found: Vec<String> = serde_json::from_value(value["zones"].clone()).unwrap();
        let wanted: Vec<String> = row
            .zones
            .iter()
            .filter(|id| !refused.contains(*id))
            .cloned()
            .collect();
        compared += 1;
        if found != wanted {
            wrong.push(format!(
                "row {} at {}, {}: {found:?} should be {wanted:?}",
                row.number, row.lon, row.lat
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{oracle}: {} wrong\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    compared
}

#[test]
fn every_probe_has_exactly_the_zones_of_its_oracle() {
    let Some(data) = data() else { return };
    let mut files = 0;
    for entry in std::fs::read_dir(&data).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(zones) = name.strip_prefix("oracle-probes-") else {
            continue;
        };
        let zones = zones.strip_suffix(".csv.gz").unwrap();
        assert!(compare(&data, zones, &name) > 3_900, "{name}");
        files += 1;
    }
    assert_eq!(files, 6);
}

#[test]
fn buses_and_cabs_have_exactly_the_zones_of_their_oracles() {
    let Some(data) = data() else { return };
    for (telemetry, zones) in [
        ("austin-bus-capmetro", "austin-zones"),
        ("nyc-taxi-2013-events", "nyc-taxi-zones"),
        ("nyc-taxi-2013-events", "nyc-census-tracts-2010"),
        ("nyc-taxi-2013-events", "nyc-overlapping-layers"),
    ] {
        let oracle = format!("oracle-{telemetry}-{zones}.csv.gz");
        assert!(compare(&data, zones, &oracle) > 19_900, "{oracle}");
    }
}

#[test]
fn the_command_answers_as_the_library_and_names_what_it_refuses() {
    let Some(data) = data() else { return };
    let zones = zones_file(&data, "us-counties-10m");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args(["match", "--zones", zones.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let events: Vec<String> = rows(&data.join("oracle-probes-us-counties-10m.csv.gz"))
        .filter(|row| row.lat.abs() <= 90.0 && row.lon.abs() <= 180.0)
        .map(|row| event(&row))
        .collect();
    let mut stdin = child.stdin.take().unwrap();
    let text = events.join("\n") + "\n\nnot json\n{\"id\":\"x\"}\n";
    let feed = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let complaints = child.stderr.take().unwrap();
    let complaints = std::thread::spawn(move || {
        BufReader::new(complaints)
            .lines()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
    });
    let answers: Vec<String> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .collect();
    feed.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "a line was refused");
    let (mut matcher, refused) = matcher(&data, "us-counties-10m", EngineKind::Rtree);
    assert_eq!(answers.len(), events.len());
    for (event, answer) in events.iter().zip(&answers) {
        assert_eq!(matcher.enrich(event.as_bytes()).unwrap(), answer.as_bytes());
    }
    let complaints: Vec<serde_json::Value> = complaints
        .join()
        .unwrap()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (lines, zones): (Vec<_>, Vec<_>) = complaints
        .into_iter()
        .partition(|complaint| complaint.get("line").is_some());
    assert_eq!(zones.len(), refused.len());
    let said: Vec<_> = lines
        .iter()
        .map(|line| (line["line"].as_u64(), line["reason"].as_str()))
        .collect();
    let after = events.len() as u64;
    assert_eq!(
        said,
        [
            (Some(after + 2), Some("not_json")),
            (Some(after + 3), Some("missing_field"))
        ]
    );
}
