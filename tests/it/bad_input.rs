//! Wrong input of every kind: for telemetry records, zone records and shapes by the numbers of FAULTS.md D, FS-45 to
//! FS-56, and below, in `configuration`, one row for each configuration key, with what is wrong between them and in the
//! file. Each record ends as a rejection with its reason (a dead letter, or a zone's previous version kept), each wrong
//! configuration as a sentence and exit 78; nothing panics, nothing is guessed. What the engines do with a rejection is
//! tested where they are.

mod configuration;

use std::sync::Arc;

use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::codec::zone_change::{self, ZoneRules};
use ringfence::geometry::{OnInvalid, Position, ShapeRules};
use ringfence::rejection::RejectionReason as Reason;
use ringfence::telemetry::{Event, RecordTimestamp};
use ringfence::zone::{DecodedChange, Zone, ZoneChange};

const MIB: usize = 1 << 20;

fn event(value: Option<&[u8]>) -> Result<Event, Reason> {
    let rules = FieldRules {
        max_bytes: 16 * MIB,
        ..FieldRules::default()
    };
    let fields = Fields::new(&rules).unwrap();
    let timestamp = RecordTimestamp::Missing;
    fields
        .decode(value, timestamp)
        .map(|decoded| decoded.event)
        .map_err(|refused| refused.reason)
}

fn event_with(member: &str) -> Result<Event, Reason> {
    event(Some(
        format!("{{\"id\":\"b\",\"ts\":1,\"lat\":1,\"lon\":2,{member}}}").as_bytes(),
    ))
}

fn change_by(shape: ShapeRules, key: &str, value: Option<&[u8]>) -> Result<DecodedChange, Reason> {
    let rules = ZoneRules::new(shape, 64 * MIB, &[]);
    zone_change::decode(Some(key.as_bytes()), value, &rules).map_err(|refused| refused.reason)
}

fn change(value: &str) -> Result<DecodedChange, Reason> {
    change_by(ShapeRules::default(), "z", Some(value.as_bytes()))
}

fn feature(geometry: &str, properties: &str) -> String {
    format!(
        "{{\"type\":\"Feature\",\"id\":\"z\",\"geometry\":{geometry},\"properties\":{properties}}}"
    )
}

fn shape_by(rules: ShapeRules, kind: &str, coordinates: &str) -> Result<Arc<Zone>, Reason> {
    let geometry = format!("{{\"type\":\"{kind}\",\"coordinates\":{coordinates}}}");
    let change = change_by(rules, "z", Some(feature(&geometry, "null").as_bytes()))?;
    match change.change {
        ZoneChange::Upsert(zone) => Ok(zone),
        ZoneChange::Remove => panic!("a Feature was encoded"),
    }
}

fn polygon(coordinates: &str) -> Result<Arc<Zone>, Reason> {
    shape_by(ShapeRules::default(), "Polygon", coordinates)
}

fn covers(zone: &Zone, lon: f64, lat: f64) -> bool {
    zone.area.covers(Position { lon, lat })
}

/// The list has no gap: a test for each number, here; that each key has its row is tested with the rows.
#[test]
fn every_kind_of_wrong_record_has_its_test_here() {
    let here = include_str!("bad_input.rs");
    for number in 45..=56 {
        assert!(here.contains(&format!("\nfn fs_{number}_")), "FS-{number}");
    }
}

#[test]
fn fs_45_poison_telemetry_is_refused_with_its_reason() {
    for (value, reason) in [
        (b"hello".as_slice(), Reason::NotJson),
        (b"\x00\x01\x02\xff", Reason::NotJson),
        (b"{\"ts\":1,\"lat\":NaN,\"lon\":2}", Reason::NotJson),
        (b"{\"ts\":1,\"lat\":Infinity,\"lon\":2}", Reason::NotJson),
        (b"{\"ts\":1,\"lat\":1,\"lon\":-Infinity}", Reason::NotJson),
        (b"{\"ts\":1,\"lat\":1,\"lon\":2", Reason::NotJson),
        (
            b"{\"ts\":1,\"lat\":1,\"lon\":2,\"x\":\"\xc3\"}",
            Reason::NotJson,
        ),
        (
            b"\xef\xbb\xbf{\"ts\":1,\"lat\":1,\"lon\":2}",
            Reason::NotJson,
        ),
        (b"[]", Reason::NotAnObject),
        (b"{}", Reason::MissingField),
        (b"{\"ts\":1,\"lat\":\"1\",\"lon\":2}", Reason::WrongType),
        (b"{\"ts\":[],\"lat\":1,\"lon\":2}", Reason::WrongType),
        (b"{\"ts\":1,\"lat\":91,\"lon\":2}", Reason::CoordinateRange),
        (
            b"{\"ts\":1,\"lat\":404.97812,\"lon\":2}",
            Reason::CoordinateRange,
        ),
        (
            b"{\"ts\":1,\"lat\":1,\"lon\":-180.00000000000003}",
            Reason::CoordinateRange,
        ),
        (
            b"{\"ts\":\"2024-13-01T00:00:00Z\",\"lat\":1,\"lon\":2}",
            Reason::TimeRange,
        ),
        (b"{\"ts\":9e15,\"lat\":1,\"lon\":2}", Reason::TimeRange),
    ] {
        assert_eq!(
            event(Some(value)),
            Err(reason),
            "{}",
            String::from_utf8_lossy(value)
        );
    }
    assert!(
        event(Some(b"{\"ts\":1,\"lat\":0,\"lon\":0}")).is_ok(),
        "(0,0) is a position"
    );
}

#[test]
fn fs_46_a_poison_zone_record_is_refused_and_its_key_still_names_the_zone() {
    for (value, reason) in [
        ("\u{0}\u{1}".to_owned(), Reason::NotJson),
        ("{\"type\":\"Feature\"".to_owned(), Reason::NotJson),
        (
            "{\"type\":\"Feature\",\"id\":\"other\"}".to_owned(),
            Reason::KeyMismatch,
        ),
        (feature("null", "null"), Reason::GeometryType),
    ] {
        assert_eq!(change(&value).unwrap_err(), reason, "{value}");
    }
    assert_eq!(zone_change::zone_of_key(Some(b"z")).unwrap().as_str(), "z");
    assert_eq!(zone_change::zone_of_key(Some(b"\xff\xfe")), None);
    assert_eq!(zone_change::zone_of_key(None), None);
}

#[test]
fn fs_47_null_and_empty_are_told_apart_on_both_topics() {
    assert_eq!(event(None), Err(Reason::NullValue));
    assert_eq!(event(Some(b"")), Err(Reason::EmptyValue));
    let by = |value| change_by(ShapeRules::default(), "z", value);
    assert!(matches!(by(None).unwrap().change, ZoneChange::Remove));
    assert_eq!(by(Some(b"")).unwrap_err(), Reason::EmptyValue);
    assert_eq!(
        by(Some(b"null")).unwrap_err(),
        Reason::NotAnObject,
        "the JSON null is no tombstone"
    );
}

#[test]
fn fs_48_a_tombstone_says_the_same_however_often_and_for_whatever_zone() {
    let square = r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}"#;
    let kinds = [None, None, Some(feature(square, "null")), None].map(|value| {
        let change = change_by(
            ShapeRules::default(),
            "z",
            value.as_deref().map(str::as_bytes),
        );
        let change = change.unwrap();
        assert_eq!(change.zone_id.as_str(), "z");
        matches!(change.change, ZoneChange::Remove)
    });
    assert_eq!(kinds, [true, true, false, true]);
}

#[test]
fn fs_49_hostile_json_is_refused_within_bounds() {
    for open in ["[", "{\"a\":", "[{\"\":"] {
        let deep = open.repeat(100_000);
        assert_eq!(event(Some(deep.as_bytes())), Err(Reason::TooDeep), "{open}");
        assert_eq!(
            event_with(&format!("\"x\":{deep}")),
            Err(Reason::TooDeep),
            "{open}"
        );
        assert_eq!(change(&deep).unwrap_err(), Reason::TooDeep, "{open}");
    }
    let deep_coordinates = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(polygon(&deep_coordinates).unwrap_err(), Reason::TooDeep);

    let long = "x".repeat(10 * MIB);
    assert!(event_with(&format!("\"x\":\"{long}\"")).is_ok());
    assert_eq!(
        event_with(&format!("\"id\":\"{long}\"")),
        Err(Reason::DuplicateKey)
    );
    let ts = format!("{{\"ts\":\"{long}\",\"lat\":1,\"lon\":2}}");
    assert_eq!(event(Some(ts.as_bytes())), Err(Reason::TimeRange));
    assert_eq!(
        event_with(&format!("\"x\":\"{}\"", "x".repeat(16 * MIB))),
        Err(Reason::TooLarge)
    );

    for (member, reason) in [
        ("\"lat\":1", Reason::DuplicateKey),
        ("\"l\\u0061t\":1", Reason::DuplicateKey),
        ("\"zones\":1,\"zones\":2", Reason::DuplicateKey),
        ("\"x\":1e400", Reason::NotJson),
        ("\"x\":-1e400", Reason::NotJson),
        ("\"x\":\"\\ud800\"", Reason::NotJson),
        ("\"\\udc00\":1", Reason::NotJson),
        ("\"x\":\"\\ud800\\u0041\"", Reason::NotJson),
    ] {
        assert_eq!(event_with(member), Err(reason), "{member}");
    }
    for member in [
        "\"x\":1,\"x\":2",
        "\"x\":1e-400",
        "\"x\":0e400",
        "\"x\":\"\\ud83d\\ude00\"",
    ] {
        assert!(event_with(member).is_ok(), "{member}");
    }
    let digits = "9".repeat(MIB);
    assert_eq!(event_with(&format!("\"x\":{digits}")), Err(Reason::NotJson));
    assert!(event_with(&format!("\"x\":0.{digits}")).is_ok());
}

#[test]
fn fs_50_a_shape_with_a_coordinate_that_is_no_number_is_refused() {
    for (odd, reason) in [
        ("NaN", Reason::NotJson),
        ("Infinity", Reason::NotJson),
        ("1e400", Reason::NotJson),
        ("null", Reason::InvalidPosition),
        ("\"NaN\"", Reason::InvalidPosition),
        ("1e300", Reason::CoordinateRange),
    ] {
        let ring = format!("[[[0,0],[2,0],[2,{odd}],[0,2],[0,0]]]");
        assert_eq!(polygon(&ring).unwrap_err(), reason, "{odd}");
        let circle = format!("{{\"type\":\"Point\",\"coordinates\":[0,{odd}]}}");
        let circle = feature(&circle, "{\"radius_m\":5}");
        assert_eq!(change(&circle).unwrap_err(), reason, "{odd}");
    }
    for radius in ["0", "-1", "1e300", "\"5\"", "null"] {
        let point = "{\"type\":\"Point\",\"coordinates\":[1,2]}";
        let circle = feature(point, &format!("{{\"radius_m\":{radius}}}"));
        assert_eq!(
            change(&circle).unwrap_err(),
            Reason::InvalidRadius,
            "{radius}"
        );
    }
}

#[test]
fn fs_51_a_shape_that_is_not_valid_is_refused_by_the_rule_it_breaks_or_repaired() {
    const SQUARE: &str = "[[0,0],[9,0],[9,9],[0,9],[0,0]]";
    for (coordinates, reason) in [
        (
            "[[[0,0],[2,2],[2,0],[0,2],[0,0]]]".to_owned(),
            Reason::SelfIntersection,
        ),
        (
            "[[[0,0],[2,0],[2,2],[0,2]]]".to_owned(),
            Reason::RingNotClosed,
        ),
        ("[[[0,0],[2,0],[0,0]]]".to_owned(), Reason::RingTooShort),
        (
            "[[[0,0],[0,0],[0,0],[0,0]]]".to_owned(),
            Reason::RingTooShort,
        ),
        ("[[]]".to_owned(), Reason::RingTooShort),
        ("[]".to_owned(), Reason::EmptyGeometry),
        (
            format!("[{SQUARE},[[20,0],[21,0],[21,1],[20,0]]]"),
            Reason::HoleOutside,
        ),
        (
            format!("[{SQUARE},[[5,5],[15,5],[15,6],[5,5]]]"),
            Reason::RingsIntersect,
        ),
    ] {
        assert_eq!(polygon(&coordinates).unwrap_err(), reason, "{coordinates}");
    }
    for coordinates in [
        "[[[0,0],[1,1],[2,2],[0,0]]]",
        "[[[0,0],[4,0],[4,4],[4,8],[4,4],[0,4],[0,0]]]",
        "[[[0,0],[4,0],[2,2],[4,4],[0,4],[2,2],[0,0]]]",
    ] {
        assert!(polygon(coordinates).is_err(), "{coordinates}");
    }
    let repeated = polygon("[[[0,0],[0,0],[2,0],[2,2],[2,2],[0,2],[0,0]]]").unwrap();
    assert!(
        covers(&repeated, 1.0, 1.0),
        "a position repeated in a row says nothing"
    );

    let repair = ShapeRules {
        on_invalid: OnInvalid::Repair,
        ..ShapeRules::default()
    };
    let bow_tie = "[[[0,0],[2,2],[2,0],[0,2],[0,0]]]";
    let repaired = shape_by(repair, "Polygon", bow_tie).unwrap();
    assert!(covers(&repaired, 0.25, 1.0) && covers(&repaired, 1.75, 1.0));
    assert!(!covers(&repaired, 1.0, 0.25) && !covers(&repaired, 1.0, 1.75));
}

#[test]
fn fs_52_bombs_are_refused_by_the_caps_before_costly_work() {
    let rules = ShapeRules {
        vertices_max: 1_000,
        parts_max: 10,
        ..ShapeRules::default()
    };
    let positions = "[1,2],".repeat(1_000_000);
    let ring = format!("[[{positions}[1,2]]]");
    assert_eq!(
        shape_by(rules, "Polygon", &ring).unwrap_err(),
        Reason::TooManyVertices
    );
    let rings = format!("[{}[]]", "[],".repeat(1_000_000));
    assert_eq!(
        shape_by(rules, "Polygon", &rings).unwrap_err(),
        Reason::TooManyParts
    );
    assert_eq!(
        shape_by(rules, "MultiPolygon", &rings).unwrap_err(),
        Reason::TooManyParts
    );

    let one = feature(
        "{\"type\":\"Polygon\",\"coordinates\":[[[0,0],[1,0],[1,1],[0,0]]]}",
        "null",
    );
    let bomb = format!(
        "{{\"type\":\"FeatureCollection\",\"id\":\"z\",\"features\":[{}{one}]}}",
        format!("{one},").repeat(10_000)
    );
    assert_eq!(change(&bomb).unwrap_err(), Reason::NotAFeature);
    let mut collection = "{\"type\":\"GeometryCollection\",\"geometries\":[]}".to_owned();
    for _ in 0..50 {
        collection = format!("{{\"type\":\"GeometryCollection\",\"geometries\":[{collection}]}}");
    }
    assert_eq!(
        change(&feature(&collection, "null")).unwrap_err(),
        Reason::GeometryType
    );

    let small = ZoneRules::new(ShapeRules::default(), 100, &[]);
    let refused = zone_change::decode(Some(b"z"), Some(bomb.as_bytes()), &small).unwrap_err();
    assert_eq!(refused.reason, Reason::TooLarge);
}

#[test]
fn fs_53_heights_are_ignored_also_where_only_some_positions_have_one() {
    let zone = polygon("[[[0,0,1],[2,0],[2,2,-5.5],[0,2,1e3,4],[0,0]]]").unwrap();
    assert!(covers(&zone, 1.0, 1.0) && !covers(&zone, 3.0, 1.0));
}

#[test]
fn fs_54_holes_edges_and_vertices_follow_the_boundary_rule() {
    let zone = shape_by(
        ShapeRules::default(),
        "MultiPolygon",
        "[[[[0,0],[9,0],[9,9],[0,9],[0,0]],[[2,2],[7,2],[7,7],[2,7],[2,2]]],
          [[[4,4],[5,4],[5,5],[4,5],[4,4]]]]",
    )
    .unwrap();
    for (lon, lat, expected) in [
        (1.0, 1.0, true),
        (3.0, 3.0, false),
        (4.5, 4.5, true),
        (0.0, 0.0, true),
        (9.0, 4.0, true),
        (2.0, 5.0, true),
        (7.0, 7.0, true),
        (4.0, 4.5, true),
        (2.0_f64.next_up(), 5.0, false),
        (0.0_f64.next_down(), 5.0, false),
        (9.0_f64.next_up(), 5.0, false),
    ] {
        assert_eq!(covers(&zone, lon, lat), expected, "({lon}, {lat})");
    }
}

#[test]
fn fs_55_every_way_to_write_a_zone_over_the_antimeridian_or_a_pole_is_understood() {
    let crossing = [
        (
            "Polygon",
            "[[[170,-10],[-170,-10],[-170,10],[170,10],[170,-10]]]",
        ),
        (
            "Polygon",
            "[[[170,-10],[190,-10],[190,10],[170,10],[170,-10]]]",
        ),
        (
            "Polygon",
            "[[[170,-10],[170,10],[190,10],[190,-10],[170,-10]]]",
        ),
        (
            "MultiPolygon",
            "[[[[170,-10],[180,-10],[180,10],[170,10],[170,-10]]],
              [[[-180,-10],[-170,-10],[-170,10],[-180,10],[-180,-10]]]]",
        ),
    ];
    for (kind, coordinates) in crossing {
        let zone = shape_by(ShapeRules::default(), kind, coordinates).unwrap();
        for (lon, expected) in [
            (175.0, true),
            (-175.0, true),
            (180.0, true),
            (-180.0, true),
            (0.0, false),
            (165.0, false),
        ] {
            assert_eq!(covers(&zone, lon, 0.0), expected, "{lon} in {coordinates}");
        }
    }
    let cap = polygon("[[[0,80],[90,80],[180,80],[-90,80],[0,80]]]").unwrap();
    assert!(covers(&cap, 45.0, 85.0) && covers(&cap, 0.0, 90.0) && !covers(&cap, 45.0, 75.0));
    let clockwise = polygon("[[[0,0],[0,2],[2,2],[2,0],[0,0]]]").unwrap();
    assert!(covers(&clockwise, 1.0, 1.0) && !covers(&clockwise, 3.0, 1.0));
}

#[test]
fn fs_56_ids_are_compared_in_one_canonical_form() {
    let geometry = r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}"#;
    let by_id = |id: &str, key: &str| {
        let value = format!("{{\"type\":\"Feature\",\"id\":{id},\"geometry\":{geometry}}}");
        change_by(ShapeRules::default(), key, Some(value.as_bytes()))
            .map(|change| change.zone_id.as_str().to_owned())
    };
    assert_eq!(by_id("7", "7"), by_id("\"7\"", "7"));
    assert_eq!(by_id("7", "7").as_deref(), Ok("7"));
    assert_eq!(by_id("\"07\"", "7"), Err(Reason::KeyMismatch));
    assert_eq!(by_id("7", "07"), Err(Reason::KeyMismatch));
    for id in [
        "7.0",
        "7e0",
        "-0",
        "99999999999999999999",
        "true",
        "{}",
        "\"\"",
    ] {
        assert_eq!(by_id(id, "7"), Err(Reason::InvalidId), "{id}");
    }
}

#[test]
fn a_megabyte_of_odd_bytes_is_refused_on_both_topics_at_once() {
    // xorshift64 from a fixed seed: the same bytes on every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(MIB / 8)
    .flatten()
    .collect();
    assert_eq!(event(Some(&noise)), Err(Reason::NotJson));
    let refused = change_by(ShapeRules::default(), "z", Some(&noise));
    assert_eq!(refused.unwrap_err(), Reason::NotJson);
}

#[test]
fn fs_77_no_text_in_a_variable_is_taken_for_anything_but_the_value_it_is() {
    for odd in [
        "a$b",
        "${HOME}",
        "{{ env }}",
        "a\nb: 1\n[gate]",
        "\"quoted\" # no comment",
        "{ env = \"HOME\" }",
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .args(["--json", "config", "show"])
            .env("RINGFENCE__KAFKA__CLIENT_ID", odd)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let shown = serde_json::to_string(odd).unwrap();
        assert!(
            output.status.success() && text.contains(&shown),
            "{odd}: {text}"
        );
    }
}
