//! The environment of a step's processes.
//!
//! Later ones win: a default `PATH`, the image's, the step's own (those of the pipeline merged in by
//! the compiler), the run's variables, and last what BuildFlow says of itself.
//!
//! Not here: `HOME` and `HOSTNAME`, which the sandbox fills in where they are missing.

use crate::left;
use crate::trace;
use model::StepDef;
use node_agent::{Order, Work};
use std::collections::BTreeMap;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole environment, in order of names.
pub(crate) fn environment(order: &Order, image_env: &[String]) -> Vec<(String, String)> {
    let work = &*order.work;
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    for pair in image_env {
        if let Some((name, value)) = pair.split_once('=')
            && !name.is_empty()
        {
            env.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Work::Step { def, variables, .. } = work {
        env.extend(def.env.clone());
        env.extend(variables.clone());
    }
    env.extend(own(work));
    if let Work::Step {
        traceparent: Some(traceparent),
        ..
    } = work
    {
        env.extend(trace::child(traceparent, &order.alloc).map(|own| ("TRACEPARENT".to_owned(), own)));
    }
    env.into_iter().collect()
}

/// What BuildFlow says of itself. A name is always set, so that `set -u` does no harm.
fn own(work: &Work) -> Vec<(String, String)> {
    let Work::Step {
        run,
        run_number,
        team,
        pipeline,
        stage,
        attempt,
        def,
        source,
        request_id,
        ..
    } = work
    else {
        return Vec::new();
    };
    let pairs = [
        ("CI", "true".to_owned()),
        ("BUILDFLOW", "true".to_owned()),
        ("BUILDFLOW_RUN_ID", run.to_string()),
        ("BUILDFLOW_RUN_NUMBER", run_number.to_string()),
        ("BUILDFLOW_TEAM", team.to_string()),
        ("BUILDFLOW_PIPELINE", pipeline.to_string()),
        ("BUILDFLOW_STAGE", stage.clone()),
        ("BUILDFLOW_STEP", def.name.to_string()),
        ("BUILDFLOW_ATTEMPT", attempt.to_string()),
        ("BUILDFLOW_IDEMPOTENCY_KEY", format!("{run}-{}", def.name)),
        ("BUILDFLOW_BRANCH", source.branch().unwrap_or_default().to_owned()),
        ("BUILDFLOW_TAG", source.tag().unwrap_or_default().to_owned()),
        ("BUILDFLOW_COMMIT", source.commit.clone()),
        ("BUILDFLOW_REF", source.git_ref.clone()),
        ("BUILDFLOW_EVENT", source.event.as_str().to_owned()),
        ("BUILDFLOW_CPUS", cpus(def).to_string()),
        ("BUILDFLOW_REQUEST_ID", request_id.clone()),
        ("BUILDFLOW_OUTPUT", left::output_path()),
        ("BUILDFLOW_SUMMARY", left::summary_path()),
        ("BUILDFLOW_PULL_REQUEST", String::new()),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Whole CPUs that the step may keep busy, at least one.
fn cpus(def: &StepDef) -> u64 {
    def.resources.cpu_millis.div_ceil(1000).max(1)
}

/// The longest host name: what one label of a domain may have.
const HOSTNAME_MAX: usize = 63;

/// The host name inside the container: the step's, in the letters that a host name may have.
pub(crate) fn hostname(def: &StepDef) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' || c == '-' {
            c
        } else {
            '-'
        }
    };
    let name: String = def.name.as_str().chars().map(plain).take(HOSTNAME_MAX).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Where the step's shell starts.
pub(crate) fn cwd(def: &StepDef) -> String {
    let joined = if def.working_directory.starts_with('/') {
        def.working_directory.clone()
    } else {
        format!("/workspace/{}", def.working_directory)
    };
    let parts: Vec<&str> = joined
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_orders::{order_of, step_def, work};

    fn of(env: &[(String, String)], name: &str) -> Option<String> {
        let found: Vec<&String> = env.iter().filter(|(n, _)| n == name).map(|(_, v)| v).collect();
        assert!(found.len() <= 1, "{name} is there {} times", found.len());
        found.first().map(|value| (*value).clone())
    }

    #[test]
    fn the_contract_s_names_are_there() {
        let env = environment(&order_of(work(step_def(), "refs/heads/main", &[])), &[]);
        let expected = [
            ("CI", "true"),
            ("BUILDFLOW", "true"),
            ("BUILDFLOW_RUN_ID", "01jd"),
            ("BUILDFLOW_RUN_NUMBER", "12"),
            ("BUILDFLOW_PIPELINE", "app"),
            ("BUILDFLOW_TEAM", "default"),
            ("BUILDFLOW_STAGE", "test"),
            ("BUILDFLOW_STEP", "unit_test"),
            ("BUILDFLOW_ATTEMPT", "2"),
            ("BUILDFLOW_IDEMPOTENCY_KEY", "01jd-unit_test"),
            ("BUILDFLOW_BRANCH", "main"),
            ("BUILDFLOW_TAG", ""),
            ("BUILDFLOW_COMMIT", "c0ffee"),
            ("BUILDFLOW_REF", "refs/heads/main"),
            ("BUILDFLOW_EVENT", "push"),
            ("BUILDFLOW_CPUS", "2"),
            ("BUILDFLOW_REQUEST_ID", "r1"),
            ("BUILDFLOW_OUTPUT", "/.buildflow/output"),
            ("BUILDFLOW_SUMMARY", "/.buildflow/summary"),
            ("BUILDFLOW_PULL_REQUEST", ""),
            ("PATH", PATH),
        ];
        for (name, value) in expected {
            assert_eq!(of(&env, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(env.len(), expected.len());
    }

    #[test]
    fn the_later_one_wins() {
        let mut def = step_def();
        def.env = [("A", "step"), ("B", "step"), ("CI", "no")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .into();
        let image = ["A=image", "C=image=x", "PATH=/opt/bin", "=odd", "odd"].map(str::to_owned);
        let env = environment(&order_of(work(def, "refs/tags/v1", &[("B", "run")])), &image);
        let expected = [
            ("A", "step"),
            ("B", "run"),
            ("C", "image=x"),
            ("PATH", "/opt/bin"),
            ("CI", "true"),
            ("BUILDFLOW_TAG", "v1"),
            ("BUILDFLOW_BRANCH", ""),
        ];
        for (name, value) in expected {
            assert_eq!(of(&env, name).as_deref(), Some(value), "{name}");
        }
        assert!(env.iter().all(|(name, _)| !name.is_empty() && name != "odd"));
    }

    #[test]
    fn the_trace_is_handed_on_where_there_is_one() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (traceparent, there) in [(Some(given), true), (Some("garbage"), false), (None, false)] {
            let mut order = order_of(work(step_def(), "refs/heads/main", &[]));
            if let Work::Step { traceparent: own, .. } = &mut *order.work {
                *own = traceparent.map(str::to_owned);
            }
            let found = of(&environment(&order, &[]), "TRACEPARENT");
            assert_eq!(found.is_some(), there);
            assert!(found.is_none_or(|own| own.starts_with(&given[..36]) && own != given));
        }
    }

    #[test]
    fn names_and_folders_fit_the_container() {
        assert_eq!(hostname(&step_def()), "unit-test");
        let cell = StepDef {
            name: format!("unit({})", "9.".repeat(32)).parse().expect("legal"),
            ..step_def()
        };
        assert_eq!(
            hostname(&cell),
            format!("unit-{}", "9.".repeat(29)).trim_end_matches('.')
        );
        let cases = [
            (".", "/workspace"),
            ("", "/workspace"),
            ("./a//b/", "/workspace/a/b"),
            ("/opt/x", "/opt/x"),
            ("/", "/"),
        ];
        for (given, expected) in cases {
            let def = StepDef {
                working_directory: given.to_owned(),
                ..step_def()
            };
            assert_eq!(cwd(&def), expected);
        }
    }
}
