//! A way to etcd that can be cut: requests get through, answers do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Everything passes.
    Open,
    /// Requests pass, answers do not.
    SwallowsAnswers,
    /// Connections are closed as soon as they are made.
    Refuses,
    /// Each connection is closed after so many bytes of answers.
    CutsAfter(usize),
}

/// The proxy; it ends with the runtime.
pub(crate) struct Proxy {
    port: u16,
    way: watch::Sender<Way>,
    cuts: watch::Sender<u64>,
    /// Bytes of answers that were swallowed, and connections that were cut.
    faults: Arc<AtomicU64>,
}

impl Proxy {
    /// In front of a port of the loopback.
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Self {
            port,
            way: watch::Sender::new(Way::Open),
            cuts: watch::Sender::new(0),
            faults: Arc::default(),
        };
        let (way, cuts, faults) = (proxy.way.subscribe(), proxy.cuts.subscribe(), Arc::clone(&proxy.faults));
        tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(pass(from, to, way.clone(), cuts.clone(), Arc::clone(&faults)));
            }
        });
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Closes every connection.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How often it did harm.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}

async fn pass(
    from: TcpStream,
    to: u16,
    way: watch::Receiver<Way>,
    mut cuts: watch::Receiver<u64>,
    faults: Arc<AtomicU64>,
) {
    cuts.mark_unchanged();
    if *way.borrow() == Way::Refuses {
        faults.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let Ok(etcd) = TcpStream::connect(("127.0.0.1", to)).await else {
        return;
    };
    let (mut asks, answers) = from.into_split();
    let (etcd_answers, mut etcd_asks) = etcd.into_split();
    tokio::select! {
        _ = tokio::io::copy(&mut asks, &mut etcd_asks) => {}
        () = hand_back(etcd_answers, answers, way, &faults) => {}
        // A dropped proxy cuts nothing: its runtime is about to end.
        Ok(()) = cuts.changed() => {
            faults.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn hand_back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: watch::Receiver<Way>, faults: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let way = *way.borrow();
        match way {
            Way::SwallowsAnswers => {
                faults.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            Way::CutsAfter(bytes) if passed + count > bytes => {
                faults.fetch_add(1, Ordering::SeqCst);
                let _ = to.write_all(&buffer[..bytes.saturating_sub(passed).min(count)]).await;
                return;
            }
            Way::Open | Way::Refuses | Way::CutsAfter(_) => {}
        }
        passed += count;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
