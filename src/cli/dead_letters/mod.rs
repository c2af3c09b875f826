//! `dead-letters …`: shows what was refused and why, and writes it back to where it came from once that is mended.

mod letter;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{Context, Failure, Outcome, connect, instant};
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, End};
use crate::kafka::client::Settings;
use crate::kafka::reader::TopicReader;
use crate::partition::{OffsetRange, PartitionId, RecordPosition};
use crate::rejection::RejectionReason;
use crate::telemetry::RecordRef;
use crate::time::EventTime;
use letter::Letter;
use replay::ReplayArgs;

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `dead-letters`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence -c ringfence.toml dead-letters list --from 2026-01-31T12:00:00Z\n  \
    ringfence -c ringfence.toml dead-letters replay --reason wrong_type --dry-run"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What was refused: source, reason, detail and time of each record.
    #[command(
        after_help = "Example:\n  ringfence dead-letters list --reason late --reason time_range --limit 20"
    )]
    List(Filter),
    /// Write refused records back to the topics they came from, as they were.
    #[command(
        after_help = "Example:\n  ringfence dead-letters replay --reason missing_field --until 2026-01-31T12:00:00Z"
    )]
    Replay(ReplayArgs),
}

/// Which letters.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only letters with this reason; may be repeated.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Vec<RejectionReason>,
    /// Only records stamped at this instant or later.
    #[arg(long, value_name = "T", value_parser = instant)]
    from: Option<EventTime>,
    /// Only records stamped before this instant.
    #[arg(long, value_name = "T", value_parser = instant)]
    until: Option<EventTime>,
    /// Only records of this topic.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Only records of this partition of their topic.
    #[arg(long, value_name = "PARTITION")]
    partition: Option<i32>,
    /// At most so many letters.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

fn reason(text: &str) -> Result<RejectionReason, String> {
    let known = RejectionReason::ALL.iter();
    known
        .copied()
        .find(|reason| reason.as_str() == text)
        .ok_or_else(|| {
            let names: Vec<_> = RejectionReason::ALL.iter().map(|r| r.as_str()).collect();
            format!("no such reason; there are {}", names.join(", "))
        })
}

impl Filter {
    fn takes(&self, letter: &Letter<'_>) -> bool {
        let is_of = |reason: &RejectionReason| reason.as_str() == letter.reason;
        let is_timed = self.from.is_some() || self.until.is_some();
        (self.reason.is_empty() || self.reason.iter().any(is_of))
            && self.topic.as_deref().is_none_or(|topic| topic == letter.topic)
            && self
                .partition
                .is_none_or(|partition| letter.position.partition == PartitionId(partition))
            // Of a record without a stamp nobody can say that it is within.
            && (!is_timed || letter.timestamp.is_some())
            && self.from.zip(letter.timestamp).is_none_or(|(from, at)| at >= from)
            && self.until.zip(letter.timestamp).is_none_or(|(until, at)| at < until)
    }
}

/// What was met in the topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Letters that the filter takes, each source record once.
    pub(super) letters: u64,
    /// Further letters of those records.
    pub(super) duplicates: u64,
    /// Of the letters, those whose value was cut.
    pub(super) cut: u64,
    /// Of the letters, those that hold nothing of their record.
    pub(super) bare: u64,
    /// Records that are no letters of Ringfence.
    pub(super) foreign: u64,
    pub(super) by_reason: BTreeMap<String, u64>,
}

/// The dead-letter topic as it was when the command began: what comes to it later is another run's.
pub(super) struct Letters<'a> {
    settings: &'a Settings,
    topic: &'a str,
    ranges: Vec<(PartitionId, OffsetRange)>,
}

impl<'a> Letters<'a> {
    fn new(settings: &'a Settings, admin: &Admin, topic: &'a str) -> Result<Self, EdgeError> {
        let partitions = admin.existing(topic)?.ids();
        Ok(Self {
            settings,
            topic,
            ranges: admin.offsets(topic, &partitions, End::Stable)?,
        })
    }

    /// Hands each letter that the filter takes to `each`, the first of each source record only (at least once means that
    /// there may be more of it).
    fn read(
        &self,
        filter: &Filter,
        mut each: impl FnMut(&Letter<'_>, &RecordRef<'_>),
    ) -> Result<Tally, EdgeError> {
        let mut tally = Tally::default();
        let mut seen: BTreeMap<String, BTreeSet<RecordPosition>> = BTreeMap::new();
        let reader = TopicReader::ranges(self.settings, self.topic, &self.ranges)?;
        reader.read_all(PATIENCE, |record| {
            let Some(letter) = Letter::read(record) else {
                tally.foreign += 1;
                return;
            };
            if !filter.takes(&letter) {
                return;
            }
            if !seen.contains_key(letter.topic) {
                seen.insert(letter.topic.to_owned(), BTreeSet::new());
            }
            let of_topic = seen.get_mut(letter.topic).expect("it was just added");
            if of_topic.contains(&letter.position) {
                tally.duplicates += 1;
                return;
            }
            if filter.limit.is_some_and(|limit| tally.letters >= limit) {
                return;
            }
            of_topic.insert(letter.position);
            tally.letters += 1;
            tally.cut += u64::from(letter.is_cut());
            tally.bare += u64::from(letter.is_bare());
            let reason = letter.reason.to_owned();
            *tally.by_reason.entry(reason).or_default() += 1;
            each(&letter, record);
        })?;
        Ok(tally)
    }
}

/// Does it.
///
/// # Errors
/// There is no dead-letter topic, or the cluster does not answer.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.kafka_config()?;
    let failed = |why: EdgeError| Failure::failed("dead-letters", why);
    let Some(topic) = config.dead_letter.topic.as_deref() else {
        return Err(Failure::Failed(
            "`dead_letter.topic` is empty: there are no dead letters".to_owned(),
        ));
    };
    let settings = Settings::from(&config.kafka);
    let admin = connect(&config, PATIENCE, context)?;
    let letters = Letters::new(&settings, &admin, topic).map_err(failed)?;
    match &args.what {
        What::List(filter) => list(&letters, filter, context).map_err(failed),
        What::Replay(args) => replay::run(args, &letters, &admin, context),
    }
}

fn list(letters: &Letters<'_>, filter: &Filter, context: &Context) -> Result<Outcome, EdgeError> {
    let tally = letters.read(filter, |letter, record| {
        if context.json {
            context.report_json(&json!({
                "topic": letter.topic,
                "partition": letter.position.partition.0,
                "offset": letter.position.offset.0,
                "reason": letter.reason,
                "detail": letter.detail,
                "timestamp": letter.timestamp.map(EventTime::millis),
                "truncated": letter.truncated,
                "letter": format!("{}:{}", record.partition, record.offset),
            }));
        } else {
            let at = letter
                .timestamp
                .map_or_else(|| "-".to_owned(), |at| at.to_string());
            let detail = match (letter.detail, letter.truncated) {
                (detail, None) => detail.to_owned(),
                (detail, Some(what)) => format!("{detail} (cut: {what})"),
            };
            let source = format!("{} {}", letter.topic, letter.position);
            context.report(format_args!(
                "{source:<24} {at:<24} {:<18} {detail}",
                letter.reason
            ));
        }
    })?;
    context.note(tally.told());
    Ok(Outcome::Done)
}

impl Tally {
    /// One line for a person.
    pub(super) fn told(&self) -> String {
        let mut text = format!("{} letters", self.letters);
        for (reason, count) in &self.by_reason {
            text.push_str(&format!(", {count} {reason}"));
        }
        for (count, what) in [
            (self.cut + self.bare, "cut to fit"),
            (self.duplicates, "further letters of the same records"),
            (self.foreign, "records that are no dead letters"),
        ] {
            if count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_what_has_its_reason_and_lies_in_its_time() {
        let letter = |millis: Option<i64>| Letter {
            reason: "late",
            detail: "",
            topic: "telemetry",
            position: RecordPosition::new(3, 7),
            timestamp: millis.map(EventTime::clamped),
            truncated: None,
        };
        let takes = |filter: &Filter, millis| filter.takes(&letter(millis));
        let any = Filter::default();
        assert!(takes(&any, None) && takes(&any, Some(0)));
        let at = |millis| Some(EventTime::clamped(millis));
        let timed = Filter {
            from: at(10),
            until: at(20),
            ..Filter::default()
        };
        let taken: Vec<i64> = (0..30)
            .filter(|millis| takes(&timed, Some(*millis)))
            .collect();
        assert_eq!(taken, (10..20).collect::<Vec<_>>());
        assert!(!takes(&timed, None));
        let late = [RejectionReason::NotJson, RejectionReason::Late];
        for (filter, expected) in [
            (
                Filter {
                    reason: late.into(),
                    ..Filter::default()
                },
                true,
            ),
            (
                Filter {
                    reason: late[..1].into(),
                    ..Filter::default()
                },
                false,
            ),
            (
                Filter {
                    topic: Some("zones".to_owned()),
                    ..Filter::default()
                },
                false,
            ),
            (
                Filter {
                    partition: Some(3),
                    ..Filter::default()
                },
                true,
            ),
            (
                Filter {
                    partition: Some(2),
                    ..Filter::default()
                },
                false,
            ),
        ] {
            assert_eq!(takes(&filter, None), expected, "{filter:?}");
        }
        assert_eq!(reason("not_json"), Ok(RejectionReason::NotJson));
        assert!(reason("Late").unwrap_err().contains("time_range"));
    }
}
