//! Where settings are written: the TOML file, `RINGFENCE__…` variables, `--set`. Each becomes a list of dotted names
//! with raw values and their origin; references (`{ env = "X" }`, `{ file = "/path" }`) are followed here.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::value::{Origin, Raw};
use super::{KAFKA_SECTIONS, Problem, keys};

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
            let named = set
                .split_once('=')
                .and_then(|(name, value)| Some((name_of_set(name.trim())?, value)));
            match named {
                Some((name, value)) => written.push(Written {
                    name,
                    raw: Raw::Untyped(value.to_owned()),
                    origin: Origin::Set,
                    referred: false,
                }),
                None => problems.push(Problem::new(
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
        let text = match read_capped(path, FILE_MAX) {
            Ok(text) => text,
            Err(fault) => {
                problems.push(Problem::new(
                    at(None),
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
                    at(Some(line)),
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
                line: Some(lines.line(value.span().start)),
            };
            if let DeValue::Table(inner) = value.get_ref() {
                if inner.is_empty() && !is_section(&name) {
                    problems.push(Problem::new(origin, no_section(&name)));
                    continue;
                }
                // A section is no reference: `[kafka]` may hold a property of any name.
                match (!prefix.is_empty()).then(|| self.follow(inner)).flatten() {
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
        if table.len() > 1 {
            let only_references = table
                .iter()
                .all(|(kind, _)| matches!(kind.get_ref().as_ref(), "env" | "file"));
            return only_references
                .then(|| Err("give either `env` or `file`, not both".to_owned()));
        }
        let (kind, target) = table.iter().next()?;
        let target = target.get_ref().as_str()?;
        match kind.get_ref().as_ref() {
            "env" => Some(
                self.variable(target)
                    .map(str::to_owned)
                    .ok_or_else(|| format!("the environment variable `{target}` is not set")),
            ),
            "file" => Some(
                read_capped(Path::new(target), REFERRED_MAX)
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

/// The longest configuration file, and the longest value that a reference names: far beyond any, and an end to
/// `/dev/zero`.
const FILE_MAX: u64 = 16 << 20;
const REFERRED_MAX: u64 = 1 << 20;

fn read_capped(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(bytes_max + 1);
    file.read_to_end(&mut bytes)?;
    let wrong = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    if bytes.len() as u64 > bytes_max {
        return Err(wrong(format!("it is longer than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))
}

fn sections() -> impl Iterator<Item = &'static str> {
    keys::sections().chain(KAFKA_SECTIONS)
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

fn no_section(name: &str) -> String {
    let near = sections()
        .map(|section| {
            (
                strsim::normalized_damerau_levenshtein(name, section),
                section,
            )
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .map_or_else(String::new, |(_, near)| {
            format!("; the nearest is `[{near}]`")
        });
    format!("there is no section `[{name}]`{near}")
}

/// A key as it may be typed, with or without the quotes that the file has around librdkafka's names:
/// `kafka."bootstrap.servers"` is `kafka.bootstrap.servers`. `None` where it is none.
fn name_of_set(typed: &str) -> Option<String> {
    let mut name = String::with_capacity(typed.len());
    let mut rest = typed;
    while !rest.is_empty() {
        if let Some(quote) = ['"', '\'']
            .into_iter()
            .find(|quote| rest.starts_with(*quote))
        {
            let (inside, behind) = rest[1..].split_once(quote)?;
            name.push_str(inside);
            rest = behind;
            if !rest.is_empty() && !rest.starts_with('.') {
                return None;
            }
        }
        let plain = rest.find('.').map_or(rest.len(), |dot| dot + 1);
        if rest[..plain].contains(['"', '\'']) {
            return None;
        }
        name.push_str(&rest[..plain]);
        rest = &rest[plain..];
    }
    (!name.is_empty()).then_some(name)
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
    fn a_set_key_may_have_the_files_quotes() {
        for (typed, name) in [
            ("gate.match", Some("gate.match")),
            (
                "kafka.\"bootstrap.servers\"",
                Some("kafka.bootstrap.servers"),
            ),
            ("kafka.'group.id'", Some("kafka.group.id")),
            (
                "\"kafka\".consumer.\"fetch.max.bytes\"",
                Some("kafka.consumer.fetch.max.bytes"),
            ),
            ("kafka.\"group.id", None),
            ("kafka.group\".id\"", None),
            ("kafka.\"group\"id", None),
            ("", None),
            ("\"\"", None),
        ] {
            assert_eq!(name_of_set(typed).as_deref(), name, "{typed}");
        }
    }

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
