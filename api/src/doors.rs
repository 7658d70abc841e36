//! The way into the port: plain text as it comes, or a TLS handshake within its limits.
//!
//! Not here: what is spoken inside, and whether whoever came in may do anything.

use pki::{Peer, ServerTls};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take, waiting for its turn included.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most handshakes at once: each costs about a millisecond of a core, and a thousand nodes may come
/// back at the same moment.
const HANDSHAKES_MAX: usize = 1_024;

/// The first byte of every TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// What somebody hears who speaks plain HTTP here.
const SPEAK_TLS: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
content-length: 69\r\n\r\nThis port speaks TLS: use an address that begins with https:// here.\n";

/// How long whoever speaks plain HTTP may take to hear it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that is ready for requests.
pub(crate) enum Entered {
    /// Without TLS.
    Plain(TcpStream),
    /// With it, and who is there.
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

/// The way in. Clones share it.
#[derive(Clone)]
pub(crate) struct Doors {
    tls: Option<Arc<ServerTls>>,
    room: Arc<Semaphore>,
}

impl Doors {
    pub(crate) fn new(tls: Option<Arc<ServerTls>>) -> Self {
        Self {
            tls,
            room: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        }
    }

    /// Lets a connection in; `None` when it did not find its way.
    pub(crate) async fn enter(&self, stream: TcpStream) -> Option<Entered> {
        let Some(tls) = &self.tls else {
            return Some(Entered::Plain(stream));
        };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.shake_hands(tls, stream)).await {
            Ok(entered) => entered,
            Err(_) => {
                tracing::debug!("handshake took too long");
                None
            }
        }
    }

    async fn shake_hands(&self, tls: &ServerTls, mut stream: TcpStream) -> Option<Entered> {
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 0 {
            return None;
        }
        if first != [TLS_HANDSHAKE] {
            speak_tls(&mut stream).await;
            return None;
        }
        let _turn = self.room.acquire().await.ok()?;
        match tls.accept(stream).await {
            Ok((stream, peer)) => Some(Entered::Tls(Box::new(stream), peer)),
            Err(error) => {
                tracing::debug!(%error, "handshake failed");
                None
            }
        }
    }
}

/// Says how to come in, to whoever speaks plain HTTP.
async fn speak_tls(stream: &mut TcpStream) {
    let told = async {
        stream.write_all(SPEAK_TLS.as_bytes()).await?;
        stream.shutdown().await?;
        // Closed with bytes unread, the connection would be reset and the answer lost.
        let mut unread = [0; 4_096];
        while tokio::io::AsyncReadExt::read(stream, &mut unread).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(ANSWER_TIMEOUT, told).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_the_answer_is_right() {
        let (head, body) = SPEAK_TLS.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
    }
}
