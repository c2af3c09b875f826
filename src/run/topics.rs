//! The thread that asks for the topics of the workers: before each start, and again every few seconds, as partitions
//! can be added at any time. It may wait for a topic for long, and nobody waits for it.
//!
//! `enriched.partition = "auto"` is decided by both partition counts. Where a new count decides otherwise, the workers
//! drain, and start anew by the new plan: what was written by the old rule is acknowledged before the first record goes
//! by the new one, so a source partition's order is kept (I8). The alternative, to go on by the old counts until a
//! restart, would write to partitions that do not exist, or keep keyed records away from those that Java clients choose.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::report::Report;
use super::startup::{self, WorkersPlan};
use super::{Event, RunError, spawn};
use crate::config::Config;
use crate::kafka::admin::Admin;
use crate::kafka::client::Settings;
use crate::pipeline::Partitioning;
use crate::shutdown::Shutdown;

/// How often partition counts are asked for: as often as those of the zones topic (DESIGN 2).
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long such a look may take: with no broker up, waiting costs much (see `kafka::ends`).
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// The way to that thread. It ends when this is dropped.
pub(super) struct Topics {
    ask: Sender<()>,
    is_asked: bool,
}

impl Topics {
    pub(super) fn start(
        config: &Config,
        kafka: &Settings,
        shutdown: &Shutdown,
        report: &std::sync::Arc<Report>,
        tell: &Sender<Event>,
    ) -> Result<Self, RunError> {
        let (ask, asked) = bounded(1);
        let watcher = Watcher {
            config: config.clone(),
            kafka: kafka.clone(),
            shutdown: shutdown.clone(),
            report: std::sync::Arc::clone(report),
            tell: tell.clone(),
            partitioning: None,
            admin: None,
        };
        // Not joined: it may stand in a question that is answered after the process has drained.
        drop(spawn("topics", move || watcher.run(&asked))?);
        Ok(Self {
            ask,
            is_asked: false,
        })
    }

    /// Asks for a plan, unless one is under way: it comes as [`Event::Planned`].
    pub(super) fn ask(&mut self) {
        if !self.is_asked {
            // Gone = it has told why already.
            self.ask.send(()).ok();
            self.is_asked = true;
        }
    }

    /// The plan has come.
    pub(super) fn answered(&mut self) {
        self.is_asked = false;
    }
}

struct Watcher {
    config: Config,
    kafka: Settings,
    shutdown: Shutdown,
    report: std::sync::Arc<Report>,
    tell: Sender<Event>,
    /// What the last plan decided.
    partitioning: Option<Partitioning>,
    /// For looking: made once.
    admin: Option<Admin>,
}

impl Watcher {
    fn run(mut self, asked: &Receiver<()>) {
        loop {
            let event = match asked.recv_timeout(LOOK_EVERY) {
                Ok(()) => self.plan(),
                Err(RecvTimeoutError::Timeout) => match self.look() {
                    Some(event) => event,
                    None => continue,
                },
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.tell.send(event).is_err() {
                return;
            }
        }
    }

    fn plan(&mut self) -> Event {
        let plan = startup::workers_plan(&self.config, &self.kafka, &self.shutdown, &self.report);
        if let Ok(Some(plan)) = &plan {
            self.partitioning = Some(plan.pipeline.partitioning);
        }
        Event::Planned(plan.map(|plan| plan.map(Box::new)))
    }

    /// Whether the counts decide otherwise than they did. A cluster that does not answer changes nothing.
    fn look(&mut self) -> Option<Event> {
        let before = self.partitioning?;
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => Admin::new(&self.kafka, LOOK_WITHIN).ok()?,
        };
        let counts = startup::partition_counts(&self.config, &admin);
        self.admin = Some(admin);
        let counts = counts?;
        self.report.knows_topics(counts.source);
        match startup::partitioning(&self.config, counts) {
            Ok(now) if now == before => None,
            // The plan that is asked for next says what is wrong.
            decided => {
                tracing::warn!(
                    telemetry = counts.source,
                    enriched = counts.enriched.get(),
                    partitioning = ?decided.ok(),
                    "partition counts have changed: workers drain, and write by the new ones"
                );
                self.partitioning = None;
                Some(Event::TopicsChanged)
            }
        }
    }
}

/// What [`Event::Planned`] brings: `None` = asked to stop meanwhile.
pub(super) type Planned = Result<Option<Box<WorkersPlan>>, RunError>;
