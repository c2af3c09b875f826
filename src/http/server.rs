//! The accept loop: bounded connections, a bounded time for a request's head, an end when told.
//!
//! A probe must get in whatever others do: where all connections are taken, the oldest is closed for the new one (FS-70).

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;

use super::{Source, router};

/// What a client may take.
#[derive(Copy, Clone, Debug)]
pub struct Limits {
    /// From the first byte of a request to the end of its head; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// How long one connection may live; it ends between two requests.
    pub connection_timeout: Duration,
    /// Connections at once; for a further one the oldest is closed.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            connection_timeout: Duration::from_secs(300),
            connections_max: 128,
        }
    }
}

/// The address cannot be listened on.
#[derive(Debug)]
pub struct HttpError {
    listen: String,
    source: std::io::Error,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot listen on `http.listen` ({}): {}",
            self.listen, self.source
        )?;
        if self.source.kind() == std::io::ErrorKind::AddrInUse {
            f.write_str("; each process needs a port of its own, 0 = any")?;
        }
        Ok(())
    }
}

impl std::error::Error for HttpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A bound listener, not yet serving.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Listens on `listen` (`address:port`; port 0 = any).
    ///
    /// # Errors
    /// The address is no address, or taken.
    pub async fn bind(listen: &str, limits: Limits) -> Result<Self, HttpError> {
        let fault = |source| HttpError {
            listen: listen.to_owned(),
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(fault)?;
        let address = listener.local_addr().map_err(fault)?;
        Ok(Self {
            listener,
            address,
            limits,
        })
    }

    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` says so (or its sender is gone); requests under way are let finish.
    pub async fn serve(self, source: Arc<dyn Source>, mut stop: watch::Receiver<bool>) {
        let service = TowerToHyperService::new(router(source));
        let permits = Arc::new(Semaphore::new(self.limits.connections_max));
        let mut connections = tokio::task::JoinSet::new();
        let mut oldest_first = VecDeque::new();
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(fault) => {
                        // Out of file descriptors, most likely: it passes when connections end. Not a spin, not an end.
                        tracing::warn!(%fault, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = stopped(&mut stop) => break,
            };
            let permit = free_place(&permits, &mut oldest_first).await;
            let (service, limits, mut stop) = (service.clone(), self.limits, stop.clone());
            while connections.try_join_next().is_some() {}
            oldest_first.push_back(connections.spawn(async move {
                let _permit = permit;
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(limits.head_timeout)
                    .max_buf_size(16 * 1024)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                // What a client does wrong is its own affair: no log line that it could fill a disk with.
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = tokio::time::sleep(limits.connection_timeout) => {}
                    () = stopped(&mut stop) => {}
                }
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(limits.head_timeout, connection)
                    .await
                    .is_ok();
            }));
        }
        // A probe under way is answered; whoever dawdles is cut off.
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), all)
            .await
            .is_ok();
    }
}

/// A permit for one more connection; where there is none, of the oldest that still lives. Answers are small and given at
/// once, so that one has long had its own, or never asked for any.
async fn free_place(
    permits: &Arc<Semaphore>,
    oldest_first: &mut VecDeque<AbortHandle>,
) -> OwnedSemaphorePermit {
    oldest_first.retain(|connection| !connection.is_finished());
    if permits.available_permits() == 0
        && let Some(oldest) = oldest_first.pop_front()
    {
        oldest.abort();
    }
    Arc::clone(permits)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed")
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error = the sender is gone: whoever would stop us has ended.
    let _ = stop.wait_for(|stop| *stop).await.is_ok();
}
