//! `check`: what must be so before `run` can do its work, asked of the configuration and of the cluster; every problem
//! at once, each with its mend. The judgement is pure (`judge`); asking is done before it.

mod cluster;

use std::collections::BTreeMap;

use serde_json::json;

use super::topics::{PATIENCE, Role};
use super::{Context, Failure, Outcome};
use crate::config::{Config, OutputPartition};
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, End, Topic, TopicProperty};
use crate::kafka::client::Settings;
use crate::kafka::permission::Questions;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence -c ringfence.toml check\n  ringfence -c ringfence.toml check --offline      the configuration only"
)]
pub struct Args {
    /// Only the configuration; ask no cluster.
    #[arg(long)]
    offline: bool,
}

/// How much a finding matters.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Weight {
    /// `run` would refuse, fail or give wrong answers: exit 1.
    Problem,
    /// It works, with a loss that somebody should know of.
    Warning,
    /// Good to know.
    Note,
}

impl Weight {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One finding: what is so, and what to do about it.
#[derive(Clone, Debug)]
struct Finding {
    weight: Weight,
    what: String,
    mend: String,
}

/// What the cluster says of one topic.
#[derive(Debug)]
struct Known {
    role: Role,
    name: String,
    topic: Option<Topic>,
    /// `None` = not told: the mock, or no permission to describe.
    properties: Option<BTreeMap<String, TopicProperty>>,
}

impl Known {
    fn property(&self, name: &str) -> Option<&str> {
        self.properties.as_ref()?.get(name)?.value.as_deref()
    }

    fn number(&self, name: &str) -> Option<i128> {
        self.property(name)?.parse().ok()
    }
}

/// Asks and reports.
///
/// # Errors
/// A wrong configuration; no client.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.kafka_config()?;
    let mut findings = Vec::new();
    if args.offline {
        findings.push(note(
            "the configuration is right; the cluster was not asked",
        ));
    } else {
        ask(&config, &mut findings).map_err(|error| Failure::failed("check", error))?;
    }
    for finding in &findings {
        if context.json {
            context.report_json(
                &json!({ "weight": finding.weight.as_str(), "what": finding.what, "mend": finding.mend }),
            );
        } else {
            let mend = if finding.mend.is_empty() {
                String::new()
            } else {
                format!("\n         {}", finding.mend)
            };
            context.report(format_args!(
                "{:<8} {}{mend}",
                finding.weight.as_str(),
                finding.what
            ));
        }
    }
    let problems = findings
        .iter()
        .filter(|finding| finding.weight == Weight::Problem)
        .count();
    if !context.json {
        context.report(match problems {
            0 => "no problem".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        });
    }
    Ok(if problems == 0 {
        Outcome::Done
    } else {
        Outcome::Found
    })
}

fn problem(what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        weight: Weight::Problem,
        what: what.into(),
        mend: mend.into(),
    }
}

fn warning(what: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding {
        weight: Weight::Warning,
        what: what.into(),
        mend: mend.into(),
    }
}

fn note(what: impl Into<String>) -> Finding {
    Finding {
        weight: Weight::Note,
        what: what.into(),
        mend: String::new(),
    }
}

fn ask(config: &Config, findings: &mut Vec<Finding>) -> Result<(), EdgeError> {
    let settings = Settings::from(&config.kafka);
    let admin = Admin::new(&settings, PATIENCE)?;
    // One sentence where nothing answers, not one for each topic.
    if let Err(error) = admin.broker_count() {
        let brokers = config.kafka.bootstrap_servers();
        findings.push(problem(
            format!("no answer from the cluster at `{brokers}`: {error}"),
            "check `kafka.\"bootstrap.servers\"`, the network, and the security properties in `[kafka]`",
        ));
        return Ok(());
    }
    let names = [
        (Role::Telemetry, Some(&config.telemetry.topic)),
        (Role::Zones, Some(&config.zones.topic)),
        (Role::Enriched, Some(&config.enriched.topic)),
        (Role::DeadLetter, config.dead_letter.topic.as_ref()),
    ];
    let mut known = Vec::new();
    for (role, name) in names {
        let Some(name) = name else { continue };
        let asked: Result<Known, EdgeError> = admin.topic(name).and_then(|topic| {
            let properties = if topic.is_some() {
                admin.properties(name)?
            } else {
                None
            };
            Ok(Known {
                role,
                name: name.clone(),
                topic,
                properties,
            })
        });
        match asked {
            Ok(topic) => known.push(topic),
            Err(error) => findings.push(problem(
                error.to_string(),
                format!("allow the principal to describe topic `{name}` and its configuration"),
            )),
        }
    }
    judge(config, &known, findings);
    for topic in &known {
        if let Some(found) = &topic.topic
            && topic.role == Role::Zones
        {
            match admin.offsets(&topic.name, &found.ids(), End::Log) {
                Ok(ranges) => {
                    let lengths = ranges.iter().map(|(_, range)| range.to.0 - range.from.0);
                    let records = lengths.sum();
                    findings.extend(no_zones(config, topic, records));
                    findings.push(bootstrap_cost(topic, records));
                }
                Err(error) => findings.push(problem(
                    error.to_string(),
                    "allow the principal to read the zones topic",
                )),
            }
        }
    }
    let questions = Questions::new(&settings, PATIENCE)?;
    cluster::ask(config, &known, &questions, findings);
    Ok(())
}

fn no_zones(config: &Config, zones: &Known, records: i64) -> Option<Finding> {
    (records == 0 && !config.zones.allow_empty).then(|| {
        warning(
            format!(
                "`{}` is empty: `run` enriches nothing until a zone is in force",
                zones.name
            ),
            "`ringfence zones import` brings some; or set `zones.allow_empty`",
        )
    })
}

fn bootstrap_cost(zones: &Known, records: i64) -> Finding {
    let lag = zones
        .number("min.compaction.lag.ms")
        .map_or(String::new(), |lag| {
            format!(
                "; compaction leaves about one per zone and the changes of the last {} h",
                lag / 3_600_000
            )
        });
    note(format!(
        "a start reads the zones topic whole: at most {records} records now{lag}"
    ))
}

/// What is wrong with the topics, given what is known of them.
fn judge(config: &Config, known: &[Known], findings: &mut Vec<Finding>) {
    for topic in known {
        let key = topic.role.key();
        let Some(found) = &topic.topic else {
            findings.push(problem(
                format!("topic `{}` (`{key}`) does not exist", topic.name),
                "`ringfence topics create` makes it; or mend the name",
            ));
            continue;
        };
        for (partition, _) in found
            .partitions
            .iter()
            .filter(|(_, leader)| leader.is_none())
        {
            findings.push(problem(
                format!("partition {partition} of `{}` has no leader", topic.name),
                "bring its broker back",
            ));
        }
        if topic.properties.is_none() {
            let taken_for = match topic.role {
                Role::Zones => "; `run` takes it for a topic without compaction",
                Role::Telemetry | Role::Enriched | Role::DeadLetter => "",
            };
            findings.push(warning(
                format!(
                    "the configuration of `{}` cannot be read, so it is not checked{taken_for}",
                    topic.name
                ),
                "allow the principal DescribeConfigs on it",
            ));
        }
        match topic.role {
            Role::Zones => judge_zones(config, topic, findings),
            Role::Telemetry => {}
            Role::Enriched | Role::DeadLetter => judge_output(topic, findings),
        }
    }
    judge_pairs(config, known, findings);
}

fn alter(topic: &str, property: &str, value: impl std::fmt::Display) -> String {
    format!(
        "kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {property}={value}"
    )
}

fn judge_zones(config: &Config, zones: &Known, findings: &mut Vec<Finding>) {
    let name = &zones.name;
    match (zones.property("message.timestamp.type"), config.gate.create_time_margin) {
        (Some("CreateTime"), None) => findings.push(problem(
            format!("`{name}` has CreateTime stamps: nothing says when its changes were stored"),
            format!("{}; or set `gate.create_time_margin_ms`", alter(name, "message.timestamp.type", "LogAppendTime")),
        )),
        (Some("LogAppendTime"), Some(_)) => findings.push(warning(
            format!("`gate.create_time_margin_ms` is set although `{name}` has LogAppendTime stamps: every event waits longer than it must"),
            "remove the key",
        )),
        _ => {}
    }
    let policy = zones.property("cleanup.policy").unwrap_or_default();
    if policy.contains("delete") && zones.number("retention.ms") != Some(-1) {
        findings.push(problem(
            format!("`{name}` deletes records by age: zones that do not change are lost"),
            alter(name, "cleanup.policy", "compact"),
        ));
    }
    let schedule = i128::try_from(config.gate.max_schedule.as_millis()).unwrap_or(i128::MAX);
    if let Some(lag) = zones.number("min.compaction.lag.ms")
        && policy.contains("compact")
        && lag < schedule
        && !config.gate.allow_short_lag
    {
        findings.push(problem(
            format!("`min.compaction.lag.ms` of `{name}` ({lag}) is below `gate.max_schedule_ms` ({schedule}): `run` refuses, as a scheduled change could be compacted away before it acts"),
            format!("{}; or lower `gate.max_schedule_ms`; or set `gate.allow_short_lag`", alter(name, "min.compaction.lag.ms", schedule)),
        ));
    }
    let largest = i128::try_from(config.zones.max_bytes).unwrap_or(i128::MAX);
    if let Some(limit) = zones
        .number("max.message.bytes")
        .filter(|limit| *limit < largest)
    {
        findings.push(warning(
            format!("`{name}` takes records of at most {limit} bytes, `zones.max_bytes` allows {largest}: larger zones cannot be written"),
            alter(name, "max.message.bytes", largest + (1 << 20)),
        ));
    }
}

fn judge_output(topic: &Known, findings: &mut Vec<Finding>) {
    let name = &topic.name;
    if topic
        .property("cleanup.policy")
        .is_some_and(|policy| policy.contains("compact"))
    {
        let mend = alter(name, "cleanup.policy", "delete");
        findings.push(match topic.role {
            // Records without a key are refused by a compacted topic, and a batch fails whole (KAFKA 0.7).
            Role::DeadLetter => problem(format!("`{name}` is compacted: dead letters without a key would be refused"), mend),
            _ => problem(format!("`{name}` is compacted: events without a key would be refused, others overwritten"), mend),
        });
    }
    if topic.property("message.timestamp.type") == Some("LogAppendTime") {
        findings.push(warning(
            format!(
                "`{name}` has LogAppendTime stamps: the events' own record timestamps are not kept"
            ),
            alter(name, "message.timestamp.type", "CreateTime"),
        ));
    }
}

fn judge_pairs(config: &Config, known: &[Known], findings: &mut Vec<Finding>) {
    let of = |role| {
        known
            .iter()
            .find(|topic| topic.role == role && topic.topic.is_some())
    };
    let (Some(source), Some(output)) = (of(Role::Telemetry), of(Role::Enriched)) else {
        return;
    };
    let count = |topic: &Known| {
        topic
            .topic
            .as_ref()
            .map_or(0, |topic| topic.partitions.len())
    };
    let (from, to) = (count(source), count(output));
    if from != to {
        let what = format!(
            "`{}` has {from} partitions, `{}` has {to}",
            source.name, output.name
        );
        let mend = "give both the same number, or set `enriched.partition = \"key\"`".to_owned();
        match config.enriched.partition {
            OutputPartition::Same => findings.push(problem(
                format!("{what}: `enriched.partition = \"same\"` cannot be kept"),
                mend,
            )),
            OutputPartition::Auto => findings.push(warning(
                format!("{what}: outputs go by key, so source order is kept per key only"),
                mend,
            )),
            OutputPartition::Key => {}
        }
    }
    let kept = |topic: &Known| {
        topic
            .number("retention.ms")
            .map(|ms| if ms < 0 { i128::MAX } else { ms })
    };
    if let (Some(in_source), Some(in_output)) = (kept(source), kept(output))
        && in_output < in_source
    {
        findings.push(warning(
            format!("`{}` keeps records for {in_output} ms, `{}` longer: outputs carry the events' stamps, so older ones vanish at once", output.name, source.name),
            alter(&output.name, "retention.ms", if in_source == i128::MAX { -1 } else { in_source }),
        ));
    }
    let largest = i128::try_from(config.telemetry.max_bytes).unwrap_or(i128::MAX);
    for topic in [Some(output), of(Role::DeadLetter)].into_iter().flatten() {
        if let Some(limit) = topic
            .number("max.message.bytes")
            .filter(|limit| *limit <= largest)
        {
            findings.push(warning(
                format!("`{}` takes records of at most {limit} bytes, events may have {largest} before anything is added: the largest are refused, `too_large`", topic.name),
                alter(&topic.name, "max.message.bytes", largest + (1 << 20)),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionId;

    fn topic(role: Role, name: &str, partitions: i32, properties: &[(&str, &str)]) -> Known {
        let property = |value: &str| TopicProperty {
            value: Some(value.to_owned()),
            is_set: true,
        };
        Known {
            role,
            name: name.to_owned(),
            topic: Some(Topic {
                partitions: (0..partitions)
                    .map(|id| (PartitionId(id), Some(1)))
                    .collect(),
                replication: 1,
            }),
            properties: Some(
                properties
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), property(value)))
                    .collect(),
            ),
        }
    }

    fn good() -> Vec<Known> {
        let events = [
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "CreateTime"),
            ("retention.ms", "604800000"),
            ("max.message.bytes", "2097152"),
        ];
        vec![
            topic(Role::Telemetry, "telemetry", 8, &events),
            topic(
                Role::Zones,
                "zones",
                4,
                &[
                    ("cleanup.policy", "compact"),
                    ("message.timestamp.type", "LogAppendTime"),
                    ("min.compaction.lag.ms", "604800000"),
                    ("max.message.bytes", "17825792"),
                ],
            ),
            topic(Role::Enriched, "telemetry.enriched", 8, &events),
            topic(Role::DeadLetter, "telemetry.dead-letter", 1, &events),
        ]
    }

    fn judged(known: &[Known]) -> Vec<Finding> {
        let mut findings = Vec::new();
        judge(&Config::defaults(), known, &mut findings);
        findings
    }

    fn with(role: Role, name: &str, value: &str) -> Vec<Finding> {
        let mut known = good();
        let topic = known
            .iter_mut()
            .find(|topic| topic.role == role)
            .expect("it is there");
        let property = TopicProperty {
            value: Some(value.to_owned()),
            is_set: true,
        };
        topic
            .properties
            .as_mut()
            .expect("known")
            .insert(name.to_owned(), property);
        judged(&known)
    }

    #[test]
    fn good_topics_give_no_finding() {
        assert!(judged(&good()).is_empty(), "{:?}", judged(&good()));
    }

    #[test]
    fn each_wrong_property_is_found_with_its_mend() {
        for (role, name, value, weight, words) in [
            (
                Role::Zones,
                "message.timestamp.type",
                "CreateTime",
                Weight::Problem,
                "CreateTime stamps",
            ),
            (
                Role::Zones,
                "cleanup.policy",
                "delete",
                Weight::Problem,
                "deletes records by age",
            ),
            (
                Role::Zones,
                "min.compaction.lag.ms",
                "0",
                Weight::Problem,
                "is below `gate.max_schedule_ms`",
            ),
            (
                Role::Zones,
                "max.message.bytes",
                "1048576",
                Weight::Warning,
                "larger zones cannot be written",
            ),
            (
                Role::Enriched,
                "cleanup.policy",
                "compact",
                Weight::Problem,
                "is compacted",
            ),
            (
                Role::DeadLetter,
                "cleanup.policy",
                "compact,delete",
                Weight::Problem,
                "dead letters without a key",
            ),
            (
                Role::Enriched,
                "message.timestamp.type",
                "LogAppendTime",
                Weight::Warning,
                "are not kept",
            ),
            (
                Role::Enriched,
                "retention.ms",
                "1000",
                Weight::Warning,
                "vanish at once",
            ),
            (
                Role::Telemetry,
                "retention.ms",
                "-1",
                Weight::Warning,
                "vanish at once",
            ),
            (
                Role::Enriched,
                "max.message.bytes",
                "1048576",
                Weight::Warning,
                "too_large",
            ),
        ] {
            let findings = with(role, name, value);
            let found = findings.iter().find(|finding| finding.what.contains(words));
            let found = found.unwrap_or_else(|| panic!("{name} = {value}: {findings:?}"));
            assert_eq!(found.weight, weight, "{name} = {value}");
            assert!(!found.mend.is_empty(), "{name} = {value}");
        }
    }

    #[test]
    fn missing_topics_and_leaders_are_all_named_at_once() {
        let mut known = good();
        known[0].topic = None;
        known[1].topic.as_mut().expect("there").partitions[2].1 = None;
        known[3].topic = None;
        let findings = judged(&known);
        let problems: Vec<_> = findings
            .iter()
            .map(|finding| finding.what.as_str())
            .collect();
        assert!(
            problems
                .iter()
                .any(|what| what.contains("`telemetry` (`telemetry.topic`) does not exist"))
        );
        assert!(problems.iter().any(|what| {
            what.contains("`telemetry.dead-letter` (`dead_letter.topic`) does not exist")
        }));
        assert!(
            problems
                .iter()
                .any(|what| what.contains("partition 2 of `zones` has no leader"))
        );
    }
}
