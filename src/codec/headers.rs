//! The Kafka headers of outputs: their names, the flags, and their values built without allocation per record.

use std::fmt;

use compact_str::CompactString;

use crate::partition::{PartitionId, RecordPosition};
use crate::rejection::Rejection;
use crate::telemetry::RecordTimestamp;
use crate::time::EventTime;

/// The instant that the record was matched at, in epoch milliseconds.
pub const AT: &str = "ringfence-at";
/// The `as_of` of the snapshot that it was matched with, in epoch milliseconds.
pub const AS_OF: &str = "ringfence-as-of";
/// `partition:offset` of the telemetry record.
pub const SOURCE: &str = "ringfence-source";
/// The flags, comma separated; absent where there is none.
pub const FLAGS: &str = "ringfence-flags";
/// Those of a record that was matched and of which there is nothing to flag, in the form of several.
pub const USUAL: [&str; 3] = [AT, AS_OF, SOURCE];
/// All four in one, as `at=…;as-of=…;source=…;flags=…` ([`HeaderForm::One`]).
pub const ALL: &str = "ringfence";
/// Why a record is in the dead-letter topic: a `RejectionReason`.
pub const ERROR_REASON: &str = "ringfence-error-reason";
/// What a person needs to mend it; without payload, at most 512 bytes.
pub const ERROR_DETAIL: &str = "ringfence-error-detail";
/// The topic of the refused record.
pub const ERROR_TOPIC: &str = "ringfence-error-topic";
/// The partition of the refused record.
pub const ERROR_PARTITION: &str = "ringfence-error-partition";
/// The offset of the refused record.
pub const ERROR_OFFSET: &str = "ringfence-error-offset";
/// The timestamp of the refused record in epoch milliseconds; absent where it has none.
pub const ERROR_TIMESTAMP: &str = "ringfence-error-timestamp";
/// What was cut to fit (see the dead-letter writer); absent where nothing was.
pub const ERROR_TRUNCATED: &str = "ringfence-error-truncated";

/// What begins the names of the headers that a dead letter has beside its record's own.
pub const ERROR_PREFIX: &str = "ringfence-error-";

/// Whether an enriched record's own header may have this name: a source record that carries one of these comes from
/// another Ringfence, and says of that one's work what a reader would take for said of this one's.
#[must_use]
pub fn is_of_enriched(name: &str) -> bool {
    name.starts_with(ALL) && matches!(name, ALL | AT | AS_OF | SOURCE | FLAGS)
}

/// What the value of an [`ALL`] header says of one of the four, named as its own header would be.
#[must_use]
pub fn part_of_all<'v>(value: &'v str, name: &str) -> Option<&'v str> {
    let wanted = name_in_all(name)?;
    value.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        (name == wanted).then_some(value)
    })
}

/// What one of the four is named in the value of an [`ALL`] header.
fn name_in_all(name: &str) -> Option<&str> {
    name.strip_prefix(ALL)?.strip_prefix('-')
}

/// In how many headers an enriched record says what it says of itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HeaderForm {
    /// [`AT`], [`AS_OF`], [`SOURCE`] and [`FLAGS`], which any client reads by their names.
    Several,
    /// [`ALL`]: each header is a piece of memory that two threads touch, and four writes of the client (benches/README.md has
    /// what either form costs).
    One,
}

/// Whether a dead letter's own header may have this name. A refused record that carries one was refused before and
/// brought back: of two reasons, topics or offsets a reader could not tell which is meant.
#[must_use]
pub fn is_of_dead_letter(name: &str) -> bool {
    name.starts_with(ERROR_PREFIX)
}

/// Something that is said of an output beside its value.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Flag {
    /// The event is older than the floor and was matched at it.
    Late,
    /// The event was matched at `as_of`, before its own instant was settled.
    Unsettled,
    /// The event's time is ahead of the record's by more than `max_ahead`.
    Future,
    /// The zones may not be all that were in force.
    Degraded,
    /// The sequence number was seen before.
    Duplicate,
    /// The sequence number is below one that was seen before.
    OutOfOrder,
    /// The record is not valid and was forwarded as it came.
    Invalid,
}

impl Flag {
    /// Every flag, in the order in which they are written.
    pub const ALL: [Self; 7] = [
        Self::Late,
        Self::Unsettled,
        Self::Future,
        Self::Degraded,
        Self::Duplicate,
        Self::OutOfOrder,
        Self::Invalid,
    ];

    /// The stable name: metric label and part of the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Unsettled => "unsettled",
            Self::Future => "future",
            Self::Degraded => "degraded",
            Self::Duplicate => "duplicate",
            Self::OutOfOrder => "out-of-order",
            Self::Invalid => "invalid",
        }
    }
}

/// A set of flags.
#[derive(Copy, Clone, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// This set with `flag` in it.
    #[must_use]
    pub const fn with(self, flag: Flag) -> Self {
        Self(self.0 | 1 << flag as u8)
    }

    /// Adds `flag`.
    pub const fn set(&mut self, flag: Flag) {
        *self = self.with(flag);
    }

    /// Whether `flag` is in it.
    #[must_use]
    pub const fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u8 != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The flags in it, in their stable order.
    pub fn iter(self) -> impl Iterator<Item = Flag> {
        Flag::ALL.into_iter().filter(move |flag| self.has(*flag))
    }

    /// The flags that a header names; `None` where it names an unknown one.
    #[must_use]
    pub fn parse(header: &str) -> Option<Self> {
        header
            .split(',')
            .filter(|name| !name.is_empty())
            .try_fold(Self::NONE, |flags, name| {
                Flag::ALL
                    .into_iter()
                    .find(|flag| flag.as_str() == name)
                    .map(|flag| flags.with(flag))
            })
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, flag) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            f.write_str(flag.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

/// Two instants of at most 20 bytes, `partition:offset` of at most 32, all flags of 61, the names in [`ALL`] of 26: rounded up.
const ENRICHED_BYTES: usize = 168;

/// The headers that an enriched record gets beside its own, in a buffer that is filled anew for each.
#[derive(Clone, Debug)]
pub struct EnrichedHeaders {
    bytes: [u8; ENRICHED_BYTES],
    /// How many of them are filled.
    len: usize,
    names: [&'static str; 4],
    names_len: usize,
    ends: [u8; 4],
    count: usize,
    /// The `as_of` of the last record, which the next one mostly shares, and its digits.
    as_of: Option<(EventTime, CompactString)>,
    /// Where the digits of [`AT`] end, if the record has any.
    at_end: usize,
    /// What they say now, where the record was matched and there is nothing to flag.
    usual: Option<Usual>,
}

/// What the headers of a record say of which there is nothing to flag.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum UsualValues<'a> {
    /// The values of the [`USUAL`] three, in that order.
    Several([&'a [u8]; USUAL.len()]),
    /// The value of [`ALL`].
    One([&'a [u8]; 1]),
}

/// What the usual ones say, without the last digits of two numbers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Usual {
    form: HeaderForm,
    /// [`AT`] without its last [`AT_LAST`] digits.
    at: i64,
    as_of: EventTime,
    partition: PartitionId,
    /// The offset without its last [`OFFSET_LAST`] digits.
    offset: i64,
}

/// Records in a row are of one quarter of an hour, mostly, and of some thousand offsets.
const AT_LAST: usize = 6;
const OFFSET_LAST: usize = 4;

impl Usual {
    #[inline]
    fn of(form: HeaderForm, at: EventTime, as_of: EventTime, source: RecordPosition) -> Self {
        Self {
            form,
            at: at.millis() / 10_i64.pow(AT_LAST as u32),
            as_of,
            partition: source.partition,
            offset: source.offset.0 / 10_i64.pow(OFFSET_LAST as u32),
        }
    }

    /// Whether there are digits before the last ones. Where there are none their number may differ.
    #[inline]
    const fn has_digits_before(&self) -> bool {
        self.at > 0 && self.offset > 0
    }
}

/// Writes the last digits of a number that is not negative.
#[inline]
fn write_last<const DIGITS: usize>(number: i64, to: &mut [u8; DIGITS]) {
    let mut rest = (number % 10_i64.pow(DIGITS as u32)) as u32;
    for digit in to.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

impl Default for EnrichedHeaders {
    fn default() -> Self {
        Self::new()
    }
}

impl EnrichedHeaders {
    /// No header yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; ENRICHED_BYTES],
            len: 0,
            names: [""; 4],
            names_len: 0,
            ends: [0; 4],
            count: 0,
            as_of: None,
            at_end: 0,
            usual: None,
        }
    }

    /// Builds the headers of one record. `matched` is its instant and the snapshot's `as_of`; a record that was
    /// forwarded as it came has none.
    pub fn fill(
        &mut self,
        form: HeaderForm,
        matched: Option<(EventTime, EventTime)>,
        source: RecordPosition,
        flags: Flags,
    ) {
        let usual = matched
            .filter(|_| flags.is_empty())
            .map(|(at, as_of)| (at, Usual::of(form, at, as_of, source)));
        match usual {
            Some((at, usual)) if usual.has_digits_before() && self.usual == Some(usual) => {
                self.write_last(at, source);
            }
            _ => {
                self.fill_anew(form, matched, source, flags);
                self.usual = usual.map(|(_, usual)| usual);
            }
        }
    }

    /// Of the usual ones, what differs from the last record's.
    #[inline]
    fn write_last(&mut self, at: EventTime, source: RecordPosition) {
        let last = self.bytes[..self.at_end].last_chunk_mut::<AT_LAST>();
        write_last(at.millis(), last.expect("all of its digits were written"));
        // With nothing to flag the source is the last in either form.
        let last = self.bytes[..self.len].last_chunk_mut::<OFFSET_LAST>();
        write_last(
            source.offset.0,
            last.expect("all of its digits were written"),
        );
    }

    fn fill_anew(
        &mut self,
        form: HeaderForm,
        matched: Option<(EventTime, EventTime)>,
        source: RecordPosition,
        flags: Flags,
    ) {
        let mut digits = itoa::Buffer::new();
        (self.count, self.len, self.names_len) = (0, 0, 0);
        if let Some((at, as_of)) = matched {
            self.begin(form, AT);
            self.push(digits.format(at.millis()));
            self.at_end = self.len;
            self.begin(form, AS_OF);
            self.push_as_of(as_of);
        }
        self.begin(form, SOURCE);
        self.push(digits.format(source.partition.0));
        self.push(":");
        self.push(digits.format(source.offset.0));
        if !flags.is_empty() {
            self.begin(form, FLAGS);
            for (at, flag) in flags.iter().enumerate() {
                self.push(if at > 0 { "," } else { "" });
                self.push(flag.as_str());
            }
        }
    }

    fn push_as_of(&mut self, as_of: EventTime) {
        let known = self.as_of.take().filter(|(known, _)| *known == as_of);
        let known =
            known.unwrap_or_else(|| (as_of, itoa::Buffer::new().format(as_of.millis()).into()));
        self.push(&known.1);
        self.as_of = Some(known);
    }

    /// Begins one of the four.
    #[inline]
    fn begin(&mut self, form: HeaderForm, name: &'static str) {
        match form {
            HeaderForm::Several => {
                self.names[self.count] = name;
                self.count += 1;
                self.names_len += name.len();
            }
            HeaderForm::One => {
                let is_first = self.count == 0;
                (self.names[0], self.count, self.names_len) = (ALL, 1, ALL.len());
                if !is_first {
                    self.push(";");
                }
                self.push(name_in_all(name).expect("each of the four has one"));
                self.push("=");
            }
        }
    }

    /// Appends to the value of the header that was begun last.
    #[inline]
    fn push(&mut self, part: &str) {
        let to = self.len + part.len();
        self.bytes[self.len..to].copy_from_slice(part.as_bytes());
        self.len = to;
        self.ends[self.count - 1] = to as u8;
    }

    fn start(&self, header: usize) -> usize {
        if header == 0 {
            0
        } else {
            usize::from(self.ends[header - 1])
        }
    }

    /// The headers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &[u8])> {
        (0..self.count).map(|header| {
            let bytes = &self.bytes[self.start(header)..usize::from(self.ends[header])];
            (self.names[header], bytes)
        })
    }

    /// The values, where the record was matched and there is nothing to flag.
    #[must_use]
    #[inline]
    pub fn usual(&self) -> Option<UsualValues<'_>> {
        Some(match self.usual?.form {
            HeaderForm::Several => {
                let [at, as_of, source, _] = self.ends.map(usize::from);
                UsualValues::Several([
                    &self.bytes[..at],
                    &self.bytes[at..as_of],
                    &self.bytes[as_of..source],
                ])
            }
            HeaderForm::One => UsualValues::One([&self.bytes[..self.len]]),
        })
    }

    /// Bytes of all names and values.
    #[must_use]
    #[inline]
    pub const fn byte_len(&self) -> usize {
        self.len + self.names_len
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }
}

/// The headers that a dead letter gets beside the record's own, in a buffer that is filled anew for each.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterHeaders {
    bytes: Vec<u8>,
    ends: Vec<(&'static str, usize)>,
}

impl DeadLetterHeaders {
    /// No header yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Builds the headers of one refused record; `truncated` says what was cut to fit, if anything.
    pub fn fill(
        &mut self,
        rejection: &Rejection,
        topic: &str,
        position: RecordPosition,
        timestamp: RecordTimestamp,
        truncated: Option<&str>,
    ) {
        let mut digits = itoa::Buffer::new();
        self.bytes.clear();
        self.ends.clear();
        self.push(ERROR_REASON, rejection.reason.as_str());
        self.push(ERROR_DETAIL, &rejection.detail);
        self.push(ERROR_TOPIC, topic);
        self.push(ERROR_PARTITION, digits.format(position.partition.0));
        self.push(ERROR_OFFSET, digits.format(position.offset.0));
        if let Some(instant) = timestamp.instant() {
            self.push(ERROR_TIMESTAMP, digits.format(instant.millis()));
        }
        if let Some(what) = truncated {
            self.push(ERROR_TRUNCATED, what);
        }
    }

    fn push(&mut self, name: &'static str, value: &str) {
        self.bytes.extend_from_slice(value.as_bytes());
        self.ends.push((name, self.bytes.len()));
    }

    /// The headers in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(name, end)| {
            let bytes = &self.bytes[start..end];
            start = end;
            (name, bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::RejectionReason;
    use crate::simulate::Rng;

    fn shown<'a>(headers: impl Iterator<Item = (&'static str, &'a [u8])>) -> Vec<String> {
        headers
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
            .collect()
    }

    #[test]
    fn flags_are_written_in_their_stable_order() {
        let flags = Flags::NONE
            .with(Flag::Invalid)
            .with(Flag::OutOfOrder)
            .with(Flag::Late);
        assert_eq!(flags.to_string(), "late,out-of-order,invalid");
        assert_eq!(Flags::parse("invalid,late,out-of-order"), Some(flags));
        assert_eq!(Flags::parse("later"), None);
        assert_eq!(Flags::parse(""), Some(Flags::NONE));
        assert!(flags.has(Flag::Late) && !flags.has(Flag::Future));
    }

    #[test]
    fn one_header_says_all_that_several_say() {
        let flags = |names: &str| Flags::parse(names).unwrap();
        let far = RecordPosition::new(i32::MAX, i64::MAX);
        let all = Flag::ALL.into_iter().fold(Flags::NONE, Flags::with);
        for (matched, source, flags) in [
            (
                Some((1_700_000_000_000, -5)),
                RecordPosition::new(3, 42),
                flags(""),
            ),
            (
                Some((0, 7)),
                RecordPosition::new(0, 0),
                flags("late,unsettled"),
            ),
            (None, RecordPosition::new(3, 42), flags("invalid")),
            (Some((i64::MIN, i64::MIN)), far, all),
        ] {
            let matched =
                matched.map(|(at, as_of)| (EventTime::clamped(at), EventTime::clamped(as_of)));
            let (mut several, mut one) = (EnrichedHeaders::new(), EnrichedHeaders::new());
            several.fill(HeaderForm::Several, matched, source, flags);
            one.fill(HeaderForm::One, matched, source, flags);
            let one: Vec<_> = one.iter().collect();
            let [(ALL, value)] = one.as_slice() else {
                panic!("{one:?}");
            };
            let value = std::str::from_utf8(value).unwrap();
            for name in [AT, AS_OF, SOURCE, FLAGS] {
                let own = several.iter().find(|(header, _)| *header == name);
                let own = own.map(|(_, value)| std::str::from_utf8(value).unwrap());
                assert_eq!(part_of_all(value, name), own, "{name} of {value}");
            }
        }
        assert_eq!(part_of_all("at=1", ERROR_REASON), None);
        assert!(is_of_enriched(ALL) && !is_of_enriched("ringfence-mine"));
    }

    #[test]
    fn an_enriched_record_has_no_flags_header_without_a_flag() {
        let mut headers = EnrichedHeaders::new();
        let (at, as_of) = (
            EventTime::clamped(1_700_000_000_000),
            EventTime::clamped(-5),
        );
        let source = RecordPosition::new(3, 42);
        headers.fill(
            HeaderForm::Several,
            Some((at, as_of)),
            source,
            Flags::NONE.with(Flag::Unsettled),
        );
        assert_eq!(
            shown(headers.iter()),
            [
                "ringfence-at=1700000000000",
                "ringfence-as-of=-5",
                "ringfence-source=3:42",
                "ringfence-flags=unsettled"
            ]
        );
        headers.fill(HeaderForm::Several, Some((at, at)), source, Flags::NONE);
        assert_eq!(
            shown(headers.iter()),
            [
                "ringfence-at=1700000000000",
                "ringfence-as-of=1700000000000",
                "ringfence-source=3:42"
            ]
        );
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert_eq!((headers.byte_len(), headers.count()), (bytes, 3));
        headers.fill(
            HeaderForm::Several,
            None,
            source,
            Flags::NONE.with(Flag::Invalid),
        );
        assert_eq!(
            shown(headers.iter()),
            ["ringfence-source=3:42", "ringfence-flags=invalid"]
        );
    }

    #[test]
    fn headers_filled_after_others_say_what_they_would_have_said_alone() {
        let mut after = EnrichedHeaders::new();
        let (mut written, mut random) = ([0, 0], Rng::new(1));
        let mut form = HeaderForm::Several;
        for _ in 0..200_000 {
            // Around the borders at which the last digits are not all that changes.
            let near = |border: i64, random: &mut Rng| border + random.between(-3, 3);
            let at = match random.below(12) {
                0 => near(0, &mut random),
                1 => near(1_000_000, &mut random),
                2 => near(1_700_001_000_000, &mut random),
                _ => 1_700_000_000_000 + random.below(1_200_000) as i64,
            };
            let offset = match random.below(12) {
                0 => near(10_000, &mut random).max(0),
                1 => near(100_000, &mut random),
                _ => 70_000 + random.below(12_000) as i64,
            };
            let source = RecordPosition::new(random.below(2) as i32, offset);
            let as_of = EventTime::clamped(1_700_000_000_000 + random.below(2) as i64);
            let matched = (random.below(20) > 0).then(|| (EventTime::clamped(at), as_of));
            // Many in a row of either.
            if random.below(100) == 0 {
                form = match form {
                    HeaderForm::Several => HeaderForm::One,
                    HeaderForm::One => HeaderForm::Several,
                };
            }
            let flags = if random.below(20) > 0 {
                Flags::NONE
            } else {
                Flags::NONE.with(Flag::Late)
            };
            let mut alone = EnrichedHeaders::new();
            alone.fill(form, matched, source, flags);
            let before = after.usual;
            after.fill(form, matched, source, flags);
            let is_written =
                before == after.usual && before.is_some_and(|usual| usual.has_digits_before());
            written[form as usize] += usize::from(is_written);
            assert_eq!(shown(after.iter()), shown(alone.iter()));
            assert_eq!(after.usual(), alone.usual());
            assert_eq!(after.byte_len(), alone.byte_len());
            match after.usual() {
                Some(UsualValues::Several(values)) => {
                    assert_eq!(form, HeaderForm::Several);
                    assert!(after.iter().eq(USUAL.into_iter().zip(values)));
                }
                Some(UsualValues::One(value)) => {
                    assert_eq!(form, HeaderForm::One);
                    assert!(after.iter().eq([ALL].into_iter().zip(value)));
                }
                None => assert!(matched.is_none() || !flags.is_empty()),
            }
        }
        assert!(
            written.iter().all(|count| *count > 2_500),
            "{written:?} of either form by their last digits alone"
        );
    }

    #[test]
    fn the_longest_headers_fit_their_buffer() {
        let mut headers = EnrichedHeaders::new();
        let all = Flag::ALL.into_iter().fold(Flags::NONE, Flags::with);
        let source = RecordPosition::new(i32::MIN, i64::MIN);
        headers.fill(
            HeaderForm::Several,
            Some((EventTime::MIN, EventTime::MIN)),
            source,
            all,
        );
        assert_eq!(
            shown(headers.iter())[2..],
            [
                "ringfence-source=-2147483648:-9223372036854775808",
                "ringfence-flags=late,unsettled,future,degraded,duplicate,out-of-order,invalid"
            ]
        );
    }

    #[test]
    fn a_dead_letter_tells_where_it_came_from() {
        let mut headers = DeadLetterHeaders::new();
        let rejection = Rejection::new(RejectionReason::WrongType, "`/lat` is null");
        let timestamp = RecordTimestamp::Create(EventTime::clamped(7));
        headers.fill(
            &rejection,
            "telemetry",
            RecordPosition::new(1, 2),
            timestamp,
            Some("value"),
        );
        assert_eq!(
            shown(headers.iter()),
            [
                "ringfence-error-reason=wrong_type",
                "ringfence-error-detail=`/lat` is null",
                "ringfence-error-topic=telemetry",
                "ringfence-error-partition=1",
                "ringfence-error-offset=2",
                "ringfence-error-timestamp=7",
                "ringfence-error-truncated=value"
            ]
        );
        headers.fill(
            &rejection,
            "t",
            RecordPosition::new(0, 0),
            RecordTimestamp::Missing,
            None,
        );
        assert_eq!(shown(headers.iter()).len(), 5);
    }
}
