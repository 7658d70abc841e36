//! What the SQLite engine promises beyond the suite: crashes, restarts, damage, full disks, one process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::live::{Commit, Expect, LEASE_TTL_MIN_MS, LeaseId, PAGE_MAX, read_all};
use store::sqlite::SqliteStore;
use store::{Revision, Store, StoreError, Txn, WatchEvent};

/// Set for the process that is to be killed: the folder that it writes to.
const VICTIM: &str = "STORE_TEST_VICTIM";

fn put(key: &str, value: &str) -> Txn {
    Txn::new().put_bytes(key, value.as_bytes().to_vec(), None)
}

async fn applied(store: &dyn Store, txn: Txn) -> Revision {
    match store.commit(txn).await.expect("the store answers") {
        Commit::Applied(revision) => revision,
        refused @ Commit::Refused { .. } => panic!("{refused:?}"),
    }
}

fn message(opened: Result<SqliteStore, StoreError>) -> String {
    match opened {
        Ok(_) => panic!("it opened"),
        Err(error) => {
            assert!(matches!(error, StoreError::Failed(_)), "{error:?}");
            error.to_string()
        }
    }
}

/// Writes pairs until it is killed, and prints each pair once it was answered.
fn write_until_killed(folder: &Path) -> ! {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder).expect("it opens"));
    runtime.block_on(async {
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0u64.. {
                    let key = format!("{}/{writer}/{n}", std::process::id());
                    let value = vec![b'x'; 200 + (n as usize * 97) % 5_000];
                    let txn = Txn::new()
                        .put_bytes(format!("left/{key}"), value.clone(), None)
                        .put_bytes(format!("right/{key}"), value, None);
                    applied(&*store, txn).await;
                    writeln!(std::io::stdout(), "answered {key}").expect("somebody reads");
                }
            })
        });
        futures::future::join_all(writers).await;
    });
    unreachable!("the writers never end");
}

fn spawn_victim(folder: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "every_answer_survives_kill_nine", "--nocapture"])
        .env(VICTIM, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program starts")
}

/// Kills it after so many answers; gives all that it answered.
fn kill_after(mut victim: Child, answers: usize) -> Vec<String> {
    let out = BufReader::new(victim.stdout.take().expect("it was piped"));
    let mut answered = Vec::new();
    for line in out.lines() {
        // A line without an end was not answered whole.
        let line = line.expect("text");
        answered.extend(line.strip_prefix("answered ").map(str::to_owned));
        if answered.len() == answers {
            victim.kill().expect("it is ours");
        }
    }
    let status = victim.wait().expect("it is ours");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9),
        "it was killed, it did not end"
    );
    answered
}

#[test]
fn every_answer_survives_kill_nine() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        write_until_killed(Path::new(&folder));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut answered = Vec::new();
    for round in 1..=4 {
        answered.extend(kill_after(spawn_victim(folder.path()), round * 150));
        let store = SqliteStore::open(folder.path()).expect("it opens after a kill");
        let of = |prefix: &'static str| {
            let (entries, _) = runtime.block_on(read_all(&store, prefix)).expect("the store answers");
            let pairs = entries
                .into_iter()
                .map(|e| (e.key[prefix.len()..].to_owned(), (e.value, e.mod_revision)));
            pairs.collect::<BTreeMap<_, _>>()
        };
        let (left, right) = (of("left/"), of("right/"));
        assert!(left == right, "each transaction is there whole or not at all");
        for key in &answered {
            // The newest line may have lost its end with its writer.
            assert!(
                left.contains_key(key) || Some(key) == answered.last(),
                "`{key}` was answered and is lost"
            );
        }
    }
}

#[tokio::test]
async fn a_lone_commit_waits_for_the_disk_once_and_a_crowd_shares_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path().join("made/with/all/above")).expect("it opens");
    for n in 1..=10 {
        applied(&store, put("lone", &n.to_string())).await;
        assert_eq!(store.durable_writes(), n);
    }
    let keys: Vec<String> = (0..1_000).map(|n| format!("crowd/{n}")).collect();
    futures::future::join_all(keys.iter().map(|key| applied(&store, put(key, "1")))).await;
    let shared = store.durable_writes() - 10;
    assert!(
        shared <= 100,
        "{shared} waits for the disk for {} transactions",
        keys.len()
    );
    assert_eq!(
        read_all(&store, "crowd/").await.expect("the store answers").0.len(),
        keys.len()
    );
}

#[tokio::test]
async fn a_second_open_of_a_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path()).expect("it opens");
    let refusal = message(SqliteStore::open(folder.path()));
    let expected = format!(
        "{} is in use by process {}",
        folder.path().display(),
        std::process::id()
    );
    assert!(refusal.contains(&expected), "{refusal}");
    applied(&store, put("a", "1")).await;
    drop(store);
    let again = SqliteStore::open(folder.path()).expect("it is free again");
    assert!(again.get("a").await.expect("the store answers").is_some());
}

#[tokio::test]
async fn a_restart_keeps_keys_and_revisions_and_tells_old_watches_to_read_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path()).expect("it opens");
    let first = applied(&store, put("a", "1")).await;
    let second = applied(&store, put("b", "1")).await;
    drop(store);
    let store = SqliteStore::open(folder.path()).expect("it opens again");
    let page = store.range("", None, PAGE_MAX).await.expect("the store answers");
    let found: Vec<_> = page.entries.iter().map(|e| (e.key.as_str(), e.mod_revision)).collect();
    assert_eq!((found, page.revision), (vec![("a", first), ("b", second)], second));
    let mut old = store.watch("", first).await.expect("the store answers");
    assert_eq!(old.recv().await, Some(WatchEvent::Resync));
    let mut newest = store.watch("", second).await.expect("the store answers");
    let third = applied(&store, put("a", "2").expect("a", Expect::Revision(first))).await;
    assert!(third > second);
    assert!(matches!(newest.recv().await, Some(WatchEvent::Changes(c)) if c[0].revision == third));
}

/// The wall clock has no say: a lease that was alive begins its whole time anew.
#[tokio::test]
async fn a_restart_gives_leases_their_whole_time_and_no_id_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(folder.path()).expect("it opens");
    let lease = store.lease_grant(LEASE_TTL_MIN_MS).await.expect("granted");
    let revoked = store.lease_grant(LEASE_TTL_MIN_MS).await.expect("granted");
    store.lease_revoke(revoked).await.expect("revoked");
    applied(&store, Txn::new().put_bytes("leader", vec![], Some(lease))).await;
    tokio::time::sleep(Duration::from_millis(LEASE_TTL_MIN_MS / 2)).await;
    drop(store);
    tokio::time::sleep(Duration::from_millis(LEASE_TTL_MIN_MS)).await;
    let reopened = Instant::now();
    let store = SqliteStore::open(folder.path()).expect("it opens again");
    let page = store.range("leader", None, 1).await.expect("the store answers");
    assert_eq!(page.entries.len(), 1, "it did not expire while nobody could renew it");
    let mut watch = store.watch("leader", page.revision).await.expect("the store answers");
    assert!(matches!(
        store.lease_keep_alive(revoked).await,
        Err(StoreError::NoLease(_))
    ));
    let next = store.lease_grant(LEASE_TTL_MIN_MS).await.expect("granted");
    assert_eq!(next, LeaseId(revoked.0 + 1));
    let gone = tokio::time::timeout(Duration::from_secs(20), watch.recv())
        .await
        .expect("it expires");
    assert!(matches!(gone, Some(WatchEvent::Changes(c)) if c[0].value.is_none()));
    let lived = reopened.elapsed();
    assert!(lived >= Duration::from_millis(LEASE_TTL_MIN_MS), "{lived:?}");
}

/// A database with some keys, closed.
async fn filled(folder: &Path) {
    let store = SqliteStore::open(folder).expect("it opens");
    for n in 0..50 {
        applied(&store, put(&format!("k/{n}"), &"v".repeat(2_000))).await;
    }
}

#[tokio::test]
async fn damage_is_an_error_that_names_the_file() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 4] = [
        ("no database at all", |bytes| bytes.fill(b'?')),
        ("a torn header", |bytes| bytes[..100].fill(0xff)),
        ("garbage behind the first page", |bytes| bytes[4_096..].fill(0xa5)),
        ("half of the file is missing", |bytes| bytes.truncate(bytes.len() / 2)),
    ];
    for (what, damage) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        filled(folder.path()).await;
        let file = folder.path().join("live.db");
        let mut bytes = std::fs::read(&file).expect("the database");
        damage(&mut bytes);
        std::fs::write(&file, &bytes).expect("damaged");
        let error = match SqliteStore::open(folder.path()) {
            Err(error) => error,
            Ok(store) => read_all(&store, "").await.expect_err(what),
        };
        let text = error.to_string();
        assert!(matches!(error, StoreError::Failed(_)), "{what}: {error:?}");
        assert!(
            text.contains("live.db is damaged") && text.contains("restore a backup"),
            "{what}: {text}"
        );
    }
}

#[tokio::test]
async fn a_crash_while_the_file_was_made_is_no_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("live.db"), b"").expect("an empty file");
    let store = SqliteStore::open(folder.path()).expect("it opens");
    applied(&store, put("a", "1")).await;
}

#[tokio::test]
async fn files_that_are_not_ours_or_too_new_are_left_alone() {
    let cases = [
        (
            "UPDATE meta SET value = 2 WHERE name = 'format'",
            "has format 2; this release reads up to 1: upgrade",
        ),
        ("PRAGMA application_id = 7", "is another program's database"),
        ("DELETE FROM meta WHERE name = 'revision'", "its revision is missing"),
    ];
    for (change, expected) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        filled(folder.path()).await;
        let file = folder.path().join("live.db");
        let by_hand = rusqlite::Connection::open(&file).expect("a database");
        by_hand.execute_batch(change).expect("changed");
        drop(by_hand);
        let refusal = message(SqliteStore::open(folder.path()));
        assert!(refusal.contains(expected) && refusal.contains("live.db"), "{refusal}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), b"").expect("written");
    let refusal = message(SqliteStore::open(folder.path().join("file")));
    assert!(refusal.contains("cannot make the folder"), "{refusal}");
}

/// A small file system of its own; gone with this.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn mount(megabytes: u32) -> Option<Self> {
        let at = tempfile::tempdir().expect("a folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "store-test"])
            .arg(at.path())
            .status();
        mounted.is_ok_and(|s| s.success()).then(|| Self(at))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(
            unmounted.is_ok_and(|s| s.success()),
            "{} is unmounted",
            self.path().display()
        );
    }
}

/// Fills the store until it says that it is full; gives the keys that it answered for.
async fn fill(store: &dyn Store, prefix: &str) -> Vec<String> {
    let mut answered = Vec::new();
    loop {
        let key = format!("{prefix}/{}", answered.len());
        match store.commit(Txn::new().put_bytes(&key, vec![1; 100_000], None)).await {
            Ok(_) => answered.push(key),
            Err(error) => {
                assert!(error.to_string().contains("no room left for"), "{error}");
                return answered;
            }
        }
        assert!(answered.len() < 1_000, "the disk never fills");
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_room_mends_it() {
    let Some(disk) = SmallDisk::mount(16) else {
        eprintln!("SKIPPED a_full_disk_is_an_error_and_room_mends_it: only root may mount a small file system");
        return;
    };
    let folder = disk.path().join("data");
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 9 << 20]).expect("there is room");
    let store = SqliteStore::open(&folder).expect("it opens");
    let lease = store.lease_grant(LEASE_TTL_MIN_MS).await.expect("granted");
    applied(&store, Txn::new().put_bytes("leased", vec![], Some(lease))).await;
    let mut watch = store.watch("later", Revision(0)).await.expect("the store answers");
    let mut answered = fill(&store, "before").await;
    assert!(answered.len() > 3, "{} fit", answered.len());
    assert_eq!(
        read_all(&store, "before").await.expect("reads go on").0.len(),
        answered.len()
    );
    // While the disk is full, an expired lease has to wait; it is not forgotten.
    tokio::time::sleep(Duration::from_millis(LEASE_TTL_MIN_MS + 200)).await;

    std::fs::remove_file(&filler).expect("room is made");
    applied(&store, put("later/a", "1")).await;
    assert!(matches!(watch.recv().await, Some(WatchEvent::Changes(c)) if c[0].key == "later/a"));
    let begun = Instant::now();
    while store.get("leased").await.expect("the store answers").is_some() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the expired key is never removed"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    answered.push("later/a".to_owned());
    drop(store);
    let store = SqliteStore::open(&folder).expect("it opens again");
    for key in answered {
        assert!(store.get(&key).await.expect("the store answers").is_some(), "{key}");
    }
    drop(store);
}

/// One transaction that does not fit fails alone; those that waited with it stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_does_not_fail_its_neighbours() {
    let Some(disk) = SmallDisk::mount(6) else {
        eprintln!("SKIPPED what_does_not_fit_does_not_fail_its_neighbours: only root may mount a small file system");
        return;
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(disk.path().join("data")).expect("it opens"));
    applied(&*store, put("small", "0")).await;
    let mut filler = std::fs::File::create(disk.path().join("filler")).expect("there is room");
    let mut filled = 0;
    while filler.write_all(&[0; 10_000]).is_ok() {
        filled += 10_000;
    }
    filler.set_len(filled - 1_000_000).expect("some room is made");
    let mut failed = 0;
    for round in 0..4 {
        let large = {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .commit(Txn::new().put_bytes("large", vec![1; 1_300_000], None))
                    .await
            })
        };
        let small: Vec<_> = (0..8)
            .map(|n| {
                let (store, txn) = (store.clone(), put(&format!("small/{n}"), &round.to_string()));
                tokio::spawn(async move { store.commit(txn).await })
            })
            .collect();
        failed += usize::from(large.await.expect("no panic").is_err());
        for commit in small {
            let commit = commit.await.expect("no panic");
            assert!(
                commit.as_ref().is_ok_and(Commit::is_applied),
                "round {round}: {commit:?}"
            );
        }
    }
    assert_eq!(failed, 4, "the large one never fits");
}
