//! The promoter's thread: builds indexes, and frees retired snapshots once their last reader has left (I11).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::clock::Clock;
use crate::gate::{BuildRequest, RetireList, Snapshot};
use crate::index::{BuildFailure, Built};
use crate::metrics;
use crate::time::MonoTime;

/// How often retired snapshots are looked at while any wait.
const RECLAIM_EVERY: Duration = Duration::from_millis(10);

enum Task {
    Build(BuildRequest),
    Retire(Arc<Snapshot>),
}

/// A finished build.
pub(super) struct BuildResult {
    pub(super) number: u64,
    pub(super) result: Result<Built, BuildFailure>,
    pub(super) begun: MonoTime,
}

/// The way to the promoter. It ends when this is dropped.
pub(super) struct Promoter {
    tasks: Option<Sender<Task>>,
    pub(super) results: Receiver<BuildResult>,
    thread: Option<JoinHandle<()>>,
}

impl Promoter {
    pub(super) fn start() -> Self {
        let (tasks, todo) = unbounded();
        let (done, results) = unbounded();
        let thread = std::thread::Builder::new()
            .name("promoter".to_owned())
            .spawn(move || work(&todo, &done))
            .expect("a process can start a thread");
        Self {
            tasks: Some(tasks),
            results,
            thread: Some(thread),
        }
    }

    pub(super) fn build(&self, request: BuildRequest) {
        self.send(Task::Build(request));
    }

    pub(super) fn retire(&self, snapshot: Arc<Snapshot>) {
        self.send(Task::Retire(snapshot));
    }

    fn send(&self, task: Task) {
        // At most one build is under way, and retired snapshots are bounded by `index.max_live_snapshots`.
        let tasks = self.tasks.as_ref().expect("it is there until the drop");
        assert!(
            tasks.send(task).is_ok(),
            "the promoter's thread lives as long as its owner"
        );
    }
}

impl Drop for Promoter {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the promoter's thread panicked");
        }
    }
}

fn work(todo: &Receiver<Task>, done: &Sender<BuildResult>) {
    let reclaim_ms = metrics::SNAPSHOT_RECLAIM_DURATION.histogram();
    let mut retired = RetireList::default();
    let mut waiting_since: Option<MonoTime> = None;
    loop {
        let task = if retired.is_empty() {
            todo.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            todo.recv_timeout(RECLAIM_EVERY)
        };
        match task {
            Ok(Task::Build(request)) => {
                let begun = Clock::mono();
                let result = request.run();
                // Gone = the zone side has ended.
                if done
                    .send(BuildResult {
                        number: request.number,
                        result,
                        begun,
                    })
                    .is_err()
                {
                    return;
                }
            }
            Ok(Task::Retire(snapshot)) => {
                waiting_since.get_or_insert_with(Clock::mono);
                retired.retire(snapshot);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let freed = retired.reclaim();
        if freed > 0
            && let Some(since) = waiting_since
        {
            reclaim_ms.record(Clock::mono().since(since).as_secs_f64() * 1e3);
        }
        if retired.is_empty() {
            waiting_since = None;
        }
    }
}
