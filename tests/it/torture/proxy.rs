//! A TCP proxy before one broker that cuts, slows and stalls, everything or produce requests only: the network between
//! Ringfence and Kafka.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The key of a produce request, behind its length.
const PRODUCE: [u8; 2] = [0, 0];
/// That of a request to end a transaction.
const END: [u8; 2] = [0, 26];

struct Link {
    backend: u16,
    delay_ms: AtomicU64,
    is_stalled: AtomicBool,
    /// Whether requests to produce do not pass.
    is_output_stalled: AtomicBool,
    /// Whether requests to end a transaction do not pass, and how many have come to that.
    is_end_stalled: AtomicBool,
    stalled_ends: AtomicU64,
    /// Of so many of them the connection is cut as they pass: their answers are lost.
    ends_to_cut: AtomicU64,
    is_closed: AtomicBool,
    connections: Mutex<BTreeMap<u64, [TcpStream; 2]>>,
}

impl Link {
    fn cut(&self) {
        let all = std::mem::take(&mut *self.connections.lock().expect("no panic within"));
        for stream in all.into_values().flatten() {
            // It may be gone already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Waits while this does not pass.
    fn hold(&self, is_stalled: &AtomicBool) {
        while is_stalled.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Carries requests, each as a whole, until either end closes.
    fn pump_requests(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut request = Vec::new();
        loop {
            let mut length = [0; 4];
            if from.read_exact(&mut length).is_err() {
                break;
            }
            request.clear();
            request.extend(length);
            let rest = u64::from(u32::from_be_bytes(length));
            let read = (&mut from).take(rest).read_to_end(&mut request);
            if !read.is_ok_and(|count| count as u64 == rest) {
                break;
            }
            self.wait_delay();
            self.hold(&self.is_stalled);
            if request.get(4..6) == Some(&PRODUCE) {
                self.hold(&self.is_output_stalled);
            }
            if request.get(4..6) == Some(&END) {
                self.end_passes(&from);
            }
            if to.write_all(&request).is_err() {
                break;
            }
        }
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    }

    fn end_passes(&self, from: &TcpStream) {
        if self.is_end_stalled.load(Ordering::Acquire) {
            self.stalled_ends.fetch_add(1, Ordering::AcqRel);
            self.hold(&self.is_end_stalled);
        }
        let one_less = |left: u64| left.checked_sub(1);
        let left = &self.ends_to_cut;
        if left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
            .is_ok()
        {
            // The broker is still to get it.
            drop(from.shutdown(Shutdown::Both));
        }
    }

    fn wait_delay(&self) {
        let delay = Duration::from_millis(self.delay_ms.load(Ordering::Relaxed));
        if !delay.is_zero() {
            std::thread::park_timeout(delay);
        }
    }

    /// Carries answers until either end closes.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            self.wait_delay();
            self.hold(&self.is_stalled);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        drop((from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both)));
    }

    fn serve(self: &Arc<Self>, number: u64, client: TcpStream) -> std::io::Result<()> {
        let broker = TcpStream::connect(("127.0.0.1", self.backend))?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let ends = [client.try_clone()?, broker.try_clone()?];
        self.connections
            .lock()
            .expect("no panic within")
            .insert(number, ends);
        let back = (broker.try_clone()?, client.try_clone()?);
        let link = Arc::clone(self);
        std::thread::spawn(move || link.pump(back.0, back.1));
        let link = Arc::clone(self);
        std::thread::spawn(move || {
            link.pump_requests(client, broker);
            link.connections
                .lock()
                .expect("no panic within")
                .remove(&number);
        });
        Ok(())
    }
}

/// The proxy before one broker; closed when dropped.
pub(crate) struct Proxy {
    link: Arc<Link>,
    port: u16,
}

impl Proxy {
    pub(crate) fn start(port: u16, backend: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let link = Arc::new(Link {
            backend,
            delay_ms: AtomicU64::new(0),
            is_stalled: AtomicBool::new(false),
            is_output_stalled: AtomicBool::new(false),
            is_end_stalled: AtomicBool::new(false),
            stalled_ends: AtomicU64::new(0),
            ends_to_cut: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            connections: Mutex::new(BTreeMap::new()),
        });
        let served = Arc::clone(&link);
        std::thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                if served.is_closed.load(Ordering::Acquire) {
                    return;
                }
                // A broker that is down refuses: the client's connection is closed, as if it had asked itself.
                if let Ok(client) = client {
                    drop(served.serve(number, client));
                }
            }
        });
        Self { link, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections there are.
    pub(crate) fn cut(&self) {
        self.link.cut();
    }

    /// From now on everything comes so much later.
    pub(crate) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).expect("a short time");
        self.link.delay_ms.store(millis, Ordering::Relaxed);
    }

    /// From now on no request to produce passes, or all do again.
    pub(crate) fn stall_output(&self, is_stalled: bool) {
        let link = &self.link;
        link.is_output_stalled.store(is_stalled, Ordering::Relaxed);
    }

    /// From now on no request to end a transaction passes, or all do again.
    pub(crate) fn stall_ends(&self, is_stalled: bool) {
        self.link
            .is_end_stalled
            .store(is_stalled, Ordering::Release);
    }

    /// How many of them were ever held up so.
    pub(crate) fn stalled_ends(&self) -> u64 {
        self.link.stalled_ends.load(Ordering::Acquire)
    }

    /// The next so many transactions are ended without the client hearing of it.
    pub(crate) fn cut_ends(&self, count: u64) {
        self.link.ends_to_cut.store(count, Ordering::Release);
    }

    /// How many of them are still to come.
    pub(crate) fn ends_to_cut(&self) -> u64 {
        self.link.ends_to_cut.load(Ordering::Acquire)
    }

    /// From now on nothing passes, or all does again.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.link.is_stalled.store(is_stalled, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.is_closed.store(true, Ordering::Release);
        self.stall(false);
        self.stall_output(false);
        self.stall_ends(false);
        self.link.cut();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test may look at the clock")]
fn a_proxy_carries_slows_stalls_and_cuts() {
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = echo.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in echo.incoming() {
            let mut client = client.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 8];
                while client.read_exact(&mut request).is_ok() {
                    client.write_all(&request[7..]).unwrap();
                }
            });
        }
    });
    let proxy = Proxy::start(0, backend);
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    // Of four bytes: a key, a version, and what is answered. Odd ones are to produce.
    let request = |byte: u8| [0, 0, 0, 4, 0, 1 - byte % 2, 0, byte];
    let mut ask = |byte: u8| {
        let begun = std::time::Instant::now();
        client.write_all(&request(byte))?;
        let mut answer = [0];
        client.read_exact(&mut answer)?;
        assert_eq!(answer[0], byte);
        Ok::<_, std::io::Error>(begun.elapsed())
    };
    ask(1).unwrap();
    proxy.delay(Duration::from_millis(60));
    assert!(
        ask(2).unwrap() >= Duration::from_millis(100),
        "there and back"
    );
    proxy.delay(Duration::ZERO);
    proxy.stall(true);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(3).unwrap());
        std::thread::park_timeout(Duration::from_millis(200));
        assert!(!asked.is_finished(), "nothing passes");
        proxy.stall(false);
        asked.join().unwrap();
    });
    proxy.stall_output(true);
    ask(4).unwrap();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask(5).unwrap());
        std::thread::park_timeout(Duration::from_millis(200));
        assert!(!asked.is_finished(), "no request to produce passes");
        proxy.stall_output(false);
        asked.join().unwrap();
    });
    proxy.cut();
    assert!(ask(6).is_err(), "the connection is cut");
    let mut anew = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    anew.write_all(&request(7)).unwrap();
    anew.read_exact(&mut [0]).unwrap();
}
