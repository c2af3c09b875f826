//! Geometry against real shapes and exact answers (`/shared/data`: GEOS 3.14.1, cross-checked by an exact test).
//!
//! The data is not part of the project: `$RINGFENCE_DATA` or `../shared/data`; without it the tests say so and pass.
//! A debug build takes samples; a release build, or `RINGFENCE_FULL=1`, takes everything.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests fail and report as tests do"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ringfence::geometry::{Area, Envelope, OnInvalid, Position, RawShape, ShapeRules};
use ringfence::rejection::{Rejection, RejectionReason};
use serde_json::Value;

/// In a debug build, larger zones are left out.
const DEBUG_VERTICES_MAX: usize = 5_000;

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = std::env::var_os("RINGFENCE_DATA").map_or(beside, PathBuf::from);
    if path.join("README.md").is_file() {
        Some(path)
    } else {
        println!(
            "skipped: no test data in {} (set RINGFENCE_DATA)",
            path.display()
        );
        None
    }
}

fn is_full() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("RINGFENCE_FULL").is_some()
}

/// One row of many in a debug build.
fn sample(every: usize) -> usize {
    if is_full() { 1 } else { every }
}

fn open(path: &Path) -> Box<dyn Read> {
    let file = File::open(path).unwrap();
    if path.extension().is_some_and(|extension| extension == "gz") {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    }
}

fn rows(path: &Path) -> Vec<Vec<String>> {
    let lines = BufReader::new(open(path)).lines().skip(1);
    lines
        .map(|line| line.unwrap().split(',').map(str::to_owned).collect())
        .collect()
}

fn position(value: &Value) -> Position {
    Position {
        lon: value[0].as_f64().unwrap(),
        lat: value[1].as_f64().unwrap(),
    }
}

fn polygon(value: &Value) -> Vec<Vec<Position>> {
    let rings = value.as_array().unwrap().iter();
    rings
        .map(|ring| ring.as_array().unwrap().iter().map(position).collect())
        .collect()
}

type Polygons = Vec<Vec<Vec<Position>>>;

fn shapes(data: &Path, name: &str) -> Vec<(String, Polygons)> {
    let path = [format!("{name}.geojson"), format!("{name}.geojson.gz")]
        .map(|file| data.join(file))
        .into_iter()
        .find(|path| path.is_file())
        .unwrap();
    let mut found = Vec::new();
    for line in BufReader::new(open(&path)).lines() {
        let line = line.unwrap();
        let line = line.trim_end_matches(',');
        if !line.starts_with("{\"type\":\"Feature\"") && !line.starts_with("{\"type\": \"Feature\"")
        {
            continue;
        }
        let Ok(feature) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(id) = feature["properties"]["zone_id"].as_str() else {
            continue;
        };
        let coordinates = &feature["geometry"]["coordinates"];
        let polygons = match feature["geometry"]["type"].as_str() {
            Some("Polygon") => vec![polygon(coordinates)],
            Some("MultiPolygon") => coordinates
                .as_array()
                .unwrap()
                .iter()
                .map(polygon)
                .collect(),
            other => panic!("{id}: {other:?}"),
        };
        found.push((id.to_owned(), polygons));
    }
    if found.is_empty() {
        found = features_of_whole_file(&path);
    }
    assert!(!found.is_empty(), "{name}: no features");
    found
}

/// For files that are not one feature per line.
fn features_of_whole_file(path: &Path) -> Vec<(String, Polygons)> {
    let collection: Value = serde_json::from_reader(BufReader::new(open(path))).unwrap();
    let features = collection["features"].as_array().unwrap().iter();
    features
        .map(|feature| {
            let coordinates = &feature["geometry"]["coordinates"];
            let polygons = if feature["geometry"]["type"] == "Polygon" {
                vec![polygon(coordinates)]
            } else {
                coordinates
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(polygon)
                    .collect()
            };
            (
                feature["properties"]["zone_id"]
                    .as_str()
                    .unwrap()
                    .to_owned(),
                polygons,
            )
        })
        .collect()
}

fn vertex_count(polygons: &Polygons) -> usize {
    polygons.iter().flatten().map(Vec::len).sum()
}

fn area(polygons: &Polygons) -> Result<Area, Rejection> {
    Area::new(
        RawShape::MultiPolygon(polygons.clone()),
        &ShapeRules::default(),
    )
}

const ZONES: [&str; 8] = [
    "austin-zones",
    "nyc-taxi-zones",
    "nyc-census-tracts-2010",
    "nyc-overlapping-layers",
    "us-counties-10m",
    "world-countries-50m",
    "timezones-sel",
    "antimeridian-cases",
];

/// What GEOS finds wrong with each invalid zone of a file, taken as a shape of the plane.
fn invalid_in_plane(data: &Path, name: &str) -> BTreeMap<String, String> {
    let rows = rows(&data.join("invalid-zones.csv.gz")).into_iter();
    rows.filter(|row| row[0].split('.').next() == Some(name))
        .map(|row| (row[1].clone(), row[2].clone()))
        .collect()
}

/// DESIGN 5: rings that jump across ±180° are valid, and so are those round a pole.
fn is_valid_once_unwrapped(id: &str) -> bool {
    id.ends_with(":crossing") || id.contains(":stitched")
}

#[test]
fn real_zones_are_judged_as_by_geos() {
    let Some(data) = data() else { return };
    let mut judged = 0;
    for name in ZONES {
        let invalid = invalid_in_plane(&data, name);
        let mut found: BTreeMap<RejectionReason, usize> = BTreeMap::new();
        for (id, polygons) in shapes(&data, name) {
            if !is_full() && vertex_count(&polygons) > DEBUG_VERTICES_MAX {
                continue;
            }
            judged += 1;
            let expected = invalid.get(&id).filter(|_| !is_valid_once_unwrapped(&id));
            match (area(&polygons), expected) {
                (Ok(area), None) => {
                    let inside = area.interior_point();
                    assert!(area.covers(inside), "{name} {id}: {inside:?}");
                    assert!(
                        area.envelopes()
                            .iter()
                            .any(|envelope| envelope.covers(inside))
                    );
                }
                (Err(rejection), Some(geos)) => {
                    *found.entry(rejection.reason).or_default() += 1;
                    let alike = match geos.split('[').next().unwrap() {
                        "Too few points in geometry component" => {
                            rejection.reason == RejectionReason::RingTooShort
                        }
                        "Ring Self-intersection" => {
                            rejection.reason == RejectionReason::SelfIntersection
                        }
                        _ => matches!(
                            rejection.reason,
                            RejectionReason::SelfIntersection
                                | RejectionReason::RingsIntersect
                                | RejectionReason::PartsOverlap
                                | RejectionReason::RingWithoutArea
                                | RejectionReason::RingTooShort
                        ),
                    };
                    assert!(alike, "{name} {id}: {rejection}, GEOS: {geos}");
                }
                (Ok(_), Some(geos)) => panic!("{name} {id} is valid to us, GEOS: {geos}"),
                (Err(rejection), None) => panic!("{name} {id}: {rejection}, valid to GEOS"),
            }
        }
        println!("{name}: rejected {found:?}");
    }
    assert!(judged > 10_000, "{judged}");
}

struct Zone {
    id: String,
    area: Area,
    envelopes: Vec<Envelope>,
}

fn check_oracle(data: &Path, zones: &str, oracles: &[PathBuf], every: usize) {
    let mut known = BTreeSet::new();
    let mut areas = Vec::new();
    for (id, polygons) in shapes(data, zones) {
        if !is_full() && vertex_count(&polygons) > DEBUG_VERTICES_MAX {
            continue;
        }
        if let Ok(area) = area(&polygons) {
            known.insert(id.clone());
            areas.push(Zone {
                id,
                envelopes: area.envelopes(),
                area,
            });
        }
    }
    areas.sort_by(|a, b| a.id.cmp(&b.id));
    for oracle in oracles {
        let name = oracle.file_name().unwrap().to_string_lossy().into_owned();
        let mut checked = 0;
        for row in rows(oracle).iter().step_by(every) {
            let at = Position {
                lon: row[4].parse().unwrap(),
                lat: row[3].parse().unwrap(),
            };
            if at.lat.abs() > 90.0 || at.lon.abs() > 180.0 {
                continue;
            }
            checked += 1;
            let found: Vec<&str> = areas
                .iter()
                .filter(|zone| {
                    let near = zone.envelopes.iter().any(|envelope| envelope.covers(at));
                    near && zone.area.covers(at)
                })
                .map(|zone| zone.id.as_str())
                .collect();
            let expected: Vec<&str> = row[5].split('|').filter(|id| known.contains(*id)).collect();
            assert_eq!(found, expected, "{name} row {} at {at:?}", row[0]);
        }
        assert!(checked > 100, "{name}: {checked} rows");
        println!("{name}: {checked} rows, none wrong");
    }
}

fn oracles_of(data: &Path, zones: &str) -> Vec<PathBuf> {
    let suffix = format!("-{zones}.csv.gz");
    let mut found: Vec<PathBuf> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("oracle-") && name.ends_with(&suffix)
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{zones}: no oracle");
    found
}

#[test]
fn small_zone_sets_have_no_wrong_answer() {
    let Some(data) = data() else { return };
    for zones in [
        "austin-zones",
        "nyc-taxi-zones",
        "us-counties-10m",
        "world-countries-50m",
    ] {
        check_oracle(&data, zones, &oracles_of(&data, zones), sample(7));
    }
}

#[test]
fn large_zone_sets_have_no_wrong_answer() {
    let Some(data) = data() else { return };
    for zones in ["nyc-census-tracts-2010", "nyc-overlapping-layers"] {
        check_oracle(&data, zones, &oracles_of(&data, zones), sample(29));
    }
    if is_full() {
        check_oracle(
            &data,
            "timezones-sel",
            &oracles_of(&data, "timezones-sel"),
            1,
        );
    }
}

/// Fixed steps, so that a failure comes again.
struct Steps(u64);

impl Steps {
    fn unit(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// On the map, -180 to 180: exact for all longitudes up to 360.
fn on_map(at: Position) -> Position {
    Position {
        lon: if at.lon > 180.0 {
            at.lon - 360.0
        } else {
            at.lon
        },
        ..at
    }
}

#[test]
fn three_ways_to_write_a_shape_over_the_antimeridian_agree() {
    let Some(data) = data() else { return };
    let shapes: BTreeMap<String, Polygons> =
        shapes(&data, "antimeridian-cases").into_iter().collect();
    for country in ["FJI", "RUS", "USA", "NZL", "KIR"] {
        let of = |variant: &str| &shapes[&format!("{country}:{variant}")];
        let variants = ["cut", "lon360", "crossing"];
        let areas = variants.map(|variant| area(of(variant)).unwrap());
        for area in &areas {
            assert_eq!(
                area.envelopes().len(),
                2,
                "{country}: {:?}",
                area.envelopes()
            );
        }
        // `crossing` is `lon360` less whole turns, which is exact. `lon360` is the cut plus whole turns, which rounds.
        let mut probes = Vec::new();
        for ring in of("crossing").iter().chain(of("lon360")).flatten() {
            for pair in ring.windows(2).step_by(sample(5)) {
                probes.push(on_map(pair[0]));
                if (pair[0].lon - pair[1].lon).abs() < 180.0 {
                    probes.push(on_map(Position {
                        lon: f64::midpoint(pair[0].lon, pair[1].lon),
                        lat: f64::midpoint(pair[0].lat, pair[1].lat),
                    }));
                }
            }
        }
        let vertices = probes.len();
        let mut steps = Steps(17);
        for _ in 0..20_000 / sample(10) {
            let near = (steps.unit() - 0.5) * 40.0;
            let lon = if near < 0.0 {
                180.0 + near
            } else {
                -180.0 + near
            };
            probes.push(Position {
                lon,
                lat: (steps.unit() - 0.5) * 180.0,
            });
        }
        probes.extend((-800..800).map(|step| Position {
            lon: 180.0,
            lat: f64::from(step) / 10.0,
        }));
        let mut covered = 0;
        for (number, at) in probes.iter().enumerate() {
            let [cut, lon360, crossing] = areas.each_ref().map(|area| area.covers(*at));
            covered += usize::from(cut);
            assert_eq!(
                lon360, crossing,
                "{country} {at:?}: a turn is taken off exactly"
            );
            if cut != crossing {
                // Beside a vertex, where the cut has one an ulp away: both cover some place next to it.
                assert!(number < vertices, "{country} {at:?}");
                let around = (0..64).map(|step| f64::from(step).to_radians() * 5.625);
                let near = |area: &Area| {
                    around.clone().any(|angle| {
                        let (lat, lon) = angle.sin_cos();
                        area.covers(Position {
                            lon: at.lon + lon * 1e-12,
                            lat: at.lat + lat * 1e-12,
                        })
                    })
                };
                assert!(areas.iter().all(near), "{country} {at:?}");
            }
            if at.lon == 180.0 {
                let west = Position { lon: -180.0, ..*at };
                assert!(
                    areas
                        .iter()
                        .all(|area| area.covers(west) == area.covers(*at)),
                    "{at:?}"
                );
            }
        }
        assert!(covered > 50, "{country}: {covered} places covered");
    }
}

#[test]
fn antarctica_covers_the_pole_however_it_is_drawn() {
    let Some(data) = data() else { return };
    for (id, polygons) in shapes(&data, "antimeridian-cases") {
        if !id.contains("Antarctica") && !id.starts_with("ATA") {
            continue;
        }
        let area = area(&polygons).unwrap();
        for lon in [-180.0, -179.9, -90.0, 0.0, 12.5, 179.9, 180.0] {
            // The planar drawing ends short of the pole, the spherical ring goes round it.
            let southmost = if id.contains("stitched") {
                -90.0
            } else {
                -89.99
            };
            assert!(
                area.covers(Position {
                    lon,
                    lat: southmost
                }),
                "{id} {lon}"
            );
            assert!(area.covers(Position { lon, lat: -86.0 }), "{id} {lon}");
            assert!(!area.covers(Position { lon, lat: -60.0 }), "{id} {lon}");
            assert!(!area.covers(Position { lon, lat: 90.0 }), "{id} {lon}");
        }
    }
}

#[test]
fn invalid_real_zones_can_be_repaired_and_keep_their_area() {
    let Some(data) = data() else { return };
    let rules = ShapeRules {
        on_invalid: OnInvalid::Repair,
        ..ShapeRules::default()
    };
    let mut steps = Steps(5);
    let mut repaired = 0;
    for name in ["nyc-overlapping-layers", "us-counties-10m", "timezones-sel"] {
        let invalid = invalid_in_plane(&data, name);
        for (id, polygons) in shapes(&data, name) {
            if !invalid.contains_key(&id)
                || (!is_full() && vertex_count(&polygons) > DEBUG_VERTICES_MAX)
            {
                continue;
            }
            let area = match Area::new(RawShape::MultiPolygon(polygons.clone()), &rules) {
                Ok(area) => area,
                Err(rejection) => {
                    assert_eq!(
                        rejection.reason,
                        RejectionReason::RepairFailed,
                        "{name} {id}"
                    );
                    assert!(
                        invalid[&id].starts_with("Too few points"),
                        "{name} {id}: {rejection}"
                    );
                    continue;
                }
            };
            repaired += 1;
            let envelope = area.envelopes()[0];
            for _ in 0..200 {
                let at = Position {
                    lon: envelope.lon_min + steps.unit() * (envelope.lon_max - envelope.lon_min),
                    lat: envelope.lat_min + steps.unit() * (envelope.lat_max - envelope.lat_min),
                };
                assert_eq!(area.covers(at), is_odd(&polygons, at), "{name} {id} {at:?}");
            }
        }
    }
    assert!(repaired > 40, "{repaired}");
}

/// Even-odd over all edges in plain floating point: right for random places.
fn is_odd(polygons: &Polygons, at: Position) -> bool {
    let edges = polygons.iter().flatten().flat_map(|ring| ring.windows(2));
    edges
        .filter(|edge| {
            let (a, b) = (edge[0], edge[1]);
            (a.lat <= at.lat) != (b.lat <= at.lat)
                && at.lon < a.lon + (at.lat - a.lat) / (b.lat - a.lat) * (b.lon - a.lon)
        })
        .count()
        % 2
        == 1
}
