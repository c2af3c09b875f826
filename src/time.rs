//! Instants of the product: [`EventTime`], the only time of the pure modules, and [`MonoTime`], the elapsed-time
//! argument they are handed. Neither is ever read from a clock here; clocks live in [`crate::clock`].

use std::fmt;
use std::time::Duration;

/// An instant in whole milliseconds since 1970-01-01T00:00:00Z, within the years 0001 to 9999.
///
/// It carries record times, commit times, watermarks and `as_of` alike (DESIGN 4). Finer input is floored.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(i64);

impl EventTime {
    /// 0001-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_135_596_800_000);
    /// 9999-12-31T23:59:59.999Z.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The instant at `millis` since the epoch, or `None` outside the years 0001 to 9999.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Option<Self> {
        if millis < Self::MIN.0 || millis > Self::MAX.0 {
            None
        } else {
            Some(Self(millis))
        }
    }

    /// The instant at `millis` since the epoch, moved into the years 0001 to 9999 where it lies outside.
    #[must_use]
    pub const fn clamped(millis: i64) -> Self {
        if millis < Self::MIN.0 {
            Self::MIN
        } else if millis > Self::MAX.0 {
            Self::MAX
        } else {
            Self(millis)
        }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// This instant moved later by `by` (floored to milliseconds), at most to [`Self::MAX`].
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::clamped(self.0.saturating_add(millis_of(by)))
    }

    /// This instant moved earlier by `by` (floored to milliseconds), at most to [`Self::MIN`].
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::clamped(self.0.saturating_sub(millis_of(by)))
    }

    /// The time from `earlier` to this instant; zero where `earlier` is the later of the two.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339 (an offset is required; fractions finer than a millisecond are floored).
    ///
    /// Returns `None` for anything else and for instants outside the years 0001 to 9999.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        // RFC 3339 section 5.6 is narrower than what jiff reads (ISO 8601 week dates, a space, brackets): check its shape first.
        let bytes = text.as_bytes();
        if bytes.len() < 20 || bytes.len() > 64 || !matches!(bytes[10], b'T' | b't' | b' ') {
            return None;
        }
        let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
        let shaped = digits(0..4)
            && bytes[4] == b'-'
            && digits(5..7)
            && bytes[7] == b'-'
            && digits(8..10)
            && digits(11..13)
            && bytes[13] == b':'
            && digits(14..16)
            && bytes[16] == b':'
            && digits(17..19)
            && !text.contains('[');
        if !shaped {
            return None;
        }
        // Not `jiff::Timestamp`: that ends a day before the year 9999 does.
        let (civil, offset_minutes) = if let Some(civil) = text.strip_suffix(['Z', 'z']) {
            (civil, 0)
        } else {
            let (civil, offset) = text.split_at_checked(text.len() - 6)?;
            let [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] = offset.as_bytes() else {
                return None;
            };
            let number = |tens: &u8, ones: &u8| {
                (tens.is_ascii_digit() && ones.is_ascii_digit())
                    .then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
            };
            let (hours, minutes) = (number(h1, h2)?, number(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let total = hours * 60 + minutes;
            (civil, if *sign == b'-' { -total } else { total })
        };
        let is_plain = civil[19..].is_empty()
            || (civil.as_bytes()[19] == b'.'
                && civil.len() > 20
                && civil.as_bytes()[20..].iter().all(u8::is_ascii_digit));
        if !is_plain {
            return None;
        }
        // A nanosecond is the finest that the library reads; what is finer is floored anyway.
        let instant: jiff::civil::DateTime = civil[..civil.len().min(29)].parse().ok()?;
        let nanos = instant
            .duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0))
            .as_nanos();
        let millis = i64::try_from(nanos.div_euclid(1_000_000)).ok()?;
        Self::from_millis(millis - offset_minutes * 60_000)
    }

    /// Reads what a person may type: epoch milliseconds or RFC 3339.
    #[must_use]
    pub fn parse_any(text: &str) -> Option<Self> {
        text.parse::<i64>()
            .ok()
            .map_or_else(|| Self::parse_rfc3339(text), Self::from_millis)
    }
}

fn millis_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl fmt::Debug for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Monotonic time: microseconds since an arbitrary origin, the same for all of one process (or one simulation).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoTime(u64);

impl MonoTime {
    /// The instant `micros` after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this instant; zero where `earlier` is the later of the two.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This instant moved later by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// Both clocks, read once at an edge and handed down: nothing below reads another.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic time, for waits and bounds.
    pub mono: MonoTime,
    /// The guarded wall time **T** (DESIGN 4), comparable with record and commit times.
    pub wall: EventTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_outside_0001_to_9999_are_no_event_time() {
        assert_eq!(EventTime::from_millis(EventTime::MIN.millis() - 1), None);
        assert_eq!(EventTime::from_millis(EventTime::MAX.millis() + 1), None);
        assert_eq!(EventTime::from_millis(0).map(EventTime::millis), Some(0));
    }

    #[test]
    fn rfc3339_is_read_and_finer_input_is_floored() {
        let millis = |text: &str| EventTime::parse_rfc3339(text).map(EventTime::millis);
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(millis("1970-01-01T00:00:00.0019Z"), Some(1));
        assert_eq!(millis("1969-12-31T23:59:59.9999Z"), Some(-1));
        assert_eq!(millis("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(
            millis("0001-01-01T00:00:00Z"),
            Some(EventTime::MIN.millis())
        );
        assert_eq!(
            millis("9999-12-31T23:59:59.999Z"),
            Some(EventTime::MAX.millis())
        );
    }

    #[test]
    fn what_rfc3339_does_not_allow_is_refused() {
        for text in [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-13-01T00:00:00Z",
            "now",
            "1970-W01-1T00:00:00Z",
            "1970-01-01T00:00:00Z[UTC]",
            "+001970-01-01T00:00:00Z",
        ] {
            assert_eq!(EventTime::parse_rfc3339(text), None, "{text}");
        }
    }
}
