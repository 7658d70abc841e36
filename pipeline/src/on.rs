//! `on`: which events make a run.
//!
//! Without `on`, every push of a branch or tag does. With it, only the events that it names do. A
//! person can always start a run: `on.manual` only says what they are asked for.
//!
//! Events of forges, of the clock and of other pipelines are read and checked here like all others,
//! so that a file need not change when a release fires them. Not here: who brings the events.

use crate::cron;
use crate::glob::Globs;
use crate::inputs::Input;
use crate::keys::{
    Key, Level, MANUAL_KEYS, ManualKey, ON_KEYS, OnKey, PULL_REQUEST_KEYS, PUSH_KEYS, PullRequestKey, PushKey,
    SCHEDULE_KEYS, ScheduleKey, UPSTREAM_KEYS, UpstreamKey,
};
use crate::limits::SCHEDULES_MAX;
use crate::occasion::Occasion;
use crate::read::{At, Known, Reader};
use crate::report::Problem;
use crate::suggest::nearest;
use crate::syntax::shown;
use crate::tree::{Kind, NodeId, Value};

/// What `on` says.
#[derive(Debug, Clone, Default)]
pub(crate) struct On<'t> {
    pub(crate) push: Option<Filter<'t>>,
    pub(crate) pull_request: Option<Filter<'t>>,
    /// Some without globs: any tag.
    pub(crate) tag: Option<Vec<&'t str>>,
    pub(crate) merge_group: bool,
    pub(crate) schedule: bool,
    pub(crate) pipeline: bool,
    pub(crate) inputs: Vec<Input<'t>>,
    /// It was refused; nothing follows from what is missing in it.
    pub(crate) broken: bool,
}

/// Which pushes or pull requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter<'t> {
    branches: Option<Vec<&'t str>>,
    paths: Option<Vec<&'t str>>,
    paths_ignore: Option<Vec<&'t str>>,
}

/// What happens to pull requests.
pub(crate) const TYPE_WORDS: [&str; 8] = [
    "opened",
    "synchronize",
    "reopened",
    "closed",
    "labeled",
    "unlabeled",
    "ready_for_review",
    "edited",
];

/// How a run of another pipeline has to end.
const STATUSES: [(&str, ()); 5] = [
    ("success", ()),
    ("failed", ()),
    ("cancelled", ()),
    ("timed_out", ()),
    ("any", ()),
];

impl On<'_> {
    /// Why the event makes no run; `None`: it makes one. `on` is absent where the file has none.
    pub(crate) fn refusal(on: Option<&Self>, occasion: &Occasion) -> Option<String> {
        let event = occasion.event.as_str();
        if event == "manual" {
            return None;
        }
        let Some(on) = on else {
            let fires = matches!(event, "push" | "tag");
            return (!fires).then(|| format!("without `on` the file makes no run of the event `{event}`"));
        };
        let there = match event {
            "push" => on.push.is_some(),
            "tag" => on.tag.is_some(),
            "pull_request" => on.pull_request.is_some(),
            "merge_group" => on.merge_group,
            "schedule" => on.schedule,
            "pipeline" => on.pipeline,
            _ => false,
        };
        if !there {
            return Some(format!("`on` does not name the event `{event}`"));
        }
        match event {
            "push" => {
                let branch = occasion.git.branch().unwrap_or_default();
                on.push.as_ref()?.refusal("on.push", branch, occasion)
            }
            "pull_request" => {
                let base = occasion.git.pull_request.as_ref().map_or("", |pr| &*pr.base);
                on.pull_request.as_ref()?.refusal("on.pull_request", base, occasion)
            }
            "tag" => {
                let (tag, globs) = (occasion.git.tag().unwrap_or_default(), on.tag.as_ref()?);
                let meant = globs.is_empty() || means(globs, tag);
                (!meant).then(|| format!("`on.tag` does not mean the tag `{}`", shown(tag)))
            }
            _ => None,
        }
    }

    /// The events that are named and that this release fires no run of.
    pub(crate) fn not_fired(&self) -> Vec<&'static str> {
        let all = [
            ("pull_request", self.pull_request.is_some()),
            ("merge_group", self.merge_group),
            ("schedule", self.schedule),
            ("pipeline", self.pipeline),
        ];
        all.into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| name)
            .collect()
    }
}

impl Filter<'_> {
    fn refusal(&self, what: &str, branch: &str, occasion: &Occasion) -> Option<String> {
        if let Some(globs) = &self.branches
            && !means(globs, branch)
        {
            return Some(format!(
                "`{what}.branches` does not mean the branch `{}`",
                shown(branch)
            ));
        }
        let changed = occasion.changed.as_ref()?;
        if let Some(globs) = &self.paths
            && !changed.iter().any(|path| means(globs, path))
        {
            return Some(format!("nothing changed that `{what}.paths` means"));
        }
        if let Some(globs) = &self.paths_ignore
            && changed.iter().all(|path| means(globs, path))
        {
            return Some(format!("only files changed that `{what}.paths_ignore` means"));
        }
        None
    }
}

/// Globs that were checked when they were read.
fn means(globs: &[&str], name: &str) -> bool {
    Globs::new(globs).is_ok_and(|globs| globs.means(name))
}

impl<'t> Reader<'t, '_> {
    pub(crate) fn on(&mut self, node: NodeId) -> On<'t> {
        let mut on = On::default();
        match self.value(node) {
            Value::Map(_) => {
                let Some(keys) = self.keys("`on`", node, Level::On, ON_KEYS) else {
                    return on;
                };
                on.broken = !keys.meant.is_empty();
                if keys.known.is_empty() && !on.broken {
                    let at = self.at(node);
                    self.report.add(at, || {
                        Problem::new("`on` names no event")
                            .help("write `on: {push: {}}`, or remove `on` for every push")
                    });
                }
                for key in &keys.known {
                    on.broken |= self.event(&mut on, key).is_none();
                }
            }
            Value::List(_) | Value::Scalar(_) => match self.texts("`on`", node) {
                Some(words) => words.into_iter().for_each(|word| self.event_word(&mut on, word)),
                None => on.broken = true,
            },
        }
        on
    }

    /// `on: [push, tag]`
    fn event_word(&mut self, on: &mut On<'t>, word: At<&str>) {
        match ON_KEYS.iter().find(|key| key.name == word.value).map(|key| key.id) {
            Some(OnKey::Push) => on.push = Some(Filter::default()),
            Some(OnKey::PullRequest) => on.pull_request = Some(Filter::default()),
            Some(OnKey::Tag) => on.tag = Some(Vec::new()),
            Some(OnKey::MergeGroup) => on.merge_group = true,
            Some(OnKey::Manual) => {}
            Some(OnKey::Schedule | OnKey::Pipeline) => {
                self.report.add(word.at, || {
                    Problem::new(format!("the event `{}` has to say more than its name", word.value))
                        .help("write `on` as a mapping, e.g. `on: {schedule: [{cron: \"0 3 * * *\"}]}`")
                });
            }
            None => self.report.add(word.at, || unknown_event(word.value)),
        }
    }

    fn event(&mut self, on: &mut On<'t>, key: &Known<OnKey>) -> Option<()> {
        let what = &*format!("`on.{}`", key.name);
        match key.id {
            OnKey::Push => on.push = Some(self.push(what, key.value)?),
            OnKey::PullRequest => on.pull_request = Some(self.pull_request(what, key.value)?),
            OnKey::Tag => {
                let any = self.is_nothing(key.value);
                on.tag = Some(if any { Vec::new() } else { self.globs(what, key.value)? });
            }
            OnKey::MergeGroup => {
                self.nothing(what, key.value)?;
                on.merge_group = true;
            }
            OnKey::Schedule => {
                self.schedules(what, key.value)?;
                on.schedule = true;
            }
            OnKey::Pipeline => {
                self.upstream(what, key.value)?;
                on.pipeline = true;
            }
            OnKey::Manual => {
                if !self.is_nothing(key.value) {
                    on.inputs = self.manual(what, key.value)?;
                }
            }
        }
        Some(())
    }

    /// Nothing is written, or an empty mapping.
    fn is_nothing(&self, node: NodeId) -> bool {
        match self.value(node) {
            Value::Scalar(scalar) => scalar.kind == Kind::Null,
            Value::Map(pairs) => pairs.is_empty(),
            Value::List(_) => false,
        }
    }

    fn nothing(&mut self, what: &str, node: NodeId) -> Option<()> {
        const NONE: &[Key<()>] = &[];
        if self.is_nothing(node) {
            return Some(());
        }
        let keys = self.keys(what, node, Level::Nothing, NONE)?;
        keys.meant.is_empty().then_some(())
    }

    fn push(&mut self, what: &str, node: NodeId) -> Option<Filter<'t>> {
        let mut filter = Filter::default();
        if self.is_nothing(node) {
            return Some(filter);
        }
        for key in self.keys(what, node, Level::Push, PUSH_KEYS)?.known {
            let globs = self.globs(&format!("`on.push.{}`", key.name), key.value)?;
            match key.id {
                PushKey::Branches => filter.branches = Some(globs),
                PushKey::Paths => filter.paths = Some(globs),
                PushKey::PathsIgnore => filter.paths_ignore = Some(globs),
            }
        }
        Some(filter)
    }

    fn pull_request(&mut self, what: &str, node: NodeId) -> Option<Filter<'t>> {
        let mut filter = Filter::default();
        if self.is_nothing(node) {
            return Some(filter);
        }
        for key in self.keys(what, node, Level::PullRequest, PULL_REQUEST_KEYS)?.known {
            let what = format!("`on.pull_request.{}`", key.name);
            match key.id {
                PullRequestKey::Branches => filter.branches = Some(self.globs(&what, key.value)?),
                PullRequestKey::Paths => filter.paths = Some(self.globs(&what, key.value)?),
                PullRequestKey::PathsIgnore => filter.paths_ignore = Some(self.globs(&what, key.value)?),
                PullRequestKey::Types => {
                    for text in self.texts(&what, key.value)? {
                        self.word(&what, text, &TYPE_WORDS.map(|word| (word, ())))?;
                    }
                }
            }
        }
        Some(filter)
    }

    fn schedules(&mut self, what: &str, node: NodeId) -> Option<()> {
        let items = self.items(what, node)?;
        if items.is_empty() || items.len() > SCHEDULES_MAX {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!(
                    "{what} holds {} entries; it must be 1 to {SCHEDULES_MAX}",
                    items.len()
                ))
            });
            return None;
        }
        let mut whole = Some(());
        for item in items {
            let one = self.schedule(*item);
            whole = whole.and(one);
        }
        whole
    }

    fn schedule(&mut self, node: NodeId) -> Option<()> {
        let keys = self.keys("an entry of `on.schedule`", node, Level::Schedule, SCHEDULE_KEYS)?;
        let mut whole = Some(());
        for key in &keys.known {
            let what = format!("`on.schedule.{}`", key.name);
            let Some(text) = self.text(&what, key.value) else {
                whole = None;
                continue;
            };
            let checked = match key.id {
                ScheduleKey::Cron => cron::check(text.value),
                ScheduleKey::Timezone => cron::check_timezone(text.value),
            };
            if let Err(problem) = checked {
                self.report.add(text.at, || problem);
                whole = None;
            }
        }
        if !keys.has(ScheduleKey::Cron) && !keys.meant.contains(&"cron") {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new("an entry of `on.schedule` has no `cron`").help("write `cron: \"0 3 * * *\"`")
            });
            return None;
        }
        whole
    }

    fn upstream(&mut self, what: &str, node: NodeId) -> Option<()> {
        let keys = self.keys(what, node, Level::Upstream, UPSTREAM_KEYS)?;
        for key in &keys.known {
            let what = format!("`on.pipeline.{}`", key.name);
            let text = self.text(&what, key.value)?;
            match key.id {
                UpstreamKey::Name => self.pipeline_path(&what, text).map(|_| ())?,
                UpstreamKey::Status => self.word(&what, text, &STATUSES)?,
            }
        }
        if !keys.has(UpstreamKey::Name) && !keys.meant.contains(&"name") {
            let at = self.at(node);
            self.report.add(at, || {
                Problem::new(format!("{what} has no `name`")).help("write `name: platform/base`")
            });
            return None;
        }
        Some(())
    }

    /// `team/pipeline`
    pub(crate) fn pipeline_path(&mut self, what: &str, text: At<&'t str>) -> Option<&'t str> {
        let legal = |name: &str| model::id::check_name(name).is_ok();
        let parts = text.value.split_once('/');
        if parts.is_some_and(|(team, pipeline)| legal(team) && legal(pipeline)) {
            return Some(text.value);
        }
        self.report.add(text.at, || {
            Problem::new(format!("{what} `{}` is no pipeline of this server", shown(text.value)))
                .help("write its team and its name: `team/pipeline`")
        });
        None
    }

    fn manual(&mut self, what: &str, node: NodeId) -> Option<Vec<Input<'t>>> {
        let mut inputs = Vec::new();
        for key in self.keys(what, node, Level::Manual, MANUAL_KEYS)?.known {
            match key.id {
                ManualKey::Inputs => inputs = self.inputs(key.value)?,
            }
        }
        Some(inputs)
    }
}

fn unknown_event(word: &str) -> Problem {
    let problem = Problem::new(format!("`{}` is no event", shown(word)));
    let help = match word {
        "workflow_dispatch" | "web" | "api" | "deployment" => "write `manual`".to_owned(),
        "cron" => "write `schedule`".to_owned(),
        "workflow_run" => "write `pipeline`".to_owned(),
        "release" => "write `tag`".to_owned(),
        _ => match nearest(word, ON_KEYS.iter().map(|key| key.name)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "events are `push`, `pull_request`, `tag`, `merge_group`, `schedule`, `pipeline` and `manual`"
                .to_owned(),
        },
    };
    problem.help(help)
}
