//! The way into the port: plain text as it comes, or a TLS handshake within its limits.
//!
//! Whoever connects and says nothing, or half of a handshake, holds one of a bounded number of places.
//! When all are taken the one who has been there longest gives way: a real handshake is over in
//! milliseconds, so that thousands who keep silent shut nobody out. Not here: what is spoken inside, and whether whoever came in may do anything.

use pki::{Peer, ServerTls};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most who have not come in yet: each costs about a millisecond of a core and some kilobytes, and
/// more nodes than a large cluster has may come back at the same moment.
const ENTERING_MAX: usize = 2_048;

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
    hall: Arc<Hall>,
}

/// Those who have not come in yet, in the order of their coming.
#[derive(Debug, Default)]
struct Hall {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    there: BTreeMap<u64, CancellationToken>,
}

/// A place in the hall; leaving it is dropping it.
struct Place<'a> {
    hall: &'a Hall,
    number: u64,
    /// Cancelled when it has to be given up.
    taken: CancellationToken,
}

impl Hall {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; the oldest is given up when there is none.
    fn place(&self) -> Place<'_> {
        let mut waiting = self.waiting();
        if waiting.there.len() >= ENTERING_MAX
            && let Some((_, oldest)) = waiting.there.pop_first()
        {
            oldest.cancel();
        }
        waiting.next += 1;
        let (number, taken) = (waiting.next, CancellationToken::new());
        waiting.there.insert(number, taken.clone());
        Place {
            hall: self,
            number,
            taken,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.hall.waiting().there.remove(&self.number);
    }
}

impl Doors {
    pub(crate) fn new(tls: Option<Arc<ServerTls>>) -> Self {
        Self {
            tls,
            hall: Arc::default(),
        }
    }

    /// Lets a connection in; `None` when it did not find its way.
    pub(crate) async fn enter(&self, stream: TcpStream) -> Option<Entered> {
        let Some(tls) = &self.tls else {
            return Some(Entered::Plain(stream));
        };
        let place = self.hall.place();
        tokio::select! {
            entered = tokio::time::timeout(HANDSHAKE_TIMEOUT, Self::shake_hands(tls, stream)) => {
                if entered.is_err() {
                    tracing::debug!("handshake took too long");
                }
                entered.ok().flatten()
            }
            () = place.taken.cancelled() => {
                tracing::debug!("handshake gave way to a newer one");
                None
            }
        }
    }

    async fn shake_hands(tls: &ServerTls, mut stream: TcpStream) -> Option<Entered> {
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? == 0 {
            return None;
        }
        if first != [TLS_HANDSHAKE] {
            speak_tls(&mut stream).await;
            return None;
        }
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
    fn the_oldest_gives_way_when_all_places_are_taken() {
        let hall = Hall::default();
        let mut places: Vec<Place<'_>> = (0..ENTERING_MAX).map(|_| hall.place()).collect();
        drop(places.remove(0));
        let last = hall.place();
        assert!(places.iter().all(|p| !p.taken.is_cancelled()), "there was one");
        let one_more = hall.place();
        let given_up = places.iter().filter(|p| p.taken.is_cancelled()).count();
        assert_eq!((given_up, places[0].taken.is_cancelled()), (1, true));
        assert!(!last.taken.is_cancelled() && !one_more.taken.is_cancelled());
        drop((places, last, one_more));
        assert!(hall.waiting().there.is_empty());
    }

    #[test]
    fn the_length_of_the_answer_is_right() {
        let (head, body) = SPEAK_TLS.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
    }
}
