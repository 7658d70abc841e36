//! Sees from outside what every step's own process does: the kernel tells of each file that is made
//! on the file system under the nodes' folders, and a step makes files that name run, step and attempt.
//!
//! Steps have no network, so this takes the place of a server that they write to. No component of the
//! cluster can make, delay or hide such an event. Not here: what the cluster says happened.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// Tell the name and its folder instead of an open file (`FAN_REPORT_DFID_NAME` of linux/fanotify.h).
const REPORT_NAME: u32 = 0x0c00;

/// Every name that a step makes for us begins so.
pub(crate) const MARK: &str = "witness.";

/// One attempt of one step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tried {
    pub(crate) run: String,
    pub(crate) step: String,
    pub(crate) attempt: u32,
}

/// What was seen of it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    /// How often its script began; more than once would be a second start of the same attempt.
    pub(crate) begun: usize,
    /// How often it reached its end.
    pub(crate) ended: usize,
}

/// A thread that watches until it is dropped.
pub(crate) struct Witness {
    seen: Arc<Mutex<BTreeMap<Tried, Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Watches the file system that `folder` lies on.
    pub(crate) fn watch(folder: &Path) -> Self {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::from_bits_retain(REPORT_NAME);
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY).expect("fanotify needs root");
        group
            .mark(
                MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM,
                MaskFlags::FAN_CREATE,
                nix::fcntl::AT_FDCWD,
                Some(folder),
            )
            .expect("marked");
        let seen = Arc::<Mutex<BTreeMap<Tried, Seen>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let (into, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || listen(&OwnedFd::from(group), &into, &until));
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn seen(&self) -> BTreeMap<Tried, Seen> {
        self.seen.lock().expect("no panic inside").clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(group: &OwnedFd, seen: &Mutex<BTreeMap<Tried, Seen>>, stop: &AtomicBool) {
    let mut buffer = vec![0; 256 << 10];
    while !stop.load(Ordering::Relaxed) {
        let mut polled = [PollFd::new(group.as_fd(), PollFlags::POLLIN)];
        if poll(&mut polled, PollTimeout::from(100u8)) != Ok(1) {
            continue;
        }
        let Ok(length) = nix::unistd::read(group, &mut buffer) else {
            continue;
        };
        let now = Instant::now();
        for name in names(&buffer[..length]) {
            if let Some((tried, what)) = parse(&name) {
                note(&mut seen.lock().expect("no panic inside"), tried, what, now);
            }
        }
    }
}

/// The names in a batch of events. An event is 24 bytes, of which the first four are its length, and
/// then its information records: type, pad, length (2), file system id (8), handle length (4), handle
/// type (4), the folder's handle, the name up to a NUL.
fn names(mut events: &[u8]) -> Vec<String> {
    const EVENT: usize = 24;
    const RECORD: usize = 4 + 8 + 8;
    let mut names = Vec::new();
    while events.len() >= EVENT {
        let length = u32::from_ne_bytes([events[0], events[1], events[2], events[3]]) as usize;
        let event = &events[..length.clamp(EVENT, events.len())];
        let record = &event[EVENT..];
        if record.len() > RECORD {
            let handle = u32::from_ne_bytes([record[12], record[13], record[14], record[15]]) as usize;
            let name = record.get(RECORD + handle..).unwrap_or_default();
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            names.push(String::from_utf8_lossy(&name[..end]).into_owned());
        }
        events = &events[event.len()..];
    }
    names
}

/// `witness.<run>.<step>.<attempt>.<what>`
fn parse(name: &str) -> Option<(Tried, &str)> {
    let mut parts = name.strip_prefix(MARK)?.splitn(4, '.');
    let tried = Tried {
        run: parts.next()?.to_owned(),
        step: parts.next()?.to_owned(),
        attempt: parts.next()?.parse().ok()?,
    };
    Some((tried, parts.next()?))
}

fn note(seen: &mut BTreeMap<Tried, Seen>, tried: Tried, what: &str, now: Instant) {
    let entry = seen.entry(tried).or_insert(Seen {
        first: now,
        last: now,
        begun: 0,
        ended: 0,
    });
    entry.last = now;
    entry.begun += usize::from(what == "begin");
    entry.ended += usize::from(what == "end");
}

/// The script of a step that is seen: it begins, is alive for `beats` times 0.2 s, ends.
pub(crate) fn script(beats: u32) -> String {
    format!(
        "me=\"{MARK}$BUILDFLOW_RUN_ID.$BUILDFLOW_STEP.$BUILDFLOW_ATTEMPT\"; : > \"$me.begin\"; \
         for beat in $(seq {beats}); do sleep 0.2; : > \"$me.$beat\"; echo \"beat $beat\"; done; : > \"$me.end\""
    )
}
