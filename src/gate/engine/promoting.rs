//! Driving builds: which changes go into the next index and when, and what a finished build leads to.

use std::sync::Arc;

use super::super::promotion::{Promotion, Step};
use super::super::rejected::RejectedZone;
use super::super::{BuildRequest, admission};
use super::{Gate, GateEffect};
use crate::index::{BuildFailure, BuildRules, Built, Index};
use crate::rejection::{Rejection, RejectionReason};
use crate::time::EventTime;
use crate::zone::StagedChange;

impl Gate {
    pub(super) fn built(
        &mut self,
        number: u64,
        result: Result<Built, BuildFailure>,
        effects: &mut Vec<GateEffect>,
    ) {
        // A build from before a start over is nobody's any more.
        let Some((expected, mut promotion)) = self.promotion.take() else {
            return;
        };
        if expected != number {
            self.promotion = Some((expected, promotion));
            return;
        }
        let mut step = match result {
            Ok(built) => {
                self.counters.version_regressions += built.report.version_regressions;
                self.counters.foreign_partition += built.report.foreign_partition_changes;
                if let Some(end) = built.report.dropped_history_end {
                    self.floor.raise(end);
                }
                promotion.built(built)
            }
            Err(failure) => {
                self.counters.build_failures += 1;
                promotion.failed(failure)
            }
        };
        if let Step::Refused(change, failure) = step {
            let rejection = Rejection::new(RejectionReason::BuildFailed, failure.to_string());
            self.refuse_built(&change, rejection, &mut promotion, effects);
            step = promotion.next();
        }
        match step {
            Step::Build(index, changes) => {
                self.promotion = Some((0, promotion));
                self.request(index, changes, effects);
            }
            Step::Done(index) => self.index = index,
            Step::Refused(..) => unreachable!("`next` refuses nothing"),
        }
    }

    pub(super) fn refuse_built(
        &mut self,
        change: &StagedChange,
        rejection: Rejection,
        promotion: &mut Promotion,
        effects: &mut Vec<GateEffect>,
    ) {
        self.counters.accepted = self.counters.accepted.saturating_sub(1);
        let removal = admission::removal(
            &change.zone_id,
            change.position,
            change.commit_time,
            self.topic.compaction_lag,
        );
        let rejected = RejectedZone {
            position: change.position,
            rejection,
            ends_at: removal.as_ref().map(|removal| removal.valid_from),
        };
        self.rejected(Some(change.zone_id.clone()), rejected, effects);
        if let Some(removal) = removal
            && !matches!(change.change, crate::zone::ZoneChange::Remove)
        {
            promotion.replace(removal);
        }
    }

    pub(super) fn request(
        &mut self,
        index: Arc<Index>,
        changes: Arc<[StagedChange]>,
        effects: &mut Vec<GateEffect>,
    ) {
        self.builds += 1;
        if let Some((number, _)) = &mut self.promotion {
            *number = self.builds;
        }
        let as_of = self
            .published
            .as_ref()
            .map_or(EventTime::MIN, |published| published.as_of);
        effects.push(GateEffect::Build(BuildRequest {
            number: self.builds,
            index,
            changes,
            as_of,
            rules: BuildRules {
                history_bytes_max: self.config.history_bytes_max,
            },
        }));
    }

    pub(super) fn advance_builds(&mut self, effects: &mut Vec<GateEffect>) {
        if self.promotion.is_some() || self.live_snapshots > self.config.live_snapshots_max {
            return;
        }
        let changes = if self.staging.should_build_ahead() {
            self.staging.take_all()
        } else {
            match (self.low_watermark, self.staging.earliest()) {
                (Some(low), Some(earliest)) if earliest <= low => self.staging.take_until(low),
                _ => return,
            }
        };
        if changes.is_empty() {
            return;
        }
        let promotion = Promotion::new(self.index.clone(), changes);
        if let Step::Build(index, changes) = promotion.next() {
            self.promotion = Some((0, promotion));
            self.request(index, changes, effects);
        }
    }
}
