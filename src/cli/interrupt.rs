//! SIGINT and SIGTERM for the commands that go on until they are told to stop: the first asks, the second ends.

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::shutdown::Shutdown;

/// What the first signal requests. A second one ends the process with 128 + its number.
///
/// # Errors
/// The process may not listen to signals.
pub(super) fn stop_on_signal() -> Result<Shutdown, Failure> {
    let shutdown = Shutdown::new();
    let requested = shutdown.clone();
    let failed = |why: std::io::Error| Failure::failed("cannot listen to signals", why);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _guard = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(failed)?,
            signal(SignalKind::terminate()).map_err(failed)?,
        )
    };
    let listen = async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if requested.is_requested() {
                std::process::exit(code);
            }
            requested.request();
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(listen))
        .map_err(failed)?;
    Ok(shutdown)
}
