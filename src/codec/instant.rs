//! Reading an instant that stands in a record: epoch milliseconds as a number, or an RFC 3339 string. One reading for
//! telemetry and zone changes.
//!
//! A number must be whole: `1.7e12` and `1700000000000.0` are integers written in another way and are read, but
//! `1700000000.25` is refused, as a fraction mostly means that someone wrote seconds. In strings, which say their
//! unit, what is finer than a millisecond is floored (DESIGN 4).

use crate::codec::json::{Kind, unescape};
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
pub fn read(document: &str, slot: Slot, name: &str) -> Result<EventTime, Rejection> {
    let text = slot.text(document);
    let instant = match slot.kind {
        // An integer too long for 64 bits is far outside the years.
        Kind::Integer => text.parse().ok().and_then(EventTime::from_millis),
        Kind::Float => {
            let millis: f64 = text.parse().unwrap_or(f64::NAN);
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
                format!("`{name}` is {}, not epoch milliseconds or an RFC 3339 string", other.name()),
            ));
        }
    };
    instant.ok_or_else(|| {
        let what = if slot.kind.is_string() { "no RFC 3339 instant" } else { "no instant" };
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
    let [.., b'-', _, _, b'-', _, _, b'T', _, _, b':', _, _, b':', _, _] = date_time else {
        return None;
    };
    let number = |range: std::ops::Range<usize>| {
        date_time[range].iter().try_fold(0_i64, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0'))
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
