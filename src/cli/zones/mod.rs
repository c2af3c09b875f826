//! `zones …`: puts zones into the topic and tells what it holds. The topic is the only store: every answer is read from
//! it from the start.

mod import;
mod stored;
mod write;

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::{Context, Failure, Outcome, connect, duration, instant};
use crate::clock::Clock;
use crate::codec::geojson::{CollectionWriter, removal};
use crate::config::Config;
use crate::kafka::EdgeError;
use crate::kafka::client::Settings;
use crate::time::EventTime;
use crate::zone::ZoneId;
use stored::{Said, StoredZones};
use write::{Change, Told, write};

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `zones`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ringfence -c ringfence.toml zones import zones.geojson --skip-invalid\n  \
    ringfence -c ringfence.toml zones export > zones.geojson\n  \
    ringfence -c ringfence.toml zones history depot-7"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write zones from files; all of them act at one instant.
    #[command(
        after_help = "Example:\n  ringfence zones import city.geojson.gz --id name --replace"
    )]
    Import(ImportArgs),
    /// The zones in force, as a FeatureCollection.
    #[command(
        after_help = "Example:\n  ringfence zones export --at 2026-01-31T12:00:00Z > zones.geojson"
    )]
    Export {
        /// At this instant, not now.
        #[arg(long, value_name = "T", value_parser = instant)]
        at: Option<EventTime>,
    },
    /// One zone in force.
    #[command(after_help = "Example:\n  ringfence zones get depot-7")]
    Get {
        /// The zone id.
        id: String,
    },
    /// What the topic says of one zone, oldest first.
    #[command(after_help = "Example:\n  ringfence zones history depot-7")]
    History {
        /// The zone id.
        id: String,
    },
    /// Delete zones.
    #[command(
        after_help = "Example:\n  ringfence zones delete depot-7 depot-8 --effective-at 2026-01-31T12:00:00Z"
    )]
    Delete {
        /// The zone ids.
        #[arg(required = true)]
        ids: Vec<String>,
        /// When they end; by default as soon as the record is written.
        #[arg(long, value_name = "T", value_parser = instant)]
        effective_at: Option<EventTime>,
    },
}

/// Arguments of `zones import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// GeoJSON FeatureCollection, GeoJSONSeq or NDJSON of Features, `.gz` too; `-` = stdin.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The property that is the zone id; by default `id`, else the property `zone_id`.
    #[arg(long, value_name = "PROPERTY")]
    id: Option<String>,
    /// When they act, all together, whatever their own `effective_at` says; by default now and the lead.
    #[arg(long, value_name = "T", value_parser = instant, conflicts_with = "lead")]
    effective_at: Option<EventTime>,
    /// How far ahead they are announced; by default the larger of 2 s and three times the estimated write time.
    #[arg(long, value_name = "D", value_parser = duration)]
    lead: Option<Duration>,
    /// Remove the zones that the files lack.
    #[arg(long)]
    replace: bool,
    /// Leave invalid zones out, named, instead of writing none.
    #[arg(long)]
    skip_invalid: bool,
}

/// Does it.
///
/// # Errors
/// The topic is missing, the cluster does not answer, or a file cannot be read.
pub fn run(args: &Args, context: &Context) -> Result<Outcome, Failure> {
    let config = context.kafka_config()?;
    let failed = |why: EdgeError| Failure::failed("zones", why);
    let settings = Settings::from(&config.kafka);
    let admin = connect(&config, PATIENCE, context)?;
    let topic = config.zones.topic.as_str();
    let stored = || StoredZones::read(&settings, &admin, &config).map_err(failed);
    match &args.what {
        What::Import(args) => {
            admin.existing(topic).map_err(failed)?;
            import::run(args, &config, &settings, &stored, context)
        }
        What::Export { at } => export(&stored()?, at.unwrap_or_else(Clock::wall)),
        What::Get { id } => Ok(get(&stored()?, id, context)),
        What::History { id } => Ok(history(&stored()?, id, context)),
        What::Delete { ids, effective_at } => {
            if let Some(at) = effective_at {
                schedulable(*at, &config)?;
            }
            let known = stored()?;
            let now = Clock::wall();
            if let Some(id) = ids.iter().find(|id| !known.is_there(id, now)) {
                return Err(Failure::Failed(format!(
                    "no zone `{id}` is in force or announced; nothing was deleted"
                )));
            }
            let changes = ids.iter().map(|id| Change {
                key: id.clone(),
                // A tombstone lets compaction forget the zone; only a deletion in words can carry an instant.
                value: effective_at.map(|at| removal(&ZoneId::new(id), Some(at)).into_bytes()),
            });
            let written = write(&settings, topic, changes.collect(), *effective_at, context)
                .map_err(failed)?;
            let told = Told {
                text: format!("deleted {} zones", written.count),
                counts: json!({}),
                if_late: "a later `--effective-at` makes them end at one instant",
            };
            Ok(written.tell(told, *effective_at, context))
        }
    }
}

/// Refuses an instant so far ahead that the daemon would reject every change that names it, and so let the zones end
/// once their topic is compacted.
fn schedulable(effective_at: EventTime, config: &Config) -> Result<(), Failure> {
    let most = config.gate.max_schedule;
    if effective_at <= Clock::wall().plus(most) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{effective_at} is more than `gate.max_schedule_ms` ({}) ahead: the daemon would reject the changes as \
         `schedule_range`; nothing was written. Name an earlier instant (`--effective-at`, `--lead`), or raise the key, here \
         and for the daemon",
        most.as_millis()
    )))
}

fn export(zones: &StoredZones, at: EventTime) -> Result<Outcome, Failure> {
    let out = BufWriter::new(std::io::stdout().lock());
    let mut collection = CollectionWriter::new(out);
    let written = zones
        .in_force(at)
        .try_for_each(|(_, feature)| collection.add(feature))
        .and_then(|()| collection.finish())
        .and_then(|mut out| out.flush());
    match written {
        // Whoever read them has seen enough (`| head`).
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("cannot write the zones", why))
        }
        _ => Ok(Outcome::Done),
    }
}

fn get(zones: &StoredZones, id: &str, context: &Context) -> Outcome {
    match zones.zone(id, Clock::wall()) {
        Some(feature) => {
            context.report(String::from_utf8_lossy(feature));
            Outcome::Done
        }
        None => {
            context.note(format_args!("no zone `{id}` is in force"));
            Outcome::Found
        }
    }
}

fn history(zones: &StoredZones, id: &str, context: &Context) -> Outcome {
    let changes = zones.history(id);
    if changes.is_empty() {
        context.note(format_args!("the topic says nothing of `{id}`"));
        return Outcome::Found;
    }
    for change in changes {
        let (what, feature) = match &change.said {
            Said::Upsert(feature) => ("upsert".to_owned(), Some(String::from_utf8_lossy(feature))),
            Said::Remove => ("delete".to_owned(), None),
            Said::Refused(why) => (format!("rejected, {why}"), None),
        };
        if context.json {
            let feature: Option<serde_json::Value> = feature
                .as_deref()
                .and_then(|text| serde_json::from_str(text).ok());
            context.report_json(&json!({
                "position": change.position.to_string(),
                "commit_time": change.commit_time.millis(),
                "valid_from": change.valid_from.millis(),
                "expires_at": change.expires_at.map(EventTime::millis),
                "change": what,
                "feature": feature,
            }));
        } else {
            let until = change
                .expires_at
                .map(|at| format!(" until {at}"))
                .unwrap_or_default();
            context.report(format_args!(
                "{:>10}  committed {}  from {}{until}  {what}",
                change.position.to_string(),
                change.commit_time,
                change.valid_from
            ));
        }
    }
    Outcome::Done
}
