//! The plan of a run as a tree for people.

/// The stages and steps of `def` as a tree, one line each.
#[must_use]
pub fn plan_tree(def: &model::RunDef) -> String {
    def.steps.iter().map(|s| format!("{}\n", s.name)).collect()
}
