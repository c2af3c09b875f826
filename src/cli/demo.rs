//! `demo`: all of it in one process. An embedded broker, a simulated fleet among moving zones, the daemon with two
//! workers, and the witness, who follows from before the first record and has the last word.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::interrupt::stop_on_signal;
use super::simulate::{Counts, RATE_MAX, Summary, World, range};
use super::verify::{Follower, Topics, follow_until, margin, rules};
use super::{Context, Failure, Outcome, duration};
use crate::clock::Clock;
use crate::config::{self, Config, Sources};
use crate::kafka::EdgeError;
use crate::kafka::admin::{Admin, End};
use crate::kafka::client::Settings;
use crate::kafka::mock::EmbeddedCluster;
use crate::run::{Handle, run as run_daemon};
use crate::shutdown::Shutdown;
use crate::simulate::FleetRules;
use crate::time::EventTime;
use crate::verify::Report;

/// The embedded broker keeps 5 MiB a partition: with so many the audit has half a minute and more to read them.
const TELEMETRY_PARTITIONS: i32 = 32;
const ZONE_PARTITIONS: i32 = 4;
const ZONES: usize = 1_000;
const ZONE_RATE: u64 = 100;
const ENTITIES: usize = 5_000;
/// The embedded broker stamps no record: stamps are the producers' own, so the margin must cover their way.
const CREATE_TIME_MARGIN: Duration = Duration::from_millis(2_000);
/// How far ahead zone changes are announced.
const LEAD: Duration = Duration::from_secs(3);
/// How long the daemon may take to finish what was written.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How often the live line is renewed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence demo\n  ringfence demo --for 10s --rate 5000\n\n\
    It reads no configuration: it brings its own cluster, with nothing of yours."
)]
pub struct Args {
    /// How long events are written.
    #[arg(long = "for", value_name = "D", default_value = "30s", value_parser = duration)]
    length: Duration,
    /// Events a second.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = range(1, RATE_MAX))]
    rate: u64,
}

/// Runs it.
///
/// # Errors
/// Something of it does not start.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let failed = |why: EdgeError| Failure::failed("demo", why);
    if context.is_configured {
        return Err(Failure::Usage(
            "`demo` brings its own cluster and configuration and reads no other: leave out `-c` and `--set`"
                .to_owned(),
        ));
    }
    let stop = stop_on_signal()?;
    let cluster = EmbeddedCluster::start(1).map_err(failed)?;
    let config = configure(&cluster)?;
    for (topic, partitions) in [
        (&config.zones.topic, ZONE_PARTITIONS),
        (&config.telemetry.topic, TELEMETRY_PARTITIONS),
        (&config.enriched.topic, TELEMETRY_PARTITIONS),
    ] {
        cluster.create_topic(topic, partitions).map_err(failed)?;
    }
    if let Some(topic) = &config.dead_letter.topic {
        cluster.create_topic(topic, 1).map_err(failed)?;
    }
    context.note(format_args!(
        "{} events/s of {ENTITIES} vehicles among {ZONES} zones, {ZONE_RATE} zone changes/s, for {} s; 2 workers, \
         an embedded broker, an independent audit",
        args.rate,
        args.length.as_secs()
    ));
    let settings = Settings::from(&config.kafka);
    let counts = Counts::default();
    let world = World {
        settings: settings.clone(),
        telemetry_topic: config.telemetry.topic.clone(),
        zones_topic: config.zones.topic.clone(),
        rate: args.rate,
        zones: ZONES,
        zone_rate: ZONE_RATE,
        fleet: FleetRules {
            entities: ENTITIES,
            late: 0.02,
            duplicate: 0.005,
            invalid: 0.01,
            lateness_max: Duration::from_secs(10),
        },
        seed: 1,
        length: Some(args.length),
        lead: LEAD,
    };
    let show = Show {
        config: &config,
        settings: &settings,
        world: &world,
        counts: &counts,
    };
    let (report, ended) = show.go(&stop, context)?;
    Ok(tell(&report, counts.summary(), ended, context))
}

fn configure(cluster: &EmbeddedCluster) -> Result<Config, Failure> {
    // Not the user's configuration: that is for their cluster.
    let mut config = config::load(&Sources::default())?.config;
    config
        .kafka
        .set_common("bootstrap.servers", &cluster.bootstrap_servers());
    config.gate.create_time_margin = Some(CREATE_TIME_MARGIN);
    config.workers.count = 2;
    config.http.listen = "127.0.0.1:0".to_owned();
    Ok(config)
}

struct Show<'a> {
    config: &'a Config,
    settings: &'a Settings,
    world: &'a World,
    counts: &'a Counts,
}

/// Whether the daemon finished what was written, and how it ended.
struct Ended {
    caught_up: bool,
    daemon: Result<(), String>,
}

impl Show<'_> {
    /// The audit first, then the world and the daemon; then all of it ends in turn, the audit last.
    fn go(&self, stop: &Shutdown, context: &Context) -> Result<(Report, Ended), Failure> {
        let failed = |why: EdgeError| Failure::failed("demo", why);
        let handle = Handle::new();
        let audit_stop = Shutdown::new();
        let rules = crate::verify::Rules {
            from_log_start: true,
            ..rules(self.config)
        };
        let follower = Follower::start(
            self.settings,
            Topics::of(self.config),
            rules,
            margin(self.config),
        )
        .map_err(failed)?;
        let (tell_progress, progress) = mpsc::sync_channel::<Report>(1);
        let mut line = Line::new(context);
        let mut last_told = Clock::mono();
        thread::scope(|scope| {
            let audit_stop = &audit_stop;
            let audit = scope.spawn(move || {
                follow_until(follower, audit_stop, |follower| {
                    let now = Clock::mono();
                    if now.since(last_told) >= LINE_EVERY {
                        last_told = now;
                        // Nobody has looked at the last one yet: then this one is not missed.
                        drop(tell_progress.try_send(follower.report()));
                    }
                })
            });
            let daemon =
                scope.spawn(|| run_daemon(self.config, &handle).map_err(|why| why.to_string()));
            let world = scope.spawn(|| self.world.write(self.counts, stop));
            while !world.is_finished() && !daemon.is_finished() && !audit.is_finished() {
                if let Ok(report) = progress.recv_timeout(LINE_EVERY) {
                    line.show(&handle, self.counts.summary(), &report);
                }
            }
            if daemon.is_finished() {
                stop.request(); // the daemon ended before its time: the world with it
            }
            let written = world
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let until = Clock::mono().plus(CATCH_UP);
            let mut caught_up = false;
            while !caught_up
                && !daemon.is_finished()
                && !audit.is_finished()
                && Clock::mono() < until
            {
                if let Ok(report) = progress.recv_timeout(LINE_EVERY) {
                    line.show(&handle, self.counts.summary(), &report);
                }
                caught_up = self.is_caught_up().unwrap_or(false);
            }
            handle.stop();
            let daemon = daemon
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            audit_stop.request();
            let report = audit
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            line.end();
            written.map_err(failed)?;
            Ok((report.map_err(failed)?, Ended { caught_up, daemon }))
        })
    }

    /// Whether every telemetry record is committed.
    fn is_caught_up(&self) -> Result<bool, EdgeError> {
        let admin = Admin::new(self.settings, Duration::from_secs(5))?;
        let topic = &self.config.telemetry.topic;
        let partitions = admin.existing(topic)?.ids();
        let committed = admin.committed(topic, &partitions)?;
        let ends = admin.offsets(topic, &partitions, End::Log)?;
        Ok(ends.iter().all(|(id, range)| {
            range.from == range.to
                || committed
                    .iter()
                    .any(|(of, at)| of == id && *at >= Some(range.to))
        }))
    }
}

/// The live line: renewed in place on a terminal, else one line every few seconds.
struct Line<'a> {
    context: &'a Context,
    bar: indicatif::ProgressBar,
    last: Option<(crate::time::MonoTime, u64, u64)>,
    shown: u64,
}

impl<'a> Line<'a> {
    fn new(context: &'a Context) -> Self {
        let bar = context.progress(0, "");
        bar.set_style(indicatif::ProgressStyle::with_template("{msg}").expect("a valid template"));
        Self {
            context,
            bar,
            last: None,
            shown: 0,
        }
    }

    fn show(&mut self, handle: &Handle, written: Summary, audit: &Report) {
        let status = handle.status().unwrap_or(Value::Null);
        let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let done = number("/records/enriched") + number("/records/dead_lettered");
        let now = Clock::mono();
        let (then, written_then, done_then) = self.last.unwrap_or((now, written.events, done));
        let seconds = now.since(then).as_secs_f64().max(0.001);
        #[expect(clippy::cast_precision_loss, reason = "a rate to be looked at")]
        let rate = |count: u64, before: u64| (count.saturating_sub(before)) as f64 / seconds;
        self.last = Some((now, written.events, done));
        let as_of = status
            .pointer("/gate/as_of")
            .and_then(Value::as_str)
            .and_then(EventTime::parse_rfc3339);
        let behind = as_of.map_or_else(
            || {
                status
                    .pointer("/phase")
                    .and_then(Value::as_str)
                    .unwrap_or("starting")
                    .to_owned()
            },
            |as_of| {
                format!(
                    "epoch {}, zones known up to {} ms ago",
                    number("/gate/epoch"),
                    Clock::wall().since(as_of).as_millis()
                )
            },
        );
        let text = format!(
            "events in {:>6.0}/s, out {:>6.0}/s | zone changes {} | {behind} | held {} | audited {}{}",
            rate(written.events, written_then),
            rate(done, done_then),
            written.zone_changes,
            number("/records/held"),
            audit.judged,
            if audit.is_clean() {
                ", clean"
            } else {
                ", NOT clean"
            },
        );
        if self.bar.is_hidden() {
            if self.shown.is_multiple_of(5) {
                self.context.note(&text);
            }
        } else {
            self.bar.set_message(text);
        }
        self.shown += 1;
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Why the audit cannot have judged all, where it has not.
fn falls_short(judged: u64, written: u64, caught_up: bool) -> Option<String> {
    match (written, caught_up) {
        (0, _) => Some("it ended before its first event: there is nothing to judge".to_owned()),
        (_, true) if judged == written => None,
        (_, true) => Some(format!("the audit judged {judged} of {written} events")),
        (_, false) => Some(format!(
            "the audit judged {judged} of {written} events: the daemon did not finish in {} s",
            CATCH_UP.as_secs()
        )),
    }
}

fn tell(report: &Report, written: Summary, ended: Ended, context: &Context) -> Outcome {
    let is_whole = report.judged == written.events && written.events > 0;
    let is_clean = report.is_clean() && is_whole && ended.caught_up && ended.daemon.is_ok();
    if context.json {
        context.report_json(&json!({
            "clean": is_clean,
            "written": written,
            "caught_up": ended.caught_up,
            "daemon": ended.daemon.as_ref().err(),
            "audit": report,
        }));
        return if is_clean {
            Outcome::Done
        } else {
            Outcome::Found
        };
    }
    context.report(format_args!(
        "written: {} events ({} invalid, {} sent twice), {} zone changes ({} clipped)",
        written.events, written.invalid, written.twice, written.zone_changes, written.clipped
    ));
    context.report(report);
    if let Err(why) = &ended.daemon {
        context.report(format_args!("the daemon failed: {why}"));
    } else if let Some(short) = falls_short(report.judged, written.events, ended.caught_up) {
        context.report(short);
    }
    context.report(format_args!(
        "Each event waited {} ms for its zones to be known: the embedded broker does not stamp records, so the margin \
         must cover the producers' clocks and their way. A real cluster stamps zone changes itself (LogAppendTime) and \
         needs 250 ms.",
        CREATE_TIME_MARGIN.as_millis()
    ));
    if is_clean {
        Outcome::Done
    } else {
        Outcome::Found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_judged_is_said_as_it_is() {
        assert_eq!(falls_short(5, 5, true), None);
        for (judged, written, caught_up, expected) in [
            (0, 0, true, "before its first event"),
            (0, 0, false, "before its first event"),
            (4, 5, true, "judged 4 of 5 events"),
            (4, 5, false, "did not finish in 60 s"),
        ] {
            let said = falls_short(judged, written, caught_up).unwrap();
            assert!(said.contains(expected), "{said}");
            assert_eq!(said.contains("60 s"), written > 0 && !caught_up);
        }
    }
}
