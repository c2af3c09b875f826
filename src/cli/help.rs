//! What `--help` of each command says beside its options: examples stand with the arguments; here is what its exit codes
//! mean and what `--json` does for it, one row a command, so that none is forgotten.

/// Path, exit codes beside 2 (wrong usage), and what `--json` gives.
const ROWS: &[(&str, &str, &str)] = &[
    (
        "demo",
        "0 the audit is clean, 1 it found something, 130/143 a second signal",
        "the verdict as one object",
    ),
    (
        "zones import",
        "0 written, 1 a zone is invalid or came too late, or it failed, 78 wrong configuration",
        "the counts as one object",
    ),
    (
        "zones export",
        "0 done, 1 failed, 78 wrong configuration",
        "nothing else: GeoJSON it is",
    ),
    (
        "zones get",
        "0 found, 1 no such zone or failed, 78 wrong configuration",
        "nothing else: GeoJSON it is",
    ),
    (
        "zones history",
        "0 found, 1 no such zone or failed, 78 wrong configuration",
        "an object a line",
    ),
    (
        "zones delete",
        "0 written, 1 a zone does not exist or the end came too late, or it failed, 78 wrong configuration",
        "the counts as one object",
    ),
    (
        "simulate",
        "0 all written in time, 1 some were not, 78 wrong configuration, 130/143 a second signal",
        "the counts as one object",
    ),
    (
        "verify",
        "0 nothing wrong, 1 something is or there was nothing to judge, 78 wrong configuration, 130/143 a second signal",
        "the verdict as one object",
    ),
    (
        "run",
        "0 drained after a signal, 1 it could not start or go on, 78 wrong configuration, 130/143 a second signal",
        "nothing: it has no report (--log json is for its log)",
    ),
    (
        "match",
        "0 every line is enriched, 1 some were invalid or it failed, 78 wrong configuration",
        "nothing else: NDJSON it is",
    ),
    (
        "check",
        "0 no problem, 1 problems found, 78 wrong configuration",
        "an object a line, one a finding",
    ),
    (
        "topics create",
        "0 done, 1 failed, 78 wrong configuration",
        "an object a line, one a topic",
    ),
    (
        "config show",
        "0 right, 78 wrong configuration",
        "the settings as one array of {key, value, origin}",
    ),
    (
        "dead-letters list",
        "0 done, 1 failed, 78 wrong configuration",
        "an object a line, one a letter",
    ),
    (
        "dead-letters replay",
        "0 all written, 1 some were not or it failed, 78 wrong configuration",
        "the counts as one object",
    ),
    ("config schema", "0 done", "nothing else: JSON it is"),
    ("config file", "0 done", "nothing: it is TOML"),
    ("completions", "0 done", "nothing: it is a script"),
];

/// Adds them to every command that is no mere group of others.
pub(super) fn with_exits(command: clap::Command) -> clap::Command {
    below(command, "")
}

fn below(command: clap::Command, path: &str) -> clap::Command {
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            return below(sub, &path);
        }
        let Some((_, exits, json)) = ROWS.iter().find(|(of, ..)| *of == path.trim_start()) else {
            return sub;
        };
        let examples = sub.get_after_help().map(ToString::to_string);
        let examples = examples.unwrap_or_default();
        sub.after_help(format!(
            "{examples}\n\nExit codes: {exits}, 2 wrong usage.\n--json: {json}."
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                let help = sub.get_after_help().map(ToString::to_string);
                found.push((path.trim_start().to_owned(), help.unwrap_or_default()));
            }
        }
    }

    #[test]
    fn every_command_shows_an_example_its_exit_codes_and_what_json_does() {
        let mut found = Vec::new();
        leaves(&super::super::command(), "", &mut found);
        assert_eq!(found.len(), ROWS.len(), "{found:?}");
        for (path, help) in found {
            let example = format!(" {path}");
            for words in ["Example", &example, "Exit codes: 0 ", "--json: "] {
                assert!(help.contains(words), "`{path}` says no {words:?}: {help}");
            }
        }
    }
}
