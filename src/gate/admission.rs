//! From a record of the zones topic to a staged change: commit time, `valid_from`, the schedule's bound, and what a
//! rejected change leaves behind (DESIGN 3, 4).

use std::sync::Arc;
use std::time::Duration;

use crate::partition::RecordPosition;
use crate::rejection::{Rejection, RejectionReason};
use crate::telemetry::{OwnedRecord, RecordTimestamp};
use crate::time::EventTime;
use crate::zone::{DecodedChange, StagedChange, ZoneChange, ZoneId};

/// A record of the zones topic, decoded or refused.
#[derive(Clone, Debug)]
pub struct ZoneRecord {
    /// Where it is.
    pub position: RecordPosition,
    /// Its Kafka timestamp.
    pub timestamp: RecordTimestamp,
    /// What it says; a refused one with the zone that its key names.
    pub outcome: Result<DecodedChange, (Option<ZoneId>, Rejection)>,
    /// Bytes of key, value and headers.
    pub bytes: usize,
    /// As it came: what a dead letter repeats.
    pub record: Option<Arc<OwnedRecord>>,
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Admitted {
    /// A change to stage.
    Change { change: StagedChange, clipped: bool },
    /// Refused; `removal` ends the previous version when the topic may have lost it.
    Rejected {
        zone_id: Option<ZoneId>,
        rejection: Rejection,
        removal: Option<StagedChange>,
        record: Option<Arc<OwnedRecord>>,
    },
}

/// Applies the time rules to a record.
pub(super) fn admit(
    record: ZoneRecord,
    max_schedule: Duration,
    compaction_lag: Option<Duration>,
) -> Admitted {
    let ZoneRecord {
        position,
        timestamp,
        outcome,
        bytes,
        record,
    } = record;
    let Some(commit_time) = timestamp.instant() else {
        let zone_id = match outcome {
            Ok(change) => Some(change.zone_id),
            Err((zone_id, _)) => zone_id,
        };
        let rejection = Rejection::new(RejectionReason::NoTimestamp, "the record has no timestamp");
        return Admitted::Rejected {
            zone_id,
            rejection,
            removal: None,
            record,
        };
    };
    let (zone_id, rejection) = match outcome {
        Ok(decoded) => match timed(decoded, position, commit_time, bytes, max_schedule) {
            Ok((change, clipped)) => {
                let change = StagedChange { record, ..change };
                return Admitted::Change { change, clipped };
            }
            Err((zone_id, rejection)) => (Some(zone_id), rejection),
        },
        Err(refused) => refused,
    };
    let removal = zone_id
        .as_ref()
        .and_then(|id| removal(id, position, commit_time, compaction_lag));
    Admitted::Rejected {
        zone_id,
        rejection,
        removal,
        record,
    }
}

/// What a rejected change does to its zone: the version before it ends when a compacted topic may have lost it, so that
/// a process that bootstraps then and one that ran all along agree.
pub(super) fn removal(
    zone_id: &ZoneId,
    position: RecordPosition,
    commit_time: EventTime,
    compaction_lag: Option<Duration>,
) -> Option<StagedChange> {
    Some(StagedChange {
        zone_id: zone_id.clone(),
        change: ZoneChange::Remove,
        position,
        commit_time,
        valid_from: commit_time.plus(compaction_lag?),
        expires_at: None,
        bytes: 0,
        record: None,
    })
}

fn timed(
    decoded: DecodedChange,
    position: RecordPosition,
    commit_time: EventTime,
    bytes: usize,
    max_schedule: Duration,
) -> Result<(StagedChange, bool), (ZoneId, Rejection)> {
    let effective_at = decoded.effective_at.unwrap_or(commit_time);
    if effective_at > commit_time.plus(max_schedule) {
        let detail = format!(
            "`effective_at` {effective_at} is more than {} ms after the commit time {commit_time}",
            max_schedule.as_millis()
        );
        return Err((
            decoded.zone_id,
            Rejection::new(RejectionReason::ScheduleRange, detail),
        ));
    }
    let area_bytes = match &decoded.change {
        ZoneChange::Upsert(zone) => zone.area.byte_len(),
        ZoneChange::Remove => 0,
    };
    let change = StagedChange {
        zone_id: decoded.zone_id,
        change: decoded.change,
        position,
        commit_time,
        valid_from: effective_at.max(commit_time),
        expires_at: decoded.expires_at,
        bytes: bytes + area_bytes,
        record: None,
    };
    Ok((change, effective_at < commit_time))
}
