//! The command line: one file per command, each with `Args` and `run(args, &Context) -> Result<Outcome, Failure>`.
//! This module parses, starts the log, dispatches and maps outcomes to exit codes (INTERFACE): 0 done, 1 failed or
//! something found, 2 wrong usage, 78 wrong configuration, 130 and 143 forced by a second signal.
//! Reports go to stdout, logs and progress to stderr.

pub mod check;
pub mod completions;
pub mod config_show;
pub mod dead_letters;
pub mod demo;
mod help;
mod interrupt;
pub mod matching;
pub mod run;
pub mod simulate;
pub mod topics;
pub mod verify;
pub mod zones;

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, Args, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, Loaded, Sources};
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, Topic};
use crate::kafka::client::Settings;
use crate::kafka::refusal::refusals;
use crate::time::EventTime;

/// The exit code of a wrong configuration (`EX_CONFIG` of sysexits).
const EXIT_CONFIG: u8 = 78;
/// The exit code of wrong usage, as clap has it.
const EXIT_USAGE: u8 = 2;
/// The name of the field [`Global::set`] to clap.
const SET: &str = "set";
/// Likewise of [`Global::config`].
const CONFIG: &str = "config";

const AFTER_HELP: &str = "\
Examples:
  ringfence demo                                  see it work, with nothing installed
  ringfence -c ringfence.toml check               ask the cluster what is missing
  ringfence -c ringfence.toml run                 the daemon
  ringfence --set workers.count=2 config show     what holds, and where it came from

Exit codes: 0 done, 1 failed or something found, 2 wrong usage, 78 wrong configuration, 130/143 forced.";

/// Adds to every telemetry event on Kafka the ids of all zones that cover its position, as of the event's own time.
#[derive(Debug, Parser)]
#[command(name = "ringfence", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The configuration file (TOML).
    #[arg(
        short,
        long = "config",
        value_name = "FILE",
        env = "RINGFENCE_CONFIG",
        global = true
    )]
    config: Option<PathBuf>,
    /// Sets a configuration key, over the file and the environment; may be repeated.
    // Not clap's `global`: of a global argument given before and after the command only the last group would count.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// How log lines look.
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    log: LogFormat,
    /// More log lines; twice for all.
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "quiet")]
    verbose: u8,
    /// Errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Reports as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See all of it work, with nothing installed.
    Demo(demo::Args),
    /// Import, export and look at zones in the topic.
    Zones(zones::Args),
    /// Write a seeded fleet and moving zones to the topics.
    Simulate(simulate::Args),
    /// Recompute every answer from the topics, independently.
    Verify(verify::Args),
    /// Run the daemon.
    Run(run::Args),
    /// List refused records, and write them back to where they came from.
    DeadLetters(dead_letters::Args),
    /// Enrich telemetry from stdin without Kafka.
    Match(matching::Args),
    /// Check the configuration and the cluster; every problem at once, each with its mend.
    Check(check::Args),
    /// Create the topics.
    Topics(topics::Args),
    /// Show or describe the configuration.
    Config(config_show::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// How a command ended that did what it was asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: exit 0.
    Done,
    /// It looked for something and found it, or said what went wrong in its report: exit 1.
    Found,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The arguments cannot be: exit 2.
    Usage(String),
    /// The configuration is wrong: exit 78.
    Config(ConfigError),
    /// It failed: exit 1.
    Failed(String),
}

impl Failure {
    /// The failure `what: why`.
    #[must_use]
    pub fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Config(error) => write!(f, "the configuration is wrong\n{error}"),
        }
    }
}

/// What every command is given: the global options, and the ways out.
#[derive(Debug)]
pub struct Context {
    sources: Sources,
    /// Whether the command line names a configuration (`-c`, `--set`). What the environment has is meant for all commands.
    pub is_configured: bool,
    /// Whether reports are for machines.
    pub json: bool,
    quiet: bool,
    /// Whether the exit code tells what was found.
    has_verdict: bool,
}

impl Context {
    /// The configuration of a command that needs no cluster.
    ///
    /// # Errors
    /// Every problem it has, but for what librdkafka says of its properties.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(config::load(&self.sources)?.config)
    }

    /// The configuration, with where each value came from, and with nothing in its `[kafka]` sections that librdkafka
    /// refuses.
    ///
    /// # Errors
    /// Every problem it has.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let refused = |config: &Config| refusals(&Settings::from(&config.kafka));
        Ok(config::load_with(&self.sources, refused)?)
    }

    /// The configuration, with nothing in its `[kafka]` sections that librdkafka refuses.
    ///
    /// # Errors
    /// Every problem it has.
    pub fn kafka_config(&self) -> Result<Config, Failure> {
        Ok(self.load()?.config)
    }

    /// Writes a report, or a line of one, to stdout.
    pub fn report(&self, text: impl fmt::Display) {
        let mut out = std::io::stdout().lock();
        let Err(why) = writeln!(out, "{text}").and_then(|()| out.flush()) else {
            return;
        };
        if why.kind() != std::io::ErrorKind::BrokenPipe {
            to_stderr(format_args!("error: cannot write the report: {why}"));
            std::process::exit(1);
        }
        // Whoever read it has seen enough (`| head`). A verdict is still told, by the exit code.
        if !self.has_verdict {
            std::process::exit(0);
        }
    }

    /// Writes a report for machines: one line of JSON.
    pub fn report_json(&self, value: &serde_json::Value) {
        self.report(value);
    }

    /// Says something to the person at the terminal, on stderr; not with `-q`.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            to_stderr(text);
        }
    }

    /// A progress bar over `total` steps on stderr, or a hidden one where stderr is no terminal.
    #[must_use]
    pub fn progress(&self, total: u64, what: &'static str) -> indicatif::ProgressBar {
        if self.quiet || !std::io::stderr().is_terminal() {
            return indicatif::ProgressBar::hidden();
        }
        let style = indicatif::ProgressStyle::with_template(
            "{msg} {bar:30} {human_pos}/{human_len} ({eta})",
        )
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
        indicatif::ProgressBar::new(total)
            .with_style(style)
            .with_message(what)
    }
}

/// The first answer of a cluster is waited for so long before that is said.
const FIRST_ANSWER: Duration = Duration::from_secs(2);

/// Asks the cluster for a first answer: where none comes, its address is said, at once and in the end.
fn connect(config: &Config, patience: Duration, context: &Context) -> Result<Admin, Failure> {
    let settings = Settings::from(&config.kafka);
    let brokers = config.kafka.bootstrap_servers();
    let failed = |why: EdgeError| {
        Failure::Failed(format!(
            "no answer from the cluster at `{brokers}`: {why}; check `kafka.\"bootstrap.servers\"`, the network, and the \
             security properties in `[kafka]`"
        ))
    };
    let asker = Admin::new(&settings, FIRST_ANSWER).map_err(failed)?;
    let begun = Clock::mono();
    let mut is_told = false;
    while let Err(why) = asker.broker_count() {
        if !why.is_retryable() || Clock::mono().since(begun) >= patience {
            return Err(failed(why));
        }
        if !std::mem::replace(&mut is_told, true) {
            context.note(format_args!(
                "no answer yet from the cluster at `{brokers}`; waiting for up to {} s",
                patience.as_secs()
            ));
        }
    }
    Admin::new(&settings, patience).map_err(failed)
}

/// The topic that an argument names: unlike those of the configuration, `topics create` does not make it.
fn existing_topic(admin: &Admin, name: &str) -> Result<Topic, Failure> {
    admin
        .topic(name)
        .map_err(|why| Failure::failed(format_args!("topic `{name}`"), why))?
        .ok_or_else(|| Failure::Failed(format!("topic `{name}` does not exist")))
}

/// Parses the process's arguments, runs the command and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.global.set = every_set(&matches);
    start_log(&cli.global, &cli.command);
    let names_file = matches.value_source(CONFIG) == Some(ValueSource::CommandLine);
    let context = Context {
        is_configured: names_file || !cli.global.set.is_empty(),
        sources: Sources::of_process(cli.global.config, cli.global.set),
        json: cli.global.json,
        quiet: cli.global.quiet,
        has_verdict: matches!(
            cli.command,
            Command::Check(_) | Command::Verify(_) | Command::Demo(_) | Command::Simulate(_)
        ),
    };
    match dispatch(cli.command, &context) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::FAILURE,
        Err(failure) => {
            to_stderr(format_args!("error: {failure}"));
            match failure {
                Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
                Failure::Config(_) => ExitCode::from(EXIT_CONFIG),
                Failure::Failed(_) => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<Outcome, Failure> {
    match command {
        Command::Demo(args) => demo::run(&args, context),
        Command::Zones(args) => zones::run(&args, context),
        Command::Simulate(args) => simulate::run(&args, context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::DeadLetters(args) => dead_letters::run(&args, context),
        Command::Match(args) => matching::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Topics(args) => topics::run(&args, context),
        Command::Config(args) => config_show::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
    }
}

/// The command line as clap sees it, for completion scripts and tests.
#[must_use]
pub fn command() -> clap::Command {
    let command = <Cli as clap::CommandFactory>::command();
    let set = command
        .get_arguments()
        .find(|argument| argument.get_id() == SET)
        .expect("`Global` declares `set`")
        .clone();
    help::with_exits(with_argument(command, &set))
}

/// Gives the argument to every command below.
fn with_argument(command: clap::Command, argument: &clap::Arg) -> clap::Command {
    command.mut_subcommands(|below| with_argument(below.arg(argument.clone()), argument))
}

/// All of `--set`, before and after the command, in the order they were typed.
fn every_set(matches: &clap::ArgMatches) -> Vec<String> {
    let mut all = Vec::new();
    let mut level = Some(matches);
    while let Some(matches) = level {
        all.extend(matches.get_many(SET).into_iter().flatten().cloned());
        level = matches.subcommand().map(|(_, below)| below);
    }
    all
}

/// The one place that speaks to the terminal beside the log. Where nobody hears it (a full disk, `| head`), the exit code
/// still tells.
fn to_stderr(text: impl fmt::Display) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Starts the log on stderr. Only the daemon is chatty by itself; the other commands speak by their reports.
fn start_log(global: &Global, command: &Command) {
    use tracing_subscriber::EnvFilter;
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) if is_daemon(command) => "info",
        (false, 0) => "warn",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    // librdkafka repeats its trouble up to ten times a second while a broker is down (KAFKA.md 0.12); what matters of
    // it comes by our own lines.
    let filter = if global.verbose > 0 {
        level.to_owned()
    } else {
        format!("{level},librdkafka=off,rdkafka=off")
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        // It would panic where stderr cannot be written to, in whatever thread had something to say.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match global.log {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(fault) = started {
        to_stderr(format_args!("no log: {fault}"));
    }
}

const fn is_daemon(command: &Command) -> bool {
    matches!(command, Command::Run(_))
}

/// Reads a duration as it is typed: `250ms`, `2s`, `5m`, `3h`, `7d`.
///
/// # Errors
/// What is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is no duration; write 250ms, 2s, 5m, 3h or 7d");
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(expected)?;
    let (number, unit) = text.split_at_checked(unit_at).ok_or_else(expected)?;
    let number: u64 = number.parse().map_err(|_| expected())?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(expected()),
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(expected)
}

/// Reads an instant as it is typed: RFC 3339 or epoch milliseconds.
///
/// # Errors
/// What is expected.
pub fn instant(text: &str) -> Result<EventTime, String> {
    EventTime::parse_any(text).ok_or_else(|| {
        format!("`{text}` is no instant; write 2026-01-31T12:00:00Z or epoch milliseconds")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_fit_together_and_each_command_shows_an_example() {
        let command = command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Example"),
                "`ringfence {}` shows no example",
                sub.get_name()
            );
        }
    }

    #[test]
    fn set_counts_before_and_after_the_command_in_the_order_typed() {
        for (typed, expected) in [
            ("--set a.b=1 --set c.d=2 check", vec!["a.b=1", "c.d=2"]),
            (
                "check --set a.b=1 --offline --set=a.b=2",
                vec!["a.b=1", "a.b=2"],
            ),
            (
                "--set a.b=1 zones --set a.b=2 export --set a.b=3",
                vec!["a.b=1", "a.b=2", "a.b=3"],
            ),
            ("check", vec![]),
        ] {
            let arguments = std::iter::once("ringfence").chain(typed.split(' '));
            let matches = command().try_get_matches_from(arguments).expect(typed);
            assert_eq!(every_set(&matches), expected, "{typed}");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in [
            "",
            "7",
            "d",
            "-1s",
            "1.5s",
            "7 d",
            "99999999999999999d",
            "7é",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
