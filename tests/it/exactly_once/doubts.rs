//! A worker that is asked whether its producer's name is its own still, as the first one is when another of its process has
//! lost its own. It shows so by a transaction that is aborted, and nothing of that may be left.

use std::sync::Arc;

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::kafka::worker::{WorkerError, WorkerWindow};

use crate::support::edge::{PATIENCE, Running, World, deliver, transactional_id, valid, wait_for};

/// More than transactions may be aborted in a row before the clients are made anew.
const MANY: usize = 12;

fn worker(world: &World, name: &str) -> Running {
    world.worker_with(|settings, _| deliver(settings, Some(name)))
}

fn wait_proven(window: &Arc<WorkerWindow>) {
    wait_for("it has shown that its name is its own", || {
        !window.is_doubted()
    });
}

/// How it ended by itself.
fn end_of(mut running: Running) -> WorkerError {
    let thread = running.thread.take().unwrap();
    wait_for("it ends", || thread.is_finished());
    thread.join().unwrap().unwrap_err()
}

#[test]
fn fs_38_a_worker_that_owns_its_name_shows_it_as_often_as_it_is_asked_and_loses_and_doubles_nothing()
 {
    let Some(world) = World::real("doubts", 2) else {
        return;
    };
    let running = worker(&world, "doubts");
    for round in 0..MANY {
        // While there is something under way, and while there is nothing.
        world.produce_as(20 * round..20 * (round + 1), valid);
        running.window.doubt();
        wait_proven(&running.window);
        world.wait_committed(20 * (round + 1));
        running.window.doubt();
        wait_proven(&running.window);
    }
    for _ in 0..MANY {
        running.window.doubt();
        wait_proven(&running.window);
    }
    world.wait_committed(20 * MANY);
    running.stop().unwrap();
    assert_eq!(world.audit(20 * MANY), 0, "none twice");
}

#[test]
fn fs_38_an_idle_worker_whose_name_another_took_ends_once_it_is_asked() {
    let Some(world) = World::real("doubted", 1) else {
        return;
    };
    let running = worker(&world, "doubted");
    world.produce_as(0..20, valid);
    world.wait_committed(20);
    let config =
        world
            .settings
            .transactional_producer(1_000, 1 << 20, &transactional_id("doubted"));
    let other: BaseProducer = config.create().unwrap();
    other.init_transactions(PATIENCE).unwrap();
    assert!(
        !running.thread.as_ref().unwrap().is_finished(),
        "nobody has told it"
    );
    running.window.doubt();
    let window = Arc::clone(&running.window);
    let error = end_of(running);
    assert!(matches!(error, WorkerError::Fenced(_)), "{error}");
    assert!(window.is_doubted());
}

/// An answer that ends in the client says nothing of the name, though the abort after it succeeds.
#[test]
fn fs_38_a_worker_that_the_coordinator_does_not_know_has_shown_nothing_and_is_made_anew() {
    let world = World::new(1, 1);
    let running = worker(&world, "unknown");
    world.produce_as(0..20, valid);
    wait_for("it writes", || {
        running.window.seen().counters.enriched >= 20
    });
    running.window.doubt();
    wait_proven(&running.window);
    let unknown = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING; 100];
    world
        .controls()
        .request_errors(RDKafkaApiKey::AddOffsetsToTxn, &unknown);
    running.window.doubt();
    let window = Arc::clone(&running.window);
    let error = end_of(running);
    assert!(matches!(error, WorkerError::Transaction(_)), "{error}");
    assert!(window.is_doubted());
}
