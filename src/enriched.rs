//! What the pipeline gives out: enriched records and dead letters, lent to the sink for the length of one call, and
//! the [`Token`] that comes back with the acknowledgement.
//!
//! Nothing here owns a record's bytes: an output borrows them from the batch, or from the hold queue.

use std::time::Duration;

use crate::codec::headers::{self, DeadLetterHeaders, EnrichedHeaders};
use crate::partition::{PartitionId, RecordPosition};
use crate::telemetry::HeaderRef;
use crate::time::EventTime;

/// A stamp further ahead of the broker's clock than this is written as this: brokers refuse more than an hour
/// (`message.timestamp.after.max.ms`), and a record that cannot be written would stop its partition for ever.
pub const TIMESTAMP_AHEAD_MAX: Duration = Duration::from_secs(59 * 60);

/// The timestamp that an output gets: its source record's, clamped to T + 59 min.
#[must_use]
pub fn output_timestamp(source: Option<EventTime>, wall: EventTime) -> Option<EventTime> {
    source.map(|stamp| stamp.min(wall.plus(TIMESTAMP_AHEAD_MAX)))
}

const SEQUENCE_BITS: u32 = 40;
const EPOCH_BITS: u32 = 12;
const SLOT_BITS: u32 = 12;
const _: () = assert!(
    usize::BITS == SEQUENCE_BITS + EPOCH_BITS + SLOT_BITS,
    "a token fills the opaque pointer of a produced record"
);

/// Which output an acknowledgement is for: slot of the partition (12 bits), ownership epoch (12), sequence (40).
///
/// A sequence, as offsets have gaps; an epoch, so that what was sent before a revoke is told from what came after.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token(usize);

impl Token {
    /// How many slots a token can tell apart.
    pub const SLOTS: usize = 1 << SLOT_BITS;
    /// How many ownership epochs a token can tell apart; they wrap.
    pub const EPOCHS: u16 = 1 << EPOCH_BITS;
    /// The bits of a sequence that a token carries.
    pub const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;

    pub(crate) fn new(slot: usize, epoch: u16, sequence: u64) -> Self {
        debug_assert!(
            slot < Self::SLOTS && epoch < Self::EPOCHS,
            "slot and epoch fit their bits"
        );
        Self(
            (sequence & Self::SEQUENCE_MASK) as usize
                | usize::from(epoch) << SEQUENCE_BITS
                | slot << (SEQUENCE_BITS + EPOCH_BITS),
        )
    }

    pub(crate) const fn slot(self) -> usize {
        self.0 >> (SEQUENCE_BITS + EPOCH_BITS)
    }

    pub(crate) const fn epoch(self) -> u16 {
        (self.0 >> SEQUENCE_BITS) as u16 % Self::EPOCHS
    }

    pub(crate) const fn sequence(self) -> u64 {
        self.0 as u64 & Self::SEQUENCE_MASK
    }

    /// The token as the opaque of a produced record.
    #[must_use]
    pub const fn into_raw(self) -> usize {
        self.0
    }

    /// The token that [`Self::into_raw`] gave.
    #[must_use]
    pub const fn from_raw(raw: usize) -> Self {
        Self(raw)
    }
}

/// The source record's own headers, in order.
#[derive(Copy, Clone, Debug)]
pub struct OriginalHeaders<'a> {
    stored: Stored<'a>,
    left_out: LeftOut,
}

#[derive(Copy, Clone, Debug)]
enum Stored<'a> {
    /// As the source lent them.
    Lent(&'a [HeaderRef<'a>]),
    /// As they stand in the hold queue (see [`pack_headers`]).
    Packed(&'a [u8]),
}

/// Which of them an output does not repeat, as it has its own of these names.
#[derive(Copy, Clone, Debug)]
enum LeftOut {
    None,
    OfEnriched,
    OfDeadLetter,
}

impl LeftOut {
    fn has(self, name: &str) -> bool {
        match self {
            Self::None => false,
            Self::OfEnriched => headers::is_of_enriched(name),
            Self::OfDeadLetter => headers::is_of_dead_letter(name),
        }
    }
}

/// Marks a null header value; no value is that long.
const NULL_LENGTH: u32 = u32::MAX;

/// Appends headers to `out`: for each the name's length, the name, the value's length (or the mark of null), the value.
pub fn pack_headers(headers: &[HeaderRef<'_>], out: &mut Vec<u8>) {
    for (name, value) in headers {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(
            &value
                .map_or(NULL_LENGTH, |value| value.len() as u32)
                .to_le_bytes(),
        );
        out.extend_from_slice(value.unwrap_or_default());
    }
}

impl<'a> OriginalHeaders<'a> {
    /// No header.
    pub const NONE: Self = Self::lent(&[]);

    /// Headers as the source lent them.
    #[must_use]
    pub const fn lent(headers: &'a [HeaderRef<'a>]) -> Self {
        Self::of(Stored::Lent(headers))
    }

    /// Headers as [`pack_headers`] wrote them.
    #[must_use]
    pub const fn packed(bytes: &'a [u8]) -> Self {
        Self::of(Stored::Packed(bytes))
    }

    const fn of(stored: Stored<'a>) -> Self {
        Self {
            stored,
            left_out: LeftOut::None,
        }
    }

    /// What an enriched record repeats of them: all but those of the names that its own have.
    #[must_use]
    pub const fn for_enriched(self) -> Self {
        Self {
            left_out: LeftOut::OfEnriched,
            ..self
        }
    }

    /// What a dead letter repeats of them: all but those of the names that its own have.
    #[must_use]
    pub const fn for_dead_letter(self) -> Self {
        Self {
            left_out: LeftOut::OfDeadLetter,
            ..self
        }
    }

    /// The headers in order.
    #[must_use]
    pub fn iter(self) -> OriginalHeadersIter<'a> {
        OriginalHeadersIter(self)
    }

    /// Whether there is none. Told without the way through them where nothing is stored, as with most records.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        self.stored.is_empty() || self.iter().next().is_none()
    }

    /// Bytes of all names and values.
    #[must_use]
    pub fn byte_len(self) -> usize {
        self.byte_len_with(0)
    }

    /// The same, and so many bytes for each of them.
    #[must_use]
    pub fn byte_len_with(self, each: usize) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + each)
            .sum()
    }

    /// Appends all of them to `out`, as [`pack_headers`] does.
    pub fn pack(self, out: &mut Vec<u8>) {
        match self.stored {
            Stored::Lent(lent) => pack_headers(lent, out),
            Stored::Packed(packed) => out.extend_from_slice(packed),
        }
    }
}

/// Iterates over [`OriginalHeaders`].
#[derive(Clone, Debug)]
pub struct OriginalHeadersIter<'a>(OriginalHeaders<'a>);

impl<'a> Iterator for OriginalHeadersIter<'a> {
    type Item = HeaderRef<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let header = self.0.stored.take_first()?;
            if !self.0.left_out.has(header.0) {
                return Some(header);
            }
        }
    }
}

impl<'a> Stored<'a> {
    #[inline]
    const fn is_empty(self) -> bool {
        match self {
            Self::Lent(headers) => headers.is_empty(),
            Self::Packed(bytes) => bytes.is_empty(),
        }
    }

    fn take_first(&mut self) -> Option<HeaderRef<'a>> {
        match self {
            Self::Lent(headers) => {
                let (first, rest) = headers.split_first()?;
                *headers = rest;
                Some(*first)
            }
            Self::Packed(bytes) => {
                let name_len = take_length(bytes)?;
                let (name, rest) = bytes.split_at(name_len as usize);
                *bytes = rest;
                let value_len = take_length(bytes)?;
                let value = if value_len == NULL_LENGTH {
                    None
                } else {
                    let (value, rest) = bytes.split_at(value_len as usize);
                    *bytes = rest;
                    Some(value)
                };
                Some((std::str::from_utf8(name).expect("packed from a str"), value))
            }
        }
    }
}

fn take_length(bytes: &mut &[u8]) -> Option<u32> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*length))
}

/// A record for the enriched topic: enriched, or forwarded as it came (`telemetry.on_invalid = "forward"`).
#[derive(Copy, Clone, Debug)]
pub struct Output<'a> {
    /// Comes back in [`Engine::acked`](crate::pipeline::Engine::acked).
    pub token: Token,
    /// The telemetry record that it is made of.
    pub source: RecordPosition,
    /// The partition of the enriched topic to write it to.
    pub partition: PartitionId,
    /// The source record's key.
    pub key: Option<&'a [u8]>,
    /// The enriched value; of a forwarded record its own, which may be null.
    pub value: Option<&'a [u8]>,
    /// The source record's timestamp, clamped by [`output_timestamp`]; `None` where it has none.
    pub timestamp: Option<EventTime>,
    /// The source record's headers that it repeats, to be written first.
    pub headers: OriginalHeaders<'a>,
    /// Ringfence's own headers, to be written after them; `None` where they are switched off.
    pub added: Option<&'a EnrichedHeaders>,
}

/// A record for the dead-letter topic.
#[derive(Copy, Clone, Debug)]
pub struct DeadLetter<'a> {
    /// Comes back in [`Engine::acked`](crate::pipeline::Engine::acked).
    pub token: Token,
    /// The telemetry record that was refused.
    pub source: RecordPosition,
    /// The source record's key.
    pub key: Option<&'a [u8]>,
    /// The source record's value, cut where `ringfence-error-truncated` says so.
    pub value: Option<&'a [u8]>,
    /// The source record's timestamp, clamped by [`output_timestamp`]; `None` where it has none.
    pub timestamp: Option<EventTime>,
    /// The source record's headers that it repeats, to be written first.
    pub headers: OriginalHeaders<'a>,
    /// Reason, detail and origin, to be written after them.
    pub added: &'a DeadLetterHeaders,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_its_parts() {
        for (slot, epoch, sequence) in [(0, 0, 0), (4095, 4095, Token::SEQUENCE_MASK), (1, 2, 3)] {
            let token = Token::from_raw(Token::new(slot, epoch, sequence).into_raw());
            assert_eq!(
                (token.slot(), token.epoch(), token.sequence()),
                (slot, epoch, sequence)
            );
        }
        assert_eq!(
            Token::new(1, 1, Token::SEQUENCE_MASK + 1).sequence(),
            0,
            "sequences wrap"
        );
    }

    #[test]
    fn packed_headers_are_the_lent_ones() {
        let headers: [HeaderRef<'_>; 4] = [
            ("a", Some(b"1")),
            ("", Some(b"")),
            ("traceparent", None),
            ("a", Some(b"\xff\x00")),
        ];
        let mut packed = Vec::new();
        pack_headers(&headers, &mut packed);
        let again: Vec<_> = OriginalHeaders::packed(&packed).iter().collect();
        assert_eq!(again, headers);
        assert_eq!(
            OriginalHeaders::packed(&packed).byte_len(),
            OriginalHeaders::lent(&headers).byte_len()
        );
    }

    #[test]
    fn headers_of_an_outputs_own_names_are_left_out_of_it_and_kept_for_the_other_kind() {
        let original: [HeaderRef<'_>; 5] = [
            ("ringfence-flags", Some(b"late")),
            ("trace", None),
            ("ringfence-error-reason", Some(b"late")),
            ("ringfence-at", Some(b"7")),
            ("ringfence-zone", Some(b"x")),
        ];
        let mut packed = Vec::new();
        OriginalHeaders::lent(&original)
            .for_enriched()
            .pack(&mut packed);
        for headers in [
            OriginalHeaders::lent(&original),
            OriginalHeaders::packed(&packed),
        ] {
            let names = |headers: OriginalHeaders<'_>| {
                headers
                    .iter()
                    .map(|(name, _)| name.to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(names(headers).len(), 5);
            assert_eq!(
                names(headers.for_enriched()),
                ["trace", "ringfence-error-reason", "ringfence-zone"]
            );
            assert_eq!(
                names(headers.for_dead_letter()),
                ["ringfence-flags", "trace", "ringfence-at", "ringfence-zone"]
            );
        }
    }

    #[test]
    fn a_stamp_that_the_broker_would_refuse_is_clamped() {
        let wall = EventTime::clamped(1_000_000);
        let hour = 3_600_000;
        let at = |millis| Some(EventTime::clamped(millis));
        assert_eq!(
            output_timestamp(at(wall.millis() + hour), wall),
            at(wall.millis() + hour - 60_000)
        );
        assert_eq!(output_timestamp(at(5), wall), at(5), "the past is kept");
        assert_eq!(output_timestamp(None, wall), None);
    }
}
