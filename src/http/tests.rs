use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::*;

#[derive(Default)]
struct Fixed {
    healthy: AtomicBool,
}

impl Source for Fixed {
    fn alive(&self) -> Result<(), String> {
        if self.healthy.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err("worker 2 stands still".to_owned())
        }
    }

    fn checks(&self) -> Vec<Check> {
        let ok = self.healthy.load(Ordering::Relaxed);
        vec![
            Check {
                name: "config",
                ok: true,
                detail: String::new(),
            },
            Check {
                name: "bootstrap",
                ok,
                detail: "zones: 3 of 4 partitions".to_owned(),
            },
        ]
    }

    fn status(&self) -> serde_json::Value {
        json!({ "gate": { "held_by": [] } })
    }

    fn metrics(&self, format: Format) -> String {
        format!("{format:?}\n")
    }
}

struct Running {
    address: std::net::SocketAddr,
    source: Arc<Fixed>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    let server = Server::bind("127.0.0.1:0", limits)
        .await
        .expect("a free port");
    let address = server.address();
    let source = Arc::new(Fixed::default());
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(server.serve(source.clone(), stopped));
    Running {
        address,
        source,
        stop,
        task,
    }
}

/// Sends `request`; what was answered until the server closed the connection.
fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a test does not hang");
    stream.write_all(request.as_bytes()).expect("writes");
    let mut answer = Vec::new();
    if let Err(fault) = stream.read_to_end(&mut answer) {
        // A server that refuses a request before it has read it all resets the connection.
        assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionReset, "{fault}");
    }
    String::from_utf8(answer).expect("text")
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let request = request.to_owned();
    tokio::task::spawn_blocking(move || {
        exchange(
            &mut TcpStream::connect(address).expect("connects"),
            &request,
        )
    })
    .await
    .expect("no panic")
}

async fn get_path(address: std::net::SocketAddr, path: &str) -> String {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn probes_tell_what_the_source_says() {
    let running = start(Limits::default()).await;
    let answer = get_path(running.address, "/livez").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("worker 2 stands still"),
        "{answer}"
    );
    assert!(answer.contains("application/problem+json"), "{answer}");
    let answer = get_path(running.address, "/readyz").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("3 of 4 partitions"),
        "{answer}"
    );
    running.source.healthy.store(true, Ordering::Relaxed);
    assert!(
        get_path(running.address, "/livez")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        get_path(running.address, "/readyz")
            .await
            .contains("\"ready\":true")
    );
    assert!(
        get_path(running.address, "/v1/status")
            .await
            .contains("\"held_by\":[]")
    );
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let running = start(Limits::default()).await;
    let answer = get_path(running.address, "/metrics").await;
    assert!(
        answer.contains("text/plain; version=0.0.4") && answer.ends_with("Text\n"),
        "{answer}"
    );
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\nConnection: close\r\n\r\n";
    let answer = ask(running.address, request).await;
    assert!(
        answer.contains("application/openmetrics-text") && answer.ends_with("OpenMetrics\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn wrong_requests_are_told_so_as_problem_json() {
    let running = start(Limits::default()).await;
    let answer = get_path(running.address, "/nothing").await;
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("there is nothing at `/nothing`"),
        "{answer}"
    );
    assert!(answer.contains("application/problem+json"), "{answer}");
    let answer = ask(
        running.address,
        "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 405") && answer.contains("application/problem+json"),
        "{answer}"
    );
    let answer = ask(running.address, "\x16\x03\x01 not HTTP\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = "a".repeat(40_000);
    let answer = ask(
        running.address,
        &format!("GET /livez HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn slow_client_is_cut_off_and_keeps_nobody_out() {
    let limits = Limits {
        head_timeout: Duration::from_millis(100),
        connections_max: 1,
        ..Limits::default()
    };
    let running = start(limits).await;
    let mut slow = TcpStream::connect(running.address).expect("connects");
    slow.write_all(b"GET /livez HT").expect("writes");
    // Of itself it is closed once the head's time is over.
    let (mut slow, rest) = tokio::task::spawn_blocking(move || {
        let rest = exchange(&mut slow, "");
        (
            TcpStream::connect(slow.peer_addr().expect("it was connected")),
            rest,
        )
    })
    .await
    .map(|(again, rest)| (again.expect("connects"), rest))
    .expect("no panic");
    assert!(!rest.contains("200 OK"), "{rest}");
    slow.write_all(b"GET /livez HT").expect("writes");
    // It holds the only connection, and is closed for the next one.
    assert!(
        get_path(running.address, "/v1/status")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let rest = tokio::task::spawn_blocking(move || exchange(&mut slow, ""))
        .await
        .expect("no panic");
    assert!(!rest.contains("200 OK"), "{rest}");
}

#[tokio::test]
async fn taken_port_is_an_error_that_says_so() {
    let running = start(Limits::default()).await;
    let fault = Server::bind(&running.address.to_string(), Limits::default())
        .await
        .expect_err("taken");
    assert!(
        fault
            .to_string()
            .contains("each process needs a port of its own"),
        "{fault}"
    );
}

#[tokio::test]
async fn told_to_stop_it_ends_although_a_client_stays() {
    let running = start(Limits::default()).await;
    let _idle = TcpStream::connect(running.address).expect("connects");
    running.stop.send(true).expect("it listens");
    tokio::time::timeout(Duration::from_secs(5), running.task)
        .await
        .expect("ends in time")
        .expect("no panic");
}

#[tokio::test]
async fn fs_70_two_thousand_sockets_that_send_half_a_request_or_nothing_keep_no_probe_out() {
    const SOCKETS: usize = 2_000;
    let limits = Limits::default();
    let running = start(limits).await;
    running.source.healthy.store(true, Ordering::Relaxed);
    let address = running.address;
    let attack = move || {
        (0..SOCKETS)
            .map(|number| {
                let mut socket = TcpStream::connect(address).expect("connects");
                if number % 2 == 0 {
                    // Closed on already, perhaps.
                    let _ = socket.write_all(b"GET /livez HTTP/1.1\r\nHo").is_ok();
                }
                socket
            })
            .collect::<Vec<_>>()
    };
    let sockets = tokio::task::spawn_blocking(attack).await.expect("no panic");
    // Sooner than the head's time would give the first of them up, so not by that.
    let probe = get_path(address, "/livez");
    let answer = tokio::time::timeout(limits.head_timeout / 2, probe)
        .await
        .expect("the probe is let in at once");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let count_open = move || {
        let is_open = |socket: &&TcpStream| {
            socket.set_nonblocking(true).expect("a socket");
            let peeked = socket.peek(&mut [0]);
            peeked.is_err_and(|fault| fault.kind() == std::io::ErrorKind::WouldBlock)
        };
        let open = sockets.iter().filter(is_open).count();
        (open, sockets)
    };
    let (open, sockets) = tokio::task::spawn_blocking(count_open)
        .await
        .expect("no panic");
    assert!(
        open <= limits.connections_max,
        "{open} of {} are open",
        sockets.len()
    );
}

/// How much memory this process has, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).expect("resident pages");
    pages.parse::<usize>().expect("a number") * 4_096
}

#[tokio::test]
async fn fs_71_no_body_however_large_or_slow_is_waited_for_or_kept() {
    let running = start(Limits::default()).await;
    running.source.healthy.store(true, Ordering::Relaxed);
    let address = running.address;
    for (request, status) in [
        // A gigabyte is announced, and comes slowly: here not at all.
        (
            "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
            "200",
        ),
        (
            "POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
            "405",
        ),
        (
            "POST /v1/zones/at HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "404",
        ),
    ] {
        let asked = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a socket");
            stream.write_all(request.as_bytes()).expect("writes");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).expect("answered at once");
            String::from_utf8_lossy(&answer).into_owned()
        });
        let answer = asked.await.expect("no panic");
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{request}");
    }
    // What does come is not kept: half a gigabyte, or less where the server closes before.
    let before = resident();
    let sent = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("connects");
        let head = "POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 536870912\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("writes");
        let part = vec![b'['; 1 << 20];
        (0..512)
            .take_while(|_| stream.write_all(&part).is_ok())
            .count()
    });
    let sent = sent.await.expect("no panic");
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes for {sent} MiB sent");
    let long = "1".repeat(20_000);
    let answer = get_path(address, &format!("/v1/status?bbox={long}")).await;
    assert!(
        answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}
