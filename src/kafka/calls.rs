//! The thread that makes the calls of one worker's transactions: they block, and the worker has records to match meanwhile.
//!
//! One order at a time, as librdkafka takes one call at a time; each is answered. What a call's error means, and what comes
//! next, is the worker's to say.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, ProducerContext};

use super::ffi::flush;
use super::transaction::Call;

/// How long one flush may take: for so long an abort may have to wait for it.
const FLUSH: Duration = Duration::from_millis(50);

/// What the thread is to do.
pub(super) enum Order {
    /// Send what lingers; nothing else would cut the linger short, as the client only heeds a flush that lasts.
    Flush,
    Call(Call),
}

/// That it was done. A call comes back, to be made again perhaps.
pub(super) enum Answer {
    Flushed,
    Called(Call, KafkaResult<()>),
}

/// The thread of calls, and what it is at.
pub(super) struct Calls {
    orders: Option<SyncSender<Order>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl Calls {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start<C: ProducerContext + 'static>(
        producer: Arc<BaseProducer<C>>,
    ) -> std::io::Result<Self> {
        let (orders, ordered) = sync_channel::<Order>(1);
        let (answer, answers) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("transaction-calls".to_owned())
            .spawn(move || {
                for order in ordered {
                    let done = match order {
                        Order::Flush => {
                            flush(&producer, FLUSH);
                            Answer::Flushed
                        }
                        Order::Call(call) => {
                            let result = call.make(&*producer);
                            Answer::Called(call, result)
                        }
                    };
                    if answer.send(done).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            orders: Some(orders),
            answers,
            thread: Some(thread),
            is_busy: false,
        })
    }

    /// Whether an answer is still to come.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Has this done; nothing else is being done.
    pub(super) fn give(&mut self, order: Order) {
        assert!(!self.is_busy, "one call at a time");
        let orders = self
            .orders
            .as_ref()
            .expect("the thread lives until the drop");
        orders
            .send(order)
            .expect("the thread takes orders until the drop");
        self.is_busy = true;
    }

    /// The answer, waiting for it at most so long; none where nothing is being done.
    pub(super) fn answer(&mut self, at_most: Duration) -> Option<Answer> {
        if !self.is_busy {
            return None;
        }
        match self.answers.recv_timeout(at_most) {
            Ok(answer) => {
                self.is_busy = false;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("it answers each order"),
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // It ends once its call has: within its time-out.
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
