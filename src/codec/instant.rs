//! Reading an instant that stands in a record: epoch milliseconds as a number, or an RFC 3339 string. One reading for
//! telemetry and zone changes.
//!
//! A number must be whole: `1.7e12` and `1700000000000.0` are integers written in another way and are read, but
//! `1700000000.25` is refused, as a fraction mostly means that someone wrote seconds. In strings, which say their
//! unit, what is finer than a millisecond is floored (DESIGN 4).

use crate::codec::json::{self, Kind, Scanner, unescape};
use crate::codec::pointer::Slot;
use crate::rejection::{Rejection, RejectionReason};
use crate::time::EventTime;

/// The longest RFC 3339 text that is read, in bytes.
const TEXT_MAX: usize = 64;

/// Reads the instant that stands at `slot`; `name` is what a rejection calls it.
///
/// # Errors
/// [`RejectionReason::WrongType`] for what is neither a whole number nor a string, [`RejectionReason::TimeRange`] for
/// a string that is not RFC 3339 and for instants outside the years 0001 to 9999.
#[inline]
pub fn read(document: &str, slot: Slot, name: &str) -> Result<EventTime, Rejection> {
    if slot.kind == Kind::Integer
        && let Some(millis) =
            Scanner::standing_at(document, slot.range().start).take_short_integer()
        && let Some(instant) = EventTime::from_millis(millis)
    {
        return Ok(instant);
    }
    read_any(document, slot, name)
}

/// As [`read`], in every form.
#[inline(never)]
fn read_any(document: &str, slot: Slot, name: &str) -> Result<EventTime, Rejection> {
    let text = slot.text(document);
    let instant = match slot.kind {
        // An integer too long for 64 bits is far outside the years.
        Kind::Integer => text.parse().ok().and_then(EventTime::from_millis),
        Kind::Float => {
            let millis = json::number(text).unwrap_or(f64::NAN);
            if millis.fract() != 0.0 {
                return Err(Rejection::new(
                    RejectionReason::WrongType,
                    format!("`{name}` is no whole number of milliseconds"),
                ));
            }
            // All years are far below 2^53 ms, where floats are exact; the cast saturates beyond 64 bits.
            EventTime::from_millis(millis as i64)
        }
        Kind::String => read_string(&text[1..text.len() - 1]),
        Kind::EscapedString => read_escaped(&text[1..text.len() - 1]),
        other => {
            return Err(Rejection::new(
                RejectionReason::WrongType,
                format!(
                    "`{name}` is {}, not epoch milliseconds or an RFC 3339 string",
                    other.name()
                ),
            ));
        }
    };
    instant.ok_or_else(|| {
        let what = if slot.kind.is_string() {
            "no RFC 3339 instant"
        } else {
            "no instant"
        };
        Rejection::new(
            RejectionReason::TimeRange,
            format!("`{name}` is {what} of the years 0001 to 9999"),
        )
    })
}

fn read_escaped(raw: &str) -> Option<EventTime> {
    // Every character of RFC 3339 is ASCII.
    let mut buffer = [0; TEXT_MAX];
    let mut len = 0;
    for c in unescape(raw) {
        *buffer.get_mut(len)? = u8::try_from(c).ok().filter(u8::is_ascii)?;
        len += 1;
    }
    read_string(std::str::from_utf8(&buffer[..len]).ok()?)
}

fn read_string(text: &str) -> Option<EventTime> {
    read_utc(text.as_bytes()).or_else(|| EventTime::parse_rfc3339(text))
}

/// The usual form, `2024-05-06T07:08:09Z` or with one to nine digits of fraction, read without a date library: a
/// fifth of the cost of the general reading, which judges everything that is not exactly this.
fn read_utc(text: &[u8]) -> Option<EventTime> {
    let (date_time, rest) = text.split_first_chunk::<19>()?;
    let fraction = match rest {
        [b'Z'] => &[],
        [b'.', fraction @ .., b'Z'] if (1..=9).contains(&fraction.len()) => fraction,
        _ => return None,
    };
    let [
        ..,
        b'-',
        _,
        _,
        b'-',
        _,
        _,
        b'T',
        _,
        _,
        b':',
        _,
        _,
        b':',
        _,
        _,
    ] = date_time
    else {
        return None;
    };
    let number = |range: std::ops::Range<usize>| {
        date_time[range].iter().try_fold(0_i64, |value, digit| {
            digit
                .is_ascii_digit()
                .then(|| value * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // The 29th to 31st depend on the month, and a leap second on a rule: the general reading knows both.
    let plain = year >= 1
        && (1..=12).contains(&month)
        && (1..=28).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !plain {
        return None;
    }
    let mut millis = 0;
    for (place, digit) in fraction.iter().enumerate() {
        if !digit.is_ascii_digit() {
            return None;
        }
        if place < 3 {
            millis += i64::from(digit - b'0') * [100, 10, 1][place];
        }
    }
    let seconds = ((days_from_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    EventTime::from_millis(seconds * 1_000 + millis)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, counting years from March so that a leap day
/// is a year's last (H. Hinnant, "chrono-compatible low-level date algorithms").
const fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::pointer::{Paths, Pointer};

    /// At the document's end, and far from it, which must not differ.
    fn read_value(value: &str) -> Result<i64, RejectionReason> {
        let at_the_end = read_in(&format!("{{\"ts\": {value}}}"));
        let far_from_it = read_in(&format!("{{\"ts\": {value}{}}}", " ".repeat(16)));
        assert_eq!(at_the_end, far_from_it, "{value}");
        at_the_end
    }

    fn read_in(document: &str) -> Result<i64, RejectionReason> {
        let mut paths = Paths::new();
        let id = paths.add(&Pointer::parse("/ts").unwrap());
        let mut slots = vec![None; paths.slot_count()];
        paths.scan(document, &mut slots).unwrap();
        read(document, Paths::slot(&slots, id).unwrap(), "/ts")
            .map(EventTime::millis)
            .map_err(|rejection| rejection.reason)
    }

    #[test]
    fn whole_numbers_are_epoch_milliseconds_however_they_are_written() {
        for (value, millis) in [
            ("0", 0),
            ("-0", 0),
            ("-1", -1),
            ("1700000000123", 1_700_000_000_123),
            ("1700000000123.0", 1_700_000_000_123),
            ("1.7e12", 1_700_000_000_000),
            ("17000000001230E-1", 1_700_000_000_123),
            ("253402300799999", 253_402_300_799_999),
            ("-62135596800000", -62_135_596_800_000),
        ] {
            assert_eq!(read_value(value), Ok(millis), "{value}");
        }
    }

    #[test]
    fn fractions_of_a_millisecond_are_refused_in_numbers_and_floored_in_strings() {
        assert_eq!(read_value("1700000000.25"), Err(RejectionReason::WrongType));
        assert_eq!(
            read_value("1e-400"),
            Ok(0),
            "it is zero to every reader of floats"
        );
        assert_eq!(read_value("1e-300"), Err(RejectionReason::WrongType));
        assert_eq!(read_value("\"1970-01-01T00:00:00.0019Z\""), Ok(1));
        assert_eq!(read_value("\"1969-12-31T23:59:59.9991Z\""), Ok(-1));
    }

    #[test]
    fn instants_outside_the_years_0001_to_9999_are_refused() {
        for value in [
            "253402300800000",
            "-62135596800001",
            "9223372036854775808",
            "123456789012345678901234567890",
            "1e300",
            "-1e300",
            "\"0000-12-31T23:59:59Z\"",
            "\"9999-12-31T23:59:59-01:00\"",
            "\"10000-01-01T00:00:00Z\"",
        ] {
            assert_eq!(
                read_value(value),
                Err(RejectionReason::TimeRange),
                "{value}"
            );
        }
    }

    #[test]
    fn strings_that_are_not_rfc_3339_are_refused() {
        let long = format!("\"1970-01-01T00:00:00.{}Z\"", "0".repeat(100));
        for value in [
            "\"\"",
            "\"now\"",
            "\"1700000000123\"",
            "\"1970-01-01\"",
            "\"1970-01-01T00:00:00\"",
            "\"1970-01-01T00:00:00.Z\"",
            "\"1970-02-30T00:00:00Z\"",
            "\"1970-13-01T00:00:00Z\"",
            "\"1970-00-01T00:00:00Z\"",
            "\"1970-01-00T00:00:00Z\"",
            "\"1970-01-01T24:00:00Z\"",
            "\"1970-01-01T00:60:00Z\"",
            "\"197\u{663}-01-01T00:00:00Z\"",
            "\"1970-01-01T00:00:00Z\\n\"",
            "\"1970-01-01T00:00:00Z\\u00e9\"",
            &long,
        ] {
            assert_eq!(
                read_value(value),
                Err(RejectionReason::TimeRange),
                "{value}"
            );
        }
    }

    #[test]
    fn other_types_are_refused() {
        for value in ["null", "true", "[1]", "{\"a\":1}"] {
            assert_eq!(
                read_value(value),
                Err(RejectionReason::WrongType),
                "{value}"
            );
        }
    }

    #[test]
    fn escapes_in_a_string_are_resolved() {
        assert_eq!(read_value("\"1970-01-01T00:00:00\\u005a\""), Ok(0));
        assert_eq!(read_value("\"\\u0031970-01-01T00:00:01+00:00\""), Ok(1_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 2_000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn the_usual_form_is_read_as_the_general_reading_does(
            millis in EventTime::MIN.millis()..=EventTime::MAX.millis(),
            digits in 0_usize..10,
        ) {
            let instant = jiff::Timestamp::from_millisecond(millis).unwrap();
            let text = if digits == 0 { format!("{instant:.0}") } else { format!("{instant:.digits$}") };
            let general = EventTime::parse_rfc3339(&text);
            prop_assert!(general.is_some(), "{}", text);
            prop_assert_eq!(read_string(&text), general);
            if let Some(fast) = read_utc(text.as_bytes()) {
                prop_assert_eq!(Some(fast), general);
            }
        }

        #[test]
        fn what_looks_like_the_usual_form_is_read_as_the_general_reading_does(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?Z",
        ) {
            if let Some(fast) = read_utc(text.as_bytes()) {
                prop_assert_eq!(Some(fast), EventTime::parse_rfc3339(&text), "{}", text);
            }
        }
    }
}
