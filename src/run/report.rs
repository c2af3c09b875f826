//! What the daemon tells of itself: health, status and metrics, from what its threads publish. Nothing here waits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::zone_side::ZoneWindow;
use super::{alive, held};
use crate::clock::Clock;
use crate::codec::headers::Flag;
use crate::config::Config;
use crate::gate::{GateCounters, GateStatus};
use crate::http::{Check, Source};
use crate::kafka::worker::WorkerWindow;
use crate::metrics::{self, Exporter, Format};
use crate::partition::PartitionId;
use crate::pipeline::{Counters, PauseCause};
use crate::rejection::RejectionReason;
use crate::time::{EventTime, MonoTime};

/// How often metrics are set.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);

/// Where the daemon is in its life.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Asking the cluster for the zones topic.
    Cluster,
    /// Reading the zones.
    Bootstrap,
    /// Asking the cluster for the other topics.
    Topics,
    /// At work.
    Running,
    /// Ending.
    Draining,
}

impl Phase {
    const ALL: [Self; 5] = [
        Self::Cluster,
        Self::Bootstrap,
        Self::Topics,
        Self::Running,
        Self::Draining,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Bootstrap => "bootstrap",
            Self::Topics => "topics",
            Self::Running => "running",
            Self::Draining => "draining",
        }
    }
}

/// An answer that takes as long is worth a word.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// The window of the daemon.
pub(super) struct Report {
    phase: AtomicU8,
    waits_for: ArcSwap<String>,
    zones: Arc<ZoneWindow>,
    workers: Vec<Arc<WorkerWindow>>,
    telemetry_partitions: AtomicI64,
    exporter: Option<Exporter>,
    telemetry_topic: String,
    zones_topic: String,
    published: std::sync::Mutex<Published>,
    published_at: AtomicU64,
}

/// What the counters were when they were last added to the metrics.
#[derive(Default)]
struct Published {
    workers: Vec<Counters>,
    gate: GateCounters,
    /// How often the workers that now run have opened the breaker.
    breaker_opened: u64,
    /// The telemetry partitions with a lag.
    lagging: BTreeSet<PartitionId>,
}

impl Report {
    pub(super) fn new(config: &Config, exporter: Option<Exporter>) -> Self {
        let count = config.workers.threads();
        Self {
            phase: AtomicU8::new(0),
            waits_for: ArcSwap::default(),
            zones: Arc::new(ZoneWindow::default()),
            workers: (0..count)
                .map(|_| Arc::new(WorkerWindow::default()))
                .collect(),
            telemetry_partitions: AtomicI64::new(-1),
            exporter,
            telemetry_topic: config.telemetry.topic.clone(),
            zones_topic: config.zones.topic.clone(),
            published: std::sync::Mutex::new(Published {
                workers: vec![Counters::default(); count],
                ..Published::default()
            }),
            published_at: AtomicU64::new(0),
        }
    }

    pub(super) fn zones(&self) -> &Arc<ZoneWindow> {
        &self.zones
    }

    pub(super) fn workers(&self) -> &[Arc<WorkerWindow>] {
        &self.workers
    }

    pub(super) fn enter(&self, phase: Phase) {
        tracing::debug!(phase = phase.as_str(), "phase");
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(super) fn waits_for(&self, what: String) {
        self.waits_for.store(Arc::new(what));
    }

    /// What a start waits for, if anything: of the cluster, then of the zones.
    fn waiting_for(&self) -> String {
        let cluster = self.waits_for.load();
        if cluster.is_empty() {
            let gate = self.zones.status.load();
            gate.as_ref()
                .map_or_else(String::new, |status| status.waiting_for.clone())
        } else {
            cluster.to_string()
        }
    }

    pub(super) fn knows_topics(&self, telemetry_partitions: usize) {
        self.telemetry_partitions.store(
            i64::try_from(telemetry_partitions).unwrap_or(i64::MAX),
            Ordering::Release,
        );
    }

    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    pub(super) fn publish_if_due(&self, now: MonoTime) {
        let last = MonoTime::from_micros(self.published_at.load(Ordering::Relaxed));
        if now.since(last) >= PUBLISH_EVERY {
            self.published_at.store(now.micros(), Ordering::Relaxed);
            self.publish();
        }
    }

    /// Sets the gauges, and adds to the counters what has come since the last time.
    pub(super) fn publish(&self) {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut held, mut in_flight, mut opened) = (0, 0, 0);
        let mut paused = [0_usize; PauseCause::ALL.len()];
        for (window, last) in self.workers.iter().zip(&mut published.workers) {
            let seen = window.seen();
            add_counters(&seen.counters, last);
            *last = seen.counters;
            opened += seen.breaker_opened;
            held += seen.counters.held;
            in_flight += seen.counters.in_flight;
            for (at, (_, count)) in seen.paused.iter().enumerate() {
                paused[at] += count;
            }
        }
        self.publish_lag(&mut published.lagging);
        let before = std::mem::replace(&mut published.breaker_opened, opened);
        metrics::DEAD_LETTER_BREAKER_OPENED
            .counter(&[])
            .increment(opened.saturating_sub(before));
        metrics::RECORDS_HELD.gauge(&[]).set(held as f64);
        metrics::RECORDS_IN_FLIGHT.gauge(&[]).set(in_flight as f64);
        for (cause, count) in PauseCause::ALL.iter().zip(paused) {
            metrics::PARTITIONS_PAUSED
                .gauge(&[cause.as_str().to_owned()])
                .set(count as f64);
        }
        if let Some(status) = self.zones.status.load_full() {
            self.publish_gate(&status, &mut published.gate);
        }
        if let Some(exporter) = &self.exporter {
            exporter.upkeep();
        }
    }

    /// The lag of each telemetry partition that is ours; of one that was it is set to 0 once, and its series ends a
    /// little later, as it is not set again (FS-75).
    fn publish_lag(&self, lagging: &mut BTreeSet<PartitionId>) {
        let set = |partition: PartitionId, lag: u64| {
            metrics::CONSUMER_LAG
                .gauge(&[self.telemetry_topic.clone(), partition.to_string()])
                .set(lag as f64);
        };
        let mut ours = BTreeSet::new();
        for window in &self.workers {
            for (partition, lag) in &window.seen().lag {
                ours.insert(*partition);
                set(*partition, *lag);
            }
        }
        for partition in lagging.difference(&ours) {
            set(*partition, 0);
        }
        *lagging = ours;
    }

    fn publish_zone_partitions(&self, status: &GateStatus) {
        for partition in &status.partitions {
            let label = [partition.partition.to_string()];
            if let Some(watermark) = partition.watermark {
                metrics::WATERMARK
                    .gauge(&label)
                    .set(watermark.millis() as f64 / 1e3);
            }
            if let Some(log_end) = partition.log_end {
                let behind = u64::try_from(log_end.0 - partition.next_offset.0).unwrap_or(0);
                metrics::CONSUMER_LAG
                    .gauge(&[self.zones_topic.clone(), partition.partition.to_string()])
                    .set(behind as f64);
            }
            let is_held = status
                .held_by
                .iter()
                .any(|held| held.partition == partition.partition);
            metrics::GATE_HELD
                .gauge(&label)
                .set(f64::from(u8::from(is_held)));
        }
    }

    fn publish_gate(&self, status: &GateStatus, last: &mut GateCounters) {
        let set = |metric: metrics::Metric, at: Option<EventTime>| {
            if let Some(at) = at {
                metric.gauge(&[]).set(at.millis() as f64 / 1e3);
            }
        };
        set(metrics::LOW_WATERMARK, status.low_watermark);
        set(metrics::AS_OF, status.as_of);
        set(metrics::FLOOR, status.floor);
        self.publish_zone_partitions(status);
        metrics::SETTLE_MARGIN
            .gauge(&[])
            .set(status.settle_margin.as_secs_f64());
        metrics::EPOCH.gauge(&[]).set(status.epoch.0 as f64);
        metrics::ZONES.gauge(&[]).set(status.zones as f64);
        metrics::STAGING_QUEUE_DEPTH
            .gauge(&[])
            .set(status.staged as f64);
        metrics::ZONES_REJECTED
            .gauge(&[])
            .set(status.rejected_zone_count as f64);
        metrics::ACTIVE_SNAPSHOTS
            .gauge(&[])
            .set(self.zones.live_snapshots.load(Ordering::Relaxed) as f64);
        if let Some(difference) = status.clock_difference_ms {
            metrics::CLOCK_DIFFERENCE
                .gauge(&[])
                .set(difference as f64 / 1e3);
        }
        metrics::CLOCK_STEPS
            .counter(&[])
            .absolute(self.zones.clock_steps.load(Ordering::Relaxed));
        let now = &status.counters;
        let on_time =
            |counters: &GateCounters| counters.accepted.saturating_sub(counters.violations);
        let results = [
            ("applied", on_time(now), on_time(last)),
            ("rejected", now.rejected, last.rejected),
            ("late", now.violations, last.violations),
        ];
        for (result, now, last) in results {
            metrics::ZONE_CHANGES
                .counter(&[result.to_owned()])
                .increment(now.saturating_sub(last));
        }
        let since = |now: u64, last: u64| now.saturating_sub(last);
        metrics::GATE_VIOLATIONS
            .counter(&[])
            .increment(since(now.violations, last.violations));
        metrics::EFFECTIVE_AT_CLIPPED
            .counter(&[])
            .increment(since(now.clipped, last.clipped));
        metrics::ZONE_VERSION_REGRESSIONS
            .counter(&[])
            .increment(since(now.version_regressions, last.version_regressions));
        *last = *now;
    }

    fn totals(&self) -> Value {
        let all: Vec<Counters> = self
            .workers
            .iter()
            .map(|window| window.seen().counters)
            .collect();
        let sum = |of: fn(&Counters) -> u64| all.iter().map(of).sum::<u64>();
        json!({
            "consumed": sum(|c| c.consumed),
            "enriched": sum(|c| c.enriched),
            "dead_lettered": sum(|c| c.dead_lettered.total()),
            "dropped": sum(|c| c.dropped.total()),
            "forwarded": sum(|c| c.forwarded),
            "released": sum(|c| c.released),
            "held": sum(|c| c.held),
            "in_flight": sum(|c| c.in_flight),
            "unowned": sum(|c| c.unowned),
            "repeated": sum(|c| c.repeated),
            "stale_acks": sum(|c| c.stale_acks),
            "flagged": Flag::ALL.iter().map(|flag| {
                (flag.as_str().to_owned(), all.iter().map(|c| c.flagged(*flag)).sum::<u64>().into())
            }).collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Adds what `now` has more than `last`; a worker made anew begins at zero.
fn add_counters(now: &Counters, last: &Counters) {
    let is_new = now.consumed < last.consumed;
    let none = Counters::default();
    let last = if is_new { &none } else { last };
    let add = |metric: metrics::Metric, now: u64, last: u64| {
        metric.counter(&[]).increment(now.saturating_sub(last));
    };
    add(metrics::RECORDS_CONSUMED, now.consumed, last.consumed);
    add(metrics::RECORDS_ENRICHED, now.enriched, last.enriched);
    add(metrics::RECORDS_FORWARDED, now.forwarded, last.forwarded);
    add(metrics::RECORDS_RELEASED, now.released, last.released);
    for (result, now, last) in [
        (
            "committed",
            now.transactions_committed,
            last.transactions_committed,
        ),
        (
            "aborted",
            now.transactions_aborted,
            last.transactions_aborted,
        ),
    ] {
        if now > last {
            metrics::TRANSACTIONS
                .counter(&[result.to_owned()])
                .increment(now - last);
        }
    }
    for reason in RejectionReason::ALL {
        let label = || [reason.as_str().to_owned()];
        let dead = now.dead_lettered.of(*reason)
            - last
                .dead_lettered
                .of(*reason)
                .min(now.dead_lettered.of(*reason));
        if dead > 0 {
            metrics::RECORDS_DEAD_LETTERED
                .counter(&label())
                .increment(dead);
        }
        let dropped =
            now.dropped.of(*reason) - last.dropped.of(*reason).min(now.dropped.of(*reason));
        if dropped > 0 {
            metrics::RECORDS_DROPPED
                .counter(&label())
                .increment(dropped);
        }
    }
    for flag in Flag::ALL {
        let flagged = now.flagged(flag).saturating_sub(last.flagged(flag));
        if flagged > 0 {
            metrics::RECORDS_FLAGGED
                .counter(&[flag.as_str().to_owned()])
                .increment(flagged);
        }
    }
}

fn since(held_for: Duration) -> String {
    Clock::wall().minus(held_for).to_string()
}

fn gate_json(status: &GateStatus) -> Value {
    let time = |at: Option<EventTime>| at.map(|at| at.to_string());
    json!({
        "bootstrapped": status.bootstrapped,
        "waiting_for": status.waiting_for,
        "reading": status.reading.map(|reading| json!({
            "read": reading.read,
            "of": reading.of,
            "zones": reading.zones,
        })),
        "starting_over": status.starting_over,
        "clock_difference_ms": status.clock_difference_ms,
        "degraded": status.degraded,
        "t": status.t.to_string(),
        "as_of": time(status.as_of),
        "low_watermark": time(status.low_watermark),
        "floor": time(status.floor),
        "settle_margin_ms": status.settle_margin.as_millis() as u64,
        "epoch": status.epoch.0,
        "zones": status.zones,
        "staged": status.staged,
        "staged_bytes": status.staged_bytes,
        "paused": status.paused,
        "held_by": status.held_by.iter().map(|held| json!({
            "partition": held.partition.0,
            "cause": held.cause.as_str(),
            "since": since(held.held_for),
        })).collect::<Vec<_>>(),
        "partitions": status.partitions.iter().map(|partition| json!({
            "partition": partition.partition.0,
            "watermark": time(partition.watermark),
            "next_offset": partition.next_offset.0,
            "log_end_offset": partition.log_end.map(|end| end.0),
        })).collect::<Vec<_>>(),
        "rejected_zones": status.rejected_zones.iter().map(|(id, zone)| json!({
            "zone": id.as_str(),
            "position": zone.position.to_string(),
            "reason": zone.rejection.reason.as_str(),
            "detail": zone.rejection.detail,
            "previous_version_ends_at": time(zone.ends_at),
        })).collect::<Vec<_>>(),
        "rejected_zone_count": status.rejected_zone_count,
        "changes": {
            "accepted": status.counters.accepted,
            "rejected": status.counters.rejected,
            "violations": status.counters.violations,
            "lateness_max_ms": status.counters.lateness_max.as_millis() as u64,
            "clipped": status.counters.clipped,
            "future": status.counters.future,
            "version_regressions": status.counters.version_regressions,
            "foreign_partition": status.counters.foreign_partition,
            "build_failures": status.counters.build_failures,
            "starts_over": status.counters.starts_over,
        },
    })
}

impl Source for Report {
    fn alive(&self) -> Result<(), String> {
        let now = Clock::mono();
        // Before its first turn, and while it is made anew, a loop has no beat to judge by.
        if self.phase() >= Phase::Bootstrap
            && alive::is_silent(self.zones.beat(), now, alive::STANDS_STILL_AFTER)
        {
            return Err("the zones side stands still".to_owned());
        }
        if self.phase() == Phase::Running {
            for (number, window) in self.workers.iter().enumerate() {
                let stalled = alive::stalled(window.beat(), window.is_ending(), now);
                stalled.map_err(|how| format!("worker {number} {how}"))?;
            }
        }
        Ok(())
    }

    fn checks(&self) -> Vec<Check> {
        let phase = self.phase();
        let waits_for = self.waits_for.load();
        let gate = self.zones.status.load();
        let found = phase >= Phase::Bootstrap && waits_for.is_empty();
        let cluster = Check {
            name: "cluster",
            ok: found,
            // An outage is no reason to be taken out: all processes are in it, and none is mended by a start.
            detail: match gate.as_ref().map(|status| status.silent_for(SILENT_AFTER)) {
                Some(silent @ 1..) if found => format!(
                    "found at the start; {silent} partitions of the zones topic do not answer now"
                ),
                _ => waits_for.to_string(),
            },
        };
        let bootstrap = Check {
            name: "zones",
            ok: gate.as_ref().is_some_and(|status| status.bootstrapped),
            detail: gate.as_ref().map_or_else(
                || "not read yet".to_owned(),
                |status| status.waiting_for.clone(),
            ),
        };
        let turning = self
            .workers
            .iter()
            .filter(|window| window.beat().micros() > 0 && !window.is_ending())
            .count();
        let workers = Check {
            name: "workers",
            ok: phase == Phase::Running && turning == self.workers.len(),
            detail: if phase == Phase::Draining {
                "draining".to_owned()
            } else {
                format!("{turning} of {} turn", self.workers.len())
            },
        };
        vec![cluster, bootstrap, workers, held::check(&self.workers)]
    }

    fn status(&self) -> Value {
        let workers = self.workers.iter().enumerate().map(|(number, window)| {
            let seen = window.seen();
            json!({
                "worker": number,
                "partitions": seen.owned.iter().map(|(partition, committable)| json!({
                    "partition": partition.0,
                    "committable": committable.map(|offset| offset.0),
                    "lag": seen.lag.iter().find(|(id, _)| id == partition).map(|(_, lag)| lag),
                })).collect::<Vec<_>>(),
                "consumed": seen.counters.consumed,
                "held": seen.counters.held,
                "in_flight": seen.counters.in_flight,
                "paused": seen.paused.iter().map(|(cause, count)| {
                    (cause.as_str().to_owned(), (*count).into())
                }).collect::<serde_json::Map<_, _>>(),
                "held_as_invalid": seen.held_partitions.iter().map(held::status).collect::<Vec<_>>(),
                "batches_refused": seen.batches_refused,
                "out_of_range": { "times": seen.out_of_range, "records_lost": seen.out_of_range_lost },
            })
        });
        let partitions = self.telemetry_partitions.load(Ordering::Acquire);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": self.phase().as_str(),
            "waiting_for": self.waiting_for(),
            "telemetry_partitions": (partitions >= 0).then_some(partitions),
            "gate": self.zones.status.load().as_ref().map(|status| gate_json(status)),
            "workers": workers.collect::<Vec<_>>(),
            "records": self.totals(),
        })
    }

    fn metrics(&self, format: Format) -> String {
        self.exporter
            .as_ref()
            .map_or_else(String::new, |exporter| exporter.render(format))
    }
}
