//! `retry`: how often a step is tried again by itself, after which ends, with which pause.
//!
//! Not here: what the words mean for an attempt ([`model::RetryOn::covers`]).

use crate::keys::{Level, RETRY_KEYS, RetryKey};
use crate::read::{At, Reader};
use crate::report::Problem;
use crate::suggest::nearest;
use crate::syntax::shown;
use crate::tree::{Kind, NodeId, Value};
use crate::value;
use model::step::{RETRY_BACKOFF_MAX_MS, RETRY_MAX};
use model::{Retry, RetryOn};

/// The words of `retry.on` besides `exit:N`.
const ENDS: [&str; 4] = ["infra", "oom", "timeout", "failure"];

impl<'t> Reader<'t, '_> {
    pub(crate) fn retry(&mut self, node: NodeId) -> Option<Retry> {
        if let Value::Scalar(scalar) = self.value(node) {
            if self.expression("`retry`", scalar) {
                return None;
            }
            if matches!(scalar.kind, Kind::Integer | Kind::Bool(_)) {
                let at = self.at(node);
                self.report.add(at, || short_form_refused(&scalar.text, scalar.kind));
                return None;
            }
        }
        let keys = self.keys("`retry`", node, Level::Retry, RETRY_KEYS)?.known;
        let mut retry = Retry::default();
        let mut whole = true;
        for key in keys {
            let read = match key.id {
                RetryKey::Max => self.retry_max(key.value).map(|max| retry.max = max),
                RetryKey::On => self.retry_on(key.value).map(|on| retry.on = on),
                RetryKey::Backoff => self.backoff(key.value).map(|ms| retry.backoff_ms = ms),
            };
            whole &= read.is_some();
        }
        whole.then_some(retry)
    }

    fn retry_max(&mut self, node: NodeId) -> Option<u32> {
        let max = self.count("`retry.max`", node, 0, u64::from(RETRY_MAX))?;
        u32::try_from(max).ok()
    }

    /// Every wrong entry is reported, not the first alone.
    fn retry_on(&mut self, node: NodeId) -> Option<Vec<RetryOn>> {
        let texts = self.texts("`retry.on`", node)?;
        let given = match self.value(node) {
            Value::List(items) => items.len(),
            Value::Scalar(_) | Value::Map(_) => 1,
        };
        if given == 0 {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new("`retry.on` is empty").help("write `max: 0` for a step that is never tried again")
            });
            return None;
        }
        let mut ends = Vec::with_capacity(texts.len());
        for text in texts {
            match self.retry_end(text) {
                Some(end) if ends.contains(&end) => self.report.add(text.at, || {
                    Problem::new(format!("`retry.on` names `{}` twice", shown(text.value))).help("remove one of them")
                }),
                Some(end) => ends.push(end),
                None => {}
            }
        }
        (ends.len() == given).then_some(ends)
    }

    fn retry_end(&mut self, text: At<&'t str>) -> Option<RetryOn> {
        let end = RetryOn::try_from(text.value.to_owned()).ok();
        // Written in one way only: `exit:075` and `exit:+75` are refused.
        let plain = end.filter(|end| String::from(*end) == text.value);
        if plain.is_none() {
            self.report.add(text.at, || refused_end(text.value));
        }
        plain
    }

    fn backoff(&mut self, node: NodeId) -> Option<u64> {
        let text = self.raw("`retry.backoff`", node, "a duration such as `5s`")?;
        match value::duration_ms(text.value) {
            Ok(ms) if ms <= RETRY_BACKOFF_MAX_MS => return Some(ms),
            Ok(_) => self.report.add(text.at, || {
                let most = value::duration_text(RETRY_BACKOFF_MAX_MS);
                Problem::new(format!(
                    "`retry.backoff` must be at most {most}, not {}",
                    shown(text.value)
                ))
                .help("it is the first pause; each further one is twice as long")
            }),
            Err(problem) => self.report.add(text.at, || problem),
        }
        None
    }
}

fn short_form_refused(text: &str, kind: Kind) -> Problem {
    let help = match kind {
        Kind::Bool(false) => "write `retry: {max: 0}` for a step that is never tried again".to_owned(),
        Kind::Integer => format!("write `retry: {{max: {}, on: [infra]}}`", shown(text)),
        _ => "write `retry: {max: 2, on: [infra]}`".to_owned(),
    };
    Problem::new(format!("`retry` must be a mapping, not `{}`", shown(text))).help(help)
}

fn refused_end(text: &str) -> Problem {
    let problem = Problem::new(format!("`{}` is no end that `retry.on` knows", shown(text)));
    if text.starts_with("exit") {
        return problem.help("write `exit:N` with the exit code, 1 to 255");
    }
    match nearest(text, ENDS) {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help("write `infra`, `oom`, `timeout`, `failure` or `exit:N`"),
    }
}
