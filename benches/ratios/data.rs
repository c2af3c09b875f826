//! The real data, which is no part of the project: `$RINGFENCE_DATA`, or `../shared/data`. A zone is read twice: by the codec, as
//! the daemon reads it, and by serde into plain polygons for the baselines; what the codec rejects has neither.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::{Position, ShapeRules};
use ringfence::index::{Index, Query};
use serde::Deserialize;

use crate::support::plain::Rings;
use crate::{lookup, support};

/// The folder of the real data.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("RINGFENCE_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data"),
        PathBuf::from,
    );
    folder.join("README.md").exists().then_some(folder)
}

/// A file of zones.
pub(crate) struct Zones {
    pub(crate) index: Index,
    /// The polygons of the accepted zones; a zone of several parts has several, which spares the baselines its large box.
    pub(crate) polygons: Vec<Rings>,
    /// The ids of the accepted zones.
    pub(crate) accepted: BTreeSet<String>,
    pub(crate) rejected: usize,
}

#[derive(Deserialize)]
struct Feature {
    id: String,
    geometry: Geometry,
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "coordinates")]
enum Geometry {
    Polygon(Vec<Vec<[f64; 2]>>),
    MultiPolygon(Vec<Vec<Vec<[f64; 2]>>>),
}

impl Geometry {
    fn into_polygons(self) -> impl Iterator<Item = Rings> {
        let polygons = match self {
            Self::Polygon(rings) => vec![rings],
            Self::MultiPolygon(polygons) => polygons,
        };
        let ring = |ring: Vec<[f64; 2]>| -> Vec<Position> {
            ring.into_iter()
                .map(|[lon, lat]| Position { lon, lat })
                .collect()
        };
        polygons
            .into_iter()
            .map(move |rings| rings.into_iter().map(ring).collect())
    }
}

/// A file, gunzipped if its name says so.
fn open(path: &Path) -> BufReader<Box<dyn Read>> {
    let file = File::open(path).expect("the data file opens");
    let input: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    BufReader::new(input)
}

impl Zones {
    /// The valid zones of a FeatureCollection with a Feature a line.
    pub(crate) fn read(path: &Path) -> Self {
        let rules = ZoneRules::new(ShapeRules::default(), 1 << 30, &[]);
        let (mut changes, mut polygons) = (Vec::new(), Vec::new());
        let (mut accepted, mut rejected) = (BTreeSet::new(), 0);
        for line in open(path).lines() {
            let line = line.expect("the data file is UTF-8");
            let value = line.trim_end_matches(',');
            if !value.starts_with(r#"{"type":"Feature","#) {
                continue;
            }
            let feature: Feature = serde_json::from_str(value).expect("a Feature");
            let key = Some(feature.id.as_bytes());
            let Ok(decoded) = zone_change::decode(key, Some(value.as_bytes()), &rules) else {
                rejected += 1;
                continue;
            };
            changes.push(support::staged(decoded, changes.len(), value.len()));
            polygons.extend(feature.geometry.into_polygons());
            accepted.insert(feature.id);
        }
        Self {
            index: support::index(&changes),
            polygons,
            accepted,
            rejected,
        }
    }

    /// Vertices of all zones.
    pub(crate) fn vertices(&self) -> usize {
        self.polygons
            .iter()
            .flatten()
            .map(|ring| ring.len() - 1)
            .sum()
    }
}

/// The fields of the data rows of a comma separated file; a field may be quoted.
pub(crate) fn rows(path: &Path) -> impl Iterator<Item = Vec<String>> {
    open(path).lines().skip(1).map(|line| {
        let (mut fields, mut is_quoted) = (vec![String::new()], false);
        for c in line.expect("the data file is UTF-8").chars() {
            match c {
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => fields.push(String::new()),
                c => fields.last_mut().expect("there is a field").push(c),
            }
        }
        fields
    })
}

/// The positions of a telemetry file with latitude and longitude in these columns, in its order; what is no position is left out.
pub(crate) fn points(path: &Path, columns: [usize; 2], count: usize) -> Vec<Query> {
    rows(path)
        .filter_map(|row| position(&row, columns))
        .take(count)
        .collect()
}

/// The position of a row, if it is one.
pub(crate) fn position(row: &[String], [lat, lon]: [usize; 2]) -> Option<Query> {
    let (lat, lon): (f64, f64) = (row[lat].parse().ok()?, row[lon].parse().ok()?);
    (lat.abs() <= 90.0 && lon.abs() <= 180.0).then(|| lookup::query(lon, lat))
}
