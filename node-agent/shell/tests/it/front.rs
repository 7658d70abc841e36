//! What stands between an agent and a fake server: TLS, a hang, a death.

use pki::{Peer, ServerTls};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a front does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Passing,
    /// Connections are taken and stay open, and nothing is passed on.
    Frozen,
}

/// A port that leads to a server.
pub(crate) struct Front {
    pub(crate) address: String,
    mood: watch::Sender<Mood>,
    dead: CancellationToken,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Of each handshake, in order.
    peers: Mutex<Vec<Peer>>,
    refused: Mutex<u32>,
    /// Connections through which something is passed on.
    open: Mutex<u32>,
    /// Pieces that a frozen front has kept.
    kept: Mutex<u32>,
}

impl Front {
    /// In front of `server` (`http://HOST:PORT`).
    pub(crate) async fn start(server: &str, tls: Option<Arc<ServerTls>>) -> Self {
        let target: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let front = Self {
            address: format!("{scheme}://{}", listener.local_addr().unwrap()),
            mood: watch::Sender::new(Mood::Passing),
            dead: CancellationToken::new(),
            seen: Arc::default(),
        };
        let (mood, dead, seen) = (front.mood.subscribe(), front.dead.clone(), front.seen.clone());
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = dead.cancelled() => return,
                };
                let (tls, mood, dead, seen) = (tls.clone(), mood.clone(), dead.clone(), seen.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = serve(stream, tls, target, mood, seen) => {}
                        () = dead.cancelled() => {}
                    }
                });
            }
        });
        front
    }

    /// From now on it hangs, without closing anything.
    pub(crate) fn freeze(&self) {
        self.mood.send_replace(Mood::Frozen);
    }

    /// Its port and all its connections are closed.
    pub(crate) fn die(&self) {
        self.dead.cancel();
    }

    pub(crate) fn is_used(&self) -> bool {
        *self.seen.open.lock().unwrap() > 0
    }

    /// Pieces that came while it hung.
    pub(crate) fn kept(&self) -> u32 {
        *self.seen.kept.lock().unwrap()
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.seen.peers.lock().unwrap().clone()
    }

    /// Handshakes that came to nothing.
    pub(crate) fn refused(&self) -> u32 {
        *self.seen.refused.lock().unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.die();
    }
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<ServerTls>>,
    target: SocketAddr,
    mood: watch::Receiver<Mood>,
    seen: Arc<Seen>,
) {
    let Some(tls) = tls else {
        return pass(stream, target, mood, seen).await;
    };
    match tls.accept(stream).await {
        Ok((stream, peer)) => {
            seen.peers.lock().unwrap().push(peer);
            pass(stream, target, mood, seen).await;
        }
        Err(_) => *seen.refused.lock().unwrap() += 1,
    }
}

async fn pass(stream: impl AsyncRead + AsyncWrite, target: SocketAddr, mood: watch::Receiver<Mood>, seen: Arc<Seen>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    *seen.open.lock().unwrap() += 1;
    let (from_agent, to_agent) = tokio::io::split(stream);
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_agent, to_server, mood.clone(), seen.clone()) => {}
        () = pump(from_server, to_agent, mood, seen.clone()) => {}
    }
    *seen.open.lock().unwrap() -= 1;
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mood: watch::Receiver<Mood>,
    seen: Arc<Seen>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if *mood.borrow() == Mood::Frozen {
            *seen.kept.lock().unwrap() += 1;
            std::future::pending::<()>().await;
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
