//! etcd is put through the suite that every engine of the live store passes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::conformance::Fixture;
use store_etcd::process::{Etcd, EtcdOptions, installed};
use store_etcd::{EtcdConfig, EtcdStore};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

/// Short signs of life: etcd rounds leases up to one and a half of its elections.
fn options() -> EtcdOptions {
    EtcdOptions {
        heartbeat_ms: 20,
        ..EtcdOptions::default()
    }
}

fn connect(etcd: &Etcd, prefix: String) -> EtcdStore {
    let config = EtcdConfig {
        prefix,
        ..EtcdConfig::plain(etcd.endpoints())
    };
    block_in_place(|| Handle::current().block_on(EtcdStore::connect(config))).expect("etcd stands")
}

/// One etcd for all cases, each below a prefix of its own.
fn fresh() -> Option<Fixture> {
    if !installed() {
        return None;
    }
    static ETCD: OnceLock<Etcd> = OnceLock::new();
    static CASES: AtomicUsize = AtomicUsize::new(0);
    let etcd = block_in_place(|| ETCD.get_or_init(|| Etcd::start(options()).expect("etcd starts")));
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    Some(Fixture {
        store: std::sync::Arc::new(connect(etcd, format!("case-{case}/"))),
        alone: false,
        keep: Box::new(()),
    })
}

/// An etcd of its own.
fn own_past() -> Option<Fixture> {
    if !installed() {
        return None;
    }
    let etcd = block_in_place(|| Etcd::start(options()).expect("etcd starts"));
    Some(Fixture {
        store: std::sync::Arc::new(connect(&etcd, "buildflow/".to_owned())),
        alone: true,
        keep: Box::new(etcd),
    })
}

store::conformance_tests!(super::fresh, super::own_past);
