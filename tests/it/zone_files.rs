//! Zone files as they are in the wild, read, stamped and decoded by the codec: every Feature is found, its id is its
//! own, its bytes stay, and only its shape may be refused.
//!
//! The data is not part of the project: `$RINGFENCE_DATA` or `../shared/data`; without it the test says so and passes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use ringfence::codec::features::FeatureReader;
use ringfence::codec::geojson::Stamp;
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::ShapeRules;
use ringfence::rejection::RejectionReason as Reason;
use ringfence::time::EventTime;
use serde_json::Value;

const MAX_BYTES: usize = 16 << 20;

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let path = std::env::var_os("RINGFENCE_DATA").map_or(beside, PathBuf::from);
    let is_there = path.join("README.md").is_file();
    if !is_there {
        println!(
            "skipped: no test data in {} (set RINGFENCE_DATA)",
            path.display()
        );
    }
    is_there.then_some(path)
}

fn open(path: &Path) -> BufReader<Box<dyn Read>> {
    let file = File::open(path).unwrap();
    let is_zipped = path.extension().is_some_and(|extension| extension == "gz");
    BufReader::new(if is_zipped {
        Box::new(GzDecoder::new(file))
    } else {
        Box::new(file)
    })
}

/// Reads a file to its end; returns how many Features it has and how many shapes were refused.
fn read(path: &Path, decode: bool) -> (usize, usize) {
    let stamp = Stamp::new(None, MAX_BYTES);
    let rules = ZoneRules::new(ShapeRules::default(), MAX_BYTES, &["zone_id".to_owned()]);
    let at = EventTime::from_millis(1_700_000_000_000).unwrap();
    let mut reader = FeatureReader::new(open(path), MAX_BYTES);
    let mut ids = BTreeSet::new();
    let mut refused = 0;
    while let Some((place, feature)) = reader.next_feature().unwrap() {
        let (id, value) = stamp.apply(feature, Some(at)).unwrap();
        if place.number % 97 == 1 {
            let mut original: Value = serde_json::from_slice(feature).unwrap();
            original["properties"]["effective_at"] = at.millis().into();
            let stamped: Value = serde_json::from_slice(&value).unwrap();
            assert_eq!(stamped, original, "{place}");
        }
        if decode {
            match zone_change::decode(Some(id.as_str().as_bytes()), Some(&value), &rules) {
                Ok(change) => assert_eq!(change.effective_at, Some(at), "{place}"),
                Err(rejection) => {
                    let of_shape = rejection.reason >= Reason::RingTooShort
                        && rejection.reason < Reason::ScheduleRange;
                    assert!(of_shape, "{place}: {rejection}");
                    refused += 1;
                }
            }
        }
        assert!(ids.insert(id), "{place}: an id that was there before");
    }
    (ids.len(), refused)
}

#[test]
fn every_feature_of_the_zone_files_is_read_with_its_own_id() {
    let Some(data) = data() else { return };
    for (name, count) in [
        ("austin-zones.geojson", 823),
        ("nyc-taxi-zones.geojson", 263),
        ("nyc-census-tracts-2010.geojson.gz", 2_165),
        ("us-counties-10m.geojson.gz", 3_231),
        ("world-countries-50m.geojson.gz", 241),
    ] {
        assert_eq!(read(&data.join(name), false).0, count, "{name}");
    }
}

#[test]
fn of_a_real_zone_file_only_shapes_are_refused() {
    let Some(data) = data() else { return };
    assert_eq!(read(&data.join("austin-zones.geojson"), true), (823, 0));
    let (count, refused) = read(&data.join("us-counties-10m.geojson.gz"), true);
    assert_eq!(count, 3_231);
    assert!(
        refused <= 40,
        "{refused} refused, 40 are invalid as plain planar shapes"
    );
}
