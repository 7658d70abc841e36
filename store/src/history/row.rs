//! What stands in the columns of a run, and the statements that search them: the same for every
//! SQL engine, so that they cannot differ in what a filter means.
//!
//! Columns hold copies for the search only. The record itself is kept as bytes, so that no engine's
//! idea of text, numbers or time can change it. Not here: connections and schemas.

use super::{COUNT_MAX, Oldest, RunFilter, RunOrder, RunQuery, SEARCHED_MAX};
use model::{ArchivedRun, RecordError, RunId};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A run as its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The run.
    pub id: String,
    /// The run's own attempt.
    pub attempt: i64,
    /// The tenant.
    pub team: String,
    /// The pipeline.
    pub pipeline: String,
    /// The number in the pipeline.
    pub number: i64,
    /// How it ended.
    pub status: String,
    /// The branch, if the ref is one that can be searched for.
    pub branch: Option<String>,
    /// The commit, if it can be searched for.
    pub commit: Option<String>,
    /// When it was triggered, milliseconds of the Unix epoch.
    pub created_ms: i64,
    /// The whole record.
    pub record: Vec<u8>,
}

impl Row {
    /// The columns of a run.
    #[must_use]
    pub fn of(run: &ArchivedRun) -> Self {
        let summary = &run.summary;
        let text = |text: Option<&str>| text.and_then(searched).map(str::to_owned);
        Self {
            id: summary.id.to_string(),
            attempt: i64::from(summary.attempt),
            team: summary.team.to_string(),
            pipeline: summary.pipeline.to_string(),
            number: number(summary.number),
            status: summary.status.as_str().to_owned(),
            branch: text(summary.source.branch()),
            commit: text(Some(&summary.source.commit)),
            created_ms: number(summary.created_ms),
            record: model::encode(run),
        }
    }
}

/// A text that a column holds; `None` for one that is in no column: SQL engines cut or refuse text
/// with a zero byte, and an index holds keys of some kilobytes only.
#[must_use]
pub fn searched(text: &str) -> Option<&str> {
    (!text.contains('\0') && text.len() <= SEARCHED_MAX).then_some(text)
}

/// SQL has signed numbers only. What lies beyond is as good as the greatest.
#[must_use]
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// One row for each run, of its greatest attempt, in order of ids, so that two servers that put the
/// same runs at once do not wait for each other in a circle.
#[must_use]
pub fn rows(runs: &[ArchivedRun]) -> Vec<Row> {
    let mut newest: BTreeMap<&RunId, &ArchivedRun> = BTreeMap::new();
    for run in runs {
        let kept = newest.entry(&run.summary.id).or_insert(run);
        if run.summary.attempt > kept.summary.attempt {
            *kept = run;
        }
    }
    newest.into_values().map(Row::of).collect()
}

/// Reads a record, which says its own id.
///
/// # Errors
/// [`RecordError`] when it is damaged or of a newer release.
pub fn record(bytes: &[u8]) -> Result<ArchivedRun, RecordError> {
    model::decode(bytes)
}

/// The records of a page; one that cannot be read is passed over, so that it does not hide the others.
#[must_use]
pub fn records(rows: &[Vec<u8>]) -> Vec<ArchivedRun> {
    let read = |bytes: &Vec<u8>| match record(bytes) {
        Ok(run) => Some(run),
        Err(error) => {
            tracing::error!(%error, "archived run passed over");
            None
        }
    };
    rows.iter().filter_map(read).collect()
}

/// The value of a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

/// A statement with the values of its placeholders `$1`, `$2`, …, which stand in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The SQL text.
    pub text: String,
    /// The values.
    pub values: Vec<Value>,
}

/// A statement in the making.
struct Search {
    conditions: String,
    values: Vec<Value>,
}

impl Search {
    /// The conditions of a filter; `None` when no row can meet them.
    fn of(filter: &RunFilter) -> Option<Self> {
        let mut search = Self {
            conditions: String::new(),
            values: Vec::new(),
        };
        let text = |t: &str| Value::Text(t.to_owned());
        let mut add = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                search.and(condition, value);
            }
        };
        add("team =", filter.team.as_ref().map(|t| text(t.as_str())));
        add("pipeline =", filter.pipeline.as_ref().map(|p| text(p.as_str())));
        add("status =", filter.status.map(|s| text(s.as_str())));
        for (condition, wanted) in [("branch =", &filter.branch), ("commit_id =", &filter.commit)] {
            if let Some(wanted) = wanted {
                add(condition, Some(text(searched(wanted)?)));
            }
        }
        add(
            "created_ms >=",
            filter.created_from_ms.map(|n| Value::Number(number(n))),
        );
        add(
            "created_ms <",
            filter.created_before_ms.map(|n| Value::Number(number(n))),
        );
        Some(search)
    }

    fn and(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        let word = if self.values.len() == 1 { "WHERE" } else { "AND" };
        let _ = write!(self.conditions, " {word} {condition} ${}", self.values.len());
    }
}

/// The statement that answers a query with one row more than its limit; its one column is the
/// record. `None`: nothing can match.
#[must_use]
pub fn list(table: &str, query: &RunQuery) -> Option<Statement> {
    let mut search = Search::of(&query.filter)?;
    let order = match &query.order {
        RunOrder::Id { before } => {
            if let Some(before) = before {
                search.and("id <", Value::Text(before.to_string()));
            }
            "id DESC"
        }
        RunOrder::Number { before } => {
            if let Some(before) = before {
                search.and("number <", Value::Number(number(*before)));
            }
            // A number is given twice only by a fault of ours; the order is whole all the same.
            "number DESC, id DESC"
        }
    };
    let (conditions, limit) = (search.conditions, query.limit + 1);
    Some(Statement {
        text: format!("SELECT record FROM {table}{conditions} ORDER BY {order} LIMIT {limit}"),
        values: search.values,
    })
}

/// The statement that answers [`super::History::oldest_runs`]; its columns are the time of the trigger,
/// the id and the branch. One index holds them in this order.
#[must_use]
pub fn oldest(table: &str, created_before_ms: u64, after: Option<(u64, &RunId)>, limit: usize) -> Statement {
    let mut values = vec![Value::Number(number(created_before_ms))];
    let mut further = "";
    if let Some((created_ms, run)) = after {
        values.extend([Value::Number(number(created_ms)), Value::Text(run.to_string())]);
        further = " AND (created_ms, id) > ($2, $3)";
    }
    Statement {
        text: format!(
            "SELECT created_ms, id, branch FROM {table} WHERE created_ms < $1{further} ORDER BY created_ms, id LIMIT {limit}"
        ),
        values,
    }
}

/// A row of that answer; `None`, and a word in the log, for an id that no run has.
#[must_use]
pub fn oldest_run(created_ms: i64, id: &str, branch: Option<String>) -> Option<Oldest> {
    match RunId::new(id) {
        Ok(run) => Some(Oldest {
            created_ms: created_ms.unsigned_abs(),
            run,
            branch,
        }),
        Err(error) => {
            tracing::error!(id, %error, "row of history passed over");
            None
        }
    }
}

/// The statement that counts, up to [`COUNT_MAX`]. `None`: nothing can match.
#[must_use]
pub fn count(table: &str, filter: &RunFilter) -> Option<Statement> {
    let search = Search::of(filter)?;
    let conditions = search.conditions;
    Some(Statement {
        text: format!("SELECT count(*) FROM (SELECT 1 FROM {table}{conditions} LIMIT {COUNT_MAX}) AS counted"),
        values: search.values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{PipelineName, TeamName};

    #[test]
    fn a_statement_has_its_values_in_order() {
        let query = RunQuery {
            filter: RunFilter {
                team: TeamName::new("a").ok(),
                pipeline: PipelineName::new("b").ok(),
                branch: Some("main".to_owned()),
                created_before_ms: Some(u64::MAX),
                ..RunFilter::default()
            },
            order: RunOrder::Number { before: Some(7) },
            limit: 10,
        };
        let statement = list("run", &query).expect("it can match");
        assert_eq!(
            statement.text,
            "SELECT record FROM run WHERE team = $1 AND pipeline = $2 AND branch = $3 AND created_ms < $4 \
             AND number < $5 ORDER BY number DESC, id DESC LIMIT 11"
        );
        let text = |t: &str| Value::Text(t.to_owned());
        let values = [
            text("a"),
            text("b"),
            text("main"),
            Value::Number(i64::MAX),
            Value::Number(7),
        ];
        assert_eq!(statement.values, values);
    }

    #[test]
    fn what_is_in_no_column_cannot_match() {
        for branch in ["a\0b".to_owned(), "x".repeat(SEARCHED_MAX + 1)] {
            let filter = RunFilter {
                branch: Some(branch),
                ..RunFilter::default()
            };
            assert_eq!(count("run", &filter), None);
        }
    }
}
