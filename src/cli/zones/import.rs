//! `zones import`: reads all files and judges every zone before the first is written; then writes them with one
//! `effective_at`, so that all act together.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ImportArgs;
use super::stored::StoredZones;
use super::write::{Change, write};
use crate::cli::matching::open;
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

/// The zones of the files, ready but for the instant.
#[derive(Debug, Default)]
struct Read {
    /// As they stand in the files.
    features: Vec<Vec<u8>>,
    ids: BTreeSet<ZoneId>,
    bytes: u64,
    invalid: u64,
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
            "{} zones are invalid, so nothing was written; `--skip-invalid` leaves them out",
            read.invalid
        )));
    }
    if read.features.is_empty() {
        return Err(Failure::Failed(
            "no valid zone in the files; nothing was written".to_owned(),
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
    let count = read.features.len();
    let effective_at = args.effective_at.unwrap_or_else(|| {
        let records = (count + gone.len()) as u64;
        Clock::wall().plus(
            args.lead
                .unwrap_or_else(|| default_lead(read.bytes, records)),
        )
    });
    let mut changes = Vec::with_capacity(count + gone.len());
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
    let removed = if args.replace {
        format!(", {} removed", gone.len())
    } else {
        String::new()
    };
    let skipped = if read.invalid > 0 {
        format!(", {} invalid left out", read.invalid)
    } else {
        String::new()
    };
    Ok(written.tell(
        &format!("imported {count} zones{removed}{skipped}"),
        Some(effective_at),
        context,
    ))
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
                Ok(_) => None,
                Err(why) => Some(why.to_string()),
            };
            match wrong {
                Some(why) => {
                    read.invalid += 1;
                    context.note(format_args!("{}: {place}{name}: {why}", path.display()));
                }
                None => {
                    read.bytes += feature.len() as u64;
                    read.features.push(feature.to_vec());
                }
            }
        }
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
