//! FAULTS F for the process: a stop with everything stuck, and secrets in whatever it says.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use ringfence::clock::Clock;
use ringfence::kafka::client::Settings;

use crate::support::daemon::{Daemon, binary};
use crate::support::edge::{PATIENCE, wait_for};
use crate::support::in_process::cluster;
use crate::support::stage::write_events;

#[test]
fn fs_72_one_signal_ends_it_within_the_drain_timeout_though_client_and_broker_are_stuck() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("ringfence.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"g\"\n[zones]\nallow_empty = true\n\
         [gate]\ncreate_time_margin_ms = 250\n[workers]\ncount = 1\n[shutdown]\ndrain_timeout_ms = 2000\n",
        cluster.bootstrap_servers(),
    );
    std::fs::write(&config, text).unwrap();
    let settings = Settings::new(&cluster.bootstrap_servers(), "g");
    write_events(&settings, "telemetry", 200);
    let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 20_000];
    cluster
        .controls()
        .request_errors(RDKafkaApiKey::Produce, &refused);
    let mut daemon = Daemon::start(&config, folder.path(), "stuck");
    daemon.wait_ready();
    wait_for("output is stuck on its way", || {
        daemon.metric("ringfence_records_in_flight", "") == Some(200.0)
    });
    let clients: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut client = TcpStream::connect(daemon.http()).unwrap();
            client.write_all(b"GET /v1/sta").unwrap();
            client
        })
        .collect();
    let begun = Clock::mono();
    daemon.signal("TERM");
    let status = daemon.wait_exit(PATIENCE);
    let took = Clock::mono().since(begun);
    // The drain's 2 s, and what leaving the group and closing the clients may take on a busy machine.
    assert!(took < Duration::from_secs(8), "{took:?}: {}", daemon.log());
    assert_eq!(status.code(), Some(0), "{}", daemon.log());
    drop(clients);
    // Nothing of it was committed: the next process does all of it.
    cluster
        .controls()
        .clear_request_errors(RDKafkaApiKey::Produce);
    let mut next = Daemon::start(&config, folder.path(), "next");
    next.wait_ready();
    wait_for("the next process does all of it", || {
        next.metric("ringfence_records_enriched_total", "") == Some(200.0)
    });
}

const CANARIES: [&str; 5] = [
    "canary-password-1",
    "canary-keypass-2",
    "canary-oauth-3",
    "canary-env-4",
    "canary-file-5",
];

/// A log whose disk is full, or whose reader has gone: the signal was once lost with the line that tells of it.
#[test]
fn a_process_that_nobody_hears_still_works_and_stops_by_a_signal() {
    let cluster = cluster(1);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("ringfence.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{}\"\n\"group.id\" = \"unheard\"\n[zones]\nallow_empty = true\n\
         [gate]\ncreate_time_margin_ms = 250\n",
        cluster.bootstrap_servers(),
    );
    std::fs::write(&config, text).unwrap();
    write_events(
        &Settings::new(&cluster.bootstrap_servers(), "g"),
        "telemetry",
        50,
    );
    let mut daemon = Daemon::start_unheard(&config);
    daemon.wait_ready();
    wait_for("all is enriched", || {
        daemon.metric("ringfence_records_enriched_total", "") == Some(50.0)
    });
    daemon.stop();
}

#[test]
fn an_error_that_cannot_be_told_leaves_its_exit_code() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let status = Command::new(binary())
        .args(["--set", "no.such_key=1", "check"])
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(78));
}

fn secret_config(bootstrap_servers: &str, folder: &Path) -> std::path::PathBuf {
    let [password, key, oauth, _, file] = CANARIES;
    let secret = folder.join("secret");
    std::fs::write(&secret, format!("{file}\n")).unwrap();
    let path = folder.join("secret.toml");
    let text = format!(
        "[kafka]\n\"bootstrap.servers\" = \"{bootstrap_servers}\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
         \"sasl.username\" = \"me\"\n\"sasl.password\" = \"{password}\"\n\"ssl.key.password\" = \"{key}\"\n\
         \"sasl.oauthbearer.config\" = \"{oauth}\"\n\"debug\" = \"all\"\n\
         [kafka.producer]\n\"sasl.password\" = {{ env = \"SHELL_FAULTS_SECRET\" }}\n\
         [kafka.zones]\n\"sasl.password\" = {{ file = \"{}\" }}\n[workers]\ncount = 1\n\
         [zones]\nallow_empty = true\n[gate]\ncreate_time_margin_ms = 250\n",
        secret.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[track_caller]
fn assert_no_secret(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows `{canary}`: {text}");
    }
}

#[test]
fn fs_76_no_secret_stands_in_anything_that_is_said_not_even_with_all_of_librdkafkas_debugging() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(1);
    let config = secret_config(&cluster.bootstrap_servers(), folder.path());
    let say = |arguments: &[&str]| {
        let output = Command::new(binary())
            .env("SHELL_FAULTS_SECRET", CANARIES[3])
            .arg("-vv")
            .arg("-c")
            .arg(&config)
            .args(arguments)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    for arguments in [
        ["config", "show"].as_slice(),
        &["--json", "config", "show"],
        &["check", "--offline"],
        &["check"],
        &["topics", "create", "--dry-run"],
        // Error paths of the configuration.
        &["--set", "kafka.no.such=1", "check"],
        &["--set", "kafka.ssl.ca.location=/nowhere", "check"],
        &["--set", "gate.match=x", "run"],
    ] {
        let said = say(arguments);
        assert!(!said.is_empty());
        assert_no_secret(&format!("{arguments:?}"), &said);
    }
    // It shows that there are passwords, else this would look at the wrong place.
    assert!(say(&["config", "show"]).contains("sasl.password"));

    let mut daemon = Daemon::start_loud(
        &config,
        folder.path(),
        "secret",
        &[("SHELL_FAULTS_SECRET", CANARIES[3])],
    );
    wait_for("librdkafka tells its own configuration", || {
        assert!(!daemon.log().contains("configuration is wrong"));
        daemon.log().contains("sasl.password = [redacted]")
    });
    daemon.wait_ready();
    write_events(
        &Settings::new(&cluster.bootstrap_servers(), "g"),
        "telemetry",
        10,
    );
    wait_for("events go through", || {
        daemon.metric("ringfence_records_enriched_total", "") == Some(10.0)
    });
    for path in ["/v1/status", "/metrics", "/readyz", "/livez", "/nothing"] {
        let (_, body) = daemon.get(path).unwrap();
        assert_no_secret(path, &body);
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait_exit(PATIENCE).code(), Some(0));
    assert_no_secret("the log", &daemon.log());
}
