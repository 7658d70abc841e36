//! Templates by name, each with all that it extends.
//!
//! Not here: what lies over and under them ([`crate::assembly`]).

use crate::draft::Layer;
use crate::limits::{ENV_ENTRIES_MAX, EXTENDS_DEPTH_MAX};
use crate::needs::circle_text;
use crate::part::{Env, Part};
use crate::read::At;
use crate::report::{Problem, Report};
use crate::suggest::nearest;
use crate::syntax::shown;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The templates of a file and of those that it includes.
pub(crate) struct Templates<'d, 't> {
    list: &'d [Layer<'t>],
    /// By name; of several the last, which is that of the file that includes the others.
    index: BTreeMap<&'t str, usize>,
    /// With all that they extend, made when they are first asked for.
    resolved: Vec<Option<Rc<Part<'t>>>>,
}

impl<'d, 't> Templates<'d, 't> {
    pub(crate) fn new(list: &'d [Layer<'t>]) -> Self {
        Self {
            list,
            index: list.iter().enumerate().map(|(n, t)| (t.name.value, n)).collect(),
            resolved: vec![None; list.len()],
        }
    }

    /// Every `extends` of a template, also of one that nobody uses.
    pub(crate) fn check(&self, report: &mut Report<'_>) {
        for (number, template) in self.list.iter().enumerate() {
            if let Some(extends) = template.part.extends
                && self.find(extends, report).is_some()
                && let Err(Broken::Circle(circle)) = self.chain(number)
                && circle.iter().min() == Some(&number)
            {
                report.add(extends.at, || {
                    let names: Vec<String> = circle.iter().map(|n| shown(self.list[*n].name.value)).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    Problem::new(format!(
                        "templates extend each other in a circle: {}",
                        circle_text(&names)
                    ))
                    .help("remove one of these `extends`")
                });
            }
        }
    }

    pub(crate) fn find(&self, extends: At<&str>, report: &mut Report<'_>) -> Option<usize> {
        let found = self.index.get(extends.value).copied();
        if found.is_none() {
            report.add(extends.at, || {
                let problem = Problem::new(format!("no template is named `{}`", shown(extends.value)));
                match nearest(extends.value, self.index.keys().copied()) {
                    Some(meant) => problem.help(format!("did you mean `{}`?", shown(meant))),
                    None => problem.help("define it under `templates`"),
                }
            });
        }
        found
    }

    /// The template and all that it extends, the nearest first.
    fn chain(&self, number: usize) -> Result<Vec<usize>, Broken> {
        let mut chain = vec![number];
        let mut seen = vec![false; self.list.len()];
        seen[number] = true;
        let mut last = number;
        while let Some(extends) = self.list[last].part.extends {
            let next = *self.index.get(extends.value).ok_or(Broken::Elsewhere)?;
            if next == number {
                return Err(Broken::Circle(chain));
            }
            if std::mem::replace(&mut seen[next], true) {
                return Err(Broken::Elsewhere);
            }
            chain.push(next);
            last = next;
        }
        Ok(chain)
    }

    /// The template that `extends` names, with all that it extends. `None` when that is reported.
    pub(crate) fn whole(&mut self, extends: At<&str>, report: &mut Report<'_>) -> Option<(Rc<Part<'t>>, Vec<usize>)> {
        let number = self.find(extends, report)?;
        let chain = self.chain(number).ok()?;
        if chain.len() > EXTENDS_DEPTH_MAX {
            report.add(extends.at, || {
                Problem::new(format!(
                    "`{}` extends {} templates behind each other; the most is {EXTENDS_DEPTH_MAX}",
                    extends.value,
                    chain.len()
                ))
            });
            return None;
        }
        let mut base: Option<Rc<Part<'t>>> = None;
        for number in chain.iter().rev().copied() {
            let whole = match &self.resolved[number] {
                Some(done) => Rc::clone(done),
                None => {
                    let own = &self.list[number];
                    let mut part = own.part.clone();
                    if let Some(base) = &base {
                        part = part.over(base);
                    }
                    limit_env(&mut part, own.name.at, report);
                    Rc::new(part)
                }
            };
            self.resolved[number] = Some(Rc::clone(&whole));
            base = Some(whole);
        }
        base.map(|base| (base, chain))
    }
}

/// Why a chain of templates has no end that counts.
enum Broken {
    /// It comes back to its first template: the circle, without the return.
    Circle(Vec<usize>),
    /// A template further on is unknown or in a circle, which is reported there.
    Elsewhere,
}

/// A part with too many variables is reported and loses them, so that nothing grows with it.
pub(crate) fn limit_env(part: &mut Part<'_>, at: usize, report: &mut Report<'_>) {
    let count = part.env.len();
    if count > ENV_ENTRIES_MAX {
        report.add(at, || {
            Problem::new(format!(
                "with those that it takes over, this has {count} variables; the most is {ENV_ENTRIES_MAX}"
            ))
            .help("keep settings in a file of the repository")
        });
        part.env = Env::default();
        part.broken = true;
    }
}
