//! One value: read by its key's kind from TOML, from an environment variable or from `--set`, with where it came from.
//! A value that is wrong becomes a sentence that says what is expected; nothing is guessed or cut to fit.

use std::fmt;
use std::path::PathBuf;

use super::keys::{Default, Key, Kind};
use crate::codec::pointer::Pointer;
use crate::time::EventTime;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of keys.
    Default,
    /// A line of the configuration file; without one the file itself.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Environment(String),
    /// The command line.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => path.display().fmt(f),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
        }
    }
}

/// What was written, before its key says how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i128),
    /// A TOML boolean.
    Flag(bool),
    /// A TOML array of what it holds.
    List(Vec<Raw>),
    /// An environment variable, the text after `--set key=`, or what a reference names: typed by its key.
    Untyped(String),
    /// A TOML type that no key takes, by its name; an offset date-time keeps its text.
    Other(&'static str, String),
}

impl Raw {
    /// How a message calls it; texts are cut.
    fn describe(&self) -> String {
        let quote = |text: &str| {
            let mut cut: String = text.chars().take(60).collect();
            if cut.len() < text.len() {
                cut.push('…');
            }
            format!("{cut:?}")
        };
        match self {
            Self::Text(text) => format!("the text {}", quote(text)),
            Self::Untyped(text) => quote(text),
            Self::Integer(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::List(_) => "a list".to_owned(),
            Self::Other(kind, _) => format!("a TOML {kind}"),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a librdkafka property: those are texts, numbers and flags alike.
    pub(super) fn property(&self) -> Result<String, String> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Ok(text.clone()),
            Self::Integer(number) => Ok(number.to_string()),
            Self::Flag(flag) => Ok(flag.to_string()),
            Self::List(_) | Self::Other(..) => Err(format!(
                "must be a text, a whole number, true or false, not {}",
                self.describe()
            )),
        }
    }
}

/// A value of the type that its key says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Flag(bool),
    Names(Vec<String>),
    Instant(EventTime),
    Unset,
}

impl Value {
    pub(super) fn of_default(default: Default) -> Self {
        match default {
            Default::Text(text) => Self::Text(text.to_owned()),
            Default::Number(number) => Self::Number(number),
            Default::Flag(flag) => Self::Flag(flag),
            Default::NoNames => Self::Names(Vec::new()),
            Default::Unset => Self::Unset,
        }
    }

    /// As JSON, for `config show --json`.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Names(names) => names.clone().into(),
            Self::Instant(at) => at.millis().into(),
            Self::Unset => serde_json::Value::Null,
        }
    }
}

/// What a key takes, as the end of "must be …".
pub(super) fn expectation(key: &Key) -> String {
    match key.kind {
        Kind::Text => "a text that is not empty".to_owned(),
        Kind::Topic { optional } => format!(
            "the name of a Kafka topic (1 to 249 of a-z, A-Z, 0-9, `.`, `_`, `-`){}",
            if optional { ", or \"\" for none" } else { "" }
        ),
        Kind::Pointer { record: false } => "a JSON pointer such as \"/position/lat\"".to_owned(),
        Kind::Pointer { record: true } => {
            "a JSON pointer such as \"/time\", or \"record\"".to_owned()
        }
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            match words.split_last() {
                Some((last, [])) => last.clone(),
                Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
                None => unreachable!("a choice has words"),
            }
        }
        Kind::Number { min, max } => format!("a whole number of {} from {min} to {max}", key.unit),
        Kind::Flag => "true or false".to_owned(),
        Kind::Names => "a list of texts, none empty, none twice".to_owned(),
        Kind::Instant => "an instant, RFC 3339 or epoch ms, of the years 0001 to 9999".to_owned(),
        Kind::Address => "an address with a port, such as \"127.0.0.1:9464\"".to_owned(),
    }
}

/// Reads what was written by the key's kind, or says what is expected. `secret` keeps what was written out of it.
pub(super) fn read(key: &Key, raw: &Raw, secret: bool) -> Result<Value, String> {
    try_read(key.kind, raw).ok_or_else(|| {
        let found = if secret {
            "what the reference names".to_owned()
        } else {
            raw.describe()
        };
        format!("must be {}, not {found}", expectation(key))
    })
}

fn try_read(kind: Kind, raw: &Raw) -> Option<Value> {
    match kind {
        Kind::Text => raw.text().filter(|text| !text.is_empty()).map(to_text),
        Kind::Topic { optional } => raw
            .text()
            .filter(|name| is_topic_name(name) || (optional && name.is_empty()))
            .map(to_text),
        Kind::Pointer { record } => raw
            .text()
            .filter(|text| (record && *text == "record") || Pointer::parse(text).is_ok())
            .map(to_text),
        Kind::Choice(words) => raw.text().filter(|text| words.contains(text)).map(to_text),
        Kind::Number { min, max } => match raw {
            Raw::Integer(number) => u64::try_from(*number).ok(),
            // The same underscores as TOML allows.
            Raw::Untyped(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        }
        .filter(|number| (min..=max).contains(number))
        .map(Value::Number),
        Kind::Flag => match raw {
            Raw::Flag(flag) => Some(*flag),
            Raw::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        }
        .map(Value::Flag),
        Kind::Names => names(raw).map(Value::Names),
        Kind::Instant => match raw {
            Raw::Text(text) | Raw::Untyped(text) | Raw::Other("datetime", text) => {
                EventTime::parse_any(text)
            }
            Raw::Integer(number) => i64::try_from(*number).ok().and_then(EventTime::from_millis),
            _ => None,
        }
        .map(Value::Instant),
        Kind::Address => raw.text().filter(|text| is_address(text)).map(to_text),
    }
}

fn to_text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn names(raw: &Raw) -> Option<Vec<String>> {
    let names: Vec<String> = match raw {
        Raw::List(items) => items
            .iter()
            .map(|item| item.text().map(str::to_owned))
            .collect::<Option<_>>()?,
        Raw::Untyped(text) if text.is_empty() => Vec::new(),
        Raw::Untyped(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        _ => return None,
    };
    let distinct = names
        .iter()
        .enumerate()
        .all(|(i, name)| !name.is_empty() && !names[..i].contains(name));
    distinct.then_some(names)
}

/// Kafka's own rule (`org.apache.kafka.common.internals.Topic`).
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
    })
}
