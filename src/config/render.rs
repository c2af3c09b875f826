//! The table of keys as people and machines read it: `config/ringfence.toml`, the README's table, JSON Schema,
//! `config show`. One source for all of them, so that none can drift.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::keys::{self, Default, KEYS, Key, Kind};
use super::value::expectation;
use super::{KAFKA_SECTIONS, Setting, kafka_property, librdkafka};

/// librdkafka properties that are set unless the configuration says otherwise: name, value, reason.
pub const KAFKA_DEFAULTS: &[(&str, &str, &str)] = &[
    (
        "bootstrap.servers",
        "127.0.0.1:9092",
        "the brokers to begin with",
    ),
    (
        "group.id",
        "ringfence",
        "one for all processes that share the work",
    ),
];

const FILE_HEAD: &str = "\
# Ringfence: every key with its default. A key set here, by RINGFENCE__SECTION__KEY or by --set section.key=value holds
# in this order, the last one most. A value may be { env = \"X\" } or { file = \"/path\" }. Keys with a `#` before them
# have no effect unless set. `ringfence config show` prints what holds and where it came from.
";

const KAFKA_HEAD: &str = "\
# librdkafka properties, any of them but those that Ringfence sets itself (it says which, and what to use instead).
# [kafka.consumer], [kafka.zones] and [kafka.producer] lay theirs over these, for one kind of client.
";

/// `config/ringfence.toml`.
#[must_use]
pub fn file() -> String {
    let mut out = String::from(FILE_HEAD);
    let _ = write!(out, "\n{KAFKA_HEAD}[kafka]\n");
    for (name, value, reason) in KAFKA_DEFAULTS {
        let _ = writeln!(
            out,
            "{:<42} # {reason}",
            format!("\"{name}\" = \"{value}\"")
        );
    }
    for section in keys::sections() {
        let _ = write!(out, "\n[{section}]\n");
        for key in KEYS.iter().filter(|key| key.section() == section) {
            let line = match key.default {
                Default::Unset => format!("# {} = {}", key.leaf(), example(key)),
                _ => format!("{} = {}", key.leaf(), default_text(key)),
            };
            let _ = writeln!(out, "{line:<42} # {}", about(key));
        }
    }
    out
}

/// The README's table of keys.
#[must_use]
pub fn readme_table() -> String {
    let mut out =
        String::from("| key | default | unit or values | what it does |\n|---|---|---|---|\n");
    for (name, value, reason) in KAFKA_DEFAULTS {
        let _ = writeln!(
            out,
            "| `kafka.\"{name}\"` | `\"{value}\"` | any librdkafka property | {reason} |"
        );
    }
    for key in KEYS {
        let default = match key.default {
            Default::Unset => "unset".to_owned(),
            _ => format!("`{}`", default_text(key)),
        };
        let _ = writeln!(
            out,
            "| `{}` | {default} | {} | {} |",
            key.name,
            unit_or_values(key),
            key.reason
        );
    }
    out
}

/// JSON Schema (2020-12) of the file.
#[must_use]
pub fn schema() -> Json {
    let mut sections = Map::new();
    let property = json!({ "anyOf": [{ "type": ["string", "integer", "boolean"] }, reference()] });
    let mut kafka = json!({
        "type": "object",
        "description": "librdkafka properties; those that Ringfence sets itself are refused",
        "additionalProperties": property,
        "propertyNames": { "not": { "enum": librdkafka::OWNED.iter().map(|(name, _)| *name).collect::<Vec<_>>() } },
        "properties": {},
    });
    for section in KAFKA_SECTIONS
        .iter()
        .filter_map(|section| section.strip_prefix("kafka."))
    {
        kafka["properties"][section] =
            json!({ "type": "object", "additionalProperties": property });
    }
    for (name, value, reason) in KAFKA_DEFAULTS {
        kafka["properties"][*name] = json!({ "anyOf": [{ "type": "string" }, reference()], "default": value, "description": reason });
    }
    sections.insert("kafka".to_owned(), kafka);
    for section in keys::sections() {
        let properties: Map<String, Json> = KEYS
            .iter()
            .filter(|key| key.section() == section)
            .map(|key| (key.leaf().to_owned(), key_schema(key)))
            .collect();
        sections.insert(
            section.to_owned(),
            json!({ "type": "object", "additionalProperties": false, "properties": properties }),
        );
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringfence configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    })
}

/// The effective configuration as TOML, with where each value came from.
#[must_use]
pub fn effective(settings: &[Setting]) -> String {
    let mut out = String::new();
    let mut last = "";
    for setting in settings {
        let (section, leaf) = split(&setting.name);
        if section != last {
            let _ = writeln!(
                out,
                "{}[{section}]",
                if last.is_empty() { "" } else { "\n" }
            );
            last = section;
        }
        let leaf = if section.starts_with("kafka") {
            toml_text(&leaf.into())
        } else {
            leaf.to_owned()
        };
        let line = if setting.value.is_null() {
            format!("# {leaf} is not set")
        } else {
            format!("{leaf} = {}", toml_text(&setting.value))
        };
        let _ = writeln!(out, "{line:<50} # {}", setting.origin);
    }
    out
}

/// JSON's texts, numbers, flags and lists of texts are TOML too, but for one character that TOML wants escaped.
fn toml_text(value: &Json) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

fn split(name: &str) -> (&str, &str) {
    kafka_property(name)
        .or_else(|| name.split_once('.'))
        .unwrap_or(("", name))
}

fn reference() -> Json {
    let one = |name: &str| {
        json!({ "type": "object", "additionalProperties": false, "required": [name],
                "properties": { name: { "type": "string" } } })
    };
    json!({ "anyOf": [one("env"), one("file")] })
}

fn key_schema(key: &Key) -> Json {
    let plain = match key.kind {
        Kind::Text => json!({ "type": "string", "minLength": 1 }),
        Kind::Topic { optional } => json!({
            "type": "string", "maxLength": 249,
            "pattern": if optional { "^[a-zA-Z0-9._-]*$" } else { "^[a-zA-Z0-9._-]+$" }
        }),
        Kind::Pointer { record: true } => json!({ "type": "string", "pattern": "^(record|/.*)$" }),
        Kind::Pointer { record: false } => json!({ "type": "string", "pattern": "^/" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Names => {
            json!({ "type": "array", "uniqueItems": true, "items": { "type": "string", "minLength": 1 } })
        }
        Kind::Instant => json!({ "type": ["string", "integer"] }),
        Kind::Address => json!({ "type": "string", "pattern": ":[0-9]+$" }),
    };
    let mut schema = json!({ "description": about(key), "anyOf": [plain, reference()] });
    match key.default {
        Default::Text(text) => schema["default"] = text.into(),
        Default::Number(number) => schema["default"] = number.into(),
        Default::Flag(flag) => schema["default"] = flag.into(),
        Default::NoNames => schema["default"] = json!([]),
        Default::Unset => {}
    }
    schema
}

fn default_text(key: &Key) -> String {
    match key.default {
        Default::Text(text) => format!("{text:?}"),
        Default::Number(number) => grouped(number),
        Default::Flag(flag) => flag.to_string(),
        Default::NoNames => "[]".to_owned(),
        Default::Unset => String::new(),
    }
}

/// What a key that is unset might be set to.
fn example(key: &Key) -> &'static str {
    match key.kind {
        Kind::Instant => "\"2026-01-01T00:00:00Z\"",
        Kind::Text => "\"a\"",
        _ => "2_000",
    }
}

fn about(key: &Key) -> String {
    match key.kind {
        Kind::Choice(words) if words.len() > 1 => format!("{}; {}", expectation(key), key.reason),
        Kind::Number { .. } | Kind::Instant => format!("{}; {}", key.unit, key.reason),
        _ => key.reason.to_owned(),
    }
}

fn unit_or_values(key: &Key) -> String {
    match key.kind {
        Kind::Choice(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Kind::Number { min, max } => format!("{}, {} to {}", key.unit, grouped(min), grouped(max)),
        Kind::Flag => "`true`, `false`".to_owned(),
        Kind::Text => "text".to_owned(),
        Kind::Topic { .. } => "topic".to_owned(),
        Kind::Pointer { .. } => "JSON pointer".to_owned(),
        Kind::Names => "list of texts".to_owned(),
        Kind::Instant => key.unit.to_owned(),
        Kind::Address => "address:port".to_owned(),
    }
}

/// `1048576` as `1_048_576`, as TOML reads it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}
