//! The database's errors as sentences that say what to mend, and whether waiting helps.
//!
//! Not here: what is done about them.

use store::HistoryError;
use tokio_postgres::error::{DbError, SqlState};

/// An error of the client or the server.
pub(crate) fn of(error: &tokio_postgres::Error) -> HistoryError {
    match error.as_db_error() {
        Some(said) => of_server(said),
        None => HistoryError::Unavailable(with_causes(error)),
    }
}

/// True when the connection is of no use any more.
pub(crate) fn is_broken(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        None => true,
        Some(said) => {
            let class = said.code().code().get(..2).unwrap_or_default();
            matches!(class, "08" | "57") && *said.code() != SqlState::QUERY_CANCELED
        }
    }
}

fn of_server(said: &DbError) -> HistoryError {
    let (code, message) = (said.code(), said.message());
    let failed = |mend: &str| HistoryError::Failed(format!("the database says: {message}; {mend}"));
    let away = |mend: &str| HistoryError::Unavailable(format!("the database says: {message}; {mend}"));
    match code {
        &SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            failed("check user and password in `url`, and pg_hba.conf of the server")
        }
        &SqlState::INVALID_CATALOG_NAME => failed("create the database, or name another one in `url`"),
        &SqlState::INSUFFICIENT_PRIVILEGE => {
            failed("grant the user CREATE on the schema, or let its owner start a server of this release once")
        }
        &SqlState::READ_ONLY_SQL_TRANSACTION => away("it is a standby or read-only: name the primary in `url`"),
        &SqlState::QUERY_CANCELED => away("the search took too long: narrow it"),
        &SqlState::TOO_MANY_CONNECTIONS => away("raise max_connections of the server"),
        &SqlState::DISK_FULL => away("free room on its disk"),
        _ => match code.code().get(..2).unwrap_or_default() {
            // Connections, transactions that met another one, resources, an operator, the system.
            "08" | "40" | "53" | "57" | "58" | "55" => away("it will be tried again"),
            // What was given cannot be stored, however often it is tried.
            "22" | "54" => HistoryError::Illegal(format!("the database refuses a run: {message}")),
            _ => failed("this is not expected; the server's log says more"),
        },
    }
}

/// The client's word with what lies beneath, e.g. the system's word on a connection.
fn with_causes(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let word = next.to_string();
        if !text.contains(&word) {
            text = format!("{text}: {word}");
        }
        cause = next.source();
    }
    if text.contains("certificate") {
        text.push_str(
            "; name the database's authority (`ca`), or say sslmode=disable in `url` where the network is safe",
        );
    }
    text
}
