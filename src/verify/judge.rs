//! Judges one output against its source record: whether it may be there at all, its instant and flags (DESIGN 4), its
//! key, headers and timestamp, and the zones in its value.

use crate::codec::headers::{self, Flag, Flags};
use crate::geometry::Position;
use crate::rejection::RejectionReason;
use crate::telemetry::{Event, RecordTimestamp};
use crate::time::EventTime;

use super::audit::{Audit, JIGSAW};
use super::event::{self, Reading};
use super::report::Finding;
use super::rules::{Matching, Rules};
use super::source::{Kind, Output, Place, Source, Stored, StoredHeader};
use super::timeline::Explanation;
use super::value::Wrong;

/// A timestamp this far ahead of the matching may have been clamped for the broker (DESIGN 3: 59 minutes).
const CLAMP_AHEAD: std::time::Duration = std::time::Duration::from_secs(30 * 60);

impl Rules {
    /// Whether a record may have no output at all.
    pub(super) fn may_be_dropped(&self, source: &mut Source, offset: i64) -> bool {
        if !self.invalid_is_dropped {
            return false;
        }
        let Place::Slot(slot) = source.slot(offset) else {
            return false;
        };
        let reading = slot
            .record
            .as_ref()
            .map(|record| event::read(record.value.as_deref(), record.timestamp, &self.pointers));
        !matches!(reading, Some(Reading::Valid(_)))
    }
}

impl Audit {
    /// Judges the content of one output.
    pub(super) fn judge(&mut self, partition: i32, offset: i64, record: &Stored, output: &Output) {
        let verdict = match output.kind {
            Kind::Enriched => {
                self.report.enriched += 1;
                self.judge_enriched(partition, offset, record, &output.record)
            }
            Kind::DeadLetter => {
                self.report.dead_letters += 1;
                self.judge_dead_letter(record, &output.record)
            }
        };
        if let Err(why) = verdict {
            self.report.find(Finding::Wrong, partition, offset, || why);
        }
    }

    fn reading(&self, record: &Stored) -> Reading {
        let value = record.value.as_deref();
        if value.is_some_and(|value| {
            value.len() > self.rules.telemetry_bytes_max || self.members.named_twice(value)
        }) {
            return Reading::Invalid;
        }
        event::read(value, record.timestamp, &self.rules.pointers)
    }

    fn judge_dead_letter(&mut self, record: &Stored, letter: &Stored) -> Result<(), String> {
        let reason = letter.header(headers::ERROR_REASON).unwrap_or("");
        let known = RejectionReason::ALL
            .iter()
            .find(|known| known.as_str() == reason);
        let Some(reason) = known else {
            return Err("the dead letter has no known reason".to_owned());
        };
        *self
            .report
            .reasons
            .entry(reason.as_str().to_owned())
            .or_default() += 1;
        let allowed = match reason {
            RejectionReason::Late => self.rules.late_is_dead_lettered,
            // The output topic's limits and rules are not known here.
            RejectionReason::TooLarge | RejectionReason::BrokerRefused => true,
            _ => !matches!(self.reading(record), Reading::Valid(_)),
        };
        if !allowed {
            return Err(format!("a valid event is dead-lettered as `{reason}`"));
        }
        let truncated = letter.header(headers::ERROR_TRUNCATED).is_some();
        if !truncated && (letter.key != record.key || letter.value != record.value) {
            return Err("the dead letter's key or value is not the original's".to_owned());
        }
        let added = letter.headers_after(record, headers::is_of_dead_letter);
        if !truncated && added.is_none() {
            return Err("the original's headers are not kept in the dead letter".to_owned());
        }
        Ok(())
    }

    fn judge_enriched(
        &mut self,
        partition: i32,
        offset: i64,
        record: &Stored,
        output: &Stored,
    ) -> Result<(), String> {
        let flags = match output.header(headers::FLAGS) {
            None => Flags::NONE,
            Some(text) => Flags::parse(text).ok_or_else(|| format!("unknown flags `{text}`"))?,
        };
        for flag in flags.iter() {
            *self
                .report
                .flags
                .entry(flag.as_str().to_owned())
                .or_default() += 1;
        }
        if output.key != record.key {
            return Err("the key is not the original's".to_owned());
        }
        let Some(added) = output.headers_after(record, headers::is_of_enriched) else {
            return Err("the original's headers are not kept".to_owned());
        };
        if let Some(name) = twice(added) {
            return Err(format!("`{name}` stands twice"));
        }
        let event = match (self.reading(record), flags.has(Flag::Invalid)) {
            (Reading::Valid(event), false) => event,
            (Reading::Valid(_), true) => return Err("a valid event is flagged invalid".to_owned()),
            (_, true) if !self.rules.invalid_is_forwarded => {
                return Err("an invalid record is forwarded".to_owned());
            }
            (_, true) if output.value == record.value => return Ok(()),
            (_, true) => return Err("a forwarded record is not as it came".to_owned()),
            (Reading::Invalid, false) => return Err("an invalid record is enriched".to_owned()),
            (Reading::Unclear, false) => {
                self.report.set_aside("values that may be read in two ways");
                return Ok(());
            }
        };
        let instant = |name: &str| {
            let millis = output.header(name).and_then(|text| text.parse().ok());
            millis
                .and_then(EventTime::from_millis)
                .ok_or_else(|| format!("no readable `{name}`"))
        };
        let (at, as_of) = (instant(headers::AT)?, instant(headers::AS_OF)?);
        judge_timestamp(record, output, as_of)?;
        self.judge_instant(record, event, at, as_of, flags)?;
        self.judge_value(partition, offset, record, output, event, (at, as_of), flags)
    }

    /// `at` as DESIGN 4 cuts it, in its order: record timestamp, match_from and match_until, floor, as_of.
    fn judge_instant(
        &self,
        record: &Stored,
        event: Event,
        at: EventTime,
        as_of: EventTime,
        flags: Flags,
    ) -> Result<(), String> {
        if at > as_of {
            return Err(format!("matched at {at}, above as_of {as_of}"));
        }
        if self.rules.matching == Matching::Latest {
            return if at == as_of {
                Ok(())
            } else {
                Err("not matched at as_of".to_owned())
            };
        }
        let mut own = event.time;
        let mut future = false;
        if let RecordTimestamp::LogAppend(stored) = record.timestamp {
            future = own > stored.plus(self.rules.max_ahead);
            own = own.min(stored);
        }
        if let Some(from) = self.rules.match_from {
            own = own.max(from);
        }
        if let Some(until) = self.rules.match_until {
            own = own.min(until);
        }
        if flags.has(Flag::Future) != future {
            let word = if future { "lacks" } else { "has, unjustified," };
            return Err(format!("{word} the flag `future`"));
        }
        let late = flags.has(Flag::Late);
        let cut = flags.has(Flag::Unsettled) || flags.has(Flag::Degraded);
        match () {
            // A floor above as_of is not reached yet: then at = as_of.
            () if late && at <= own && at != as_of => {
                Err("flagged late, but not matched at a floor after its time".to_owned())
            }
            () if late => Ok(()),
            () if flags.has(Flag::Unsettled) && own <= as_of => {
                Err("flagged unsettled, but its instant was settled".to_owned())
            }
            () if at == own.min(as_of) && (cut || own <= as_of) => Ok(()),
            () => Err(format!("matched at {at}, should be {own}")),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "all of one output, told apart once"
    )]
    fn judge_value(
        &mut self,
        partition: i32,
        offset: i64,
        record: &Stored,
        output: &Stored,
        event: Event,
        (at, as_of): (EventTime, EventTime),
        flags: Flags,
    ) -> Result<(), String> {
        let place = Position {
            lon: event.lon,
            lat: event.lat,
        };
        let hits = self.timeline.zones(place, at);
        let (Some(original), Some(value)) = (record.value.as_deref(), output.value.as_deref())
        else {
            return Err("the value is null".to_owned());
        };
        let ids = match self.members.judge(original, value, &hits) {
            Ok(ids) => ids,
            Err(Wrong::Zone { id, found }) => {
                let why = self.timeline.explain(&id, place, at, as_of, found);
                let wrong = Wrong::Zone { id, found };
                let because = match why {
                    Explanation::TooEarly(change, from) => {
                        format!(": as if change {change} acted before {from}")
                    }
                    Explanation::NotApplied(change, commit) => {
                        self.report.gate_violations += 1;
                        format!(": as if change {change} (committed {commit}) were not known")
                    }
                    Explanation::UnknownZone => ": no change names it".to_owned(),
                    Explanation::None => String::new(),
                };
                return Err(format!("matched at {at}: {wrong}{because}"));
            }
            Err(wrong) => return Err(wrong.to_string()),
        };
        if flags.is_empty() {
            match self.jigsaw.applies(place, at) {
                None => self.report.jigsaw_excused += 1,
                Some(false) => {}
                Some(true) => {
                    self.report.jigsaw_checked += 1;
                    let count = ids.iter().filter(|id| id.starts_with(JIGSAW)).count();
                    if count != 1 {
                        self.report.find(Finding::Jigsaw, partition, offset, || {
                            format!("lies in {count} jigsaw zones at {at}")
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// The first name that comes again among these headers.
fn twice(headers: &[StoredHeader]) -> Option<&str> {
    let mut names = headers.iter().enumerate();
    let again = names.find(|(at, (name, _))| headers[..*at].iter().any(|(known, _)| known == name));
    again.map(|(_, (name, _))| &**name)
}

/// The output carries its source's timestamp, unless the broker sets its own or would refuse it.
fn judge_timestamp(record: &Stored, output: &Stored, as_of: EventTime) -> Result<(), String> {
    let (RecordTimestamp::Create(own), Some(source)) =
        (output.timestamp, record.timestamp.instant())
    else {
        return Ok(());
    };
    if own == source || own < source && source > as_of.plus(CLAMP_AHEAD) {
        Ok(())
    } else {
        Err(format!(
            "the timestamp {own} is not the original's {source}"
        ))
    }
}
