//! Who waits for whom: names of needs become ordinals, and a circle becomes a finding.
//!
//! Not here: what a need asks for when a step has ended ([`crate::progress`]).
//!
//! Without `needs` a step waits for every step of the stage before. With it, it waits for exactly
//! those that are named, of its own stage or an earlier one: stages run in order, so a step of a
//! later stage cannot be waited for.

use crate::read::At;
use crate::report::{Problem, Report};
use crate::suggest::nearest;
use crate::syntax::shown;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The most names in the finding of a circle.
const CIRCLE_SHOWN: usize = 12;

/// What is known of a step before its needs are.
pub(crate) struct Waiting<'t> {
    /// As it stands in the file.
    pub(crate) base: &'t str,
    /// With the cell of its matrix.
    pub(crate) name: &'t str,
    pub(crate) stage: usize,
    pub(crate) needs: Option<Rc<[At<&'t str>]>>,
}

/// The ordinals that each step needs: ascending, no duplicates. What is wrong is reported and left out.
pub(crate) fn resolve(steps: &[Waiting<'_>], stages: &[&str], report: &mut Report<'_>) -> Vec<Vec<usize>> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut by_stage = vec![Vec::new(); stages.len()];
    for (ordinal, step) in steps.iter().enumerate() {
        by_name.entry(step.base).or_default().push(ordinal);
        if step.name != step.base {
            by_name.entry(step.name).or_default().push(ordinal);
        }
        by_stage[step.stage].push(ordinal);
    }
    let resolver = Resolver { steps, stages, by_name };
    let needs: Vec<Vec<usize>> = steps
        .iter()
        .enumerate()
        .map(|(ordinal, step)| match &step.needs {
            Some(named) => resolver.named(ordinal, named, report),
            None => step
                .stage
                .checked_sub(1)
                .map(|before| by_stage[before].clone())
                .unwrap_or_default(),
        })
        .collect();
    for circle in circles(&needs) {
        resolver.report_circle(&circle, report);
    }
    needs
}

struct Resolver<'s, 't> {
    steps: &'s [Waiting<'t>],
    stages: &'s [&'s str],
    /// A step, or all cells of one.
    by_name: BTreeMap<&'t str, Vec<usize>>,
}

impl Resolver<'_, '_> {
    fn named(&self, ordinal: usize, named: &[At<&str>], report: &mut Report<'_>) -> Vec<usize> {
        let own = &self.steps[ordinal];
        let mut needs: Vec<usize> = Vec::with_capacity(named.len());
        for need in named {
            let others = self.by_name.get(need.value).map(Vec::as_slice).unwrap_or_default();
            let Some(&other) = others.first() else {
                report.add(need.at, || self.unknown(own.base, need.value));
                continue;
            };
            let later = self.steps[other].stage > own.stage;
            if others.contains(&ordinal) {
                report.add(need.at, || {
                    Problem::new(format!("step `{}` needs itself", own.base)).help("remove it from `needs`")
                });
            } else if later {
                report.add(need.at, || self.later(own, other));
            } else {
                needs.extend(others);
            }
        }
        needs.sort_unstable();
        let count = needs.len();
        needs.dedup();
        if needs.len() < count {
            self.report_repeats(own.base, named, report);
        }
        needs
    }

    fn report_repeats(&self, own: &str, named: &[At<&str>], report: &mut Report<'_>) {
        let mut seen = BTreeMap::new();
        for need in named {
            if seen.insert(need.value, need.at).is_some() {
                report.add(need.at, || {
                    Problem::new(format!("step `{own}` needs `{}` twice", shown(need.value))).help("name it once")
                });
            }
        }
    }

    fn unknown(&self, own: &str, need: &str) -> Problem {
        let problem = Problem::new(format!("step `{own}` needs `{}`, which is no step", shown(need)));
        if let Some(meant) = nearest(need, self.by_name.keys().copied().filter(|name| *name != own)) {
            return problem.help(format!("did you mean `{meant}`?"));
        }
        if self.stages.contains(&need) {
            return problem.help("it is a stage: name its steps, or leave `needs` out to wait for the stage before");
        }
        problem.help("`needs` takes names of steps")
    }

    fn later(&self, own: &Waiting<'_>, other: usize) -> Problem {
        let other = &self.steps[other];
        let stage = self.stages.get(other.stage).copied().unwrap_or_default();
        Problem::new(format!(
            "step `{}` needs `{}`, a step of the later stage `{stage}`",
            own.base, other.base
        ))
        .help("stages run in order: move one of the two steps")
    }

    /// At the entry of `needs` that closes the circle's first link.
    fn report_circle(&self, circle: &[usize], report: &mut Report<'_>) {
        let (Some(&first), Some(&second)) = (circle.first(), circle.get(1)) else {
            return;
        };
        let second = &self.steps[second];
        let named = self.steps[first].needs.as_deref().unwrap_or_default();
        let Some(link) = named
            .iter()
            .find(|need| need.value == second.base || need.value == second.name)
        else {
            return;
        };
        report.add(link.at, || {
            let names: Vec<&str> = circle.iter().map(|step| self.steps[*step].name).collect();
            Problem::new(format!("steps need each other in a circle: {}", circle_text(&names)))
                .help("remove one of these needs")
        });
    }
}

/// `a -> b -> a`; the middle of a long circle is left out.
pub(crate) fn circle_text(names: &[&str]) -> String {
    let first = names.first().copied().unwrap_or_default();
    let left_out = names.len().saturating_sub(CIRCLE_SHOWN);
    let shown = names.len() - left_out;
    let mut parts: Vec<String> = names.iter().take(shown).map(|name| (*name).to_owned()).collect();
    if left_out > 0 {
        parts.push(format!("… {left_out} more …"));
    }
    parts.push(first.to_owned());
    parts.join(" -> ")
}

/// One shortest circle for each group of steps that need each other, begun at its lowest ordinal;
/// each step is followed by one that it needs.
fn circles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let group = groups(needs);
    let mut first_of = BTreeMap::new();
    for (step, id) in group.iter().enumerate() {
        first_of.entry(*id).or_insert(step);
    }
    first_of
        .into_values()
        .filter_map(|start| shortest_circle(needs, &group, start))
        .collect()
}

/// A shortest way from `start` back to it inside of its group, without the return; `None` when
/// there is none.
fn shortest_circle(needs: &[Vec<usize>], group: &[usize], start: usize) -> Option<Vec<usize>> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(step) = queue.pop_front() {
        for &need in needs[step].iter().filter(|need| group[**need] == group[start]) {
            if need == start {
                let mut way = vec![step];
                while let Some(&before) = way.last().and_then(|last| from.get(last)) {
                    way.push(before);
                }
                way.reverse();
                return Some(way);
            }
            from.entry(need).or_insert_with(|| {
                queue.push_back(need);
                step
            });
        }
    }
    None
}

/// Numbers the groups of steps that need each other (strongly connected components, Tarjan's
/// algorithm without recursion). A step that is in no circle is a group of its own.
fn groups(needs: &[Vec<usize>]) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let count = needs.len();
    let (mut index, mut low, mut group) = (vec![NONE; count], vec![NONE; count], vec![NONE; count]);
    let (mut next_index, mut next_group) = (0, 0);
    let mut members: Vec<usize> = Vec::new();
    let mut path: Vec<(usize, usize)> = Vec::new();
    for root in 0..count {
        if index[root] == NONE {
            path.push((root, 0));
        }
        while let Some((step, edge)) = path.last_mut() {
            let step = *step;
            if *edge == 0 {
                (index[step], low[step]) = (next_index, next_index);
                next_index += 1;
                members.push(step);
            }
            if let Some(&need) = needs[step].get(*edge) {
                *edge += 1;
                if index[need] == NONE {
                    path.push((need, 0));
                } else if group[need] == NONE {
                    low[step] = low[step].min(index[need]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                low[*parent] = low[*parent].min(low[step]);
            }
            if low[step] == index[step] {
                while let Some(member) = members.pop() {
                    group[member] = next_group;
                    if member == step {
                        break;
                    }
                }
                next_group += 1;
            }
        }
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists of ordinals.
    type Lists<'l> = &'l [&'l [usize]];

    #[test]
    fn a_circle_is_found_once_for_each_group_and_is_shortest() {
        let cases: [(Lists<'_>, Lists<'_>); 7] = [
            (&[], &[]),
            (&[&[1], &[]], &[]),
            (&[&[1], &[0]], &[&[0, 1]]),
            (&[&[1, 2], &[0], &[0]], &[&[0, 1]]),
            (&[&[1], &[2], &[0, 3], &[4], &[3]], &[&[0, 1, 2], &[3, 4]]),
            (&[&[1], &[2], &[3], &[1]], &[&[1, 2, 3]]),
            (&[&[3], &[3], &[3], &[]], &[]),
        ];
        for (needs, expect) in cases {
            let needs: Vec<Vec<usize>> = needs.iter().map(|n| n.to_vec()).collect();
            let expect: Vec<Vec<usize>> = expect.iter().map(|c| c.to_vec()).collect();
            let mut found = circles(&needs);
            found.sort();
            assert_eq!(found, expect, "{needs:?}");
        }
    }

    #[test]
    fn a_long_circle_is_shown_in_part() {
        let names: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(circle_text(&names[..2]), "s0 -> s1 -> s0");
        assert_eq!(
            circle_text(&names),
            "s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> s6 -> s7 -> s8 -> s9 -> s10 -> s11 -> … 8 more … -> s0"
        );
    }
}
