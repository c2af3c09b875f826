//! A telemetry value: accepted and refused exactly as serde_json and a few plain rules say, with the same numbers.

use std::cell::RefCell;

use ringfence::codec::pointer::Layouts;
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::rejection::RejectionReason as Reason;
use ringfence::telemetry::RecordTimestamp;
use ringfence::time::EventTime;
use serde_json::Value;

use super::members::Members;

/// What the plain rules say of a value.
enum Expected {
    /// Refused, for one of these.
    Refused(&'static [Reason]),
    /// Accepted with this place; with this time, where the rules are plain about it.
    Event { lat: f64, lon: f64, time: Time },
}

enum Time {
    At(i64),
    /// A text, or a number with a fraction: its reading has tests of its own. It may be refused, for its own reasons.
    Open,
}

thread_local! {
    /// Of the values before: mutants of one value have its layout, or nearly.
    static LAYOUTS: RefCell<Layouts> = RefCell::default();
}

/// The target.
pub fn run(data: &[u8]) {
    let fields = Fields::new(&FieldRules::default()).unwrap();
    let decoded = fields.decode(Some(data), RecordTimestamp::Missing);
    let by_layouts = LAYOUTS
        .with_borrow_mut(|layouts| fields.decode_by(layouts, Some(data), RecordTimestamp::Missing));
    assert_eq!(by_layouts, decoded, "by the layout of another value");
    let time_reasons = [Reason::TimeRange, Reason::WrongType];
    match (expected(data), decoded) {
        (Expected::Refused(reasons), Err(rejection)) => assert!(
            reasons.contains(&rejection.reason),
            "refused as {:?}, the rules say {reasons:?}",
            rejection.reason
        ),
        (Expected::Refused(reasons), Ok(decoded)) => {
            panic!("accepted {:?}, the rules say {reasons:?}", decoded.event)
        }
        (Expected::Event { lat, lon, time }, Ok(decoded)) => {
            assert_eq!(decoded.event.lat.to_bits(), lat.to_bits(), "latitude");
            assert_eq!(decoded.event.lon.to_bits(), lon.to_bits(), "longitude");
            if let Time::At(millis) = time {
                assert_eq!(decoded.event.time.millis(), millis, "time");
            }
        }
        (
            Expected::Event {
                time: Time::Open, ..
            },
            Err(rejection),
        ) => assert!(
            time_reasons.contains(&rejection.reason),
            "refused as {:?} where only the time could be wrong",
            rejection.reason
        ),
        (Expected::Event { .. }, Err(rejection)) => panic!("refused: {rejection}"),
    }
}

fn expected(data: &[u8]) -> Expected {
    use Expected::Refused;
    if data.is_empty() {
        return Refused(&[Reason::EmptyValue]);
    }
    let Ok(document) = serde_json::from_slice::<Value>(data) else {
        return Refused(&[Reason::NotJson, Reason::TooDeep]);
    };
    if !document.is_object() {
        return Refused(&[Reason::NotAnObject]);
    }
    let text = std::str::from_utf8(data).unwrap();
    let members = Members::of(text).expect("an object");
    let named_twice = |name: &&str| members.count(name) > 1;
    if ["id", "ts", "lat", "lon", "zones"].iter().any(named_twice) {
        return Refused(&[Reason::DuplicateKey]);
    }
    // Any of several faults may be the one that is named: which is first is not the point here.
    let open = &[
        Reason::MissingField,
        Reason::WrongType,
        Reason::TimeRange,
        Reason::CoordinateRange,
    ];
    let time = match members.value("ts") {
        Some(Value::Number(number)) => match number.as_i64() {
            Some(millis) if EventTime::from_millis(millis).is_some() => Time::At(millis),
            Some(_) => return Refused(open),
            None => Time::Open,
        },
        Some(Value::String(_)) => Time::Open,
        _ => return Refused(open),
    };
    let degrees = |name: &str, bound: f64| match members.value(name) {
        Some(Value::Number(number)) => number.as_f64().filter(|degrees| degrees.abs() <= bound),
        _ => None,
    };
    let (Some(lat), Some(lon)) = (degrees("lat", 90.0), degrees("lon", 180.0)) else {
        return Refused(open);
    };
    match members.value("id") {
        None | Some(Value::Null | Value::String(_)) => {}
        // An integer of any length; -0 is one too.
        Some(Value::Number(_)) if is_integer(members.first("id").unwrap()) => {}
        Some(_) => return Refused(open),
    }
    Expected::Event { lat, lon, time }
}

fn is_integer(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte == b'-' || byte.is_ascii_digit())
}
