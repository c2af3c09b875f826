//! Real zones: lookups over real and uniform points beside the baselines, and all oracles. Without the data it says so.

use std::path::Path;

use ringfence::index::{Hits, Query};

use crate::data::{self, Zones};
use crate::lookup::{self, BATCH, Race};
use crate::support::Seeded;
use crate::support::measure::{self, Row, Spread, Target};
use crate::support::plain::{Geo, YStripes};

/// The points of a race.
enum Points {
    /// The first rows of a telemetry file, with the columns of latitude and longitude.
    Stream(&'static str, [usize; 2]),
    /// Everywhere on the globe.
    Uniform,
}

struct Case {
    what: &'static str,
    zones: &'static str,
    points: Points,
    /// So many: the baselines take up to a tenth of a millisecond for one.
    count: usize,
}

const CASES: [Case; 4] = [
    Case {
        what: "layers of New York, taxi stream",
        zones: "nyc-overlapping-layers.geojson.gz",
        points: Points::Stream("nyc-taxi-2013-events.csv.gz", [2, 3]),
        count: 2_048,
    },
    Case {
        what: "Austin, bus stream",
        zones: "austin-zones.geojson",
        points: Points::Stream("austin-bus-capmetro-sorted.csv.gz", [2, 3]),
        count: 65_536,
    },
    Case {
        what: "time zones, uniform points",
        zones: "timezones-sel.geojson.gz",
        points: Points::Uniform,
        count: 4_096,
    },
    Case {
        what: "countries, uniform points",
        zones: "world-countries-50m.geojson.gz",
        points: Points::Uniform,
        count: 16_384,
    },
];

/// Races and oracles.
pub(crate) fn report() {
    let Some(folder) = data::folder() else {
        measure::say("  real data: skipped, none at $RINGFENCE_DATA or ../shared/data");
        return;
    };
    for case in &CASES {
        race(&folder, case);
    }
    oracles(&folder);
}

fn race(folder: &Path, case: &Case) {
    let zones = Zones::read(&folder.join(case.zones));
    let count = if measure::is_quick() { 256 } else { case.count };
    let queries: Vec<Query> = match case.points {
        Points::Stream(file, columns) => data::points(&folder.join(file), columns, count),
        Points::Uniform => {
            let mut seeded = Seeded::new(19);
            let mut within = |size: f64| (seeded.unit() - 0.5) * size;
            (0..count)
                .map(|_| lookup::query(within(360.0), within(180.0)))
                .collect()
        }
    };
    let each = zones.vertices() / zones.accepted.len();
    measure::say(&format!(
        "  {}: {} zones, {each} vertices each, {} more rejected",
        case.zones,
        zones.accepted.len(),
        zones.rejected
    ));
    Race {
        what: &format!(
            "{} ({} zones of {each} vertices on average)",
            case.what,
            zones.accepted.len()
        ),
        index: &zones.index,
        geo: &Geo::new(zones.polygons.iter().cloned()),
        striped: &YStripes::new(zones.polygons.iter().cloned()),
        queries: &queries,
        differing_max: count / 1_000 + 1,
        has_target: each >= 60,
    }
    .run();
}

/// Counts the rows of all oracle files whose zones are others.
fn oracles(folder: &Path) {
    let (mut wrong, mut checked) = (0, 0);
    for file in [
        "austin-zones.geojson",
        "nyc-taxi-zones.geojson",
        "nyc-census-tracts-2010.geojson.gz",
        "nyc-overlapping-layers.geojson.gz",
        "us-counties-10m.geojson.gz",
        "world-countries-50m.geojson.gz",
        "timezones-sel.geojson.gz",
    ] {
        let zones = Zones::read(&folder.join(file));
        let name = file.split('.').next().unwrap_or(file);
        for telemetry in ["probes", "austin-bus-capmetro", "nyc-taxi-2013-events"] {
            let oracle = folder.join(format!("oracle-{telemetry}-{name}.csv.gz"));
            if oracle.exists() {
                let (errors, rows) = against(&zones, &oracle);
                wrong += errors;
                checked += rows;
            }
        }
    }
    Row {
        what: "wrong memberships, all oracles of the real data",
        ours: format!("{wrong} of {checked}"),
        baseline: "GEOS, an exact test".to_owned(),
        value: Spread::once(wrong as f64),
        target: Target::AtMost(0.0, 0.0),
    }
    .report();
    assert_eq!(wrong, 0);
}

/// Wrong rows, and rows checked: all that are positions.
fn against(zones: &Zones, oracle: &Path) -> (usize, usize) {
    // row, entity, ts, lat, lon, zones, boundary, ambiguous
    let (queries, expected): (Vec<Query>, Vec<String>) = data::rows(oracle)
        .filter_map(|row| Some((data::position(&row, [3, 4])?, row[5].clone())))
        .unzip();
    let mut hits = Hits::default();
    let mut wrong = 0;
    for (batch, expected) in queries.chunks(BATCH).zip(expected.chunks(BATCH)) {
        zones.index.lookup(batch, &mut hits);
        wrong += (0..batch.len())
            .filter(|query| {
                let found = hits
                    .of(*query)
                    .iter()
                    .map(|slot| zones.index.version(*slot).zone().id.as_str());
                let right = expected[*query]
                    .split('|')
                    .filter(|id| zones.accepted.contains(*id));
                !found.eq(right)
            })
            .count();
    }
    (wrong, queries.len())
}
