//! What librdkafka refuses of the `[kafka]` sections, said before anything is done with them and without the network:
//! first each property by itself, all that are wrong at once; where none is, what the clients made of them say.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::client::{CommitBy, Properties, Settings};
use crate::config::RefusedProperty;
use crate::config::librdkafka::is_secret;

/// A client that is only tried says nothing.
#[derive(Clone, Copy)]
struct Mute;

impl ClientContext for Mute {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Mute {}

impl ProducerContext for Mute {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &rdkafka::producer::DeliveryResult<'_>, (): Self::DeliveryOpaque) {}
}

/// Everything in `settings` that librdkafka refuses.
#[must_use]
pub fn refusals(settings: &Settings) -> Vec<RefusedProperty> {
    // A section for some clients may hold those for all of them too: they are `[kafka]`'s.
    let own = |section: &Properties| -> Properties {
        let is_own = |name: &String, value: &String| settings.common.get(name) != Some(value);
        section
            .iter()
            .filter(|(name, value)| is_own(name, value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let sections = [
        ("kafka", settings.common.clone()),
        ("kafka.consumer", own(&settings.consumer)),
        ("kafka.zones", own(&settings.zones)),
        ("kafka.producer", own(&settings.producer)),
    ];
    let single: Vec<RefusedProperty> = sections
        .iter()
        .flat_map(|(section, properties)| {
            properties
                .iter()
                .filter_map(|(name, value)| refused_alone(section, name, value))
        })
        .collect();
    if !single.is_empty() {
        return single;
    }
    // Several clients share properties: the same complaint is made once.
    let mut said = BTreeSet::new();
    tried(settings)
        .into_iter()
        .flatten()
        .filter(|message| said.insert(message.clone()))
        .map(|message| RefusedProperty {
            keys: named_in(&message, &sections),
            message: shown(message, &sections),
        })
        .collect()
}

fn refused_alone(section: &str, name: &str, value: &str) -> Option<RefusedProperty> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    let message = match config.create_native_config() {
        Ok(_) => return None,
        Err(KafkaError::ClientConfig(_, what, ..)) => what,
        Err(other) => other.to_string(),
    };
    let message = if is_secret(name) && !value.is_empty() {
        message.replace(value, "***")
    } else {
        message
    };
    Some(RefusedProperty {
        keys: vec![format!("{section}.{name}")],
        message,
    })
}

/// Makes one client of each kind, without a broker to go to, and says what was against it.
fn tried(settings: &Settings) -> [Option<String>; 5] {
    const RECORDS: usize = 1_000;
    const BYTES: usize = 1 << 20;
    let commits = CommitBy::Interval(Duration::from_millis(100));
    [
        refused_as::<BaseConsumer<Mute>>(settings.telemetry_consumer(commits)),
        refused_as::<BaseConsumer<Mute>>(settings.zones_consumer()),
        refused_as::<BaseConsumer<Mute>>(settings.asker()),
        refused_as::<BaseProducer<Mute>>(settings.producer(RECORDS, BYTES)),
        refused_as::<BaseProducer<Mute>>(settings.transactional_producer(RECORDS, BYTES, "check")),
    ]
}

fn refused_as<T: FromClientConfigAndContext<Mute>>(mut config: ClientConfig) -> Option<String> {
    config.remove("bootstrap.servers");
    match config.create_with_context::<Mute, T>(Mute) {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, what, ..) | KafkaError::ClientCreation(what)) => Some(what),
        Err(other) => Some(other.to_string()),
    }
}

/// The set properties whose names stand in what librdkafka says.
fn named_in(message: &str, sections: &[(&str, Properties)]) -> Vec<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let words: BTreeSet<&str> = message
        .split(|c| !is_of_name(c))
        .map(|word| word.trim_end_matches('.'))
        .collect();
    sections
        .iter()
        .flat_map(|(section, properties)| properties.keys().map(move |name| (section, name)))
        .filter(|(_, name)| words.contains(name.as_str()))
        .map(|(section, name)| format!("{section}.{name}"))
        .collect()
}

fn shown(message: String, sections: &[(&str, Properties)]) -> String {
    sections
        .iter()
        .flat_map(|(_, properties)| properties.iter())
        .filter(|(name, value)| is_secret(name) && !value.is_empty())
        .fold(message, |message, (_, value)| message.replace(value, "***"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, &str, &str)]) -> Vec<RefusedProperty> {
        let mut settings = Settings::new("broker:1", "mine");
        for (section, name, value) in set {
            let properties = match *section {
                "kafka" => &mut settings.common,
                "kafka.consumer" => &mut settings.consumer,
                "kafka.zones" => &mut settings.zones,
                _ => &mut settings.producer,
            };
            properties.insert((*name).to_owned(), (*value).to_owned());
        }
        refusals(&settings)
    }

    #[test]
    fn what_is_right_is_not_refused() {
        assert_eq!(with(&[]), []);
        let tuned = [
            ("kafka", "client.rack", "a"),
            ("kafka.consumer", "fetch.max.bytes", "20000000"),
            ("kafka.producer", "linger.ms", "0"),
        ];
        assert_eq!(with(&tuned), []);
    }

    #[test]
    fn every_wrong_property_is_named_with_its_section_at_once() {
        let refused = with(&[
            ("kafka", "compresion.type", "lz4"),
            ("kafka.consumer", "fetch.max.bytes", "many"),
            ("kafka.producer", "linger.ms", "-7"),
        ]);
        let keys: Vec<_> = refused.iter().flat_map(|one| one.keys.clone()).collect();
        assert_eq!(
            keys,
            [
                "kafka.compresion.type",
                "kafka.consumer.fetch.max.bytes",
                "kafka.producer.linger.ms"
            ]
        );
        assert!(
            refused.iter().all(|one| !one.message.is_empty()),
            "{refused:?}"
        );
    }

    #[test]
    fn properties_that_do_not_go_together_are_named() {
        let refused = with(&[("kafka.consumer", "session.timeout.ms", "900000")]);
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].keys, ["kafka.consumer.session.timeout.ms"]);
        let refused = with(&[
            ("kafka", "security.protocol", "ssl"),
            ("kafka", "ssl.ca.location", "/nowhere/ca.pem"),
        ]);
        assert_eq!(refused[0].keys, ["kafka.ssl.ca.location"], "{refused:?}");
    }

    #[test]
    fn fs_76_what_is_refused_shows_no_secret() {
        let canary = "canary-8d1f";
        for (name, protocol) in [
            ("ssl.key.pem", "ssl"),
            ("ssl.keystore.password", "ssl"),
            ("sasl.oauthbearer.client.secret", "sasl_ssl"),
            ("sasl.oauthbearer.config", "sasl_ssl"),
        ] {
            let refused = with(&[
                ("kafka", "security.protocol", protocol),
                ("kafka", "sasl.mechanism", "OAUTHBEARER"),
                ("kafka", "ssl.keystore.location", "/nowhere/a.p12"),
                ("kafka", name, canary),
            ]);
            assert!(
                !format!("{refused:?}").contains(canary),
                "{name}: {refused:?}"
            );
        }
    }
}
