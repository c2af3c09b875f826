//! `match`: telemetry on stdin, enriched telemetry on stdout, without Kafka. It answers with the daemon's own codec and
//! index, so its bytes are the daemon's.
//!
//! There is no log of telemetry here, so no record timestamp, no gate and no floor: every event is matched at its own
//! time, or at `--at`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, Failure, Outcome, instant};
use crate::codec::features::FeatureReader;
use crate::codec::geojson::Stamp;
use crate::codec::pointer::Layouts;
use crate::codec::telemetry::Fields;
use crate::codec::zone_change::{self, ZoneRules};
use crate::config::Config;
use crate::geometry::Position;
use crate::index::{BuildRules, EngineKind, Hits, Index, Query};
use crate::partition::RecordPosition;
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::RecordTimestamp;
use crate::time::EventTime;
use crate::zone::{DecodedChange, StagedChange};

/// Arguments of `match`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence match --zones zones.geojson < events.ndjson\n  \
    ringfence match --zones zones.geojson.gz --changes changes.ndjson --at 2026-01-31T12:00:00Z < events.ndjson\n\n\
    A zone that is invalid is named on stderr and left out; of two with one id the later one acts: `zones import` is the\n\
    strict way. Exit code 1: some events were invalid. A line's end, LF or CRLF, is no part of an event."
)]
pub struct Args {
    /// Zones that act since ever: GeoJSON FeatureCollection, GeoJSONSeq or NDJSON of Features; `.gz` too.
    #[arg(long, value_name = "FILE")]
    zones: PathBuf,
    /// Changes to them: NDJSON of {partition, offset, timestamp, key, value}, as the zones topic has them.
    #[arg(long, value_name = "FILE")]
    changes: Option<PathBuf>,
    /// Match all events at this instant.
    #[arg(long, value_name = "T", value_parser = instant)]
    at: Option<EventTime>,
    /// The index.
    #[arg(long, value_name = "ENGINE", default_value = "tiles", value_parser = engine)]
    engine: EngineKind,
}

fn engine(name: &str) -> Result<EngineKind, String> {
    EngineKind::from_name(name)
        .ok_or_else(|| format!("no engine `{name}`; there are `tiles` and `rtree`"))
}

/// Matches stdin.
///
/// # Errors
/// A file that cannot be read, or stdin or stdout that cannot.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.config()?;
    let files = std::iter::once(&args.zones).chain(&args.changes);
    if files.into_iter().any(|path| path == Path::new("-")) {
        return Err(Failure::Usage(
            "stdin has the events: give the zones and their changes as files".to_owned(),
        ));
    }
    let mut stderr = io::stderr().lock();
    let mut clean = true;
    let mut matcher = {
        // A zone that is no zone is named and skipped; only telemetry lines decide the exit code.
        let mut refuse = |refused: Refused| {
            // Whoever does not read the complaints does not want them.
            drop(writeln!(stderr, "{}", refused.to_json()));
        };
        let mut zones = ZoneSet::new(&config);
        zones.read_file(&args.zones, &mut refuse)?;
        if let Some(changes) = &args.changes {
            zones.read_changes(changes, &mut refuse)?;
        }
        Matcher::new(&config, zones, args.engine, args.at)?
    };
    let input = BufReader::with_capacity(1 << 16, io::stdin());
    let output = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let written = matcher.stream(input, output, |line, rejection| {
        clean = false;
        let refused =
            json!({"line": line, "reason": rejection.reason.as_str(), "detail": rejection.detail});
        drop(writeln!(stderr, "{refused}"));
    });
    match written {
        Ok(()) if clean => Ok(Outcome::Done),
        Ok(()) => Ok(Outcome::Found),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Outcome::Done),
        Err(error) => Err(Failure::failed("cannot match", error)),
    }
}

/// Opens a file of zones: plain or gzip by its first bytes, `-` = stdin.
///
/// # Errors
/// It cannot be opened or read.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("cannot read `{}`", path.display()), error);
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(
            1 << 16,
            File::open(path).map_err(failed)?,
        ))
    };
    let is_gzip = input.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    Ok(if is_gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(input)))
    } else {
        input
    })
}

/// Refuses a file that says that its coordinates are in another system: its numbers would be read as degrees.
///
/// # Errors
/// It says so.
pub(super) fn refuse_crs<R: BufRead>(path: &Path, read: &FeatureReader<R>) -> Result<(), Failure> {
    read.foreign_crs().map_or(Ok(()), |crs| {
        Err(Failure::Failed(format!(
            "{}: its `crs` is `{crs}`: only longitude and latitude in WGS 84 are read; nothing was done with it. Convert it \
             (`ogr2ogr -t_srs EPSG:4326 -lco RFC7946=YES out.geojson in.geojson`), or remove the member if it is wrong",
            path.display()
        )))
    })
}

/// Something of the zone files that is left out.
#[derive(Debug)]
pub struct Refused {
    /// The place in the file.
    pub place: String,
    /// The zone, where it has a name.
    pub zone: Option<String>,
    /// Why.
    pub rejection: Rejection,
}

impl Refused {
    fn to_json(&self) -> serde_json::Value {
        json!({
            "place": self.place,
            "zone": self.zone,
            "reason": self.rejection.reason.as_str(),
            "detail": self.rejection.detail,
        })
    }
}

/// Zone changes gathered from files.
pub struct ZoneSet {
    rules: ZoneRules,
    stamp: Stamp,
    bytes_max: usize,
    max_schedule: std::time::Duration,
    changes: Vec<StagedChange>,
}

/// A line of `--changes`.
#[derive(Deserialize)]
struct ChangeLine<'a> {
    partition: i32,
    offset: i64,
    timestamp: i64,
    key: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// The zones file counts as a partition of its own, below all others.
const FILE_PARTITION: i32 = -1;

impl ZoneSet {
    /// No zone yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            rules: config.zone_rules(),
            stamp: Stamp::new(None, config.zones.max_bytes),
            bytes_max: config.zones.max_bytes,
            max_schedule: config.gate.max_schedule,
            changes: Vec::new(),
        }
    }

    /// Reads a file of Features that act since ever; an `effective_at` of theirs is not looked at.
    ///
    /// # Errors
    /// The file cannot be read to its end.
    pub fn read_file(
        &mut self,
        path: &Path,
        refuse: &mut impl FnMut(Refused),
    ) -> Result<(), Failure> {
        let mut features = FeatureReader::new(open(path)?, self.bytes_max);
        loop {
            let next = features.next_feature();
            let Some((place, feature)) =
                next.map_err(|why| Failure::failed(path.display(), why))?
            else {
                return refuse_crs(path, &features);
            };
            let named = self.stamp.apply(feature, None);
            let zone = named.as_ref().ok().map(|(id, _)| id.as_str().to_owned());
            let change = named.and_then(|(id, value)| {
                zone_change::decode(Some(id.as_str().as_bytes()), Some(&value), &self.rules)
            });
            match change {
                Ok(change) => {
                    let offset = i64::try_from(self.changes.len()).expect("fewer than 2^63 zones");
                    let position = RecordPosition::new(FILE_PARTITION, offset);
                    let change = DecodedChange {
                        effective_at: None,
                        ..change
                    };
                    self.stage(change, position, EventTime::MIN);
                }
                Err(rejection) => refuse(Refused {
                    place: place.to_string(),
                    zone,
                    rejection,
                }),
            }
        }
    }

    /// Reads a file of changes as the zones topic has them.
    ///
    /// # Errors
    /// The file cannot be read, or a line is no such record.
    pub fn read_changes(
        &mut self,
        path: &Path,
        refuse: &mut impl FnMut(Refused),
    ) -> Result<(), Failure> {
        let failed = |line: usize, why: &dyn std::fmt::Display| {
            Failure::failed(format!("{} line {line}", path.display()), why)
        };
        for (number, line) in (1..).zip(open(path)?.split(b'\n')) {
            let line = line.map_err(|why| failed(number, &why))?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let record: ChangeLine<'_> =
                serde_json::from_slice(&line).map_err(|why| failed(number, &why))?;
            let commit_time = EventTime::from_millis(record.timestamp)
                .ok_or_else(|| failed(number, &"`timestamp` is no instant"))?;
            // The record's bytes stand in the line as JSON; a string holds those that are no JSON.
            let text = record
                .value
                .map(RawValue::get)
                .filter(|text| *text != "null");
            let value = match text.filter(|text| text.starts_with('"')) {
                Some(text) => {
                    Some(serde_json::from_str::<String>(text).map_err(|why| failed(number, &why))?)
                }
                None => text.map(str::to_owned),
            };
            let key = record.key.as_deref().map(str::as_bytes);
            let decoded =
                zone_change::decode(key, value.as_deref().map(str::as_bytes), &self.rules);
            let decoded = decoded.and_then(|change| self.in_schedule(change, commit_time));
            match decoded {
                Ok(change) => {
                    let position = RecordPosition::new(record.partition, record.offset);
                    self.stage(change, position, commit_time);
                }
                Err(rejection) => {
                    refuse(Refused {
                        place: format!("line {number}"),
                        zone: record.key,
                        rejection,
                    });
                }
            }
        }
        Ok(())
    }

    fn in_schedule(
        &self,
        change: DecodedChange,
        commit: EventTime,
    ) -> Result<DecodedChange, Rejection> {
        if change
            .effective_at
            .is_some_and(|at| at > commit.plus(self.max_schedule))
        {
            return Err(Rejection::new(
                RejectionReason::ScheduleRange,
                format!(
                    "`effective_at` is more than {} s after the commit time",
                    self.max_schedule.as_secs()
                ),
            ));
        }
        Ok(change)
    }

    fn stage(&mut self, change: DecodedChange, position: RecordPosition, commit_time: EventTime) {
        self.changes.push(StagedChange {
            zone_id: change.zone_id,
            change: change.change,
            position,
            commit_time,
            valid_from: change
                .effective_at
                .map_or(commit_time, |at| at.max(commit_time)),
            expires_at: change.expires_at,
            bytes: 0,
            record: None,
        });
    }

    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Matches values against a set of zones.
pub struct Matcher {
    fields: Fields,
    index: Index,
    at: Option<EventTime>,
    line_bytes_max: usize,
    layouts: Layouts,
    hits: Hits,
    out: Vec<u8>,
}

impl Matcher {
    /// Builds the index.
    ///
    /// # Errors
    /// The build fails.
    pub fn new(
        config: &Config,
        zones: ZoneSet,
        engine: EngineKind,
        at: Option<EventTime>,
    ) -> Result<Self, Failure> {
        let rules = BuildRules {
            history_bytes_max: usize::MAX,
            filing: false,
        };
        let built = Index::empty(engine)
            .promote(&zones.changes, EventTime::MAX, &rules)
            .map_err(|why| Failure::failed("cannot build the index", why))?;
        let fields = config.fields().expect("the configuration was checked");
        Ok(Self {
            fields,
            index: built.index,
            at,
            line_bytes_max: config.telemetry.max_bytes,
            layouts: Layouts::default(),
            hits: Hits::default(),
            out: Vec::new(),
        })
    }

    /// The enriched value, until the next call.
    ///
    /// # Errors
    /// Why it is no event.
    pub fn enrich(&mut self, value: &[u8]) -> Result<&[u8], Rejection> {
        let decoded =
            self.fields
                .decode_by(&mut self.layouts, Some(value), RecordTimestamp::Missing)?;
        let position = Position {
            lon: decoded.event.lon,
            lat: decoded.event.lat,
        };
        let at = self.at.unwrap_or(decoded.event.time);
        self.index.lookup(&[Query { position, at }], &mut self.hits);
        let index = &self.index;
        let with_properties = self.fields.with_properties();
        let zones = self
            .hits
            .of(0)
            .iter()
            .map(|slot| index.zone_text(*slot, with_properties));
        self.fields
            .splice(value, &decoded.splice, zones, &mut self.out);
        Ok(&self.out)
    }

    /// Matches line by line; what has been read is written before it waits for more. Blank lines are passed over.
    ///
    /// # Errors
    /// Those of the input and the output.
    pub fn stream(
        &mut self,
        mut input: BufReader<impl Read>,
        mut output: impl Write,
        mut refuse: impl FnMut(u64, &Rejection),
    ) -> io::Result<()> {
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            if input.buffer().is_empty() {
                output.flush()?;
            }
            if !read_line(&mut input, self.line_bytes_max, &mut line)? {
                return output.flush();
            }
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            match self.enrich(&line) {
                Ok(enriched) => {
                    output.write_all(enriched)?;
                    output.write_all(b"\n")?;
                }
                Err(rejection) => refuse(number, &rejection),
            }
        }
    }
}

/// Reads a line without its end. Of one longer than `most` a byte more than that is kept, so that it is refused as too
/// large without filling the memory.
fn read_line(input: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let ready = input.fill_buf()?;
        if ready.is_empty() {
            return Ok(any);
        }
        any = true;
        let end = memchr::memchr(b'\n', ready);
        let part = &ready[..end.unwrap_or(ready.len())];
        line.extend_from_slice(&part[..part.len().min((most + 2).saturating_sub(line.len()))]);
        let taken = part.len() + usize::from(end.is_some());
        input.consume(taken);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_long_is_cut_and_the_next_one_is_whole() {
        let text = [
            b"x".repeat(100),
            b"ab\r".to_vec(),
            b"".to_vec(),
            b"last".to_vec(),
        ]
        .join(&b'\n');
        let mut input = BufReader::with_capacity(7, text.as_slice());
        let mut line = Vec::new();
        let mut lines = Vec::new();
        while read_line(&mut input, 10, &mut line).unwrap() {
            lines.push(line.clone());
        }
        assert_eq!(
            lines,
            [
                b"x".repeat(12),
                b"ab".to_vec(),
                b"".to_vec(),
                b"last".to_vec()
            ]
        );
    }
}
