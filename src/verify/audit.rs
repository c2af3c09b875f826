//! The audit: takes the records of the four topics, pairs outputs with their source, judges each once the zones are
//! known up to its instant, and follows the commits to find what is lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::{headers, zone_change};
use crate::geometry::Position;
use crate::partition::{Offset, PartitionId, RecordPosition};
use crate::telemetry::RecordRef;
use crate::time::EventTime;
use crate::zone::ZoneChange;

use super::report::{Finding, Report};
use super::rules::Rules;
use super::shape::Shape;
use super::source::{Kind, Output, Passed, Place, Source, Stored};
use super::timeline::{Change, Timeline, Upsert};
use super::value::{Members, RawMembers};

/// Zones whose id starts so tile an area: every event in it lies in exactly one.
pub(super) const JIGSAW: &str = "jigsaw-";
/// How many clipped changes are named.
const CLIPPED_NAMED: usize = 5;
/// Versions are only forgotten once there are this many more than after the last time.
const FORGET_STEP: usize = 100_000;

/// The commit cursor moves on after so many records.
const PASS_EVERY: i64 = 64;

/// What waits in the audit: tells a reader which topic to read next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Outputs whose telemetry was not read.
    pub outputs_ahead: usize,
    /// Telemetry records without an output.
    pub telemetry_ahead: usize,
    /// Outputs that wait for zones up to their instant.
    pub waiting: usize,
}

/// The audit of one pipeline's topics.
#[derive(Debug)]
pub struct Audit {
    pub(super) rules: Rules,
    pub(super) members: Members,
    pub(super) timeline: Timeline,
    pub(super) report: Report,
    pub(super) jigsaw: Jigsaw,
    sources: BTreeMap<i32, Source>,
    /// Outputs that could not be judged when they came.
    waiting: VecDeque<(i32, i64)>,
    /// The zones are known up to here.
    horizon: Option<EventTime>,
    versions_kept: usize,
    /// Refused zone changes, to know their dead letters.
    rejected: Vec<RecordPosition>,
}

/// Where and when the jigsaw is to be found.
#[derive(Debug, Default)]
pub(super) struct Jigsaw {
    /// The first instant of the tiling, and the rectangle it fills.
    pub(super) tiling: Option<(EventTime, super::shape::Bounds)>,
    /// Between the two halves of a clipped pair: [`effective_at`, commit time).
    pub(super) excused: Vec<(EventTime, EventTime)>,
}

impl Audit {
    /// An audit that knows nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let members = Members::new(&rules.field, !rules.properties.is_empty());
        let report = Report {
            exactly_once: rules.exactly_once,
            ..Report::default()
        };
        Self {
            rules,
            members,
            timeline: Timeline::default(),
            report,
            jigsaw: Jigsaw::default(),
            sources: BTreeMap::new(),
            waiting: VecDeque::new(),
            horizon: None,
            versions_kept: 0,
            rejected: Vec::new(),
        }
    }

    /// Takes a record of the zones topic.
    pub fn zone(&mut self, record: &RecordRef<'_>) {
        if zone_change::is_marker(record.key, record.value) {
            return;
        }
        self.report.zone_changes += 1;
        let position = record.position();
        let named = zone_change::zone_of_key(record.key);
        let Some(commit_time) = record.timestamp.instant() else {
            self.refuse(position, None, None);
            return;
        };
        let Ok(change) = zone_change::decode(record.key, record.value, &self.rules.zone_rules)
        else {
            self.refuse(
                position,
                named.as_ref().map(|id| id.as_str()),
                Some(commit_time),
            );
            return;
        };
        let effective_at = change.effective_at.unwrap_or(commit_time);
        if effective_at > commit_time.plus(self.rules.max_schedule) {
            self.refuse(position, Some(change.zone_id.as_str()), Some(commit_time));
            return;
        }
        let id = change.zone_id.as_str();
        let valid_from = effective_at.max(commit_time);
        let upsert = match (&change.change, record.value) {
            (ZoneChange::Upsert(_), Some(value)) => read_upsert(value, &self.rules),
            _ => None,
        };
        if let Some(upsert) = upsert.as_ref().filter(|_| id.starts_with(JIGSAW)) {
            self.jigsaw.grow(valid_from, upsert.shape.bounds());
        }
        if effective_at < commit_time {
            self.report.clipped += 1;
            if self.report.clipped_first.len() < CLIPPED_NAMED {
                self.report.clipped_first.push(position.to_string());
            }
            if id.starts_with(JIGSAW) {
                self.jigsaw.excused.push((effective_at, commit_time));
            }
        }
        self.timeline.add(Change {
            zone: Arc::from(id),
            position,
            commit_time,
            valid_from,
            expires_at: change.expires_at,
            upsert,
        });
    }

    /// A refused change leaves its zone as it was, until the topic may have lost what it was (DESIGN 3).
    fn refuse(&mut self, position: RecordPosition, zone: Option<&str>, at: Option<EventTime>) {
        self.report.zone_changes_rejected += 1;
        self.rejected.push(position);
        if let (Some(zone), Some(commit_time), Some(lag)) = (zone, at, self.rules.compaction_lag) {
            let valid_from = commit_time.plus(lag);
            let (expires_at, upsert) = (None, None);
            let zone = Arc::from(zone);
            self.timeline.add(Change {
                zone,
                position,
                commit_time,
                valid_from,
                expires_at,
                upsert,
            });
        }
    }

    /// Takes a record of the telemetry topic.
    pub fn telemetry(&mut self, record: &RecordRef<'_>) {
        let (partition, offset) = (record.partition.0, record.offset.0);
        let source = self.sources.entry(partition).or_default();
        let lowest = source.first_output.is_none_or(|first| offset < first);
        if self.rules.from_log_start
            && source.judged_from.is_none_or(|from| offset < from)
            && lowest
        {
            source.judged_from = Some(offset);
        }
        if source.read(offset, Stored::of(record)) {
            self.judge_waiting_at(partition, offset);
        }
        if offset % PASS_EVERY == 0 {
            self.pass(partition);
        }
    }

    /// Takes a record of the enriched topic.
    pub fn enriched(&mut self, record: &RecordRef<'_>) {
        let output = Stored::of(record);
        let source = output.header(headers::SOURCE).and_then(|source| {
            let (partition, offset) = source.split_once(':')?;
            Some((partition.parse::<i32>().ok()?, offset.parse::<i64>().ok()?))
        });
        let at = output
            .header(headers::AT)
            .and_then(|at| at.parse().ok())
            .map(EventTime::clamped);
        let Some((partition, offset)) = source else {
            self.report.find(Finding::Orphan, -1, record.offset.0, || {
                format!(
                    "enriched {}:{} has no `{}`",
                    record.partition,
                    record.offset,
                    headers::SOURCE
                )
            });
            return;
        };
        let output = Output {
            kind: Kind::Enriched,
            at,
            record: output,
        };
        self.output(partition, offset, record.partition.0, output);
    }

    /// Takes a record of the dead-letter topic.
    pub fn dead_letter(&mut self, record: &RecordRef<'_>) {
        let output = Stored::of(record);
        let number = |name: &str| {
            output
                .header(name)
                .and_then(|text| text.parse::<i64>().ok())
        };
        let topic = output.header(headers::ERROR_TOPIC);
        let partition = number(headers::ERROR_PARTITION).and_then(|n| i32::try_from(n).ok());
        let (Some(topic), Some(partition), Some(offset)) =
            (topic, partition, number(headers::ERROR_OFFSET))
        else {
            self.report.find(Finding::Orphan, -1, record.offset.0, || {
                format!(
                    "dead letter {}:{} has no readable headers",
                    record.partition, record.offset
                )
            });
            return;
        };
        if topic == self.rules.zones_topic {
            self.report.zone_dead_letters += 1;
            return;
        }
        if topic != self.rules.telemetry_topic {
            self.report.set_aside("dead letters of other topics");
            return;
        }
        let output = Output {
            kind: Kind::DeadLetter,
            at: None,
            record: output,
        };
        self.output(partition, offset, record.partition.0, output);
    }

    /// Pairs an output with its source: order and number are told at once, its content when all is known.
    fn output(&mut self, partition: i32, offset: i64, output_partition: i32, output: Output) {
        let source = self.sources.entry(partition).or_default();
        source.start(offset);
        let kind = output.kind;
        let is_read = offset < source.read_to;
        let (duplicate, early) = match source.slot(offset) {
            Place::Nowhere => {
                let note = || "an output names this source, far beyond the log".to_owned();
                self.report.find(Finding::Orphan, partition, offset, note);
                return;
            }
            Place::Dropped => {
                self.report
                    .find(Finding::Duplicate, partition, offset, String::new);
                self.report.set_aside("late duplicates");
                return;
            }
            Place::Slot(slot) => {
                slot.seen += 1;
                slot.outputs.push(output);
                (slot.seen > 1, std::mem::take(&mut slot.lost))
            }
        };
        if !is_read {
            source.ahead += 1;
        }
        source.first_output = Some(
            source
                .first_output
                .map_or(offset, |first| first.min(offset)),
        );
        if duplicate {
            self.report
                .find(Finding::Duplicate, partition, offset, String::new);
        } else if kind == Kind::Enriched && !source.in_order(offset, output_partition) {
            self.report.find(Finding::Reordered, partition, offset, || {
                "its first output stands behind that of a later record".to_owned()
            });
        }
        if early {
            self.report
                .find(Finding::CommittedEarly, partition, offset, || {
                    "was committed before it was in the outputs".to_owned()
                });
        }
        if !self.judge_waiting_at(partition, offset) {
            self.waiting.push_back((partition, offset));
        }
        if offset % PASS_EVERY == 0 {
            self.pass(partition);
        }
    }

    /// Judges what waits at one source; true where nothing is left waiting there.
    fn judge_waiting_at(&mut self, partition: i32, offset: i64) -> bool {
        let Some(source) = self.sources.get_mut(&partition) else {
            return true;
        };
        let horizon = self.horizon;
        let Place::Slot(slot) = source.slot(offset) else {
            return true;
        };
        if slot.record.is_none() {
            return slot.outputs.is_empty();
        }
        let known = |output: &Output| output.at.is_none_or(|at| Some(at) <= horizon);
        let ready: Vec<Output> = slot
            .outputs
            .extract_if(.., |output| known(output))
            .collect();
        let done = slot.outputs.is_empty();
        if ready.is_empty() {
            return done;
        }
        let record = slot.record.take().expect("checked above");
        for output in &ready {
            self.judge(partition, offset, &record, output);
        }
        let source = self.sources.get_mut(&partition).expect("taken above");
        if let Place::Slot(slot) = source.slot(offset) {
            slot.record = Some(record);
        }
        done
    }

    /// The zones topic is read far enough to know zones(t) for every t up to `horizon`.
    pub fn zones_settled(&mut self, horizon: EventTime) {
        if self.horizon.is_some_and(|known| horizon <= known) {
            return;
        }
        self.horizon = Some(horizon);
        for _ in 0..self.waiting.len() {
            let Some((partition, offset)) = self.waiting.pop_front() else {
                break;
            };
            if !self.judge_waiting_at(partition, offset) {
                self.waiting.push_back((partition, offset));
            }
        }
    }

    /// The group has committed the partition up to here. What has its outputs can be let go of; what has none may
    /// still have them in an output topic that was not read far enough.
    pub fn committed(&mut self, partition: PartitionId, committed: Offset) {
        let source = self.sources.entry(partition.0).or_default();
        source.committed_to = source.committed_to.max(committed.0);
        self.pass(partition.0);
    }

    /// Every record of the partition below `committed` has all its outputs among those already taken, if it has any:
    /// the commit was asked for first, then the ends of the output topics, and those are read.
    pub fn settled(&mut self, partition: PartitionId, committed: Offset) {
        let source = self.sources.entry(partition.0).or_default();
        source.settled_to = source.settled_to.max(committed.0);
        self.pass(partition.0);
    }

    fn pass(&mut self, partition: i32) {
        let Some(source) = self.sources.get_mut(&partition) else {
            return;
        };
        let from = if self.rules.from_log_start {
            source.judged_from
        } else {
            source.first_output
        };
        for (first, end) in source.take_unread() {
            let count = end - first;
            let note =
                || format!("{count} records were dropped by the topic before they were read");
            self.report.find(Finding::Unread, partition, first, note);
        }
        while let Some((offset, passed)) = source.pass() {
            if from.is_none_or(|from| offset < from) || passed == Passed::Hole {
                continue;
            }
            let ranges = &mut self.report.ranges;
            let range = ranges.entry(partition).or_insert((offset, offset));
            *range = (range.0.min(offset), range.1.max(offset + 1));
            self.report.judged += 1;
            if passed == Passed::Missing && !self.rules.may_be_dropped(source, offset) {
                source.mark_lost(offset);
                let note = || "committed, and in no output".to_owned();
                self.report.find(Finding::Lost, partition, offset, note);
            }
        }
        source.drop_judged(self.rules.keep);
    }

    /// Forgets zone versions that ended more than `history` before the horizon, to follow for ever in bounded memory.
    pub fn forget(&mut self, history: Duration) {
        if let Some(horizon) = self.horizon
            && self.timeline.len() > self.versions_kept + FORGET_STEP
        {
            let before = horizon.minus(history);
            self.timeline.forget(before);
            self.versions_kept = self.timeline.len();
            self.jigsaw.excused.retain(|(_, to)| *to > before);
        }
    }

    /// What waits.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let sources = self.sources.values();
        Backlog {
            outputs_ahead: sources.clone().map(|source| source.ahead).sum(),
            telemetry_ahead: sources.map(Source::unmatched).sum(),
            waiting: self.waiting.len(),
        }
    }

    /// What was found so far. A record that was lost and came later was committed early, so it is no longer lost.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        for (partition, early) in report
            .findings
            .get(&Finding::CommittedEarly)
            .cloned()
            .unwrap_or_default()
        {
            if let Some(lost) = report.findings.get_mut(&Finding::Lost)
                && let Some(tally) = lost.get_mut(&partition)
            {
                tally.count -= early.count.min(tally.count);
                tally.first.retain(|offset| !early.first.contains(offset));
                if tally.count == 0 {
                    lost.remove(&partition);
                }
                if lost.is_empty() {
                    report.findings.remove(&Finding::Lost);
                }
            }
        }
        report
    }

    /// All topics are read to their ends: judges what is left.
    #[must_use]
    pub fn finish(mut self) -> Report {
        self.zones_settled(EventTime::MAX);
        let partitions: Vec<i32> = self.sources.keys().copied().collect();
        for partition in partitions {
            self.pass(partition);
            let source = &self.sources[&partition];
            for offset in source.orphans() {
                if source.is_unread(offset)
                    || source.telemetry_from.is_none_or(|from| offset < from)
                {
                    self.report
                        .set_aside("their telemetry is no longer in the topic");
                } else {
                    let note =
                        || "an output names this source, but there is no such record".to_owned();
                    self.report.find(Finding::Orphan, partition, offset, note);
                }
            }
        }
        self.report()
    }
}

impl Jigsaw {
    fn grow(&mut self, from: EventTime, bounds: super::shape::Bounds) {
        self.tiling = Some(match self.tiling {
            None => (from, bounds),
            Some((since, all)) => (
                since.min(from),
                super::shape::Bounds {
                    lon_min: all.lon_min.min(bounds.lon_min),
                    lat_min: all.lat_min.min(bounds.lat_min),
                    lon_max: all.lon_max.max(bounds.lon_max),
                    lat_max: all.lat_max.max(bounds.lat_max),
                },
            ),
        });
    }

    /// Whether an event here and then must lie in exactly one zone; `None`: it is excused.
    pub(super) fn applies(&self, place: Position, at: EventTime) -> Option<bool> {
        let Some((from, bounds)) = self.tiling else {
            return Some(false);
        };
        if at < from || !bounds.holds(place) {
            return Some(false);
        }
        let excused = self
            .excused
            .iter()
            .any(|(from, to)| *from <= at && at < *to);
        if excused { None } else { Some(true) }
    }
}

/// The parts of a Feature that decide what it covers. The codec has found the record valid.
#[derive(Deserialize)]
struct Feature<'a> {
    #[serde(borrow)]
    geometry: Geometry<'a>,
    #[serde(borrow)]
    properties: Option<RawMembers<'a>>,
}

#[derive(Deserialize)]
struct Geometry<'a> {
    r#type: String,
    #[serde(borrow)]
    coordinates: &'a RawValue,
}

type Ring = Vec<Vec<f64>>;

fn read_upsert(value: &[u8], rules: &Rules) -> Option<Upsert> {
    let feature: Feature<'_> = serde_json::from_slice(value).ok()?;
    let properties = feature
        .properties
        .map(|RawMembers(members)| members)
        .unwrap_or_default();
    let property = |name: &str| {
        properties
            .iter()
            .find(|(member, _)| member == name)
            .map(|(_, value)| value.get())
    };
    let coordinates = feature.geometry.coordinates.get();
    let position = |at: &Vec<f64>| {
        Some(Position {
            lon: *at.first()?,
            lat: *at.get(1)?,
        })
    };
    let ring = |ring: &Ring| ring.iter().filter_map(position).collect::<Vec<_>>();
    let polygon = |rings: &Vec<Ring>| rings.iter().map(ring).collect::<Vec<_>>();
    let shape = match feature.geometry.r#type.as_str() {
        "Polygon" => {
            let rings: Vec<Ring> = serde_json::from_str(coordinates).ok()?;
            Shape::polygons(&[polygon(&rings)], rules.repair)
        }
        "MultiPolygon" => {
            let polygons: Vec<Vec<Ring>> = serde_json::from_str(coordinates).ok()?;
            let polygons: Vec<_> = polygons.iter().map(polygon).collect();
            Shape::polygons(&polygons, rules.repair)
        }
        _ => {
            let center = position(&serde_json::from_str(coordinates).ok()?)?;
            Shape::Circle {
                center,
                radius_m: property("radius_m")?.parse().ok()?,
            }
        }
    };
    let mut carried = String::new();
    for (i, name) in rules.properties.iter().enumerate() {
        if let Some(value) = property(name).filter(|_| !rules.properties[..i].contains(name)) {
            carried.push(if carried.is_empty() { '{' } else { ',' });
            carried.push_str(&serde_json::to_string(name).ok()?);
            carried.push(':');
            carried.push_str(value);
        }
    }
    let properties = (!carried.is_empty()).then(|| format!("{carried}}}").into());
    Some(Upsert { shape, properties })
}
