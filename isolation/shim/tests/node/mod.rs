//! A node for tests: an image made of busybox, a launcher of its own, and a look at what is left.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use isolation::{ExitRecord, Launcher, LauncherConfig, Limits, Network, RootFs, SandboxSpec, SandboxState};

/// How long anything in these tests may take before it counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Whether sandboxes can be made here. Says so where they cannot.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: sandboxes need root; run `sudo -E cargo test -p buildflow-shim`");
    }
    root
}

/// Makes the image: static busybox with all its commands.
fn make_image(root: &Path) {
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/build"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let busybox = "/bin/busybox";
    fs::copy(busybox, root.join("bin/busybox")).expect("these tests need /bin/busybox: apt install busybox-static");
    let list = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(list)
        .unwrap()
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nbuild:x:1000:1000:b:/home/build:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nbuild:x:1000:\nextra:x:1500:build\n").unwrap();
}

/// A launcher with its folders. What it leaves behind fails the test that owns it.
pub(crate) struct Node {
    pub(crate) launcher: Launcher,
    folder: PathBuf,
    _removed_at_the_end: Option<tempfile::TempDir>,
}

/// What exists of a node outside its processes' memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    pub(crate) cgroups: Vec<PathBuf>,
    pub(crate) mounts: Vec<String>,
    pub(crate) processes: Vec<String>,
}

pub(crate) fn config(folder: &Path) -> LauncherConfig {
    LauncherConfig {
        run_dir: folder.join("run"),
        shim_path: Some(env!("CARGO_BIN_EXE_buildflow-shim").into()),
    }
}

impl Node {
    pub(crate) fn new() -> Node {
        let folder = tempfile::Builder::new().prefix("buildflow-node-").tempdir().unwrap();
        make_image(&folder.path().join("image"));
        let mut node = Node::at(folder.path().to_owned());
        node._removed_at_the_end = Some(folder);
        node
    }

    /// A node on a folder that another one has made.
    pub(crate) fn at(folder: PathBuf) -> Node {
        Node {
            launcher: Launcher::new(config(&folder)).unwrap(),
            folder,
            _removed_at_the_end: None,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// Another launcher on the same folder, as after a restart of the agent.
    pub(crate) fn restart(&mut self) {
        self.launcher = Launcher::new(config(&self.folder)).unwrap();
    }

    pub(crate) fn restart_with(&mut self, change: impl FnOnce(Launcher) -> Launcher) {
        self.launcher = change(Launcher::new(config(&self.folder)).unwrap());
    }

    /// A spec that runs `argv` in the busybox image, with fresh folders.
    pub(crate) fn spec(&self, id: &str, argv: &[&str]) -> SandboxSpec {
        let own = self.folder.join(id);
        let (upper, work) = (own.join("upper"), own.join("work"));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(&work).unwrap();
        SandboxSpec {
            id: id.to_owned(),
            hostname: "sandbox".into(),
            rootfs: RootFs {
                lowers: vec![self.image()],
                upper,
                work,
            },
            argv: argv.iter().map(|word| word.to_string()).collect(),
            env: vec![("GREETING".into(), "hello".into())],
            cwd: "/".into(),
            user: None,
            limits: Limits {
                cpu_millis: 2_000,
                memory_bytes: 256 << 20,
                pids: 64,
                shm_bytes: 16 << 20,
                nofile: 1_024,
                log_bytes_max: 1 << 20,
            },
            timeout: PATIENCE,
            kill_grace: Duration::from_millis(300),
            network: Network::LoopbackOnly,
            log_path: own.join("log"),
            exit_path: own.join("exit.json"),
            lease_path: None,
            begin_before_ms: None,
        }
    }

    pub(crate) fn shell(&self, id: &str, script: &str) -> SandboxSpec {
        self.spec(id, &["/bin/sh", "-c", script])
    }

    /// Waits for the end through the watch, as an agent does.
    pub(crate) fn wait(&self, id: &str) -> ExitRecord {
        self.wait_for(id, |state| match state {
            SandboxState::Ended(record) => Some(record.clone()),
            SandboxState::Gone => panic!("{id} is gone"),
            _ => None,
        })
    }

    pub(crate) fn wait_running(&self, id: &str) {
        self.wait_for(id, |state| match state {
            SandboxState::Running { .. } => Some(()),
            SandboxState::Starting => None,
            other => panic!("{id} is {other:?} instead of running"),
        });
    }

    fn wait_for<T>(&self, id: &str, wanted: impl Fn(&SandboxState) -> Option<T>) -> T {
        let watch = self.launcher.watch(id).unwrap();
        assert!(watch.as_fd().try_clone_to_owned().is_ok());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = wanted(&self.launcher.state(id).unwrap()) {
                return found;
            }
            assert!(Instant::now() < until, "{id} hangs");
            watch.wait(PATIENCE).unwrap();
            watch.acknowledge();
        }
    }

    /// Launches, waits for the end, and removes. Returns the record and the log.
    pub(crate) fn run(&self, spec: &SandboxSpec) -> (ExitRecord, String) {
        self.launcher.launch(spec).unwrap();
        let record = self.wait(&spec.id);
        self.launcher.remove(&spec.id).unwrap();
        assert_eq!(self.launcher.state(&spec.id).unwrap(), SandboxState::Gone);
        let log = String::from_utf8_lossy(&fs::read(&spec.log_path).unwrap()).into_owned();
        (record, log)
    }

    pub(crate) fn log(&self, spec: &SandboxSpec) -> String {
        String::from_utf8_lossy(&fs::read(&spec.log_path).unwrap()).into_owned()
    }

    /// Waits until a line appears in a log that is being written.
    pub(crate) fn wait_log(&self, spec: &SandboxSpec, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !fs::read_to_string(&spec.log_path).unwrap_or_default().contains(text) {
            assert!(Instant::now() < until, "`{text}` never came: {}", self.log(spec));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until no process of this node is left.
    pub(crate) fn wait_quiet(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.traces().processes.is_empty() {
            assert!(Instant::now() < until, "{:?}", self.traces());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What this node has on the machine now.
    pub(crate) fn traces(&self) -> Traces {
        let folder = self.folder.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Traces {
            cgroups: self.cgroups(),
            mounts: mounts
                .lines()
                .filter(|line| line.contains(folder))
                .map(String::from)
                .collect(),
            processes: processes_in(&slice_name(&self.folder.join("run"))),
        }
    }

    /// Folders of this node's slices below the leaf of the shims.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let unique = slice_name(&self.folder.join("run"));
        let mut found = Vec::new();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            let slice = hierarchy.unwrap().path().join("buildflow").join(&unique);
            if slice.is_dir() {
                found.push(slice.clone());
                let below = fs::read_dir(&slice).unwrap().map(|entry| entry.unwrap().path());
                found.extend(below.filter(|path| path.is_dir() && !path.ends_with("_shims")));
            }
        }
        found.sort();
        found
    }
}

/// The name that a launcher gives its slice.
fn slice_name(run_dir: &Path) -> String {
    let bytes = run_dir.to_str().unwrap().bytes();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// Processes in any cgroup of the slice: the node's shims and sandboxes, which cannot leave it.
fn processes_in(slice: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if read("cgroup").contains(slice) {
            found.push(format!("{:?} {}", entry.file_name(), read("comm").trim()));
        }
    }
    found
}

impl Drop for Node {
    fn drop(&mut self) {
        for listed in self.launcher.list().unwrap_or_default() {
            let _ = self.launcher.remove(&listed.id);
        }
        let idle = self.launcher.shutdown_if_idle();
        if std::thread::panicking() {
            return;
        }
        assert!(idle.unwrap(), "something is left: {:?}", self.launcher.list());
        let left = self.traces();
        assert_eq!(left, Traces::default(), "a node leaves nothing behind");
    }
}
