//! A few connections, each used by one call at a time; they are made when they are needed and
//! replaced when they break.
//!
//! While the database is away only one call at a time tries to reach it, after growing pauses; the
//! others are refused at once with what the last try said. Not here: what is asked.

use crate::settings::Settings;
use crate::{fault, schema};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use store::HistoryError;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// How many calls are under way at once from one server: three servers together stay far below
/// the hundred connections that a database has unless told otherwise.
const CONNECTIONS_MAX: usize = 8;

/// How long a call waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the database may work on a call; it is told so.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The database gives up on its own a moment before, so that it does not work for nobody.
const STATEMENT_TIMEOUT_MS: u64 = 9_000;

/// How long a new connection may take, with what is to be done to the schema.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The first pause after the database could not be reached.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Connections {
    settings: Settings,
    places: Semaphore,
    idle: Mutex<Vec<Client>>,
    /// Held by the one call that connects.
    gate: tokio::sync::Mutex<Gate>,
}

/// What is known of the way to the database.
#[derive(Debug, Default)]
struct Gate {
    failures: u32,
    /// Not to be tried before, and what the last try said.
    closed: Option<(Instant, HistoryError)>,
}

impl Connections {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            places: Semaphore::new(CONNECTIONS_MAX),
            idle: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// Runs one statement, which may be run twice: a connection that was idle may turn out broken,
    /// and then the call is made once more on a new one.
    pub(crate) async fn call(
        &self,
        statement: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, HistoryError> {
        let busy = |_| HistoryError::Unavailable("too many calls at once; try again".to_owned());
        let turn = timeout(TURN_TIMEOUT, self.places.acquire()).await.map_err(busy)?;
        let _turn = turn.map_err(|_| HistoryError::Unavailable("it is shutting down".to_owned()))?;
        if let Some(client) = self.take_idle() {
            match self.ask(client, statement, values).await {
                Ok(answer) => return answer,
                // All others were made at the same time or before.
                Err(Broken) => self.idle().clear(),
            }
        }
        let client = self.open().await?;
        let broken = |Broken| HistoryError::Unavailable("the connection broke; it will be made anew".to_owned());
        self.ask(client, statement, values).await.map_err(broken)?
    }

    async fn ask(
        &self,
        client: Client,
        statement: &str,
        values: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Result<Vec<Row>, HistoryError>, Broken> {
        match timeout(CALL_TIMEOUT, client.query_typed(statement, values)).await {
            Ok(Ok(rows)) => {
                self.idle().push(client);
                Ok(Ok(rows))
            }
            Ok(Err(error)) if fault::is_broken(&error) => {
                tracing::debug!(%error, "connection to the history database broke");
                Err(Broken)
            }
            Ok(Err(error)) => {
                self.idle().push(client);
                Ok(Err(fault::of(&error)))
            }
            // What the connection would answer next is not known: it is dropped.
            Err(_late) => Ok(Err(HistoryError::Unavailable("no answer in time".to_owned()))),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle();
        idle.retain(|c| !c.is_closed());
        idle.pop()
    }

    async fn open(&self) -> Result<Client, HistoryError> {
        let mut gate = self.gate.lock().await;
        if let Some((until, said)) = &gate.closed
            && Instant::now() < *until
        {
            return Err(said.clone());
        }
        let late = |_| HistoryError::Unavailable("no connection in time".to_owned());
        let opened = timeout(OPEN_TIMEOUT, self.try_open()).await;
        match opened.map_err(late).and_then(|o| o) {
            Ok(client) => {
                if gate.failures > 0 {
                    tracing::info!(failures = gate.failures, "history database is back");
                }
                *gate = Gate::default();
                Ok(client)
            }
            Err(error) => {
                let pause = PAUSE_MIN.saturating_mul(1 << gate.failures.min(8)).min(PAUSE_MAX);
                gate.failures = gate.failures.saturating_add(1);
                gate.closed = Some((Instant::now() + pause, error.clone()));
                Err(error)
            }
        }
    }

    async fn try_open(&self) -> Result<Client, HistoryError> {
        let connected = self.settings.config.connect(self.settings.tls.clone()).await;
        let (mut client, connection) = connected.map_err(|e| fault::of(&e))?;
        tokio::spawn(async move {
            // Ends when the client is dropped, or breaks; the next call notices.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the history database ended");
            }
        });
        schema::migrate(&mut client).await?;
        client
            .batch_execute(&format!("SET statement_timeout = {STATEMENT_TIMEOUT_MS}"))
            .await
            .map_err(|e| fault::of(&e))?;
        Ok(client)
    }
}

/// The connection is of no use any more.
struct Broken;
