//! `check` as a user runs it: what it says of permissions and of the largest timestamps on a real Kafka and where nobody
//! tells; and the properties that librdkafka refuses, which end every command that needs a cluster with exit 78.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use ringfence::kafka::client::Settings;
use ringfence::kafka::mock::EmbeddedCluster;
use ringfence::kafka::writer::{Outgoing, TopicWriter};
use serde_json::Value;

use crate::support::daemon::{eventually, ringfence};
use crate::support::kafka::Cluster;
use crate::support::stage::Stage;
use crate::support::zones::rectangle;

/// Every finding as (weight, what).
fn findings(output: &Output) -> Vec<(String, String)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .map(|line| {
            let finding: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| finding[name].as_str().unwrap().to_owned();
            (text("weight"), text("what"))
        })
        .collect()
}

#[track_caller]
fn assert_found(findings: &[(String, String)], weight: &str, words: &str) {
    assert!(
        findings
            .iter()
            .any(|(of, what)| of == weight && what.contains(words)),
        "no {weight} with {words:?} in {findings:#?}"
    );
}

#[test]
fn check_says_that_the_brokers_tell_the_largest_timestamps_and_what_the_principal_may() {
    let Some(stage) = Stage::new("check-told", "") else {
        return;
    };
    stage.create_topics(2, &["--replication", "1"]);
    let empty = findings(&ringfence(&stage.config, &["--json", "check"]));
    assert_found(&empty, "note", "shows with its first record");
    assert_found(
        &empty,
        "warning",
        "enriches nothing until a zone is in force",
    );
    let zone = rectangle("a", 0.0, 0.0, 1.0, 1.0, "");
    stage.write("zones", [(Some(0), "a".to_owned(), zone)]);
    let output = ringfence(&stage.config, &["--json", "check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = findings(&output);
    assert_found(
        &said,
        "note",
        "the brokers tell which record has the largest",
    );
    assert_found(&said, "note", "the principal may do what `run` needs");
    assert!(
        said.iter().all(|(weight, _)| weight == "note"),
        "on topics of our own making nothing is to be warned of: {said:#?}"
    );
}

#[test]
fn check_says_so_where_the_cluster_tells_neither_permissions_nor_timestamps() {
    let cluster = EmbeddedCluster::start(1).unwrap();
    for topic in [
        "zones",
        "telemetry",
        "telemetry.enriched",
        "telemetry.dead-letter",
    ] {
        cluster.create_topic(topic, 1).unwrap();
    }
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_ringfence"))
            .arg("--set")
            .arg(format!(
                "kafka.bootstrap.servers={}",
                cluster.bootstrap_servers()
            ))
            .args(["--set", "gate.create_time_margin_ms=500", "--json"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let writer =
        TopicWriter::new(&Settings::new(&cluster.bootstrap_servers(), "check-mock")).unwrap();
    let record = Outgoing {
        topic: "zones",
        value: Some(b"any"),
        ..Outgoing::default()
    };
    assert!(writer.send(&record, 0).unwrap());
    let receipt = writer.receipt(Duration::from_secs(20)).unwrap();
    assert!(receipt.outcome.is_ok());
    let output = run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = findings(&output);
    assert_found(&said, "warning", "permissions are not checked");
    assert_found(&said, "warning", "do not tell which record has the largest");
}

/// What ACLs are made of, by Kafka's numbers (KIP-140).
pub(crate) const TOPIC: i8 = 2;
const GROUP: i8 = 3;
pub(crate) const READ: i8 = 3;
pub(crate) const WRITE: i8 = 4;
const CREATE: i8 = 5;
pub(crate) const DESCRIBE: i8 = 8;
/// An authorizer that allows everybody everything on what has no ACL.
pub(crate) const AUTHORIZER: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
    allow.everyone.if.no.acl.found=true";

/// Allows everybody one operation on a resource, and with that no other, as the broker allows all only where a resource
/// has no ACL. By a CreateAcls request of our own: the client library has no call for it, nor has the product a use.
pub(crate) fn allow_only(address: &str, resource: i8, name: &str, operation: i8) {
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
        out.extend(text.as_bytes());
    };
    let mut request = Vec::new();
    let (create_acls, version, correlation) = (30_i16, 1_i16, 7_i32);
    request.extend(create_acls.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(correlation.to_be_bytes());
    text(&mut request, "test");
    request.extend(1_i32.to_be_bytes());
    request.extend(resource.to_be_bytes());
    text(&mut request, name);
    let literal = 3_i8;
    request.extend(literal.to_be_bytes());
    text(&mut request, "User:ANONYMOUS");
    text(&mut request, "*");
    request.extend(operation.to_be_bytes());
    let allow = 3_i8;
    request.extend(allow.to_be_bytes());

    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let length = i32::try_from(request.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).unwrap();
    stream.write_all(&request).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut answer).unwrap();
    // Correlation id, throttle time, count of results, then the code of the one.
    assert_eq!(answer[12..14], [0, 0], "CreateAcls: {answer:?}");
}

#[test]
fn check_names_every_permission_that_run_lacks() {
    let Some(cluster) = Cluster::start_with(1, AUTHORIZER) else {
        return;
    };
    let stage = Stage::on(cluster.address(), "check-acl", "");
    stage.create_topics(2, &["--replication", "1"]);
    let whole = ringfence(&stage.config, &["--json", "check"]);
    assert_found(&findings(&whole), "note", "the principal may do what `run`");

    let address = cluster.address();
    allow_only(address, TOPIC, &stage.topic("enriched"), DESCRIBE);
    allow_only(address, TOPIC, &stage.topic("zones"), READ);
    allow_only(address, GROUP, stage.group(), DESCRIBE);
    // Not even to see it.
    allow_only(address, TOPIC, &stage.topic("dead"), CREATE);
    let wanted = [
        (
            "problem",
            format!("no WRITE permission on topic `{}`", stage.topic("enriched")),
        ),
        (
            "problem",
            format!("no READ permission on group `{}`", stage.group()),
        ),
        (
            "problem",
            format!("ask for topic `{}`", stage.topic("dead")),
        ),
        (
            "warning",
            format!(
                "the configuration of `{}` cannot be read",
                stage.topic("zones")
            ),
        ),
    ];
    // ACLs reach the broker a moment after they were accepted.
    let limit = Duration::from_secs(60);
    let said = eventually("check sees the ACLs", limit, || {
        let output = ringfence(&stage.config, &["--json", "check"]);
        let said = findings(&output);
        let all = wanted.iter().all(|(weight, words)| {
            said.iter()
                .any(|(of, what)| of == weight && what.contains(words))
        });
        (all && output.status.code() == Some(1)).then_some(said)
    });
    let of_telemetry = said
        .iter()
        .filter(|(_, what)| what.contains(&stage.topic("telemetry")));
    assert_eq!(
        of_telemetry.count(),
        0,
        "what may be done is no finding: {said:#?}"
    );
}

#[test]
fn a_property_that_librdkafka_refuses_ends_every_command_for_the_cluster_with_78_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.toml");
    for (text, said) in [
        (
            "[kafka]\n\"compresion.type\" = \"lz4\"\n",
            vec![
                "`kafka.compresion.type`: No such configuration property",
                "wrong.toml:2)",
            ],
        ),
        (
            "[kafka.consumer]\n\"fetch.max.bytes\" = \"many\"\n\"fetch.wait.max.ms\" = -1\n",
            vec![
                "`kafka.consumer.fetch.max.bytes`: Invalid value",
                "wrong.toml:2)",
                "`kafka.consumer.fetch.wait.max.ms`: ",
                "wrong.toml:3)",
            ],
        ),
        (
            "[kafka]\n\"security.protocol\" = \"ssl\"\n\"ssl.ca.location\" = \"/nowhere/ca.pem\"\n",
            vec!["`kafka.ssl.ca.location`: ", "wrong.toml:3)"],
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        for arguments in [
            ["check", "--offline"].as_slice(),
            &["check"],
            &["run"],
            &["topics", "create"],
            &["zones", "export"],
            &["simulate"],
            &["verify"],
        ] {
            let output = ringfence(&path, arguments);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?}: {error}");
            for words in &said {
                assert!(
                    error.contains(words),
                    "{arguments:?}: {words:?} in: {error}"
                );
            }
            assert!(output.stdout.is_empty(), "no report: {output:?}");
        }
    }
}
