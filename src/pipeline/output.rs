//! Writes outputs into buffers that are used again, and hands them to the sink. What may have to be sent once more, as
//! a dead letter, is kept until it is acknowledged.

use std::collections::BTreeMap;

use crate::codec::headers::{DeadLetterHeaders, EnrichedHeaders, Flags, HeaderForm};
use crate::enriched::{DeadLetter, OriginalHeaders, Output, Token, output_timestamp};
use crate::partition::{PartitionId, RecordPosition};
use crate::pipeline::partitioning::Partitioning;
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::{RecordRef, RecordTimestamp};
use crate::time::EventTime;

/// Where outputs go. The bytes are lent for the length of the call.
pub trait Sink {
    /// Takes a record for the enriched topic.
    fn enriched(&mut self, output: Output<'_>);
    /// Takes a record for the dead-letter topic.
    fn dead_letter(&mut self, letter: DeadLetter<'_>);
}

/// What a record takes in a batch beside key, value and headers, and a batch beside its records: rounded up.
const RECORD_OVERHEAD_BYTES: usize = 128;
/// What a header takes beside its name and value.
const HEADER_OVERHEAD_BYTES: usize = 10;
/// What is left of the value of a dead letter that even the dead-letter topic refused.
const CUT_VALUE_BYTES: usize = 1_024;

/// How much of a dead letter is written; each step is tried where the one before is too large.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    Whole,
    /// The value is cut to what fits.
    CutValue,
    /// A short start of the value, the key, and no header of the record's own.
    Stub,
    /// Only the error headers: they say where the original is.
    Bare,
}

impl Extent {
    fn truncated(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::CutValue => Some("value"),
            Self::Stub => Some("value,headers"),
            Self::Bare => Some("key,value,headers"),
        }
    }
}

/// A source record, wherever its bytes stand.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) position: RecordPosition,
    pub(crate) timestamp: RecordTimestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: OriginalHeaders<'a>,
}

impl<'a> Source<'a> {
    /// A record as it was lent.
    pub(crate) fn of(record: &RecordRef<'a>) -> Self {
        Self {
            position: record.position(),
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: OriginalHeaders::lent(record.headers),
        }
    }

    /// What an output that repeats these headers of it takes beside its value.
    fn frame_bytes(&self, headers: OriginalHeaders<'_>) -> usize {
        let headers = headers.byte_len_with(HEADER_OVERHEAD_BYTES);
        self.key.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD_BYTES
    }
}

/// A source record of its own: kept while an output of it is in flight that may be refused.
#[derive(Debug)]
struct Kept {
    position: RecordPosition,
    timestamp: RecordTimestamp,
    key: Option<Box<[u8]>>,
    value: Option<Box<[u8]>>,
    headers: Box<[u8]>,
    /// The extent of the dead letter in flight; `None` = an enriched record is.
    letter: Option<(Extent, Rejection)>,
}

/// The limits and choices of writing.
#[derive(Clone, Debug)]
pub(crate) struct WriteRules {
    /// `None` = no header is added.
    pub(crate) headers: Option<HeaderForm>,
    pub(crate) telemetry_topic: Box<str>,
    pub(crate) partitioning: Partitioning,
    pub(crate) enriched_max_bytes: usize,
    pub(crate) dead_letter_max_bytes: usize,
    /// Whether the original of each output is kept until its acknowledgement, as a refusal is of it alone.
    pub(crate) keep_originals: bool,
}

/// Why an output was not written.
#[derive(Debug)]
pub(crate) struct Outgrown(usize);

impl Outgrown {
    /// What its dead letter says, where the enriched topic takes so many bytes.
    pub(crate) fn rejection(&self, max: usize) -> Rejection {
        let detail = format!(
            "{} bytes with the zones, the enriched topic takes {max}",
            self.0
        );
        Rejection::new(RejectionReason::TooLarge, detail)
    }
}

/// Writes outputs.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) rules: WriteRules,
    /// The enriched value of the record at hand.
    pub(crate) value: Vec<u8>,
    added: EnrichedHeaders,
    letter_headers: DeadLetterHeaders,
    kept: BTreeMap<usize, Kept>,
}

impl Writer {
    pub(crate) fn new(rules: WriteRules) -> Self {
        Self {
            rules,
            value: Vec::new(),
            added: EnrichedHeaders::new(),
            letter_headers: DeadLetterHeaders::new(),
            kept: BTreeMap::new(),
        }
    }

    /// Hands over the record with `self.value` as its value (`matched`), or as it came. Gives the bytes in flight.
    pub(crate) fn output(
        &mut self,
        source: &Source<'_>,
        token: Token,
        matched: Option<(EventTime, EventTime)>,
        flags: Flags,
        wall: EventTime,
        sink: &mut impl Sink,
    ) -> Result<usize, Outgrown> {
        let value = if matched.is_some() {
            Some(&*self.value)
        } else {
            source.value
        };
        let headers = source.headers.for_enriched();
        let mut bytes = source.frame_bytes(headers) + value.map_or(0, <[u8]>::len);
        let added = self.rules.headers.map(|form| {
            self.added.fill(form, matched, source.position, flags);
            &self.added
        });
        bytes += added.map_or(0, |added| {
            added.byte_len() + HEADER_OVERHEAD_BYTES * added.count()
        });
        if bytes > self.rules.enriched_max_bytes {
            return Err(Outgrown(bytes));
        }
        sink.enriched(Output {
            token,
            source: source.position,
            partition: self
                .rules
                .partitioning
                .partition(source.position.partition, source.key),
            key: source.key,
            value,
            timestamp: output_timestamp(source.timestamp.instant(), wall),
            headers,
            added,
        });
        if self.rules.keep_originals {
            self.keep(source, token, None);
        }
        Ok(bytes)
    }

    /// Hands over a dead letter, as much of it as fits. Gives the bytes in flight.
    pub(crate) fn dead_letter(
        &mut self,
        source: &Source<'_>,
        token: Token,
        rejection: &Rejection,
        wall: EventTime,
        sink: &mut impl Sink,
    ) -> usize {
        let (extent, bytes) = self.letter(source, token, rejection, Extent::Whole, wall, sink);
        if self.rules.keep_originals {
            self.keep(source, token, Some((extent, rejection.clone())));
        }
        bytes
    }

    fn letter(
        &mut self,
        source: &Source<'_>,
        token: Token,
        rejection: &Rejection,
        at_most: Extent,
        wall: EventTime,
        sink: &mut impl Sink,
    ) -> (Extent, usize) {
        let max = self.rules.dead_letter_max_bytes;
        let error_bytes = 1_024 + self.rules.telemetry_topic.len() + rejection.detail.len();
        let repeated = source.headers.for_dead_letter();
        let frame = source.frame_bytes(repeated) + error_bytes;
        let stub = source.key.map_or(0, <[u8]>::len) + RECORD_OVERHEAD_BYTES + error_bytes;
        let value_len = source.value.map_or(0, <[u8]>::len);
        let fits = |extent: Extent| match extent {
            Extent::Whole => frame + value_len <= max,
            Extent::CutValue => frame < max,
            Extent::Stub => stub + CUT_VALUE_BYTES.min(value_len) <= max,
            Extent::Bare => true,
        };
        let extent = [Extent::Whole, Extent::CutValue, Extent::Stub, Extent::Bare]
            .into_iter()
            .find(|extent| *extent >= at_most && fits(*extent))
            .expect("a bare dead letter always fits");
        let cut = |len: usize| source.value.map(|value| &value[..value.len().min(len)]);
        let (key, value, headers) = match extent {
            Extent::Whole => (source.key, source.value, repeated),
            Extent::CutValue => (source.key, cut(max - frame), repeated),
            Extent::Stub => (source.key, cut(CUT_VALUE_BYTES), OriginalHeaders::NONE),
            Extent::Bare => (None, None, OriginalHeaders::NONE),
        };
        let (topic, truncated) = (&*self.rules.telemetry_topic, extent.truncated());
        self.letter_headers.fill(
            rejection,
            topic,
            source.position,
            source.timestamp,
            truncated,
        );
        // What the broker refused for its timestamp must not be refused for it again; a header has it.
        let stamp = match rejection.reason {
            RejectionReason::BrokerRefused => None,
            _ => source.timestamp.instant(),
        };
        sink.dead_letter(DeadLetter {
            token,
            source: source.position,
            key,
            value,
            timestamp: output_timestamp(stamp, wall),
            headers,
            added: &self.letter_headers,
        });
        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.byte_len();
        (extent, bytes + error_bytes + RECORD_OVERHEAD_BYTES)
    }

    fn keep(&mut self, source: &Source<'_>, token: Token, letter: Option<(Extent, Rejection)>) {
        let mut headers = Vec::new();
        source.headers.pack(&mut headers);
        let kept = Kept {
            position: source.position,
            timestamp: source.timestamp,
            key: source.key.map(Box::from),
            value: source.value.map(Box::from),
            headers: headers.into_boxed_slice(),
            letter,
        };
        self.kept.insert(token.into_raw(), kept);
    }

    /// Whether what the broker refused can be sent as a (shorter) dead letter.
    pub(crate) fn can_resend(&self, token: Token) -> bool {
        self.kept
            .get(&token.into_raw())
            .is_some_and(|kept| !matches!(kept.letter, Some((Extent::Bare, _))))
    }

    /// Sends what the broker refused as a dead letter: whole where it was an enriched record, else shorter than before.
    /// Gives its rejection and the bytes in flight.
    pub(crate) fn resend(
        &mut self,
        token: Token,
        refused: Rejection,
        wall: EventTime,
        sink: &mut impl Sink,
    ) -> (Rejection, usize) {
        let mut kept = self
            .kept
            .remove(&token.into_raw())
            .expect("`can_resend` was asked");
        let (at_most, rejection) = match kept.letter.take() {
            None => (Extent::Whole, refused),
            Some((Extent::Whole | Extent::CutValue, rejection)) => (Extent::Stub, rejection),
            Some((Extent::Stub | Extent::Bare, rejection)) => (Extent::Bare, rejection),
        };
        let source = Source {
            position: kept.position,
            timestamp: kept.timestamp,
            key: kept.key.as_deref(),
            value: kept.value.as_deref(),
            headers: OriginalHeaders::packed(&kept.headers),
        };
        let (extent, bytes) = self.letter(&source, token, &rejection, at_most, wall, sink);
        kept.letter = Some((extent, rejection.clone()));
        self.kept.insert(token.into_raw(), kept);
        (rejection, bytes)
    }

    /// The output is acknowledged.
    pub(crate) fn forget(&mut self, token: Token) {
        if !self.kept.is_empty() {
            self.kept.remove(&token.into_raw());
        }
    }

    /// The partition is no longer owned.
    pub(crate) fn forget_partition(&mut self, partition: PartitionId) {
        self.kept
            .retain(|_, kept| kept.position.partition != partition);
    }
}
