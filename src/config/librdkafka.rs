//! The `[kafka]` maps: any librdkafka property goes through, but those that Ringfence owns, since its promises hang on
//! them. Secrets never show in `Debug` or `config show`. Deliberately absent: which properties exist; librdkafka says.

use std::collections::BTreeMap;
use std::fmt;

/// Properties that Ringfence sets itself, each with what to do instead.
pub const OWNED: &[(&str, &str)] = &[
    (
        "acks",
        "every replica in sync must have a record before its offset is committed",
    ),
    (
        "request.required.acks",
        "every replica in sync must have a record before its offset is committed",
    ),
    ("auto.commit.interval.ms", "use `delivery.commit_ms`"),
    (
        "auto.commit.enable",
        "offsets are committed only when their output is acknowledged",
    ),
    (
        "auto.offset.reset",
        "use `telemetry.start` and `telemetry.on_out_of_range`",
    ),
    ("delivery.timeout.ms", "a record is never given up"),
    ("message.timeout.ms", "a record is never given up"),
    ("message.send.max.retries", "a record is never given up"),
    ("retries", "a record is never given up"),
    (
        "enable.auto.commit",
        "offsets are committed only when their output is acknowledged",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed only when their output is acknowledged",
    ),
    (
        "enable.gapless.guarantee",
        "order and completeness are kept by the ledger",
    ),
    ("enable.idempotence", "the producer is always idempotent"),
    (
        "enable.partition.eof",
        "the gate needs the ends of the zone partitions, and of no others",
    ),
    (
        "group.instance.id",
        "use `delivery.static_member` and `delivery.instance`; each worker is a member of its own",
    ),
    (
        "group.remote.assignor",
        "partitions are shared evenly, whatever their numbers",
    ),
    (
        "isolation.level",
        "zones and telemetry are read committed, end offsets uncommitted",
    ),
    (
        "allow.auto.create.topics",
        "topics are made by `ringfence topics create`",
    ),
    (
        "delivery.report.only.error",
        "every acknowledgement is needed",
    ),
    (
        "max.in.flight",
        "order rests on the idempotent producer's own limit",
    ),
    (
        "max.in.flight.requests.per.connection",
        "order rests on the idempotent producer's own limit",
    ),
    (
        "queue.buffering.max.messages",
        "use `delivery.in_flight_max`",
    ),
    (
        "queue.buffering.max.kbytes",
        "use `delivery.in_flight_max_bytes`",
    ),
    ("test.mock.num.brokers", "use `ringfence demo`"),
    ("metadata.broker.list", "use `bootstrap.servers`"),
    (
        "partition.assignment.strategy",
        "workers drain by cooperative-sticky assignment",
    ),
    ("partitioner", "use `enriched.partition`"),
    (
        "transactional.id",
        "use `delivery.mode` and `delivery.instance`",
    ),
];

/// Properties that hold for all clients alike, so only `[kafka]` may set them.
const SHARED: &[&str] = &["bootstrap.servers", "group.id"];

/// Why `property` may not be set in `section` (`kafka`, or `kafka.consumer` and so on), or `None` where it may.
#[must_use]
pub fn refusal(section: &str, property: &str) -> Option<String> {
    if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == property) {
        return Some(format!(
            "`{property}` is set by Ringfence itself: {instead}"
        ));
    }
    // The other consumers only assign: a protocol would be nothing to them.
    if section != "kafka.consumer" && property == "group.protocol" {
        return Some(format!("set `{property}` in `[kafka.consumer]`"));
    }
    if section != "kafka" && SHARED.contains(&property) {
        return Some(format!(
            "`{property}` is one for all clients: set it in `[kafka]`"
        ));
    }
    None
}

/// Whether a property's value must not be shown.
#[must_use]
pub fn is_secret(property: &str) -> bool {
    [
        "password",
        "secret",
        "passphrase",
        "key.pem",
        "token",
        "oauthbearer.config",
        "sasl.jaas",
    ]
    .iter()
    .any(|mark| property.contains(mark))
}

/// librdkafka properties by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Sets a property; the last one set holds.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// The value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All properties, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// These properties with `over` laid upon them.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut merged = self.clone();
        merged.0.extend(
            over.0
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        merged
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (name, if is_secret(name) { "***" } else { value })),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_properties_are_refused_with_what_to_do_instead() {
        let message = refusal("kafka.consumer", "auto.offset.reset").expect("owned");
        assert!(message.contains("telemetry.start"), "{message}");
        assert_eq!(refusal("kafka", "sasl.mechanism"), None);
        assert!(refusal("kafka.zones", "group.id").is_some());
        assert_eq!(refusal("kafka", "group.id"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut properties = Properties::default();
        properties.set("sasl.password", "hunter2");
        properties.set("sasl.username", "me");
        let shown = format!("{properties:?}");
        assert!(
            !shown.contains("hunter2") && shown.contains("me"),
            "{shown}"
        );
    }
}
