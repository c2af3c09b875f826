//! `match` on real zones against the exact oracles of the shared data (`$RINGFENCE_DATA`, or `../shared/data`): zero
//! wrong memberships. Says so and passes where the data is absent.

use std::collections::BTreeSet;
use std::io::{BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

fn lines(path: &Path) -> impl Iterator<Item = String> + use<> {
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

fn rows(path: &Path) -> impl Iterator<Item = Row> + use<> {
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
    for name in names(&data) {
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
        ("austin-bus-capmetro", "timezones-sel"),
        ("austin-bus-capmetro", "us-counties-10m"),
        ("nyc-taxi-2013-events", "nyc-taxi-zones"),
        ("nyc-taxi-2013-events", "nyc-census-tracts-2010"),
        ("nyc-taxi-2013-events", "nyc-overlapping-layers"),
    ] {
        let oracle = format!("oracle-{telemetry}-{zones}.csv.gz");
        assert!(compare(&data, zones, &oracle) > 19_900, "{oracle}");
    }
}

/// Runs `match` over these events, a line each.
fn run_match(zones: &Path, engine: &str, events: String) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringfence"))
        .args([
            "match",
            "--engine",
            engine,
            "--zones",
            zones.to_str().unwrap(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || stdin.write_all(events.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    output
}

#[test]
fn the_records_that_the_readme_shows_are_what_comes_out() {
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let shown = |begin: &str| {
        let line = readme.lines().find_map(|line| line.strip_prefix(begin));
        line.unwrap_or_else(|| panic!("the README shows no `{begin}`"))
    };
    let folder = tempfile::tempdir().unwrap();
    let zones = folder.path().join("zones.ndjson");
    let zone = format!(r#"{{"type":"Feature"{}"#, shown(r#"{"type":"Feature""#));
    std::fs::write(&zones, zone).unwrap();
    let output = run_match(&zones, "tiles", shown("in   ").to_owned() + "\n");
    assert!(output.status.success(), "{output:?}");
    let enriched = String::from_utf8(output.stdout).unwrap();
    assert_eq!(enriched.trim_end(), shown("out  "));
    // The one shown is inside: of one that is not, no zone would be told.
    let outside = shown("in   ").replace("30.2672", "31.2672");
    let output = run_match(&zones, "tiles", outside);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(r#""zones":[]"#)
    );
}

/// All events of the oracles over these zones; of the probes of the whole world where there is no oracle.
fn events_over(data: &Path, zones: &str) -> String {
    let oracles = names(data)
        .filter(|name| name.starts_with("oracle-") && name.ends_with(&format!("-{zones}.csv.gz")));
    let mut oracles: Vec<_> = oracles.collect();
    if oracles.is_empty() {
        oracles.push("oracle-probes-world-countries-50m.csv.gz".to_owned());
    }
    let rows = oracles.iter().flat_map(|oracle| rows(&data.join(oracle)));
    rows.map(|row| event(&row) + "\n").collect()
}

fn names(data: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(data).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
}

#[test]
fn the_command_gives_the_same_bytes_with_both_engines_on_every_data_set() {
    let Some(data) = data() else { return };
    let mut sets = 0;
    for file in names(&data).filter(|name| name.contains(".geojson")) {
        let zones = file.split(".geojson").next().unwrap();
        let events = events_over(&data, zones);
        let [tiles, rtree] =
            ["tiles", "rtree"].map(|engine| run_match(&data.join(&file), engine, events.clone()));
        assert_eq!(tiles.status, rtree.status, "{file}");
        assert!(tiles.stdout == rtree.stdout, "{file}: outputs differ");
        assert!(tiles.stderr == rtree.stderr, "{file}: complaints differ");
        let answers = tiles.stdout.iter().filter(|byte| **byte == b'\n').count();
        assert!(answers > 3_900, "{file}: {answers} answers");
        sets += 1;
    }
    assert_eq!(sets, 8);
}

#[test]
fn the_command_answers_as_the_library_and_names_what_it_refuses() {
    let Some(data) = data() else { return };
    let zones = zones_file(&data, "us-counties-10m");
    let events: Vec<String> = rows(&data.join("oracle-probes-us-counties-10m.csv.gz"))
        .filter(|row| row.lat.abs() <= 90.0 && row.lon.abs() <= 180.0)
        .map(|row| event(&row))
        .collect();
    let text = events.join("\n") + "\n\nnot json\n{\"id\":\"x\"}\n";
    let output = run_match(&zones, "tiles", text);
    assert_eq!(output.status.code(), Some(1), "a line was refused");
    let answers: Vec<String> = output.stdout.lines().map(Result::unwrap).collect();
    let (mut matcher, refused) = matcher(&data, "us-counties-10m", EngineKind::Rtree);
    assert_eq!(answers.len(), events.len());
    for (event, answer) in events.iter().zip(&answers) {
        assert_eq!(matcher.enrich(event.as_bytes()).unwrap(), answer.as_bytes());
    }
    let complaints = output.stderr.lines().map(Result::unwrap);
    let complaints: Vec<serde_json::Value> = complaints
        .map(|line| serde_json::from_str(&line).unwrap())
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
