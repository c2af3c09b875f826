//! `topics create`: makes the topics that are missing, right, and says what those that exist have otherwise. What is
//! right stands in `wanted` alone; `check` judges by the same list.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{Context, Failure, Outcome};
use crate::config::Config;
use crate::kafka::admin::{Admin, Topic, TopicProperty, TopicSpec};
use crate::kafka::client::Settings;

/// How long the cluster may take for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a record may grow by on its way: headers, zone ids (INTERFACE).
const GROWTH_BYTES: usize = 1 << 20;

/// Arguments of `topics`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ringfence topics create --dry-run")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Create what is missing; say what exists and differs.
    #[command(
        after_help = "Examples:\n  ringfence topics create --dry-run\n  ringfence topics create --partitions 16 --replication 3\n  ringfence topics create --retention -1        for reprocessing: copied stamps may be old"
    )]
    Create(Shape),
}

/// How the topics are made.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Shape {
    /// Partitions of the telemetry and the enriched topic.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    partitions: i32,
    /// Partitions of the zones topic.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    zone_partitions: i32,
    /// Replicas of each partition [default: the broker's].
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=100))]
    replication: Option<i32>,
    /// How long telemetry, enriched and dead-letter records are kept; -1 = for ever.
    #[arg(long, default_value = "7d", value_parser = retention, allow_hyphen_values = true)]
    retention: i64,
    /// How long the zones topic keeps every change uncompacted: so far back answers are exact after a restart.
    #[arg(long, default_value = "7d", value_parser = super::duration)]
    zone_lag: Duration,
    /// Say what would be done, do nothing.
    #[arg(long)]
    dry_run: bool,
}

fn retention(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    super::duration(text).map(|kept| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX))
}

/// What a topic is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Telemetry,
    Zones,
    Enriched,
    DeadLetter,
}

impl Role {
    /// The configuration key that names the topic.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry.topic",
            Self::Zones => "zones.topic",
            Self::Enriched => "enriched.topic",
            Self::DeadLetter => "dead_letter.topic",
        }
    }
}

/// The topics as they should be.
pub(super) fn wanted(config: &Config, shape: &Shape) -> Vec<(Role, TopicSpec)> {
    let text = |value: usize| value.to_string();
    let spec = |name: &str, partitions, properties: Vec<(&str, String)>| TopicSpec {
        name: name.to_owned(),
        partitions,
        replication: shape.replication,
        properties: properties
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    };
    let events = |largest: usize| {
        vec![
            ("cleanup.policy", "delete".to_owned()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            ("retention.ms", shape.retention.to_string()),
            ("max.message.bytes", text(largest + GROWTH_BYTES)),
        ]
    };
    let lag = shape.zone_lag.as_millis().to_string();
    let zones = vec![
        ("cleanup.policy", "compact".to_owned()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("min.compaction.lag.ms", lag.clone()),
        ("delete.retention.ms", lag),
        (
            "max.message.bytes",
            text(config.zones.max_bytes + GROWTH_BYTES),
        ),
    ];
    let event_max = config.telemetry.max_bytes;
    let mut topics = vec![
        (
            Role::Telemetry,
            spec(&config.telemetry.topic, shape.partitions, events(event_max)),
        ),
        (
            Role::Zones,
            spec(&config.zones.topic, shape.zone_partitions, zones),
        ),
        (
            Role::Enriched,
            spec(&config.enriched.topic, shape.partitions, events(event_max)),
        ),
    ];
    if let Some(name) = &config.dead_letter.topic {
        // It takes refused zone changes too, whole.
        topics.push((
            Role::DeadLetter,
            spec(name, 1, events(event_max.max(config.zones.max_bytes))),
        ));
    }
    topics
}

/// How a topic that exists differs from what is wanted: one sentence each.
fn differences(
    spec: &TopicSpec,
    topic: &Topic,
    properties: Option<&BTreeMap<String, TopicProperty>>,
) -> Vec<String> {
    let mut found = Vec::new();
    let partitions = topic.partitions.len();
    if usize::try_from(spec.partitions) != Ok(partitions) {
        found.push(format!("{partitions} partitions, not {}", spec.partitions));
    }
    if let Some(replication) = spec.replication
        && usize::try_from(replication) != Ok(topic.replication)
    {
        found.push(format!("{} replicas, not {replication}", topic.replication));
    }
    for (name, value) in &spec.properties {
        let has = properties
            .and_then(|properties| properties.get(name))
            .and_then(|has| has.value.as_deref());
        if let Some(has) = has.filter(|has| has != value) {
            found.push(format!("{name} = {has}, not {value}"));
        }
    }
    found
}

/// Creates the topics.
///
/// # Errors
/// A wrong configuration, or a cluster that does not answer or refuses.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let What::Create(shape) = &args.what;
    let config = context.kafka_config()?;
    let failed = |error: crate::kafka::EdgeError| Failure::Failed(error.to_string());
    let admin = Admin::new(&Settings::from(&config.kafka), PATIENCE).map_err(failed)?;
    let mut refused = Vec::new();
    for (_, spec) in wanted(&config, shape) {
        let (state, details) = match admin.topic(&spec.name).map_err(failed)? {
            Some(topic) => {
                let properties = admin.properties(&spec.name).map_err(failed)?;
                let found = differences(&spec, &topic, properties.as_ref());
                (
                    if found.is_empty() {
                        "exists"
                    } else {
                        "differs"
                    },
                    found,
                )
            }
            None => match admin.create_topic(&spec, shape.dry_run) {
                Ok(()) if shape.dry_run => ("would be created", Vec::new()),
                Ok(()) => ("created", Vec::new()),
                Err(error) => {
                    let mend = if error.lacks_brokers() {
                        "; the cluster has fewer brokers: `--replication 1` does with one"
                    } else {
                        ""
                    };
                    refused.push(format!("{error}{mend}"));
                    continue;
                }
            },
        };
        if context.json {
            let properties: BTreeMap<_, _> = spec.properties.iter().cloned().collect();
            context.report_json(&json!({
                "topic": spec.name, "state": state, "differences": details,
                "partitions": spec.partitions, "properties": properties,
            }));
        } else {
            context.report(line(&spec, state, &details));
        }
    }
    if refused.is_empty() {
        Ok(Outcome::Done)
    } else {
        Err(Failure::Failed(refused.join("\n")))
    }
}

fn line(spec: &TopicSpec, state: &str, details: &[String]) -> String {
    let mut line = format!("{}: {state}", spec.name);
    if state.ends_with("created") {
        let properties: Vec<_> = spec
            .properties
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        line.push_str(&format!(
            ", {} partitions, {}",
            spec.partitions,
            properties.join(", ")
        ));
    } else if !details.is_empty() {
        line.push_str(": ");
        line.push_str(&details.join("; "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::PartitionId;

    fn shape() -> Shape {
        Shape {
            partitions: 8,
            zone_partitions: 4,
            replication: None,
            retention: -1,
            zone_lag: Duration::from_secs(60),
            dry_run: false,
        }
    }

    #[test]
    fn zones_are_stamped_by_the_broker_and_never_deleted_by_age() {
        let config = Config::defaults();
        let topics = wanted(&config, &shape());
        let (_, zones) = topics
            .iter()
            .find(|(role, _)| *role == Role::Zones)
            .expect("a zones topic");
        let has = |name: &str, value: &str| {
            zones
                .properties
                .contains(&(name.to_owned(), value.to_owned()))
        };
        assert!(has("message.timestamp.type", "LogAppendTime") && has("cleanup.policy", "compact"));
        assert!(has("min.compaction.lag.ms", "60000") && has("max.message.bytes", "17825792"));
        let partitions = |role| {
            topics
                .iter()
                .find(|(of, _)| *of == role)
                .map(|(_, spec)| spec.partitions)
        };
        assert_eq!(partitions(Role::Telemetry), partitions(Role::Enriched));
        assert_eq!(partitions(Role::DeadLetter), Some(1));
    }

    #[test]
    fn what_differs_is_said_and_what_is_not_known_is_not_guessed() {
        let config = Config::defaults();
        let (_, spec) = wanted(&config, &shape()).remove(0);
        let topic = Topic {
            partitions: vec![(PartitionId(0), Some(1))],
            replication: 1,
        };
        let compacted = TopicProperty {
            value: Some("compact".to_owned()),
            is_set: true,
        };
        let properties = BTreeMap::from([("cleanup.policy".to_owned(), compacted)]);
        assert_eq!(
            differences(&spec, &topic, Some(&properties)),
            [
                "1 partitions, not 8",
                "cleanup.policy = compact, not delete"
            ]
        );
        assert_eq!(differences(&spec, &topic, None), ["1 partitions, not 8"]);
    }

    #[test]
    fn retention_for_ever_is_minus_one() {
        assert_eq!(retention("-1"), Ok(-1));
        assert_eq!(retention("7d"), Ok(604_800_000));
        assert!(retention("-2").is_err());
    }
}
