//! The real Apache Kafka of the tests: the shared one in `$RINGFENCE_TEST_KAFKA` (as `scripts/test` sets it), and a cluster
//! of a test's own where its brokers are to be harmed.
//!
//! Without that variable the tests of a real Kafka say once that they are skipped, and pass; with
//! `$RINGFENCE_TEST_KAFKA_REQUIRED` they fail instead, so that no run takes skipped tests for seen ones.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use super::daemon::{eventually, signal};

static BOOTSTRAP: LazyLock<Option<String>> = LazyLock::new(|| {
    let address = std::env::var("RINGFENCE_TEST_KAFKA").ok();
    if address.is_none() {
        // Not `eprintln!`: the harness keeps that to itself where a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: no RINGFENCE_TEST_KAFKA (an address, as `scripts/kafka up` prints it)"
        );
    }
    address
});

/// The brokers to connect to; `None` = the test is skipped.
pub(crate) fn bootstrap() -> Option<&'static str> {
    let address = BOOTSTRAP.as_deref();
    assert!(
        address.is_some() || std::env::var_os("RINGFENCE_TEST_KAFKA_REQUIRED").is_none(),
        "no RINGFENCE_TEST_KAFKA, but RINGFENCE_TEST_KAFKA_REQUIRED is set"
    );
    address
}

/// A cluster of one test's own; gone when dropped.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    port: u16,
    proxied: Option<u16>,
    address: String,
    properties: &'static str,
}

impl Cluster {
    /// Starts so many brokers; `None` where no real Kafka is wanted.
    pub(crate) fn start(brokers: u16) -> Option<Self> {
        Self::start_with(brokers, "")
    }

    /// Starts so many brokers with these lines of `server.properties` too.
    pub(crate) fn start_with(brokers: u16, properties: &'static str) -> Option<Self> {
        bootstrap()?;
        // The ports were free a moment ago: another test may have taken one meanwhile.
        for _ in 0..3 {
            match Self::try_start_at(free_ports(brokers * 2), brokers, None, properties) {
                Err(error) if error.contains("Address already in use") => {}
                started => return Some(started.unwrap_or_else(|error| panic!("{error}"))),
            }
        }
        panic!("no {brokers} brokers in three tries: their ports were taken each time");
    }

    /// Starts so many brokers at these ports; with `proxied` they can also be reached through proxies from that port on.
    pub(crate) fn start_at(
        port: u16,
        brokers: u16,
        proxied: Option<u16>,
        properties: &'static str,
    ) -> Self {
        Self::try_start_at(port, brokers, proxied, properties)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start_at(
        port: u16,
        brokers: u16,
        proxied: Option<u16>,
        properties: &'static str,
    ) -> Result<Self, String> {
        let mut cluster = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            port,
            proxied,
            address: String::new(),
            properties,
        };
        cluster.address = cluster.try_script(&["up", "--brokers", &brokers.to_string()])?;
        Ok(cluster)
    }

    fn script(&self, arguments: &[&str]) -> String {
        self.try_script(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_script(&self, arguments: &[&str]) -> Result<String, String> {
        let proxied = self.proxied.map(|port| port.to_string());
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kafka"))
            .args(arguments)
            .args(proxied.iter().flat_map(|port| ["--proxied", port]))
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.folder.path().join("kafka"))
            .env("RINGFENCE_KAFKA_PROPERTIES", self.properties)
            .output()
            .expect("scripts/kafka starts");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("scripts/kafka {arguments:?}: {said}"));
        }
        let address = String::from_utf8(output.stdout).expect("an address is text");
        Ok(address.trim().to_owned())
    }

    /// The brokers to connect to.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Stops all brokers; what they have stays.
    pub(crate) fn down(&self) {
        self.script(&["down"]);
    }

    /// Starts them again.
    pub(crate) fn up(&self) {
        self.script(&["up"]);
    }

    /// The process of a broker.
    fn pid(&self, node: u16) -> u32 {
        let file = self.folder.path().join(format!("kafka/node-{node}/pid"));
        let pid = std::fs::read_to_string(file).expect("a running node has a pid");
        pid.trim().parse().expect("a pid is a number")
    }

    /// Sends a broker a signal by name (`STOP`, `CONT`); nodes count from 1.
    pub(crate) fn signal(&self, node: u16, name: &str) {
        signal(self.pid(node), name);
    }

    /// Ends a broker by a signal (`TERM`, `KILL`), and waits until it is gone; [`Self::up`] starts it again.
    pub(crate) fn end(&self, node: u16, name: &str) {
        let process = PathBuf::from(format!("/proc/{}", self.pid(node)));
        self.signal(node, name);
        eventually("the broker ends", Duration::from_secs(60), || {
            // A child of nobody who waits for it stays as a zombie, without a command line.
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            line.is_empty().then_some(())
        });
    }

    /// The port of a broker's listener behind the proxies.
    pub(crate) fn behind_proxy(&self, node: u16, brokers: u16) -> u16 {
        self.port + 2 * brokers + node - 1
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It wakes a frozen node first. In a failing test its own failure is the one to tell of.
        if std::thread::panicking() {
            let _ =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.script(&["wipe"])));
        } else {
            self.script(&["wipe"]);
        }
    }
}

/// The first of so many neighbouring ports that were free a moment ago, below those that the system hands out.
///
/// No port is given twice by one process: those of a cluster that is down are free, and yet its own.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap();
    let begin = next.unwrap_or_else(|| {
        11_000 + u16::try_from(std::process::id() % 8_000).expect("below 8,000")
    });
    let first = (begin..begin + 1_000)
        .step_by(usize::from(count))
        .find(|first| {
            (*first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .expect("some neighbouring ports are free");
    *next = Some(first + count);
    first
}
