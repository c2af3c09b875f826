//! `zones import`: reads all files and judges every zone before the first is written; then writes them with one
//! `effective_at`, so that all act together.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::stored::StoredZones;
use super::write::{Change, Told, write};
use super::{ImportArgs, schedulable};
use crate::cli::matching::{open, refuse_crs};
use crate::cli::{Context, Failure, Outcome};
use crate::clock::Clock;
use crate::codec::features::FeatureReader;
use crate::codec::geojson::{Stamp, removal};
use crate::codec::zone_change;
use crate::config::Config;
use crate::kafka::client::Settings;
use crate::time::EventTime;
use crate::zone::ZoneId;

/// The shortest default lead.
const LEAD_MIN: Duration = Duration::from_secs(2);
/// What the cluster is assumed to take in a second, for the default lead: low, as a lead too short spoils the import.
const BYTES_PER_SECOND: u64 = 5 << 20;
/// Likewise, records.
const RECORDS_PER_SECOND: u64 = 10_000;
/// How many zones of a kind are named.
const NAMED: usize = 10;

/// The zones of the files, ready but for the instant.
#[derive(Debug, Default)]
struct Read {
    /// As they stand in the files.
    features: Vec<Vec<u8>>,
    ids: BTreeSet<ZoneId>,
    bytes: u64,
    invalid: u64,
    /// Those that name an instant of their own, which the run's one is written over.
    scheduled: u64,
    /// When those end that do.
    ends: Vec<(ZoneId, EventTime)>,
}

pub(super) fn run(
    args: &ImportArgs,
    config: &Config,
    settings: &Settings,
    stored: &dyn Fn() -> Result<StoredZones, Failure>,
    context: &Context,
) -> Result<Outcome, Failure> {
    let stamp = Stamp::new(args.id.as_deref(), config.zones.max_bytes);
    let read = read(args, config, &stamp, context)?;
    if read.invalid > 0 && !args.skip_invalid {
        return Err(Failure::Failed(format!(
            "invalid zones: {}, so nothing was written; `--skip-invalid` leaves them out",
            read.invalid
        )));
    }
    if read.features.is_empty() {
        return Err(Failure::Failed(
            "no valid zone in the files, so nothing was written; not even `--replace` removes all zones that way".to_owned(),
        ));
    }
    let now = Clock::wall();
    let gone: Vec<ZoneId> = if args.replace {
        let stored = stored()?;
        stored
            .there(now)
            .map(ZoneId::new)
            .filter(|id| !read.ids.contains(id))
            .collect()
    } else {
        Vec::new()
    };
    let effective_at = args.effective_at.unwrap_or_else(|| {
        let records = (read.features.len() + gone.len()) as u64;
        let lead = args.lead;
        Clock::wall().plus(lead.unwrap_or_else(|| default_lead(read.bytes, records)))
    });
    schedulable(effective_at, config)?;
    let told = told(args, &read, gone.len(), effective_at, context);
    let mut changes = Vec::with_capacity(read.features.len() + gone.len());
    for feature in read.features {
        let stamped = stamp.apply(&feature, Some(effective_at));
        let (id, value) = stamped.map_err(|why| Failure::failed("cannot stamp a zone", why))?;
        changes.push(Change {
            key: id.as_str().to_owned(),
            value: Some(value),
        });
    }
    changes.extend(gone.iter().map(|id| Change {
        key: id.as_str().to_owned(),
        value: Some(removal(id, Some(effective_at)).into_bytes()),
    }));
    let written = write(
        settings,
        &config.zones.topic,
        changes,
        Some(effective_at),
        context,
    )
    .map_err(|why| Failure::failed("zones import", why))?;
    Ok(written.tell(told, Some(effective_at), context))
}

/// What is said of an import, if all of it is written.
fn told(
    args: &ImportArgs,
    read: &Read,
    removed: usize,
    effective_at: EventTime,
    context: &Context,
) -> Told {
    let over: Vec<String> = read
        .ends
        .iter()
        .filter(|(_, end)| *end <= effective_at)
        .map(|(id, end)| format!("`{id}` ({end})"))
        .collect();
    let imported = read.features.len() - over.len();
    let mut text = format!("imported {imported} zones");
    let mut and = |said: bool, what: String| {
        if said {
            text.push_str(&what);
        }
    };
    and(args.replace, format!(", {removed} removed"));
    and(
        read.invalid > 0,
        format!(", {} invalid left out", read.invalid),
    );
    and(
        !over.is_empty(),
        format!(", {} over before they begin", over.len()),
    );
    if !over.is_empty() {
        let more = over.len().saturating_sub(NAMED);
        let and_more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        context.note(format_args!(
            "their `expires_at` is not after {effective_at}, so that they are never in force: {}{and_more}",
            over[..over.len().min(NAMED)].join(", ")
        ));
    }
    if read.scheduled > 0 {
        context.note(format_args!(
            "{} zones name an `effective_at` of their own: {effective_at} is written over it, as an import acts at one instant",
            read.scheduled
        ));
    }
    Told {
        text,
        counts: json!({
            "imported": imported,
            "removed": removed,
            "invalid": read.invalid,
            "over": over.len(),
            "rescheduled": read.scheduled,
        }),
        if_late: "import again, with a larger `--lead`",
    }
}

fn default_lead(bytes: u64, records: u64) -> Duration {
    let micros = bytes * 1_000_000 / BYTES_PER_SECOND + records * 1_000_000 / RECORDS_PER_SECOND;
    LEAD_MIN.max(Duration::from_micros(3 * micros))
}

/// Reads and judges every zone of every file; names each invalid one.
fn read(
    args: &ImportArgs,
    config: &Config,
    stamp: &Stamp,
    context: &Context,
) -> Result<Read, Failure> {
    let rules = config.zone_rules();
    // Any instant will do: that the stamped Feature is valid does not hang on it.
    let some_instant = EventTime::clamped(0);
    let mut read = Read::default();
    for path in &args.files {
        let mut features = FeatureReader::new(open(path)?, config.zones.max_bytes);
        loop {
            let next = features.next_feature();
            let Some((place, feature)) =
                next.map_err(|why| Failure::failed(path.display(), why))?
            else {
                break;
            };
            let is_scheduled = stamp.finds_instant(feature);
            let stamped = stamp.apply(feature, Some(some_instant));
            let name = stamped
                .as_ref()
                .map(|(id, _)| format!(" `{id}`"))
                .unwrap_or_default();
            let judged = stamped.and_then(|(id, value)| {
                zone_change::decode(Some(id.as_str().as_bytes()), Some(&value), &rules)
            });
            let wrong = match judged {
                // A second zone of one id would only overwrite the first.
                Ok(change) if !read.ids.insert(change.zone_id.clone()) => {
                    Some("its id came before".to_owned())
                }
                Ok(change) => {
                    let end = change.expires_at;
                    read.ends.extend(end.map(|end| (change.zone_id, end)));
                    None
                }
                Err(why) => Some(why.to_string()),
            };
            match wrong {
                Some(why) => {
                    read.invalid += 1;
                    context.note(format_args!("{}: {place}{name}: {why}", path.display()));
                }
                None => {
                    read.scheduled += u64::from(is_scheduled);
                    read.bytes += feature.len() as u64;
                    read.features.push(feature.to_vec());
                }
            }
        }
        refuse_crs(path, &features)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_lead_grows_with_what_is_written() {
        assert_eq!(default_lead(0, 10), LEAD_MIN);
        assert_eq!(default_lead(50 << 20, 10_000), Duration::from_secs(33));
    }
}
