//! Both versions on plain folders: what is written where, and what is read back.

use super::*;

const HYBRID: &str = "\
31 23 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
34 31 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
35 31 0:30 / /sys/fs/cgroup/with\\040blank rw,relatime - cgroup cgroup rw,devices
36 31 0:31 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
37 31 0:32 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

fn limits() -> Limits {
    Limits {
        cpu_millis: 1_500,
        memory_bytes: 64 << 20,
        pids: 42,
        shm_bytes: 0,
        nofile: 64,
        log_bytes_max: 0,
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn a_hybrid_machine_is_used_through_version_1() {
    let layout = Layout::from_mountinfo(HYBRID);
    assert_eq!(layout.v2, Some("/sys/fs/cgroup/unified".into()));
    let Slice::V1(slice) = layout.slice("u").unwrap() else {
        panic!("version 2 chosen");
    };
    let at = |point: &str| PathBuf::from(format!("/sys/fs/cgroup/{point}/buildflow/u"));
    let expected = [
        ("cpu", at("cpu,cpuacct")),
        ("cpuacct", at("cpu,cpuacct")),
        ("devices", at("with blank")),
        ("memory", at("memory")),
        ("pids", at("pids")),
    ];
    let expected = expected.map(|(name, dir)| (name.to_owned(), dir));
    assert_eq!(slice.dirs, expected.into_iter().collect());
    assert_eq!(slice.dirs().len(), 4, "a shared hierarchy is entered once");
}

#[test]
fn version_2_is_used_where_it_has_the_controllers() {
    let point = tempfile::tempdir().unwrap();
    let line = format!("37 31 0:32 / {} rw - cgroup2 cgroup2 rw\n", point.path().display());
    let layout = Layout::from_mountinfo(&line);
    fs::write(point.path().join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
    let error = layout.slice("u").unwrap_err().to_string();
    assert!(
        error.ends_with("in version 1: none; in version 2: cpuset, cpu, io"),
        "{error}"
    );
    fs::write(point.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
    let expected = V2Slice {
        dir: point.path().join("buildflow/u"),
    };
    assert_eq!(layout.slice("u").unwrap(), Slice::V2(expected));
}

#[test]
fn version_2_delegates_limits_enters_and_reads() {
    let point = tempfile::tempdir().unwrap();
    let slice = Slice::V2(V2Slice {
        dir: point.path().join("buildflow/u"),
    });
    slice.prepare().unwrap();
    for dir in ["", "buildflow", "buildflow/u"] {
        let handed = text(&point.path().join(dir), "cgroup.subtree_control");
        assert_eq!(handed, "+cpu +memory +pids", "{dir}");
    }
    slice.create("one", &limits()).unwrap();
    assert!(slice.create("one", &limits()).is_err(), "a second one of that name");
    let leaf = point.path().join("buildflow/u/one");
    assert_eq!(text(&leaf, "cpu.max"), "150000 100000");
    assert_eq!(text(&leaf, "cpu.weight"), "150");
    assert_eq!(text(&leaf, "memory.max"), (64 << 20).to_string());
    assert_eq!(text(&leaf, "pids.max"), "42");
    slice.enter("one").unwrap();
    assert_eq!(text(&leaf, "cgroup.procs"), "0");
    slice.leave().unwrap();
    assert_eq!(text(&point.path().join("buildflow/u/_shims"), "cgroup.procs"), "0");
    fs::write(leaf.join("memory.peak"), "123\n").unwrap();
    fs::write(leaf.join("cpu.stat"), "usage_usec 5000\nthrottled_usec 7000\n").unwrap();
    fs::write(leaf.join("memory.events"), "oom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
    let usage = Usage {
        memory_peak_bytes: 123,
        cpu_ms: 5,
        throttled_ms: 7,
    };
    let expected = Readings { usage, oom_kills: 2 };
    assert_eq!(slice.readings("one"), expected);
    assert_eq!(slice.readings("absent"), Readings::default());
    assert_eq!(slice.names().unwrap(), ["one"]);
}

#[test]
fn version_1_limits_enters_and_reads_in_each_hierarchy() {
    let root = tempfile::tempdir().unwrap();
    let dirs = ["cpu", "cpuacct", "devices", "memory", "pids"]
        .map(|name| (name.to_owned(), root.path().join(name).join("buildflow/u")));
    let slice = Slice::V1(V1Slice {
        dirs: dirs.into_iter().collect(),
    });
    slice.prepare().unwrap();
    slice.create("one", &limits()).unwrap();
    let leaf = |controller: &str| root.path().join(controller).join("buildflow/u/one");
    assert_eq!(text(&leaf("cpu"), "cpu.cfs_quota_us"), "150000");
    assert_eq!(text(&leaf("memory"), "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(text(&leaf("pids"), "pids.max"), "42");
    assert_eq!(text(&leaf("devices"), "devices.allow"), "c 136:* rwm");
    assert!(!leaf("memory").join("memory.memsw.limit_in_bytes").exists());
    slice.enter("one").unwrap();
    for controller in ["cpu", "cpuacct", "devices", "memory", "pids"] {
        assert_eq!(text(&leaf(controller), "tasks"), "0", "{controller}");
    }
    fs::write(leaf("memory").join("memory.max_usage_in_bytes"), "99\n").unwrap();
    fs::write(leaf("memory").join("memory.oom_control"), "under_oom 0\noom_kill 4\n").unwrap();
    fs::write(leaf("cpuacct").join("cpuacct.usage"), "3000000\n").unwrap();
    fs::write(leaf("cpu").join("cpu.stat"), "throttled_time 2000000\n").unwrap();
    let usage = Usage {
        memory_peak_bytes: 99,
        cpu_ms: 3,
        throttled_ms: 2,
    };
    let expected = Readings { usage, oom_kills: 4 };
    assert_eq!(slice.readings("one"), expected);
}

#[test]
fn more_processes_are_signalled_than_there_may_be_files_open() {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    const OPEN_FILES: u64 = 128;
    let point = tempfile::tempdir().unwrap();
    let slice = Slice::V2(V2Slice {
        dir: point.path().to_owned(),
    });
    let spawn = |_| Command::new("sleep").arg("600").spawn().unwrap();
    let mut children: Vec<Child> = (0..OPEN_FILES + 20).map(spawn).collect();
    let pids: String = children.iter().map(|child| format!("{}\n", child.id())).collect();
    fs::create_dir(point.path().join("one")).unwrap();
    fs::write(point.path().join("one/cgroup.procs"), pids).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, hard).unwrap();
    let signalled = slice.signal("one", libc::SIGTERM);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    if signalled.is_err() {
        children.iter_mut().for_each(|child| child.kill().unwrap());
    }
    for child in &mut children {
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM), "{signalled:?}");
    }
}
