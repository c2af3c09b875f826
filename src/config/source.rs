//! Where settings are written: the TOML file, `RINGFENCE__…` variables, `--set`. Each becomes a list of dotted names
//! with raw values and their origin; references (`{ env = "X" }`, `{ file = "/path" }`) are followed here.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Problem;
use super::value::{Origin, Raw};

/// The start of the variables that set keys: `RINGFENCE__SECTION__KEY`.
pub const VARIABLE_PREFIX: &str = "RINGFENCE__";

/// What is read for a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The process's environment: variables that set keys, and those that references name.
    pub environment: Vec<(String, String)>,
    /// `section.key=value` of the command line, in order.
    pub set: Vec<String>,
}

/// One setting as it was written.
#[derive(Debug)]
pub(super) struct Written {
    /// Dotted, as in the file: `gate.max_wait_ms`, `kafka.consumer.fetch.max.bytes`.
    pub(super) name: String,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
    /// Whether it came by a reference, so that its text may be a secret.
    pub(super) referred: bool,
}

impl Sources {
    /// The sources of this process: its environment, with what the command line gave.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, set: Vec<String>) -> Self {
        // A variable that is not UTF-8 can neither be a key nor a value of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            file,
            environment,
            set,
        }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Everything written, the weakest source first.
    pub(super) fn read(&self, problems: &mut Vec<Problem>) -> Vec<Written> {
        let mut written = Vec::new();
        if let Some(path) = &self.file {
            self.read_file(path, &mut written, problems);
        }
        let mut variables: Vec<_> = self
            .environment
            .iter()
            .filter_map(|(name, value)| Some((name, name.strip_prefix(VARIABLE_PREFIX)?, value)))
            .collect();
        variables.sort_unstable(); // the environment has no order; messages should
        for (name, path, value) in variables {
            written.push(Written {
                name: name_of_variable(path),
                raw: Raw::Untyped(value.clone()),
                origin: Origin::Environment(name.clone()),
                referred: false,
            });
        }
        for set in &self.set {
            match set.split_once('=') {
                Some((name, value)) if !name.trim().is_empty() => written.push(Written {
                    name: name.trim().to_owned(),
                    raw: Raw::Untyped(value.to_owned()),
                    origin: Origin::Set,
                    referred: false,
                }),
                _ => problems.push(Problem::new(
                    Origin::Set,
                    format!("`{set}` is not of the form `section.key=value`"),
                )),
            }
        }
        written
    }

    fn read_file(&self, path: &Path, written: &mut Vec<Written>, problems: &mut Vec<Problem>) {
        let at = |line| Origin::File {
            path: path.to_owned(),
            line,
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(fault) => {
                problems.push(Problem::new(
                    at(1),
                    format!("cannot read the configuration file: {fault}"),
                ));
                return;
            }
        };
        let lines = Lines { path, text: &text };
        match DeTable::parse(&text) {
            Ok(table) => self.walk(table.get_ref(), "", &lines, written, problems),
            Err(fault) => {
                let line = fault.span().map_or(1, |span| lines.line(span.start));
                problems.push(Problem::new(
                    at(line),
                    format!("not TOML: {}", fault.message()),
                ));
            }
        }
    }

    /// Flattens tables to dotted names: `bootstrap.servers` may be written with or without quotes.
    fn walk(
        &self,
        table: &DeTable<'_>,
        prefix: &str,
        lines: &Lines<'_>,
        written: &mut Vec<Written>,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in table {
            let name = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let origin = Origin::File {
                path: lines.path.to_owned(),
                line: lines.line(value.span().start),
            };
            if let DeValue::Table(inner) = value.get_ref() {
                // A section is no reference: `[kafka]` may hold a property of any name.
                let reference = !prefix.is_empty() && inner.len() == 1;
                match reference.then(|| self.follow(inner)).flatten() {
                    Some(Ok(text)) => {
                        written.push(Written {
                            name,
                            raw: Raw::Untyped(text),
                            origin,
                            referred: true,
                        });
                    }
                    Some(Err(fault)) => {
                        problems.push(Problem::new(origin, format!("`{name}`: {fault}")))
                    }
                    None => self.walk(inner, &name, lines, written, problems),
                }
            } else if prefix.is_empty() {
                problems.push(Problem::new(
                    origin,
                    format!("`{name}` stands outside any section"),
                ));
            } else {
                written.push(Written {
                    name,
                    raw: raw_of(value.get_ref()),
                    origin,
                    referred: false,
                });
            }
        }
    }

    /// What `{ env = "X" }` or `{ file = "/path" }` names; `None` where the table is neither.
    fn follow(&self, table: &DeTable<'_>) -> Option<Result<String, String>> {
        let (kind, target) = table.iter().next()?;
        let target = target.get_ref().as_str()?;
        match kind.get_ref().as_ref() {
            "env" => Some(
                self.variable(target)
                    .map(str::to_owned)
                    .ok_or_else(|| format!("the environment variable `{target}` is not set")),
            ),
            "file" => Some(
                std::fs::read_to_string(target)
                    // Secrets are mounted with a line's end that nobody means.
                    .map(|text| {
                        text.strip_suffix('\n')
                            .map_or(text.clone(), |text| text.trim_end_matches('\r').to_owned())
                    })
                    .map_err(|fault| format!("cannot read `{target}`: {fault}")),
            ),
            _ => None,
        }
    }
}

/// `GATE__MAX_WAIT_MS` is `gate.max_wait_ms`; below `KAFKA`, `_` stands for the dots of librdkafka's names.
fn name_of_variable(path: &str) -> String {
    let parts: Vec<String> = path
        .to_ascii_lowercase()
        .split("__")
        .map(str::to_owned)
        .collect();
    match parts.split_first() {
        Some((section, rest)) if section == "kafka" => {
            format!("kafka.{}", rest.join(".").replace('_', "."))
        }
        _ => parts.join("."),
    }
}

/// Turns byte positions of a file into lines.
struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn line(&self, at: usize) -> usize {
        self.text
            .as_bytes()
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }
}

fn raw_of(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Raw::Other("integer", String::new()), Raw::Integer),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Array(items) => {
            Raw::List(items.iter().map(|item| raw_of(item.get_ref())).collect())
        }
        DeValue::Datetime(datetime) => Raw::Other("datetime", datetime.to_string()),
        DeValue::Float(_) | DeValue::Table(_) => Raw::Other(value.type_str(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_keys_and_librdkafka_properties() {
        assert_eq!(name_of_variable("GATE__MAX_WAIT_MS"), "gate.max_wait_ms");
        assert_eq!(name_of_variable("DEAD_LETTER__TOPIC"), "dead_letter.topic");
        assert_eq!(
            name_of_variable("KAFKA__BOOTSTRAP_SERVERS"),
            "kafka.bootstrap.servers"
        );
        assert_eq!(
            name_of_variable("KAFKA__CONSUMER__FETCH_MAX_BYTES"),
            "kafka.consumer.fetch.max.bytes"
        );
    }
}
