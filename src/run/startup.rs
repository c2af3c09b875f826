//! What the cluster must say before anything starts: topics, their types and limits. What cannot be right is refused
//! here; what may come right by itself is waited for, not ready and with the reason.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::RunError;
use super::report::Report;
use super::zone_side::ZoneSideSettings;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::gate::{GateConfig, ProofKind, ZonesTopic};
use crate::index::EngineKind;
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, Topic, TopicProperty};
use crate::kafka::client::Settings;
use crate::kafka::worker::{ExactlyOnce, StartAt, WorkerSettings};
use crate::pipeline::transaction::StandStill;
use crate::pipeline::{
    AtRules, BreakerRules, Limits, MatchMode, OnInvalid, OnLate, OnStall, Partitioning,
    PipelineConfig,
};
use crate::shutdown::Shutdown;

/// How long one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait before asking again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A topic is missed only once it was not there so many times: one made a moment ago is not known to every broker yet.
const MISSED_TIMES: u32 = 4;
/// The largest record of a topic where the broker does not tell: Kafka's own default.
const MAX_MESSAGE_BYTES: usize = 1_048_588;
/// Kafka's own default of `delete.retention.ms`.
const DELETE_RETENTION: Duration = Duration::from_secs(86_400);

type Properties = Option<BTreeMap<String, TopicProperty>>;

/// What the cluster says of the zones topic.
pub(super) struct ZonesFacts {
    topic: ZonesTopic,
    /// With the longest record that it takes.
    dead_letter: Option<(String, usize)>,
}

/// What a worker is told.
pub(super) struct WorkersPlan {
    pub(super) worker: WorkerSettings,
    pub(super) pipeline: PipelineConfig,
}

/// Asks until there is an answer, or the process is to end (`None`).
fn ask<T>(
    shutdown: &Shutdown,
    report: &Report,
    mut question: impl FnMut() -> Result<T, EdgeError>,
) -> Result<Option<T>, RunError> {
    loop {
        match question() {
            Ok(answer) => {
                report.waits_for(String::new());
                return Ok(Some(answer));
            }
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "waiting");
                report.waits_for(error.to_string());
            }
            Err(error) => return Err(RunError::new(error)),
        }
        let mut waited = Duration::ZERO;
        while waited < AGAIN_AFTER {
            if shutdown.is_requested() {
                return Ok(None);
            }
            std::thread::park_timeout(Duration::from_millis(50));
            waited += Duration::from_millis(50);
        }
    }
}

fn admin(kafka: &Settings) -> Result<Admin, RunError> {
    Admin::new(kafka, ANSWER_WITHIN).map_err(RunError::new)
}

/// Asks until there is an answer what a topic's properties are; within it `None` where they are not told.
fn properties(
    admin: &Admin,
    topic: &str,
    shutdown: &Shutdown,
    report: &Report,
) -> Result<Option<Properties>, RunError> {
    ask(shutdown, report, || admin.properties(topic))
}

fn millis(properties: &Properties, name: &str) -> Option<Duration> {
    let value = properties.as_ref()?.get(name)?.value.as_ref()?;
    // Kafka says -1 or a huge number for "for ever".
    let millis: i64 = value.parse().ok()?;
    Some(Duration::from_millis(
        u64::try_from(millis).unwrap_or(u64::MAX / 4),
    ))
}

/// The compaction lag of a topic; `None` where it is not compacted. What a cluster does not tell is taken for the worse
/// (DESIGN 4: zero if unknown), so that no answer is called exact that the topic may have lost; the embedded one never compacts.
fn compaction_lag(properties: &Properties, is_embedded: bool) -> Option<Duration> {
    let policy = properties
        .as_ref()
        .and_then(|all| all.get("cleanup.policy")?.value.as_deref());
    policy
        .map_or(!is_embedded, |policy| policy.contains("compact"))
        .then(|| millis(properties, "min.compaction.lag.ms").unwrap_or_default())
}

/// The compaction lag of the zones topic, unless it is too short for what may be scheduled.
fn judged_lag(
    config: &Config,
    properties: &Properties,
    is_embedded: bool,
) -> Result<Option<Duration>, RunError> {
    let topic = &config.zones.topic;
    let lag = compaction_lag(properties, is_embedded);
    if properties.is_none() && !is_embedded {
        tracing::warn!(
            topic,
            "the cluster does not tell the topic's configuration (DescribeConfigs): taken for compacted without a lag, so \
             events from before this start are `late`"
        );
    } else if let Some(lag) = lag
        && lag < config.gate.max_schedule
        && !config.gate.allow_short_lag
    {
        return Err(RunError::new(format!(
            "topic `{topic}` is compacted with `min.compaction.lag.ms` = {} below `gate.max_schedule_ms` = {}: a \
             scheduled change could vanish before it acts; raise the lag, or set `gate.allow_short_lag`",
            lag.as_millis(),
            config.gate.max_schedule.as_millis()
        )));
    }
    Ok(lag)
}

/// Finds the zones topic, and refuses what cannot give right answers.
pub(super) fn zones_facts(
    config: &Config,
    kafka: &Settings,
    shutdown: &Shutdown,
    report: &Report,
) -> Result<Option<ZonesFacts>, RunError> {
    let admin = admin(kafka)?;
    let topic = &config.zones.topic;
    // The cluster must answer before a topic can be missed.
    let Some(_) = ask(shutdown, report, || admin.broker_count())? else {
        return Ok(None);
    };
    if !topics_are_there(config, &admin, shutdown, report)? {
        return Ok(None);
    }
    let Some(found) = ask(shutdown, report, || admin.existing(topic))? else {
        return Ok(None);
    };
    let Some(properties) = properties(&admin, topic, shutdown, report)? else {
        return Ok(None);
    };
    let text = |name: &str| {
        properties
            .as_ref()
            .and_then(|all| all.get(name))
            .and_then(|one| one.value.as_deref())
    };
    if text("message.timestamp.type").is_some_and(|kind| kind != "LogAppendTime")
        && config.gate.create_time_margin.is_none()
    {
        return Err(RunError::new(format!(
            "topic `{topic}` has `message.timestamp.type` = CreateTime: set it to LogAppendTime, or set \
             `gate.create_time_margin_ms` to how far off its producers' clocks may be"
        )));
    }
    let Some(is_embedded) = ask(shutdown, report, || admin.is_embedded())? else {
        return Ok(None);
    };
    let compaction_lag = judged_lag(config, &properties, is_embedded)?;
    let dead_letter = match &config.dead_letter.topic {
        Some(topic) => match max_message_bytes(&admin, topic, shutdown, report)? {
            Some(bytes) => Some((topic.clone(), bytes)),
            None => return Ok(None),
        },
        None => None,
    };
    let retention = millis(&properties, "delete.retention.ms").unwrap_or(DELETE_RETENTION);
    Ok(Some(ZonesFacts {
        topic: ZonesTopic {
            partitions: found.ids(),
            compaction_lag,
            delete_retention: retention,
        },
        dead_letter,
    }))
}

/// Names every topic that must be there and is not; false where it was told to stop.
fn topics_are_there(
    config: &Config,
    admin: &Admin,
    shutdown: &Shutdown,
    report: &Report,
) -> Result<bool, RunError> {
    let mut times = 0;
    let missing = ask(shutdown, report, || {
        times += 1;
        let missing = missing_topics(config, admin);
        match missing.first() {
            Some(topic) if times < MISSED_TIMES => Err(EdgeError::NoSuchTopic((*topic).clone())),
            _ => Ok(missing),
        }
    })?;
    match missing {
        None => Ok(false),
        Some(missing) if missing.is_empty() => Ok(true),
        Some(missing) => {
            let missing: Vec<_> = missing.iter().map(|name| format!("`{name}`")).collect();
            Err(RunError::new(format!(
                "these topics do not exist: {}; `ringfence topics create` makes them",
                missing.join(", ")
            )))
        }
    }
}

/// The topics that must be there and are not. The telemetry topic may come later (FS-65).
fn missing_topics<'c>(config: &'c Config, admin: &Admin) -> Vec<&'c String> {
    let needed = [
        Some(&config.zones.topic),
        Some(&config.enriched.topic),
        config.dead_letter.topic.as_ref(),
    ];
    let is_missing = |topic: &&String| matches!(admin.topic(topic), Ok(None));
    needed.into_iter().flatten().filter(is_missing).collect()
}

/// What the zones side is told.
pub(super) fn zone_side(config: &Config, facts: ZonesFacts) -> ZoneSideSettings {
    let gate = &config.gate;
    let margin = gate.create_time_margin.unwrap_or(gate.settle_margin);
    let is_event = gate.match_mode == config::MatchMode::Event;
    ZoneSideSettings {
        topic: config.zones.topic.clone(),
        dead_letter: facts.dead_letter,
        rules: config.zone_rules(),
        gate: GateConfig {
            settle_margin: margin,
            settle_margin_max: gate.settle_margin_max.max(margin),
            proof: match gate.proof {
                config::ProofKind::End => ProofKind::End,
                config::ProofKind::Marker => ProofKind::Marker,
            },
            max_schedule: gate.max_schedule,
            history_bytes_max: gate.history_bytes,
            floor: gate.floor,
            staging_max: gate.staging_max,
            staging_bytes_max: gate.staging_max_bytes,
            live_snapshots_max: config.index.max_live_snapshots,
            engine: EngineKind::from_name(config.index.engine.as_str()).unwrap_or_default(),
            allow_empty: config.zones.allow_empty,
        },
        zones_topic: facts.topic,
        proof_interval: gate.proof_interval,
        create_time_allowed: gate.create_time_margin.is_some(),
        match_bounds: [
            ("match_from", gate.match_from.filter(|_| is_event)),
            ("match_until", gate.match_until.filter(|_| is_event)),
        ],
    }
}

/// How many partitions the workers' topics have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct PartitionCounts {
    pub(super) source: usize,
    pub(super) enriched: NonZeroU32,
}

impl PartitionCounts {
    fn of(telemetry: &Topic, enriched: &Topic) -> Self {
        let count = u32::try_from(enriched.partitions.len()).unwrap_or(u32::MAX);
        Self {
            source: telemetry.partitions.len(),
            enriched: NonZeroU32::new(count).expect("a topic has partitions"),
        }
    }
}

/// How many partitions they have now; `None` where the cluster does not say.
pub(super) fn partition_counts(config: &Config, admin: &Admin) -> Option<PartitionCounts> {
    let telemetry = admin.topic(&config.telemetry.topic).ok()??;
    let enriched = admin.topic(&config.enriched.topic).ok()??;
    Some(PartitionCounts::of(&telemetry, &enriched))
}

/// `enriched.partition`, decided for these counts.
pub(super) fn partitioning(
    config: &Config,
    counts: PartitionCounts,
) -> Result<Partitioning, RunError> {
    let source_count = u32::try_from(counts.source).unwrap_or(u32::MAX);
    let enriched_count = counts.enriched;
    Ok(match config.enriched.partition {
        config::OutputPartition::Auto => Partitioning::decide(source_count, enriched_count),
        config::OutputPartition::Key => Partitioning::Key(enriched_count),
        config::OutputPartition::Same if source_count > enriched_count.get() => {
            return Err(RunError::new(format!(
                "`enriched.partition` = \"same\", but topic `{}` has {enriched_count} partitions and `{}` \
                 {source_count}",
                config.enriched.topic, config.telemetry.topic
            )));
        }
        config::OutputPartition::Same => Partitioning::Same,
    })
}

/// The brokers' word for how long a silent member keeps its partitions in the new group protocol (KIP-848).
const SESSION_TIMEOUT: &str = "group.consumer.session.timeout.ms";

/// What the workers are told, once the telemetry topic is there.
pub(super) fn workers_plan(
    config: &Config,
    kafka: &Settings,
    shutdown: &Shutdown,
    report: &Report,
) -> Result<Option<WorkersPlan>, RunError> {
    let admin = admin(kafka)?;
    let Some(telemetry) = ask(shutdown, report, || admin.existing(&config.telemetry.topic))? else {
        return Ok(None);
    };
    let Some(enriched) = ask(shutdown, report, || admin.existing(&config.enriched.topic))? else {
        return Ok(None);
    };
    report.knows_topics(telemetry.partitions.len());
    let partitioning = partitioning(config, PartitionCounts::of(&telemetry, &enriched))?;
    let mut pipeline = PipelineConfig::new(
        config
            .fields()
            .map_err(|_| RunError::new("the telemetry fields are wrong"))?,
        &config.telemetry.topic,
    );
    pipeline.at = at_rules(config);
    pipeline.on_invalid = match config.telemetry.on_invalid {
        config::OnInvalidEvent::DeadLetter => OnInvalid::DeadLetter,
        config::OnInvalidEvent::Forward => OnInvalid::Forward,
        config::OnInvalidEvent::Drop => OnInvalid::Drop,
    };
    pipeline.headers = config.enriched.added_headers();
    pipeline.partitioning = partitioning;
    let max_bytes = |topic| max_message_bytes(&admin, topic, shutdown, report);
    let Some(enriched_max_bytes) = max_bytes(&config.enriched.topic)? else {
        return Ok(None);
    };
    pipeline.enriched_max_bytes = enriched_max_bytes;
    pipeline.dead_letter_max_bytes = match &config.dead_letter.topic {
        Some(topic) => match max_bytes(topic)? {
            Some(bytes) => Some(bytes),
            None => return Ok(None),
        },
        None => None,
    };
    pipeline.breaker = breaker_rules(config);
    pipeline.limits = Limits {
        hold_max: config.delivery.hold_max,
        hold_max_bytes: config.delivery.hold_max_bytes,
        in_flight_max: config.delivery.in_flight_max,
        in_flight_max_bytes: config.delivery.in_flight_max_bytes,
    };
    let Some(session_timeout) = session_timeout(config, kafka, &admin, shutdown, report)? else {
        return Ok(None);
    };
    let end = |end| match end {
        config::LogEnd::Earliest => StartAt::Earliest,
        config::LogEnd::Latest => StartAt::Latest,
    };
    let worker = WorkerSettings {
        telemetry_topic: config.telemetry.topic.clone(),
        enriched_topic: config.enriched.topic.clone(),
        dead_letter_topic: config.dead_letter.topic.clone(),
        start: end(config.telemetry.start),
        partitions_at_start: i32::try_from(telemetry.partitions.len()).unwrap_or(i32::MAX),
        on_out_of_range: match config.telemetry.on_out_of_range {
            config::OnOutOfRange::Stop => None,
            config::OnOutOfRange::Earliest => Some(StartAt::Earliest),
            config::OnOutOfRange::Latest => Some(StartAt::Latest),
        },
        commit_interval: config.delivery.commit_interval,
        exactly_once: exactly_once(config, kafka, session_timeout),
        static_member: (config.delivery.instance.clone()).filter(|_| config.delivery.static_member),
        drain_timeout: config.shutdown.drain_timeout,
    };
    Ok(Some(WorkersPlan { worker, pipeline }))
}

/// For how long the group waits for a silent member, as far as it matters (`exactly_once`). In the new protocol the brokers
/// decide it.
fn session_timeout(
    config: &Config,
    kafka: &Settings,
    admin: &Admin,
    shutdown: &Shutdown,
    report: &Report,
) -> Result<Option<Duration>, RunError> {
    let known = kafka.session_timeout();
    if kafka.is_classic() || config.delivery.mode != config::DeliveryMode::ExactlyOnce {
        return Ok(Some(known));
    }
    let told = ask(shutdown, report, || admin.broker_property(SESSION_TIMEOUT))?;
    Ok(told.map(|told| {
        let millis = told.and_then(|value| value.parse().ok());
        millis.map_or(known, Duration::from_millis)
    }))
}

/// What workers are told of `exactly_once`; `None` in the other mode.
fn exactly_once(
    config: &Config,
    kafka: &Settings,
    session_timeout: Duration,
) -> Option<ExactlyOnce> {
    let delivery = &config.delivery;
    if delivery.mode != config::DeliveryMode::ExactlyOnce {
        return None;
    }
    let instance = delivery.instance.as_deref()?;
    Some(ExactlyOnce {
        // Ids are one space for the whole cluster: the group's name keeps two deployments apart.
        transactional_id: format!("{}.{instance}", kafka.group()),
        transaction_timeout: kafka.transaction_timeout(),
        session_timeout,
    })
}

/// What tells, in `exactly_once`, that the process stood still while it had no worker.
pub(super) fn stand_still(config: &Config, kafka: &Settings) -> Option<StandStill> {
    let once = exactly_once(config, kafka, kafka.session_timeout())?;
    Some(StandStill::new(once.stand_still_limit(), Clock::mono()))
}

fn breaker_rules(config: &Config) -> BreakerRules {
    BreakerRules {
        percent: config.dead_letter.breaker_percent,
        window: config.dead_letter.breaker_records,
        retry: config.dead_letter.breaker_retry,
    }
}

fn at_rules(config: &Config) -> AtRules {
    let gate = &config.gate;
    AtRules {
        mode: match gate.match_mode {
            config::MatchMode::Event => MatchMode::Event {
                from: gate.match_from,
                until: gate.match_until,
            },
            config::MatchMode::Latest => MatchMode::Latest,
        },
        // Every event waits for the margin itself, a wide one included; the rest is what a stall may take.
        max_wait: gate.max_wait + gate.create_time_margin.unwrap_or_default(),
        max_ahead: gate.max_ahead,
        on_stall: match gate.on_stall {
            config::OnStall::Unsettled => OnStall::Unsettled,
            config::OnStall::Wait => OnStall::Wait,
        },
        on_late: match gate.on_late {
            config::OnLate::Floor => OnLate::Floor,
            config::OnLate::DeadLetter => OnLate::DeadLetter,
        },
    }
}

fn max_message_bytes(
    admin: &Admin,
    topic: &str,
    shutdown: &Shutdown,
    report: &Report,
) -> Result<Option<usize>, RunError> {
    let Some(properties) = properties(admin, topic, shutdown, report)? else {
        return Ok(None);
    };
    let value = properties
        .as_ref()
        .and_then(|all| all.get("max.message.bytes"))
        .and_then(|one| one.value.as_ref());
    let bytes = value.and_then(|value| value.parse().ok());
    Ok(Some(bytes.unwrap_or(MAX_MESSAGE_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::admin::TopicProperty;

    #[test]
    fn a_topic_whose_configuration_is_not_told_is_taken_for_compacted_without_a_lag() {
        let told = |policy: &str| {
            let property = |value: &str| TopicProperty {
                value: Some(value.to_owned()),
                is_set: true,
            };
            Some(BTreeMap::from([
                ("cleanup.policy".to_owned(), property(policy)),
                ("min.compaction.lag.ms".to_owned(), property("7000")),
            ]))
        };
        let seven = Some(Duration::from_secs(7));
        assert_eq!(compaction_lag(&told("delete"), false), None);
        assert_eq!(compaction_lag(&told("compact"), false), seven);
        assert_eq!(compaction_lag(&told("compact,delete"), false), seven);
        assert_eq!(compaction_lag(&None, false), Some(Duration::ZERO));
        assert_eq!(compaction_lag(&None, true), None);
    }
}
