//! The rules of a step or a run that are no plain values: groups of concurrency, priorities, globs.
//!
//! Not here: what they do to a run ([`crate::progress`], the scheduler).

use crate::glob::{GLOBS_MAX, Globs};
use crate::keys::{CONCURRENCY_KEYS, ConcurrencyKey, Level};
use crate::limits::GROUP_MAX;
use crate::read::{At, Reader};
use crate::report::Problem;
use crate::scope::Place;
use crate::suggest::nearest;
use crate::syntax::shown;
use crate::tree::{NodeId, Value};
use model::{Concurrency, Priority, Queue};

/// `concurrency` as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Group<'t> {
    pub(crate) group: &'t str,
    pub(crate) cancel_in_progress: bool,
    pub(crate) queue: Queue,
}

impl Group<'_> {
    pub(crate) fn owned(&self) -> Concurrency {
        Concurrency {
            group: self.group.to_owned(),
            cancel_in_progress: self.cancel_in_progress,
            queue: self.queue,
        }
    }
}

impl<'t> Reader<'t, '_> {
    pub(crate) fn concurrency(&mut self, what: &str, node: NodeId, place: Place) -> Option<Group<'t>> {
        if matches!(self.value(node), Value::Scalar(_)) {
            let group = self.line_made(what, node, GROUP_MAX, place)?.value;
            return Some(Group {
                group,
                cancel_in_progress: false,
                queue: Queue::default(),
            });
        }
        let keys = self.keys(what, node, Level::Concurrency, CONCURRENCY_KEYS)?;
        let (mut group, mut cancel_in_progress, mut queue) = (None, Some(false), Some(Queue::default()));
        let mut left_open = None;
        for key in &keys.known {
            let what = format!("`concurrency.{}`", key.name);
            match key.id {
                ConcurrencyKey::Group => group = self.line_made(&what, key.value, GROUP_MAX, place).map(|g| g.value),
                ConcurrencyKey::CancelInProgress => cancel_in_progress = self.flag_made(&what, key.value, place),
                ConcurrencyKey::Queue => queue = self.queue(key.value),
            }
            left_open = left_open.or(self.left_open.take());
        }
        self.left_open = left_open;
        if !keys.has(ConcurrencyKey::Group) && !keys.meant.contains(&"group") {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("{what} has no `group`")).help("write `group: production`")
            });
        }
        Some(Group {
            group: group?,
            cancel_in_progress: cancel_in_progress?,
            queue: queue?,
        })
    }

    fn queue(&mut self, node: NodeId) -> Option<Queue> {
        let text = self.text("`concurrency.queue`", node)?;
        self.word(
            "`concurrency.queue`",
            text,
            &[("latest", Queue::Latest), ("all", Queue::All)],
        )
    }

    pub(crate) fn priority(&mut self, node: NodeId) -> Option<Priority> {
        let text = self.text("`priority`", node)?;
        if text.value == "critical" {
            self.report.add(text.at, || {
                Problem::new("`priority: critical` has to be granted to the team, which is not supported yet")
                    .help("write `high`, `normal` or `low`")
            });
            return None;
        }
        let words = [Priority::High, Priority::Normal, Priority::Low].map(|p| (p.as_str(), p));
        self.word("`priority`", text, &words)
    }

    /// One of several words.
    pub(crate) fn word<V: Copy>(&mut self, what: &str, text: At<&str>, words: &[(&'static str, V)]) -> Option<V> {
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            self.report.add(text.at, || {
                let names: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                let problem = Problem::new(format!(
                    "{what} must be one of {}, not `{}`",
                    names.join(", "),
                    shown(text.value)
                ));
                match nearest(text.value, words.iter().map(|(word, _)| *word)) {
                    Some(meant) => problem.help(format!("did you mean `{meant}`?")),
                    None => problem,
                }
            });
        }
        found.map(|(_, value)| *value)
    }

    /// One glob or a list of them.
    pub(crate) fn globs(&mut self, what: &str, node: NodeId) -> Option<Vec<&'t str>> {
        let texts = self.texts(what, node)?;
        let at = self.at(node);
        let given = match self.value(node) {
            Value::List(items) => items.len(),
            Value::Scalar(_) | Value::Map(_) => 1,
        };
        if given == 0 || given > GLOBS_MAX {
            self.report.add(at, || {
                Problem::new(format!("{what} holds {given} globs; it must be 1 to {GLOBS_MAX}"))
            });
            return None;
        }
        let mut whole = texts.len() == given;
        for text in &texts {
            if let Err(message) = Globs::new(&[text.value]) {
                whole = false;
                self.report.add(text.at, || {
                    Problem::new(message).help("write it like `main`, `release/*`, `src/**` or `!docs/**`")
                });
            }
        }
        whole.then(|| texts.into_iter().map(|text| text.value).collect())
    }
}
