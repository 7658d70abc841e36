//! A fleet service in this process: keeps orders, reports and logs as a server would, says what
//! tests tell it to, and panics on what no agent may send.

use futures::Stream;
use model::{AllocId, Observed, ObservedState};
use pki::Authority;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use wire::v1::agent_message::Message as FromAgent;
use wire::v1::fleet_service_server::{FleetService, FleetServiceServer};
use wire::v1::server_message::Message as ToAgent;
use wire::v1::{self, AgentMessage, ServerMessage};

pub(crate) const TOKEN: &str = "a-node-s-token";

/// What a server knows and what it has seen. Outlives its streams.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) standing: BTreeMap<String, v1::Order>,
    pub(crate) hellos: Vec<v1::Hello>,
    pub(crate) reports: BTreeMap<String, Vec<Observed>>,
    /// Stored bytes; the length of a log that has ended.
    pub(crate) logs: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    pub(crate) refused_tokens: u32,
    /// Reports are neither taken nor answered.
    pub(crate) deaf: bool,
    /// Nothing is answered any more, renewals neither, and the stream stays open.
    pub(crate) mute: bool,
    /// Logs are taken and never acknowledged, and this is what was on the way at most.
    pub(crate) hoards: bool,
    pub(crate) unstored_max: u64,
    /// What Welcome promises.
    pub(crate) lease_ms: u64,
    /// Renewals are not confirmed; all else goes on.
    pub(crate) unconfirming: bool,
    /// No stream is let in.
    pub(crate) shut: bool,
    /// What is said when somebody asks for the quorum, and how often that was.
    pub(crate) quorum: Quorum,
    pub(crate) asked: u32,
    /// Who renews certificates, and for how long; and how often that was.
    pub(crate) authority: Option<(Authority, Duration)>,
    pub(crate) certified: u32,
    streams: Vec<(mpsc::Sender<Result<ServerMessage, Status>>, CancellationToken)>,
}

/// What a server says of the store's quorum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Quorum {
    /// It is of a release that does not know the question.
    #[default]
    Unknown,
    Lost,
    There,
    /// It does not answer at all.
    Silent,
}

/// A server on a loopback port.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    books: Arc<Mutex<Books>>,
    changed: Arc<watch::Sender<u64>>,
    _stop: Arc<tokio_util::sync::DropGuard>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            books: Arc::new(Mutex::new(Books {
                lease_ms: 20_000,
                ..Books::default()
            })),
            changed: Arc::new(watch::channel(0).0),
            _stop: Arc::new(stop.clone().drop_guard()),
        };
        let service = FleetServiceServer::new(Service {
            books: server.books.clone(),
            changed: server.changed.clone(),
        });
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move { stop.cancelled().await });
        tokio::spawn(serving);
        server
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Waits until the books answer something; panics with what they say after half a minute.
    pub(crate) async fn until<T>(&self, what: &str, mut ask: impl FnMut(&Books) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                changed.mark_unchanged();
                if let Some(answer) = ask(&self.books()) {
                    return answer;
                }
                changed.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), wait).await {
            Ok(answer) => answer,
            Err(_) => {
                let books = self.books();
                let states: Vec<_> = books
                    .reports
                    .iter()
                    .map(|(id, r)| (id, r.last().map(|o| o.state)))
                    .collect();
                let logs: Vec<_> = books.logs.iter().map(|(id, (log, end))| (id, log.len(), end)).collect();
                panic!("never happened: {what}; reports {states:?}, logs {logs:?}");
            }
        }
    }

    /// Orders something, to be sent at once to whoever is connected.
    pub(crate) fn order(&self, order: &v1::Order) {
        let mut books = self.books();
        books.standing.insert(order.alloc_id.clone(), order.clone());
        books.send(&ToAgent::Order(order.clone()));
    }

    pub(crate) fn cancel(&self, alloc: &AllocId) {
        let mut order = self.books().standing[alloc.as_str()].clone();
        order.stop = "cancelled".to_owned();
        self.order(&order);
    }

    pub(crate) fn forget(&self, alloc: &AllocId) {
        let mut books = self.books();
        books.standing.remove(alloc.as_str());
        books.send(&ToAgent::Forget(v1::Forget {
            alloc_id: alloc.to_string(),
        }));
    }

    /// Breaks every stream without a word.
    pub(crate) fn cut(&self) {
        for (_, cut) in self.books().streams.drain(..) {
            cut.cancel();
        }
    }

    pub(crate) async fn connected(&self, times: usize) {
        self.until("a connection", |books| (books.hellos.len() >= times).then_some(()))
            .await;
    }

    pub(crate) async fn reported(&self, alloc: &AllocId, state: ObservedState) -> Observed {
        let find = |books: &Books| {
            books
                .reports
                .get(alloc.as_str())?
                .iter()
                .find(|o| o.state == state)
                .cloned()
        };
        self.until(&format!("{alloc} {state:?}"), find).await
    }

    pub(crate) async fn whole_log(&self, alloc: &AllocId) -> Vec<u8> {
        let find = |books: &Books| {
            let (log, end) = books.logs.get(alloc.as_str())?;
            (*end == Some(log.len() as u64)).then(|| log.clone())
        };
        self.until(&format!("the whole log of {alloc}"), find).await
    }

    pub(crate) async fn log_holds(&self, alloc: &AllocId, text: &str) {
        let find = |books: &Books| {
            let log = &books.logs.get(alloc.as_str())?.0;
            String::from_utf8_lossy(log).contains(text).then_some(())
        };
        self.until(&format!("`{text}` in the log of {alloc}"), find).await;
    }
}

impl Books {
    fn send(&self, message: &ToAgent) {
        for (stream, _) in &self.streams {
            let message = Some(message.clone());
            let _ = stream.try_send(Ok(ServerMessage { message }));
        }
    }

    fn hear(&mut self, message: FromAgent) -> Vec<ToAgent> {
        if self.mute {
            return Vec::new();
        }
        match message {
            FromAgent::Hello(_) => panic!("a second Hello"),
            FromAgent::Renew(_) if self.unconfirming => Vec::new(),
            FromAgent::Renew(renew) => vec![ToAgent::RenewAck(v1::RenewAck {
                sequence: renew.sequence,
            })],
            FromAgent::Report(_) if self.deaf => Vec::new(),
            FromAgent::Report(report) => self.report(&report),
            FromAgent::LogOpen(open) => {
                let (log, _) = self.logs.entry(open.alloc_id.clone()).or_default();
                let offset = log.len() as u64;
                vec![ToAgent::LogFrom(v1::LogFrom {
                    alloc_id: open.alloc_id,
                    offset,
                })]
            }
            FromAgent::Log(data) => self.log(&data),
        }
    }

    fn report(&mut self, report: &v1::Report) -> Vec<ToAgent> {
        let observed: Observed = serde_json::from_str(&report.observed_json).unwrap();
        assert_eq!(observed.alloc.as_str(), report.alloc_id);
        assert_eq!(Some(observed.fence.into()), report.fence);
        let accepted = self.standing.contains_key(&report.alloc_id);
        let earlier = self.reports.entry(report.alloc_id.clone()).or_default();
        if let Some(last) = earlier.last() {
            assert!(last.state <= observed.state, "a report went back");
        }
        let state = serde_json::to_value(observed.state)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned();
        earlier.push(observed);
        vec![ToAgent::ReportAck(v1::ReportAck {
            alloc_id: report.alloc_id.clone(),
            state,
            accepted,
        })]
    }

    fn log(&mut self, data: &v1::LogData) -> Vec<ToAgent> {
        assert!(data.bytes.len() <= wire::LOG_DATA_MAX);
        let (log, end) = self.logs.get_mut(&data.alloc_id).expect("LogData before LogOpen");
        assert_eq!(
            data.offset,
            log.len() as u64,
            "a gap or a duplicate in the log of {}",
            data.alloc_id
        );
        log.extend_from_slice(&data.bytes);
        if data.end {
            *end = Some(log.len() as u64);
        }
        self.unstored_max = self.unstored_max.max(log.len() as u64);
        if self.hoards {
            return Vec::new();
        }
        vec![ToAgent::LogAck(v1::LogAck {
            alloc_id: data.alloc_id.clone(),
            offset: log.len() as u64,
            complete: data.end,
        })]
    }
}

struct Service {
    books: Arc<Mutex<Books>>,
    changed: Arc<watch::Sender<u64>>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<ServerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl FleetService for Service {
    type SessionStream = Answers;

    async fn quorum(&self, _: Request<v1::QuorumRequest>) -> Result<Response<v1::QuorumReply>, Status> {
        let quorum = {
            let mut books = self.books.lock().unwrap();
            books.asked += 1;
            books.quorum
        };
        self.changed.send_modify(|n| *n += 1);
        match quorum {
            Quorum::Unknown => Err(Status::unimplemented("this server has no quorum to ask about")),
            Quorum::Silent => std::future::pending().await,
            Quorum::Lost | Quorum::There => Ok(Response::new(v1::QuorumReply {
                lost: quorum == Quorum::Lost,
            })),
        }
    }

    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        Err(Status::unimplemented("this server takes no machines in"))
    }

    async fn renew_certificate(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateReply>, Status> {
        let reply = {
            let mut books = self.books.lock().unwrap();
            let Some((authority, life)) = &books.authority else {
                return Err(Status::unimplemented("this server has no authority"));
            };
            let csr_pem = request.into_inner().csr_pem;
            let certificate = authority.certify_node(&csr_pem, "n1", pki::now_s(), *life);
            let reply = v1::RenewCertificateReply {
                certificate_pem: certificate.unwrap(),
                authority_pem: authority.certificate_pem().to_owned(),
            };
            books.certified += 1;
            reply
        };
        self.changed.send_modify(|n| *n += 1);
        Ok(Response::new(reply))
    }

    async fn session(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Answers>, Status> {
        let shown = request.metadata().get("authorization").map(|v| v.as_bytes().to_vec());
        if shown != Some(format!("Bearer {TOKEN}").into_bytes()) {
            self.books.lock().unwrap().refused_tokens += 1;
            self.changed.send_modify(|n| *n += 1);
            return Err(Status::unauthenticated("no such token"));
        }
        if self.books.lock().unwrap().shut {
            return Err(Status::unavailable("the store does not answer"));
        }
        let mut incoming = request.into_inner();
        let Some(FromAgent::Hello(hello)) = incoming.message().await?.and_then(|m| m.message) else {
            panic!("a stream must begin with Hello");
        };
        let (tell, answers) = mpsc::channel(1024);
        let cut = CancellationToken::new();
        {
            let mut books = self.books.lock().unwrap();
            books.hellos.push(hello);
            books.streams.push((tell.clone(), cut.clone()));
            let orders = books.standing.values().cloned().collect();
            let welcome = v1::Welcome {
                server: "s1".to_owned(),
                node_epoch: books.hellos.len() as u64,
                lease_ms: books.lease_ms,
            };
            for message in [ToAgent::Welcome(welcome), ToAgent::Orders(v1::Orders { orders })] {
                let message = Some(message);
                tell.try_send(Ok(ServerMessage { message })).unwrap();
            }
        }
        self.changed.send_modify(|n| *n += 1);
        let (books, changed) = (self.books.clone(), self.changed.clone());
        let broken = cut.clone();
        tokio::spawn(async move {
            let pump = async {
                while let Ok(Some(message)) = incoming.message().await {
                    let answers = books.lock().unwrap().hear(message.message.unwrap());
                    changed.send_modify(|n| *n += 1);
                    for answer in answers {
                        let message = Some(answer);
                        let _ = tell.send(Ok(ServerMessage { message })).await;
                    }
                }
            };
            tokio::select! {
                () = pump => {}
                () = broken.cancelled() => {
                    let _ = tell.send(Err(Status::unavailable("cut"))).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}
