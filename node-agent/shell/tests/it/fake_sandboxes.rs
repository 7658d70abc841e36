//! Sandboxes that run nothing: tests say when one starts, prints and ends. They outlive agents, as
//! shims do, and die with the machine.

use isolation::{End, ExitRecord, KilledBy, LaunchError, LauncherError, SandboxSpec, SandboxState, Usage};
use node_agent_shell::{Sandboxes, Watch};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Kept {
    spec: Option<SandboxSpec>,
    state: Option<SandboxState>,
    watchers: Vec<UnixStream>,
}

#[derive(Default)]
pub(crate) struct FakeSandboxes {
    boxes: Mutex<BTreeMap<String, Kept>>,
    changed: Condvar,
    /// Every launch there ever was.
    pub(crate) launches: Mutex<Vec<SandboxSpec>>,
    /// Every reason with which one was told to stop.
    stops: Mutex<BTreeMap<String, String>>,
    /// What each sandbox does by itself once it is launched; `None`: it waits for the test.
    pub(crate) by_itself: Mutex<Option<(String, i32)>>,
    /// The next launch fails with this.
    pub(crate) refuse: Mutex<Option<LaunchError>>,
}

struct FakeWatch(UnixStream);

impl AsFd for FakeWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Watch for FakeWatch {
    fn acknowledge(&self) {
        let mut buffer = [0; 64];
        while (&self.0).read(&mut buffer).is_ok_and(|n| n > 0) {}
    }
}

impl FakeSandboxes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Those that run to their end by themselves.
    pub(crate) fn quick(output: &str, code: i32) -> Arc<Self> {
        let fake = Self::default();
        *fake.by_itself.lock().unwrap() = Some((output.to_owned(), code));
        Arc::new(fake)
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.boxes.lock().unwrap().keys().cloned().collect()
    }

    fn change<T>(&self, id: &str, change: impl FnOnce(&mut Kept) -> T) -> T {
        let mut boxes = self.boxes.lock().unwrap();
        let one = boxes.get_mut(id).unwrap_or_else(|| panic!("no sandbox {id}"));
        let answer = change(one);
        for mut watcher in &one.watchers {
            let _ = watcher.write(&[1]);
        }
        self.changed.notify_all();
        answer
    }

    /// Waits until there is such a sandbox. Blocking.
    pub(crate) fn wait(&self, id: &str) {
        self.wait_for(id, "a launch", |_| true);
    }

    fn wait_for(&self, id: &str, what: &str, mut good: impl FnMut(&Kept) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        let mut boxes = self.boxes.lock().unwrap();
        while !boxes.get(id).is_some_and(&mut good) {
            let left = until.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| panic!("{what} of {id} never came"));
            boxes = self.changed.wait_timeout(boxes, left).unwrap().0;
        }
    }

    pub(crate) fn start(&self, id: &str) {
        self.change(id, |one| one.state = Some(SandboxState::Running { started_ms: 1_000 }));
    }

    pub(crate) fn print(&self, id: &str, text: &[u8]) {
        let path = self.boxes.lock().unwrap()[id].spec.as_ref().unwrap().log_path.clone();
        let mut log = std::fs::File::options().append(true).create(true).open(path).unwrap();
        log.write_all(text).unwrap();
    }

    pub(crate) fn end(&self, id: &str, end: End) {
        self.change(id, |one| finish(one, end, None));
    }

    /// Why it was told to stop.
    pub(crate) fn stopped(&self, id: &str) -> Option<String> {
        self.stops.lock().unwrap().get(id).cloned()
    }

    /// Its shim kills it because the node's lease has ended.
    pub(crate) fn end_with_the_lease(&self, id: &str) {
        self.change(id, |one| {
            finish(one, End::Signaled { signal: 9 }, Some(KilledBy::Lease))
        });
    }

    /// Its shim dies, and so does all in it.
    pub(crate) fn lose(&self, id: &str) {
        self.end(id, End::ShimDied);
    }

    /// The machine is started anew: nothing is left but what is on disk.
    pub(crate) fn reboot(&self) {
        self.boxes.lock().unwrap().clear();
    }
}

fn finish(one: &mut Kept, end: End, killed_by_us: Option<KilledBy>) {
    let spec = one.spec.as_ref().unwrap();
    let started_ms = match one.state {
        Some(SandboxState::Running { started_ms }) => Some(started_ms),
        _ => None,
    };
    let record = ExitRecord {
        started_ms,
        ended_ms: 2_000,
        end,
        killed_by_us,
        oom_kills: 0,
        log_bytes: std::fs::metadata(&spec.log_path).map_or(0, |m| m.len()),
        log_truncated: false,
        usage: Usage {
            memory_peak_bytes: 7,
            cpu_ms: 8,
            throttled_ms: 9,
        },
    };
    std::fs::write(&spec.exit_path, serde_json::to_vec(&record).unwrap()).unwrap();
    one.state = Some(SandboxState::Ended(record));
}

impl Sandboxes for FakeSandboxes {
    fn launch(&self, spec: &SandboxSpec) -> Result<(), LaunchError> {
        spec.validate()?;
        if let Some(refused) = self.refuse.lock().unwrap().take() {
            return Err(refused);
        }
        let mut boxes = self.boxes.lock().unwrap();
        if boxes.contains_key(&spec.id) {
            let id = spec.id.clone();
            return Err(LaunchError::Exists { id });
        }
        std::fs::write(&spec.log_path, "").unwrap();
        self.launches.lock().unwrap().push(spec.clone());
        let mut one = Kept {
            spec: Some(spec.clone()),
            state: Some(SandboxState::Starting),
            ..Kept::default()
        };
        if let Some((output, code)) = &*self.by_itself.lock().unwrap() {
            one.state = Some(SandboxState::Running { started_ms: 1_000 });
            std::fs::write(&spec.log_path, output).unwrap();
            finish(&mut one, End::Exited { code: *code }, None);
        }
        boxes.insert(spec.id.clone(), one);
        self.changed.notify_all();
        Ok(())
    }

    fn state(&self, id: &str) -> Result<SandboxState, LauncherError> {
        let boxes = self.boxes.lock().unwrap();
        Ok(boxes
            .get(id)
            .and_then(|one| one.state.clone())
            .unwrap_or(SandboxState::Gone))
    }

    fn watch(&self, id: &str) -> Result<Box<dyn Watch>, LauncherError> {
        let mut boxes = self.boxes.lock().unwrap();
        let Some(one) = boxes.get_mut(id) else {
            let id = id.to_owned();
            return Err(LauncherError::Unknown { id });
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        for stream in [&ours, &theirs] {
            stream.set_nonblocking(true).unwrap();
        }
        one.watchers.push(ours);
        Ok(Box::new(FakeWatch(theirs)))
    }

    fn stop(&self, id: &str, reason: &str) -> Result<(), LauncherError> {
        if !self.boxes.lock().unwrap().contains_key(id) {
            return Ok(());
        }
        let reason = reason.to_owned();
        self.stops.lock().unwrap().insert(id.to_owned(), reason.clone());
        self.change(id, |one| {
            if !matches!(one.state, Some(SandboxState::Ended(_))) {
                finish(one, End::Signaled { signal: 15 }, Some(KilledBy::Stopped { reason }));
            }
        });
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<(), LauncherError> {
        self.boxes.lock().unwrap().remove(id);
        self.changed.notify_all();
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, LauncherError> {
        Ok(self.ids())
    }

    fn shutdown_if_idle(&self) -> Result<bool, LauncherError> {
        Ok(self.ids().is_empty())
    }
}
