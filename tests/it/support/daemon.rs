//! The binary as a user runs it: processes with a configuration file each, asked over HTTP, ended by signal.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The binary under test: the one built with the tests, or that of `$RINGFENCE_TEST_BINARY` (`scripts/acceptance` names the
/// optimised one).
pub fn binary() -> PathBuf {
    std::env::var_os("RINGFENCE_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_ringfence").into(), PathBuf::from)
}

/// Waits until `probe` gives a value; panics with `what` after `limit`.
///
/// Between two tries it parks, so a test never takes a fixed time for granted.
#[allow(clippy::disallowed_methods)]
pub fn eventually<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
        .port()
}

/// Sends a process a signal by name (`TERM`, `INT`, `KILL`, `STOP`, `CONT`). Not by the `kill` of procps: a bare Debian
/// lacks it.
pub fn signal(pid: u32, name: &str) {
    let signal = match name {
        "TERM" => Signal::TERM,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => panic!("no signal {other} here"),
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal)
        .unwrap_or_else(|error| panic!("signal {name} reaches process {pid:?}: {error}"));
}

/// Runs the binary to its end.
pub fn ringfence(config: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .arg("-c")
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// Runs the binary to its end and asserts exit code 0; gives stdout.
pub fn ringfence_ok(config: &Path, arguments: &[&str]) -> String {
    let output = ringfence(config, arguments);
    assert!(
        output.status.success(),
        "ringfence {arguments:?}: {}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("reports are UTF-8")
}

/// A `ringfence run` of this test; killed when dropped.
pub struct Daemon {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    /// Starts `ringfence run` with an HTTP port of its own; its log goes to `name.log` in `folder`.
    pub fn start(config: &Path, folder: &Path, name: &str) -> Self {
        Self::start_with(config, folder, name, &[])
    }

    /// The same, with other values for some keys (`key=value`).
    pub fn start_with(config: &Path, folder: &Path, name: &str, values: &[&str]) -> Self {
        Self::start_in(config, folder, name, values, &[])
    }

    /// The same, with more in its environment.
    pub fn start_in(
        config: &Path,
        folder: &Path,
        name: &str,
        values: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Self {
        let values = values.iter().flat_map(|value| ["--set", value]);
        let options: Vec<&str> = values.collect();
        Self::spawn(config, folder, name, &options, environment)
    }

    /// The same with all of its log, and with these variables.
    pub fn start_loud(
        config: &Path,
        folder: &Path,
        name: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (*name, PathBuf::from(value)))
            .collect();
        Self::spawn(config, folder, name, &["-vv"], &environment)
    }

    /// Starts `run` where nothing that it says can be written.
    pub fn start_unheard(config: &Path) -> Self {
        let full = std::fs::File::create("/dev/full").expect("Linux has it");
        Self::spawn_saying_to(config, full, PathBuf::new(), &[], &[])
    }

    fn spawn(
        config: &Path,
        folder: &Path,
        name: &str,
        options: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).expect("the test's folder is writable");
        Self::spawn_saying_to(config, file, log, options, environment)
    }

    fn spawn_saying_to(
        config: &Path,
        file: std::fs::File,
        log: PathBuf,
        options: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Self {
        let port = free_port();
        let child = Command::new(binary())
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .arg("-c")
            .arg(config)
            .arg("--set")
            .arg(format!("http.listen=127.0.0.1:{port}"))
            .args(options)
            .arg("run")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file handle can be cloned"))
            .stderr(file)
            .spawn()
            .expect("the binary starts");
        Self {
            child,
            http: SocketAddr::from(([127, 0, 0, 1], port)),
            log,
        }
    }

    /// Where it answers over HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it over HTTP; `None` where nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split_whitespace().nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((status, body))
    }

    /// `/v1/status` as JSON.
    pub fn status(&self) -> Option<Value> {
        let (code, body) = self.get("/v1/status")?;
        (code == 200).then(|| serde_json::from_str(&body).expect("the status is JSON"))
    }

    /// The sum of a metric over all its label sets that contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let (_, body) = self.get("/metrics")?;
        let mut sum = None;
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            if series_name == name && series_labels.contains(labels) {
                *sum.get_or_insert(0.0) += value.parse::<f64>().expect("a metric is a number");
            }
        }
        sum
    }

    /// Waits until `/readyz` says yes.
    pub fn wait_ready(&mut self) {
        let limit = Duration::from_secs(180);
        let log = self.log.clone();
        eventually("the daemon is ready", limit, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!(
                    "the daemon ended with {status}: {}",
                    std::fs::read_to_string(&log).unwrap_or_default()
                );
            }
            self.get("/readyz").filter(|(code, _)| *code == 200)
        });
    }

    /// Sends a signal by name (`TERM`, `KILL`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Stops it by SIGTERM; it must drain and end with 0.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.wait_exit(Duration::from_secs(30));
        assert_eq!(status.code(), Some(0), "a drained stop: {}", self.log());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child can be waited for")
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        eventually("the daemon ends", limit, || {
            self.child.try_wait().expect("the child can be waited for")
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- {} (last lines)", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
