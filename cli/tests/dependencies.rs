//! Proves the table "who may use whom" of ARCHITECTURE.md over `cargo metadata`: a crate's normal
//! dependencies of ours are listed here, and a pure crate reaches no clock, socket or runtime, not
//! even through somebody else.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use std::collections::{BTreeMap, BTreeSet};

/// What may not be reached, directly or not, from a crate that only decides.
const IMPURE: &[&str] = &[
    "tokio",
    "tonic",
    "etcd-client",
    "axum",
    "hyper",
    "reqwest",
    "nix",
    "rustix",
    "libcontainer",
    "rusqlite",
    "rand",
    "chrono",
    "time",
];

struct Rule {
    crate_name: &'static str,
    /// Crates of ours that it may name in its normal dependencies.
    may_use: &'static [&'static str],
    /// Crates of anybody's that it must not reach at all.
    never: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        crate_name: "model",
        may_use: &[],
        never: IMPURE,
    },
    Rule {
        crate_name: "pipeline",
        may_use: &["model"],
        never: IMPURE,
    },
    Rule {
        crate_name: "scheduler",
        may_use: &["model", "pipeline"],
        never: IMPURE,
    },
    Rule {
        crate_name: "node-agent",
        may_use: &["model"],
        never: IMPURE,
    },
    Rule {
        crate_name: "git-mirror",
        may_use: &[],
        never: &["tonic", "axum", "etcd-client", "rusqlite", "libcontainer"],
    },
    Rule {
        crate_name: "isolation",
        may_use: &[],
        never: &["tokio", "tonic", "axum", "etcd-client", "rusqlite"],
    },
    Rule {
        crate_name: "buildflow-shim",
        may_use: &["isolation"],
        never: &["tokio", "tonic", "axum", "etcd-client", "rusqlite"],
    },
    Rule {
        crate_name: "store",
        may_use: &["model"],
        never: &["axum", "tonic", "libcontainer"],
    },
    Rule {
        crate_name: "store-etcd",
        may_use: &["store", "model"],
        // axum comes with tonic, which etcd's client speaks.
        never: &["libcontainer"],
    },
    Rule {
        crate_name: "store-s3",
        may_use: &["store"],
        never: &["axum", "etcd-client", "libcontainer"],
    },
    Rule {
        crate_name: "store-postgres",
        may_use: &["store", "model"],
        never: &["axum", "etcd-client", "libcontainer"],
    },
    Rule {
        crate_name: "pki",
        may_use: &[],
        never: &["axum", "tonic", "etcd-client", "rusqlite", "libcontainer"],
    },
    Rule {
        crate_name: "bench",
        may_use: &[
            "model",
            "pipeline",
            "store",
            "store-etcd",
            "scheduler",
            "scheduler-shell",
            "node-agent",
            "api",
            "wire",
            "git-mirror",
        ],
        never: &["sim", "libcontainer"],
    },
    Rule {
        crate_name: "wire",
        may_use: &["model"],
        never: &["rusqlite", "libcontainer"],
    },
    Rule {
        crate_name: "scheduler-shell",
        may_use: &["scheduler", "pipeline", "store", "model"],
        never: &["libcontainer", "axum", "hyper", "tonic"],
    },
    Rule {
        crate_name: "node-agent-shell",
        may_use: &[
            "node-agent",
            "pipeline",
            "isolation",
            "wire",
            "model",
            "git-mirror",
            "pki",
        ],
        never: &["store", "scheduler", "rusqlite", "etcd-client", "libcontainer"],
    },
    Rule {
        crate_name: "api-core",
        may_use: &["model", "pipeline"],
        never: IMPURE,
    },
    Rule {
        crate_name: "api",
        may_use: &["api-core", "pipeline", "store", "wire", "model", "git-mirror", "pki"],
        never: &["scheduler", "node-agent", "isolation", "libcontainer"],
    },
    Rule {
        crate_name: "sim",
        may_use: &["model", "pipeline", "scheduler", "node-agent", "api-core", "store"],
        never: &["tonic", "axum", "etcd-client", "libcontainer"],
    },
    Rule {
        crate_name: "buildflow",
        may_use: &[
            "model",
            "pipeline",
            "store",
            "scheduler",
            "scheduler-shell",
            "node-agent",
            "node-agent-shell",
            "isolation",
            "api",
            "wire",
            "git-mirror",
            "pki",
            "store-etcd",
            "store-s3",
            "store-postgres",
            "bench",
        ],
        never: &["sim", "libcontainer"],
    },
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .exec()
        .expect("cargo metadata")
}

fn ours(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    metadata
        .workspace_packages()
        .into_iter()
        .map(|p| (p.name.as_str(), p))
        .collect()
}

/// The names of all packages that are reached from `from` through normal dependencies.
fn reached(metadata: &Metadata, from: &PackageId) -> BTreeSet<String> {
    let nodes = &metadata.resolve.as_ref().expect("resolved").nodes;
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|n| {
            let normal = n
                .deps
                .iter()
                .filter(|d| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal));
            (&n.id, normal.map(|d| &d.pkg).collect())
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut todo = vec![from];
    while let Some(id) = todo.pop() {
        for next in &edges[id] {
            if seen.insert(*next) {
                todo.push(next);
            }
        }
    }
    seen.into_iter().map(|id| metadata[id].name.to_string()).collect()
}

#[test]
fn every_crate_of_ours_has_a_rule() {
    let metadata = metadata();
    let with_rule: BTreeSet<&str> = RULES.iter().map(|r| r.crate_name).collect();
    let members: BTreeSet<&str> = ours(&metadata).into_keys().collect();
    assert_eq!(members, with_rule);
}

#[test]
fn crates_use_only_what_the_table_allows() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let mut breaches = Vec::new();
    for rule in RULES {
        let package = ours[rule.crate_name];
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            let name = dependency.name.as_str();
            if ours.contains_key(name) && !rule.may_use.contains(&name) {
                breaches.push(format!("{} names {name}", rule.crate_name));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn crates_never_reach_what_the_table_forbids() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let mut breaches = Vec::new();
    for rule in RULES {
        let reached = reached(&metadata, &ours[rule.crate_name].id);
        breaches.extend(
            rule.never
                .iter()
                .filter(|n| reached.contains(**n))
                .map(|n| format!("{} reaches {n}", rule.crate_name)),
        );
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}
