//! The typed configuration: [`load`] reads the file, `RINGFENCE__…` variables and `--set` by the table in [`keys`],
//! checks single values and what they say together, and reports every problem at once. What it returns is whole and
//! valid; nothing below checks again. Deliberately absent: keys that come with later issues.

mod check;
pub mod keys;
pub mod librdkafka;
pub mod render;
mod source;
mod types;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::geometry::OnInvalid;
use crate::time::EventTime;
use keys::KEYS;
use librdkafka::Properties;
pub use source::{Sources, VARIABLE_PREFIX};
pub use types::*;
pub use value::Origin;
use value::Value;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    pub(super) fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            origin,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.origin)
    }
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One key with the value that holds, fit to be shown.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The dotted name.
    pub name: String,
    /// The value; `***` for a secret, null where unset.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: Origin,
}

/// A configuration with where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The same to be shown: every key, secrets redacted.
    pub settings: Vec<Setting>,
}

/// A property that somebody else than this module refuses, as librdkafka does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedProperty {
    /// The properties that it is about, as `kafka.consumer.fetch.max.bytes`; may be none.
    pub keys: Vec<String>,
    /// Why.
    pub message: String,
}

/// Reads and checks the configuration.
///
/// # Errors
/// Every problem there is, not only the first.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    load_with(sources, |_| Vec::new())
}

/// Reads and checks the configuration, and adds what `refused` says of its properties. That is asked in any case: all
/// problems are reported at once, so keys with a wrong value have their default then.
///
/// # Errors
/// Every problem there is, not only the first.
pub fn load_with(
    sources: &Sources,
    refused: impl FnOnce(&Config) -> Vec<RefusedProperty>,
) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let mut read = Read::defaults();
    for written in sources.read(&mut problems) {
        read.apply(written, &mut problems);
    }
    let config = read.config();
    check::together(&config, &read, &mut problems);
    for RefusedProperty { keys, message } in refused(&config) {
        let origin = keys.first().and_then(|key| read.origin_of_property(key));
        let what = if keys.is_empty() {
            "[kafka]".to_owned()
        } else {
            keys.join("`, `")
        };
        problems.push(Problem::new(
            origin.unwrap_or(Origin::Default),
            format!("`{what}`: {message}"),
        ));
    }
    if problems.is_empty() {
        Ok(Loaded {
            settings: read.settings(),
            config,
        })
    } else {
        Err(ConfigError { problems })
    }
}

/// Values by name as they are being read, the strongest source last.
struct Read {
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// By section (`kafka`, `kafka.consumer`, …) and property: value, origin, whether it may be a secret.
    properties: BTreeMap<(&'static str, String), (String, Origin, bool)>,
    /// Keys with a value that is wrong by itself.
    wrong: BTreeSet<&'static str>,
}

/// The `[kafka]` sections; a property's section is the longest that its name begins with.
const KAFKA_SECTIONS: [&str; 4] = ["kafka.consumer", "kafka.zones", "kafka.producer", "kafka"];

impl Read {
    fn defaults() -> Self {
        let values = KEYS
            .iter()
            .map(|key| (key.name, (Value::of_default(key.default), Origin::Default)))
            .collect();
        let properties = render::KAFKA_DEFAULTS
            .iter()
            .map(|(name, value, _)| {
                (
                    ("kafka", (*name).to_owned()),
                    ((*value).to_owned(), Origin::Default, false),
                )
            })
            .collect();
        Self {
            values,
            properties,
            wrong: BTreeSet::new(),
        }
    }

    fn apply(&mut self, written: source::Written, problems: &mut Vec<Problem>) {
        let source::Written {
            name,
            raw,
            origin,
            referred,
        } = written;
        let mut wrong = |origin, message: String| problems.push(Problem::new(origin, message));
        if let Some((section, property)) = kafka_property(&name) {
            // Taken for properties of `[kafka]`, these two may be shown as what no file can say.
            if property.is_empty() {
                return wrong(origin, format!("`{name}` names no property"));
            }
            if KAFKA_SECTIONS.contains(&name.as_str()) {
                return wrong(origin, format!("`{name}` is a section, not a property"));
            }
            if let Some(refusal) = librdkafka::refusal(section, property) {
                return wrong(origin, format!("`[{section}]`: {refusal}"));
            }
            match raw.property() {
                Ok(text) if property == "bootstrap.servers" && text.trim().is_empty() => {
                    wrong(
                        origin,
                        "`kafka.bootstrap.servers` must name a broker".to_owned(),
                    );
                }
                Ok(text) if property == "group.id" && text.is_empty() => {
                    wrong(origin, "`kafka.group.id` must not be empty".to_owned());
                }
                Ok(text) => {
                    self.properties
                        .insert((section, property.to_owned()), (text, origin, referred));
                }
                Err(expected) => wrong(origin, format!("`{name}` {expected}")),
            }
            return;
        }
        match keys::find(&name) {
            Some(key) => match value::read(key, &raw, referred) {
                Ok(value) => {
                    self.values.insert(key.name, (value, origin));
                }
                Err(expected) => {
                    self.wrong.insert(key.name);
                    wrong(origin, format!("`{name}` {expected}"));
                }
            },
            None => wrong(
                origin,
                format!("there is no key `{name}`{}", nearest(&name)),
            ),
        }
    }

    fn config(&self) -> Config {
        let kafka = |section| {
            let mut properties = Properties::default();
            for ((of, name), (value, ..)) in &self.properties {
                if *of == section {
                    properties.set(name, value);
                }
            }
            properties
        };
        Config {
            kafka: Kafka {
                common: kafka("kafka"),
                consumer: kafka("kafka.consumer"),
                zones: kafka("kafka.zones"),
                producer: kafka("kafka.producer"),
            },
            telemetry: Telemetry {
                topic: self.text("telemetry.topic"),
                id: self.text("telemetry.id"),
                time: self.text("telemetry.time"),
                lat: self.text("telemetry.lat"),
                lon: self.text("telemetry.lon"),
                on_invalid: OnInvalidEvent::of(&self.text("telemetry.on_invalid")),
                start: LogEnd::of(&self.text("telemetry.start")),
                on_out_of_range: OnOutOfRange::of(&self.text("telemetry.on_out_of_range")),
                max_bytes: self.size("telemetry.max_bytes"),
            },
            zones: Zones {
                topic: self.text("zones.topic"),
                on_invalid: match self.text("zones.on_invalid").as_str() {
                    "repair" => OnInvalid::Repair,
                    _ => OnInvalid::Reject,
                },
                max_vertices: self.size("zones.max_vertices"),
                max_parts: self.size("zones.max_parts"),
                max_bytes: self.size("zones.max_bytes"),
                allow_empty: self.flag("zones.allow_empty"),
            },
            enriched: Enriched {
                topic: self.text("enriched.topic"),
                field: self.text("enriched.field"),
                properties: self.names("enriched.properties"),
                headers: self.flag("enriched.headers"),
                header_form: EnrichedHeaders::of(&self.text("enriched.header_form")),
                partition: OutputPartition::of(&self.text("enriched.partition")),
            },
            dead_letter: DeadLetter {
                topic: Some(self.text("dead_letter.topic")).filter(|topic| !topic.is_empty()),
                breaker_percent: self.count("dead_letter.breaker_percent"),
                breaker_records: self.count("dead_letter.breaker_records"),
                breaker_retry: self.millis("dead_letter.breaker_retry_ms"),
            },
            gate: self.gate(),
            index: Index {
                engine: Engine::of(&self.text("index.engine")),
                max_live_snapshots: self.size("index.max_live_snapshots"),
            },
            delivery: Delivery {
                mode: DeliveryMode::of(&self.text("delivery.mode")),
                instance: self.optional_text("delivery.instance"),
                static_member: self.flag("delivery.static_member"),
                commit_interval: self.millis("delivery.commit_ms"),
                in_flight_max: self.size("delivery.in_flight_max"),
                in_flight_max_bytes: self.size("delivery.in_flight_max_bytes"),
                hold_max: self.size("delivery.hold_max"),
                hold_max_bytes: self.size("delivery.hold_max_bytes"),
            },
            workers: Workers {
                count: self.size("workers.count"),
            },
            http: Http {
                listen: self.text("http.listen"),
            },
            shutdown: Shutdown {
                drain_timeout: self.millis("shutdown.drain_timeout_ms"),
            },
        }
    }

    fn gate(&self) -> Gate {
        Gate {
            match_mode: MatchMode::of(&self.text("gate.match")),
            settle_margin: self.millis("gate.settle_margin_ms"),
            settle_margin_max: self.millis("gate.settle_margin_max_ms"),
            proof: ProofKind::of(&self.text("gate.proof")),
            proof_interval: self.millis("gate.proof_interval_ms"),
            max_wait: self.millis("gate.max_wait_ms"),
            max_ahead: self.millis("gate.max_ahead_ms"),
            on_stall: OnStall::of(&self.text("gate.on_stall")),
            on_late: OnLate::of(&self.text("gate.on_late")),
            max_schedule: self.millis("gate.max_schedule_ms"),
            history_bytes: self.size("gate.history_bytes"),
            match_from: self.instant("gate.match_from"),
            match_until: self.instant("gate.match_until"),
            floor: self.instant("gate.floor"),
            create_time_margin: match self.value("gate.create_time_margin_ms") {
                Value::Number(millis) => Some(Duration::from_millis(*millis)),
                _ => None,
            },
            allow_short_lag: self.flag("gate.allow_short_lag"),
            staging_max: self.size("gate.staging_max"),
            staging_max_bytes: self.size("gate.staging_max_bytes"),
        }
    }

    fn settings(&self) -> Vec<Setting> {
        let properties =
            self.properties
                .iter()
                .map(|((section, property), (value, origin, referred))| Setting {
                    name: format!("{section}.{property}"),
                    value: if *referred || librdkafka::is_secret(property) {
                        "***"
                    } else {
                        value
                    }
                    .into(),
                    origin: origin.clone(),
                });
        let keys = KEYS.iter().map(|key| {
            let (value, origin) = &self.values[key.name];
            Setting {
                name: key.name.to_owned(),
                value: value.to_json(),
                origin: origin.clone(),
            }
        });
        properties.chain(keys).collect()
    }

    fn value(&self, name: &str) -> &Value {
        self.values.get(name).map_or_else(
            || unreachable!("`{name}` is in the table of keys"),
            |(value, _)| value,
        )
    }

    fn is_wrong(&self, name: &str) -> bool {
        self.wrong.contains(name)
    }

    /// Where the first of these keys was written that was; one that has its default is not to blame.
    fn origin_of(&self, names: &[&str]) -> Origin {
        names
            .iter()
            .filter_map(|name| self.values.get(name))
            .map(|(_, origin)| origin)
            .find(|origin| **origin != Origin::Default)
            .map_or(Origin::Default, Clone::clone)
    }

    fn origin_of_property(&self, name: &str) -> Option<Origin> {
        let (section, property) = kafka_property(name)?;
        let found = self.properties.get(&(section, property.to_owned()));
        found.map(|(_, origin, _)| origin.clone())
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text.clone(),
            other => unreachable!("`{name}` is a text, not {other:?}"),
        }
    }

    fn optional_text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn size(&self, name: &str) -> usize {
        match self.value(name) {
            Value::Number(number) => usize::try_from(*number).unwrap_or(usize::MAX),
            other => unreachable!("`{name}` is a number, not {other:?}"),
        }
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.size(name) as u64)
    }

    fn count(&self, name: &str) -> u32 {
        u32::try_from(self.size(name)).expect("the table bounds it")
    }

    fn flag(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Flag(flag) => *flag,
            other => unreachable!("`{name}` is a flag, not {other:?}"),
        }
    }

    fn names(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::Names(names) => names.clone(),
            other => unreachable!("`{name}` is a list, not {other:?}"),
        }
    }

    fn instant(&self, name: &str) -> Option<EventTime> {
        match self.value(name) {
            Value::Instant(at) => Some(*at),
            _ => None,
        }
    }
}

/// Splits `kafka.consumer.fetch.max.bytes` into its section and librdkafka's name, which may be empty.
fn kafka_property(name: &str) -> Option<(&'static str, &str)> {
    KAFKA_SECTIONS.into_iter().find_map(|section| {
        let property = name.strip_prefix(section)?.strip_prefix('.')?;
        Some((section, property))
    })
}

/// `; the nearest is …`, or nothing where none is near.
fn nearest(name: &str) -> String {
    let leaf = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    KEYS.iter()
        .map(|key| {
            let whole = strsim::normalized_damerau_levenshtein(name, key.name);
            // The right key in a wrong section is near too.
            let moved = strsim::normalized_damerau_levenshtein(&leaf(name), key.leaf()) * 0.9;
            (whole.max(moved), key.name)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .map_or_else(String::new, |(_, near)| {
            format!("; the nearest is `{near}`")
        })
}

impl Config {
    /// The configuration of all defaults.
    #[must_use]
    pub fn defaults() -> Self {
        Read::defaults().config()
    }
}

#[cfg(test)]
mod tests;
