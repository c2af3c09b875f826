//! What values must be to each other: each rule says which keys, what they are, and why that cannot work.

use super::{Config, DeliveryMode, MatchMode, Problem, ProofKind, Read};

/// What the telemetry consumers are given unless `[kafka]` says otherwise (`kafka::client`).
const SESSION_TIMEOUT_MS: u64 = 10_000;

/// Adds what is wrong between keys that are right by themselves; of a key with a wrong value nothing more is said.
pub(super) fn together(config: &Config, read: &Read, problems: &mut Vec<Problem>) {
    let mut wrong = |keys: &[&str], message: String| {
        if !keys.iter().any(|key| read.is_wrong(key)) {
            problems.push(Problem::new(read.origin_of(keys), message));
        }
    };
    topics(config, &mut wrong);
    if let Err(faults) = config.fields() {
        for fault in faults {
            wrong(&fault.keys(), fault.to_string());
        }
    }
    gate(config, &mut wrong);
    delivery(config, &mut wrong);
    let drain = config.shutdown.drain_timeout.as_millis();
    let session = config
        .kafka
        .consumer()
        .get("session.timeout.ms")
        .map_or(Some(SESSION_TIMEOUT_MS), |text| text.parse().ok());
    // A text that is no number is librdkafka's to refuse.
    if let Some(session) = session.filter(|session| drain > u128::from(*session)) {
        wrong(
            &["shutdown.drain_timeout_ms"],
            format!(
                "`shutdown.drain_timeout_ms` ({drain}) must not be above `session.timeout.ms` ({session}): \
                 while a worker drains a revoked partition, the group waits for it no longer than that"
            ),
        );
    }
}

fn delivery(config: &Config, wrong: &mut impl FnMut(&[&str], String)) {
    if config.delivery.mode == DeliveryMode::ExactlyOnce && config.delivery.instance.is_none() {
        wrong(
            &["delivery.mode", "delivery.instance"],
            "`delivery.mode` = \"exactly_once\" needs `delivery.instance`: a name that this process keeps over restarts \
             and shares with no other, for its transactional ids"
                .to_owned(),
        );
    }
    if config.delivery.static_member {
        if config.delivery.instance.is_none() {
            wrong(
                &["delivery.static_member", "delivery.instance"],
                "`delivery.static_member` needs `delivery.instance`: a name that this process keeps over restarts and shares \
                 with no other"
                    .to_owned(),
            );
        }
        if config.kafka.consumer().get("group.protocol") == Some("consumer") {
            wrong(
                &["delivery.static_member"],
                "`delivery.static_member` is for the classic group protocol: with `group.protocol` = consumer a broker refuses \
                 a process that was killed and started again until the session of the dead one is over (45 s)"
                    .to_owned(),
            );
        }
    }
}

fn topics(config: &Config, wrong: &mut impl FnMut(&[&str], String)) {
    let mut named = vec![
        ("telemetry.topic", config.telemetry.topic.as_str()),
        ("zones.topic", config.zones.topic.as_str()),
        ("enriched.topic", config.enriched.topic.as_str()),
    ];
    named.extend(
        config
            .dead_letter
            .topic
            .as_deref()
            .map(|topic| ("dead_letter.topic", topic)),
    );
    for (i, (key, topic)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..i].iter().find(|(_, earlier)| earlier == topic) {
            wrong(
                &[key, other],
                format!("`{key}` and `{other}` are both `{topic}`: each topic has one use"),
            );
        }
    }
}

fn gate(config: &Config, wrong: &mut impl FnMut(&[&str], String)) {
    let gate = &config.gate;
    if gate.settle_margin > gate.settle_margin_max {
        wrong(
            &["gate.settle_margin_ms", "gate.settle_margin_max_ms"],
            format!(
                "`gate.settle_margin_ms` ({}) must not be above `gate.settle_margin_max_ms` ({})",
                gate.settle_margin.as_millis(),
                gate.settle_margin_max.as_millis()
            ),
        );
    }
    if let (Some(from), Some(until)) = (gate.match_from, gate.match_until)
        && from > until
    {
        wrong(
            &["gate.match_from", "gate.match_until"],
            format!("`gate.match_from` ({from}) must not be after `gate.match_until` ({until})"),
        );
    }
    if gate.proof == ProofKind::Marker && gate.create_time_margin.is_some() {
        wrong(
            &["gate.proof", "gate.create_time_margin_ms"],
            "`gate.proof` = \"marker\" goes by the brokers' stamps: it cannot be had with `gate.create_time_margin_ms`"
                .to_owned(),
        );
    }
    if gate.match_mode == MatchMode::Latest {
        for (key, set) in [
            ("gate.match_from", gate.match_from),
            ("gate.match_until", gate.match_until),
        ] {
            if set.is_some() {
                wrong(
                    &[key, "gate.match"],
                    format!(
                        "`{key}` clamps the events' own times, which `gate.match = \"latest\"` does not use"
                    ),
                );
            }
        }
    }
    if let (Some(floor), Some(until)) = (gate.floor, gate.match_until)
        && floor > until
    {
        wrong(
            &["gate.floor", "gate.match_until"],
            format!(
                "`gate.floor` ({floor}) must not be after `gate.match_until` ({until}): every event would be late"
            ),
        );
    }
}
