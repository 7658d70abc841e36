//! An HTTP proxy that breaks what it is told to, and counts what it has broken.
//!
//! Each connection carries one request, so nothing passes unseen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// With this status and S3's word for it, without asking the server.
    Status(u16, &'static str),
    /// Never.
    Stall,
    /// The connection ends before the answer; the server has done what was asked.
    LoseAnswer,
    /// The body ends after so many bytes, the head promising all of them.
    CutBody(usize),
    /// The body ends after so many bytes, and the head has the lower length.
    ShortLength(usize),
    /// As `ShortLength`, and the head says that this is the whole object.
    ShortObject(usize),
    /// The head comes and no body.
    StallBody,
    /// One byte of the body is another one.
    Alter,
}

/// What is broken: requests whose first line has this in it, so many times.
#[derive(Debug)]
struct Order {
    has: &'static str,
    how: Break,
    left: u64,
}

#[derive(Debug)]
struct Orders {
    server: String,
    open: Mutex<Vec<Order>>,
    broken: AtomicU64,
    passed: AtomicU64,
}

/// The proxy; it ends when it is dropped.
pub(crate) struct Proxy {
    orders: Arc<Orders>,
    port: u16,
    /// Its loop, which holds the connections too; or what keeps the port while it is away.
    at: Mutex<At>,
}

enum At {
    Serving(#[allow(dead_code, reason = "ends the loop when it is dropped")] JoinSet<()>),
    Away(TcpSocket),
    /// Between two states.
    Nowhere,
}

impl Proxy {
    pub(crate) fn start(server: String) -> Self {
        let socket = bound(0);
        let port = socket.local_addr().expect("an address").port();
        let orders = Arc::new(Orders {
            server,
            open: Mutex::new(Vec::new()),
            broken: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        });
        let proxy = Self {
            orders,
            port,
            at: Mutex::new(At::Away(socket)),
        };
        proxy.come_back();
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Breaks the next `times` requests whose first line has `has` in it.
    pub(crate) fn will(&self, how: Break, has: &'static str, times: u64) {
        let order = Order { has, how, left: times };
        self.orders
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(order);
    }

    /// Passes everything from now on.
    pub(crate) fn heal(&self) {
        self.orders.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many requests were broken since the last call.
    pub(crate) fn broken(&self) -> u64 {
        self.orders.broken.swap(0, Ordering::SeqCst)
    }

    /// How many requests were passed on unharmed since the last call.
    pub(crate) fn passed(&self) -> u64 {
        self.orders.passed.swap(0, Ordering::SeqCst)
    }

    /// Refuses connections, and ends those that are open; keeps its port.
    pub(crate) fn go_away(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        // First the listener must be gone.
        *at = At::Nowhere;
        *at = At::Away(bound(self.port));
    }

    pub(crate) fn come_back(&self) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if let At::Away(socket) = std::mem::replace(&mut *at, At::Nowhere) {
            let listener = socket.listen(64).expect("it listens");
            let mut serving = JoinSet::new();
            serving.spawn(accept(listener, self.orders.clone()));
            *at = At::Serving(serving);
        }
    }
}

/// A port that nobody else takes, and nobody listens at. The listener of before may need a moment.
fn bound(port: u16) -> TcpSocket {
    let begun = std::time::Instant::now();
    loop {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        match socket.bind(([127, 0, 0, 1], port).into()) {
            Ok(()) => return socket,
            Err(error) => assert!(begun.elapsed().as_secs() < 30, "port {port}: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

async fn accept(listener: TcpListener, orders: Arc<Orders>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("a connection");
        let orders = orders.clone();
        connections.spawn(async move {
            // A client that goes away in the middle is no fault of the test.
            drop(serve(client, &orders).await);
        });
    }
}

impl Orders {
    fn take(&self, first_line: &str) -> Option<Break> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let order = open.iter_mut().find(|o| o.left > 0 && first_line.contains(o.has));
        let how = order.map(|order| {
            order.left -= 1;
            order.how
        });
        let count = if how.is_some() { &self.broken } else { &self.passed };
        count.fetch_add(1, Ordering::SeqCst);
        how
    }
}

async fn serve(mut client: TcpStream, orders: &Orders) -> std::io::Result<()> {
    let (head, begun) = head(&mut client).await?;
    let how = orders.take(head.lines().next().unwrap_or_default());
    match how {
        None => {
            let mut server = TcpStream::connect(&orders.server).await?;
            server.write_all(&closing(&head)).await?;
            server.write_all(&begun).await?;
            copy_bidirectional(&mut client, &mut server).await?;
        }
        Some(Break::Stall) => std::future::pending().await,
        Some(Break::Status(status, code)) => {
            take_body(&mut client, &head, &begun).await?;
            let body = format!("<Error><Code>{code}</Code><Message>broken by the test</Message></Error>");
            let head = format!(
                "HTTP/1.1 {status} {code}\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            client.write_all(head.as_bytes()).await?;
            client.write_all(body.as_bytes()).await?;
        }
        Some(how) => {
            let body = take_body(&mut client, &head, &begun).await?;
            let mut server = TcpStream::connect(&orders.server).await?;
            server.write_all(&closing(&head)).await?;
            server.write_all(&body).await?;
            let mut answer = Vec::new();
            server.read_to_end(&mut answer).await?;
            let answer = spoiled(&answer, how);
            client.write_all(&answer).await?;
            if how == Break::StallBody {
                std::future::pending::<()>().await;
            }
        }
    }
    client.shutdown().await
}

/// A request's head, and what came with it.
async fn head(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The head, asking the server to close the connection after its answer.
fn closing(head: &str) -> Vec<u8> {
    let kept: Vec<&str> = head
        .trim_end()
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    format!("{}\r\nconnection: close\r\n\r\n", kept.join("\r\n")).into_bytes()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.split("\r\n").filter_map(|line| line.split_once(':'));
    lines
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The request's whole body.
async fn take_body(client: &mut TcpStream, head: &str, begun: &[u8]) -> std::io::Result<Vec<u8>> {
    if header(head, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let length: usize = header(head, "content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = begun.to_vec();
    let missing = length.saturating_sub(body.len()) as u64;
    client.take(missing).read_to_end(&mut body).await?;
    Ok(body)
}

/// What is left of an answer.
fn spoiled(answer: &[u8], how: Break) -> Vec<u8> {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Vec::new();
    };
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    match how {
        Break::CutBody(bytes) => [head.as_bytes(), &body[..bytes.min(body.len())]].concat(),
        Break::ShortLength(bytes) | Break::ShortObject(bytes) => {
            let bytes = bytes.min(body.len());
            let whole = matches!(how, Break::ShortObject(_));
            let line = |line: &str| match line.split_once(':').map(|(name, _)| name.to_ascii_lowercase()) {
                Some(name) if name == "content-length" => format!("{name}: {bytes}"),
                Some(name) if name == "content-range" && whole => {
                    format!("{name}: bytes 0-{}/{bytes}", bytes.saturating_sub(1))
                }
                _ => line.to_owned(),
            };
            let head: Vec<String> = head.split("\r\n").map(line).collect();
            [head.join("\r\n").as_bytes(), &body[..bytes]].concat()
        }
        Break::Alter => {
            let mut body = body.to_vec();
            if let Some(byte) = body.get_mut(answer.len() % 7) {
                *byte ^= 1;
            }
            [head.as_bytes(), &body].concat()
        }
        Break::StallBody => head.into_bytes(),
        Break::LoseAnswer | Break::Status(..) | Break::Stall => Vec::new(),
    }
}
