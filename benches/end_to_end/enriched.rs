//! The daemon's own worker over a published snapshot: consume, decode, match, splice, produce, commit. The zones side is
//! quiet, so it is left out: between promotions it costs a few requests a second, whatever the number of events.

use std::sync::Arc;
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use ringfence::clock::{Clock, GuardedTime};
use ringfence::codec::headers::HeaderForm;
use ringfence::codec::telemetry::{FieldRules, Fields};
use ringfence::gate::{Degraded, Epoch, Snapshot};
use ringfence::kafka::worker::{ExactlyOnce, StartAt, Worker, WorkerSettings, WorkerWindow};
use ringfence::pipeline::{AtRules, MatchMode, PipelineConfig};
use ringfence::shutdown::Shutdown;
use ringfence::time::EventTime;

use crate::job::{COMMIT_EVERY, Job, PER_EDGE, SIDE, workers};
use crate::support;
use crate::support::measure::Cost;
use crate::watch::{self, Done};

/// The default.
fn event_time() -> MatchMode {
    MatchMode::Event {
        from: None,
        until: None,
    }
}

/// `gate.match = "latest"`.
pub(crate) fn latest() -> MatchMode {
    MatchMode::Latest
}

/// `delivery.mode = "exactly_once"`.
pub(crate) fn exactly_once(job: &Job) -> ExactlyOnce {
    let settings = job.settings();
    ExactlyOnce {
        transactional_id: job.group.clone(),
        transaction_timeout: settings.transaction_timeout(),
        session_timeout: settings.session_timeout(),
    }
}

/// How the worker is set, beside its defaults.
pub(crate) struct Ways {
    pub(crate) mode: MatchMode,
    pub(crate) once: Option<ExactlyOnce>,
    /// `enriched.headers` and `enriched.header_form`.
    pub(crate) headers: Option<HeaderForm>,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            mode: event_time(),
            once: None,
            headers: Some(HeaderForm::Several),
        }
    }
}

pub(crate) fn drain(job: &Job, ways: Ways) -> Cost {
    let Ways {
        mode,
        once,
        headers,
    } = ways;
    let done = match once {
        Some(_) => Done::Committed,
        None => Done::Written,
    };
    let snapshot = Arc::new(Snapshot {
        index: Arc::new(support::index(&support::tessellation(SIDE, PER_EDGE))),
        epoch: Epoch(1),
        as_of: Clock::wall(),
        floor: EventTime::MIN,
        degraded: Degraded::No,
    });
    let fields = Fields::new(&FieldRules::default()).expect("the defaults are right");
    let mut pipeline = PipelineConfig::new(fields, &job.from);
    pipeline.enriched_max_bytes = 1_048_588;
    pipeline.headers = headers;
    pipeline.at = AtRules {
        mode,
        ..AtRules::default()
    };
    let settings = WorkerSettings {
        telemetry_topic: job.from.clone(),
        enriched_topic: job.to.clone(),
        dead_letter_topic: None,
        start: StartAt::Earliest,
        partitions_at_start: 8,
        on_out_of_range: None,
        commit_interval: COMMIT_EVERY,
        exactly_once: once,
        static_member: None,
        drain_timeout: Duration::from_secs(10),
    };
    let windows: Vec<_> = (0..workers())
        .map(|_| Arc::new(WorkerWindow::default()))
        .collect();
    let workers: Vec<_> = windows
        .iter()
        .enumerate()
        .map(|(number, window)| {
            let snapshot = Arc::clone(&snapshot);
            Worker::new(
                &job.settings(),
                settings.for_worker(number),
                pipeline.clone(),
                move || Arc::clone(&snapshot),
                Arc::new(GuardedTime::default()),
                Arc::clone(window),
            )
            .expect("the settings are right")
        })
        .collect();
    let shutdown = Shutdown::new();
    std::thread::scope(|scope| {
        let turning: Vec<_> = workers
            .into_iter()
            .map(|worker| scope.spawn(|| worker.run(&shutdown)))
            .collect();
        let cost = watch::cost_of_outputs(job, done, || {
            assert!(
                !turning.iter().any(ScopedJoinHandle::is_finished),
                "the worker goes on"
            );
        });
        shutdown.request();
        for worker in turning {
            let ended = worker.join().expect("the worker does not panic");
            ended.expect("the worker drains");
        }
        cost
    })
}
