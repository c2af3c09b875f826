//! The daemon: puts the parts together, watches over their threads, and ends them in order (DESIGN 2).
//!
//! ```text
//!   start-up checks ─► zones side ─► (bootstrapped, I14) ─► workers ─► signal or error ─► drain ─► end
//! ```
//!
//! Threads: the zones side with its decoders, the promoter, the workers, and one runtime for HTTP and signals. The data path is theirs
//! alone; this module only starts, watches and reports.

mod alive;
mod decoding;
mod held;
mod letters;
mod markers;
mod promoter;
mod report;
mod restarts;
mod startup;
mod topics;
mod waiting;
mod zone_side;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tokio::sync::watch;

use crate::clock::{Clock, GuardedTime};
use crate::config::Config;
use crate::http::{Limits, Server};
use crate::kafka::client::Settings;
use crate::kafka::worker::{Worker, WorkerError, WorkerWindow};
use crate::metrics;
use crate::pipeline::transaction::StandStill;
use crate::shutdown::Shutdown;
use crate::time::MonoTime;
use report::{Phase, Report};
use restarts::{Anew, DECIDING, Restarts};
use startup::WorkersPlan;
use topics::Topics;
use zone_side::{ZoneError, ZoneSide, ZoneWindow};

/// How often metrics are set.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// How long a worker that failed is left alone.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// How long the process may go on after the drain's own bound: commits, leaving the group, closing its clients.
const FAREWELL: Duration = Duration::from_secs(10);

/// Why the daemon ended with exit code 1.
#[derive(Debug)]
pub struct RunError(String);

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RunError {}

impl RunError {
    fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

/// What the threads tell the one that watches over them.
enum Event {
    Bootstrapped,
    ZonesEnded(Result<(), ZoneError>),
    WorkerEnded(usize, Result<(), WorkerError>),
    Planned(topics::Planned),
    TopicsChanged,
}

/// A daemon that can be watched and stopped from the same process: `demo` and tests.
#[derive(Clone, Default)]
pub struct Handle {
    shutdown: Shutdown,
    report: Arc<std::sync::OnceLock<Arc<Report>>>,
}

impl Handle {
    /// A handle for a daemon to be started.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks it to drain and end.
    pub fn stop(&self) {
        self.shutdown.request();
    }

    /// Its status, as `/v1/status` gives it; `None` before it has one.
    #[must_use]
    pub fn status(&self) -> Option<serde_json::Value> {
        use crate::http::Source as _;
        self.report.get().map(|report| report.status())
    }

    /// Whether all of its readiness checks hold.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        use crate::http::Source as _;
        self.report
            .get()
            .is_some_and(|report| report.checks().iter().all(|check| check.ok))
    }
}

/// Runs the daemon until it is signalled, asked to stop by `handle`, or fails. A second signal ends the process at once
/// with 128 + its number.
///
/// # Errors
/// Why it could not start, or could not go on.
pub fn run(config: &Config, handle: &Handle) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(RunError::new)?;
    let server = runtime
        .block_on(Server::bind(&config.http.listen, Limits::default()))
        .map_err(RunError::new)?;
    let (_, librdkafka) = rdkafka_version();
    let exporter = metrics::install(&librdkafka).ok();
    let report = Arc::new(Report::new(config, exporter));
    handle.report.set(Arc::clone(&report)).ok();
    tracing::info!(address = %server.address(), "http");
    let (stop_http, http_stopped) = watch::channel(false);
    let serving = runtime.spawn(server.serve(
        Arc::clone(&report) as Arc<dyn crate::http::Source>,
        http_stopped,
    ));
    runtime.spawn(signals(handle.shutdown.clone()));

    let ended = run_bounded(config, &handle.shutdown, report);
    // A receiver that is gone = the server has ended by itself.
    stop_http.send(true).ok();
    if runtime.block_on(serving).is_err() {
        tracing::error!("the HTTP server panicked");
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Runs the daemon in a thread of its own, which is left behind where it does not end in time once it was told to: a
/// broker that stands still answers none of a client's last questions, and the client waits for each (FS-72).
fn run_bounded(config: &Config, shutdown: &Shutdown, report: Arc<Report>) -> Result<(), RunError> {
    let (config, stop) = (config.clone(), shutdown.clone());
    let bound = config.shutdown.drain_timeout + FAREWELL;
    let (tell, told) = bounded(1);
    let body = move || {
        let ended = Daemon::start(&config, stop, report).and_then(Daemon::watch);
        drop(tell.send(ended));
    };
    drop(spawn("daemon", body)?);
    let mut asked_at = None;
    loop {
        match told.recv_timeout(Duration::from_millis(100)) {
            Ok(ended) => return ended,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError::new("the daemon panicked"));
            }
        }
        if shutdown.is_requested() {
            let now = Clock::mono();
            if now.since(*asked_at.get_or_insert(now)) >= bound {
                return Err(RunError::new(format!(
                    "not drained within {} s (`shutdown.drain_timeout_ms` and {} s): the cluster does not answer; what is \
                     not committed will be written again",
                    bound.as_secs(),
                    FAREWELL.as_secs()
                )));
            }
        }
    }
}

fn rdkafka_version() -> (i32, String) {
    crate::kafka::version()
}

/// The first signal asks for a drain, the second ends the process.
async fn signals(shutdown: Shutdown) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("signals cannot be caught: no drain on SIGTERM");
        return;
    };
    let mut is_second = false;
    loop {
        let number = tokio::select! {
            _ = terminate.recv() => 15,
            _ = interrupt.recv() => 2,
        };
        if is_second {
            tracing::warn!("second signal: ending at once");
            std::process::exit(128 + number);
        }
        is_second = true;
        shutdown.request();
        tracing::info!("signalled: draining; a second signal ends at once");
    }
}

/// The threads of the daemon.
struct Daemon {
    kafka: Settings,
    shutdown: Shutdown,
    report: Arc<Report>,
    time: Arc<GuardedTime>,
    window: Arc<ZoneWindow>,
    /// The zones side outlives the workers: held events need it while they drain.
    zones_stop: Shutdown,
    zones: Option<JoinHandle<()>>,
    workers: Vec<WorkerSlot>,
    topics: Topics,
    /// The partitions of the telemetry topic when the first worker started: others came later (FS-64).
    partitions_at_start: Option<i32>,
    /// In `exactly_once`.
    stand_still: Option<StandStill>,
    tell: Sender<Event>,
    events: Receiver<Event>,
}

struct WorkerSlot {
    window: Arc<WorkerWindow>,
    thread: Option<JoinHandle<()>>,
    stop: Shutdown,
    restarts: Restarts,
    /// When it is to be made anew.
    due: Option<MonoTime>,
    /// Not before the deciding worker has shown that its name is its own.
    awaits_proof: bool,
}

impl Daemon {
    /// Asks the cluster, refuses what cannot be right, and starts the zones side.
    fn start(
        config: &Config,
        shutdown: Shutdown,
        report: Arc<Report>,
    ) -> Result<Option<Self>, RunError> {
        let kafka = Settings::from(&config.kafka);
        let Some(facts) = startup::zones_facts(config, &kafka, &shutdown, &report)? else {
            return Ok(None);
        };
        let time = Arc::new(GuardedTime::default());
        let window = Arc::clone(report.zones());
        let settings = startup::zone_side(config, facts);
        let side = ZoneSide::new(&kafka, settings, Arc::clone(&time), Arc::clone(&window))
            .map_err(RunError::new)?;
        let (tell, events) = unbounded();
        let zones_stop = Shutdown::new();
        let (stop, told) = (zones_stop.clone(), tell.clone());
        report.enter(Phase::Bootstrap);
        let body = move || {
            let bootstrapped = {
                let told = told.clone();
                move || drop(told.send(Event::Bootstrapped))
            };
            let ended = side.run(&stop, bootstrapped);
            drop(told.send(Event::ZonesEnded(ended)));
        };
        let zones = spawn("zones", body)?;
        let topics = Topics::start(config, &kafka, &shutdown, &report, &tell)?;
        Ok(Some(Self {
            stand_still: startup::stand_still(config, &kafka),
            kafka,
            shutdown,
            report,
            time,
            window,
            zones_stop,
            zones: Some(zones),
            workers: Vec::new(),
            topics,
            partitions_at_start: None,
            tell,
            events,
        }))
    }

    fn watch(this: Option<Self>) -> Result<(), RunError> {
        // Asked to stop before it had begun.
        let Some(mut daemon) = this else {
            return Ok(());
        };
        let mut failure = daemon.turn_until_end().err();
        if let Some(failure) = &failure {
            // Told at the end too, but that may never come.
            tracing::error!(%failure, "draining");
        }
        daemon.shutdown.request();
        daemon.report.enter(Phase::Draining);
        for slot in &daemon.workers {
            slot.stop.request();
        }
        for slot in &mut daemon.workers {
            if let Some(thread) = slot.thread.take()
                && thread.join().is_err()
            {
                failure.get_or_insert_with(|| RunError::new("a worker panicked"));
            }
        }
        while let Ok(event) = daemon.events.try_recv() {
            if let Event::WorkerEnded(_, Err(error)) = event {
                failure.get_or_insert_with(|| RunError::new(error));
            }
        }
        daemon.zones_stop.request();
        if let Some(thread) = daemon.zones.take()
            && thread.join().is_err()
        {
            failure.get_or_insert_with(|| RunError::new("the zones side panicked"));
        }
        daemon.report.publish();
        match failure {
            Some(failure) => Err(failure),
            None => {
                tracing::info!("drained");
                Ok(())
            }
        }
    }

    fn turn_until_end(&mut self) -> Result<(), RunError> {
        loop {
            if self.shutdown.is_requested() {
                return Ok(());
            }
            let event = self
                .events
                .recv_timeout(REPORT_EVERY.min(Duration::from_millis(100)));
            self.watch_stand_still()?;
            match event {
                Ok(Event::Bootstrapped) => self.start_workers()?,
                Ok(Event::ZonesEnded(ended)) => {
                    return Err(match ended {
                        Err(error) => RunError::new(error),
                        Ok(()) => RunError::new("the zones side ended"),
                    });
                }
                Ok(Event::WorkerEnded(number, ended)) => self.worker_ended(number, ended)?,
                Ok(Event::Planned(plan)) => {
                    self.topics.answered();
                    // `None` = asked to stop meanwhile.
                    if let Some(plan) = plan? {
                        self.start_due_workers(&plan)?;
                    }
                }
                Ok(Event::TopicsChanged) => {
                    for slot in &self.workers {
                        slot.stop.request();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("this end holds a sender itself")
                }
            }
            self.watch_threads()?;
            let now = Clock::mono();
            self.take_proof();
            if self.workers.iter().any(|slot| slot.is_due(now)) {
                // The topics may be others than they were (partition counts, limits): asked anew for each start.
                self.topics.ask();
            }
            self.report.publish_if_due(Clock::mono());
        }
    }

    /// A process that stood still ends rather than start a worker, as the worker itself would: its name may be its successor's
    /// by now (FS-32).
    fn watch_stand_still(&self) -> Result<(), RunError> {
        let stood_still = (self.stand_still.as_ref()).and_then(|one| one.turned(Clock::mono()));
        match stood_still {
            // Workers that turn look by themselves.
            Some(time)
                if self.workers.is_empty()
                    || self.workers.iter().any(|slot| slot.due.is_some()) =>
            {
                Err(RunError::new(WorkerError::StoodStill(time)))
            }
            _ => Ok(()),
        }
    }

    /// A thread that panicked sends nothing: it is found here.
    fn watch_threads(&mut self) -> Result<(), RunError> {
        if self.zones.as_ref().is_some_and(JoinHandle::is_finished) && self.events.is_empty() {
            return Err(RunError::new("the zones side panicked"));
        }
        let panicked = self.workers.iter().any(|slot| {
            slot.due.is_none() && slot.thread.as_ref().is_some_and(JoinHandle::is_finished)
        });
        if panicked && self.events.is_empty() {
            return Err(RunError::new("a worker panicked"));
        }
        Ok(())
    }

    fn start_workers(&mut self) -> Result<(), RunError> {
        if !self.workers.is_empty() {
            return Ok(());
        }
        self.report.enter(Phase::Topics);
        for window in self.report.workers() {
            let slot = WorkerSlot {
                window: Arc::clone(window),
                thread: None,
                stop: Shutdown::new(),
                restarts: Restarts::default(),
                due: Some(Clock::mono()),
                awaits_proof: false,
            };
            self.workers.push(slot);
        }
        Ok(())
    }

    fn start_due_workers(&mut self, plan: &WorkersPlan) -> Result<(), RunError> {
        let now = Clock::mono();
        let mut settings = plan.worker.clone();
        settings.partitions_at_start = *self
            .partitions_at_start
            .get_or_insert(settings.partitions_at_start);
        for number in 0..self.workers.len() {
            let slot = &mut self.workers[number];
            if !slot.is_due(now) {
                continue;
            }
            slot.due = None;
            let window = Arc::clone(&self.window);
            let load = move || {
                window
                    .cell
                    .load()
                    .expect("I14: workers start after the bootstrap")
            };
            let worker = Worker::new(
                &self.kafka,
                settings.for_worker(number),
                plan.pipeline.clone(),
                load,
                Arc::clone(&self.time),
                Arc::clone(&slot.window),
            )
            .map_err(RunError::new)?;
            slot.stop = Shutdown::new();
            let (stop, told) = (slot.stop.clone(), self.tell.clone());
            let body = move || {
                let ended = worker.run(&stop);
                drop(told.send(Event::WorkerEnded(number, ended)));
            };
            slot.thread = Some(spawn(&format!("worker-{number}"), body)?);
        }
        self.report.enter(Phase::Running);
        Ok(())
    }

    fn worker_ended(
        &mut self,
        number: usize,
        ended: Result<(), WorkerError>,
    ) -> Result<(), RunError> {
        let slot = &mut self.workers[number];
        slot.window.rest();
        // Its event is taken, so a finished thread must not be found again: that would be taken for a panic.
        if let Some(thread) = slot.thread.take()
            && thread.join().is_err()
        {
            return Err(RunError::new("a worker panicked"));
        }
        let now = Clock::mono();
        let error = match ended {
            // Told to, as the topics have changed: the daemon itself goes on.
            Ok(()) => {
                slot.due = Some(now);
                return Ok(());
            }
            Err(error) => error,
        };
        let anew = (slot.restarts.admit(number, &error, now)).map_err(RunError::new)?;
        slot.due = Some(now.plus(RESTART_AFTER));
        slot.awaits_proof = anew == Anew::OnceProven;
        if slot.awaits_proof {
            tracing::warn!(
                worker = number, %error,
                "another process took a worker's name: it is made anew once worker {DECIDING} has shown that its own is its own still"
            );
            self.workers[DECIDING].window.doubt();
        } else {
            tracing::warn!(worker = number, %error, "a worker's client failed, it is made anew");
        }
        Ok(())
    }

    /// Lets go the workers that wait for the deciding one, once it has shown that its name is its own.
    fn take_proof(&mut self) {
        let is_proven = (self.workers.first()).is_some_and(|slot| !slot.window.is_doubted());
        if is_proven {
            for slot in &mut self.workers {
                slot.awaits_proof = false;
            }
        }
    }
}

impl WorkerSlot {
    fn is_due(&self, now: MonoTime) -> bool {
        !self.awaits_proof && self.due.is_some_and(|due| now >= due)
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, RunError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| RunError::new(format!("start thread `{name}`: {error}")))
}
