//! What a sandbox may not do, tried from inside; and that real tools run in it all the same.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[allow(dead_code, reason = "each test program uses a part of it")]
mod node;

use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use isolation::{End, SandboxSpec};
use node::{Node, PATIENCE, is_root};

/// Runs a script and returns what it wrote; it must succeed.
fn output(node: &Node, spec: &SandboxSpec) -> String {
    let (record, log) = node.run(spec);
    assert_eq!(record.end, End::Exited { code: 0 }, "{log}");
    log
}

/// The value of `key` in text of `key value` or `key: value` lines.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(key));
    let line = line.unwrap_or_else(|| panic!("no {key} in:\n{text}"));
    line[key.len()..].trim_start_matches(':').trim()
}

#[test]
fn namespaces_are_its_own() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let kinds = ["pid", "mnt", "net", "ipc", "uts", "cgroup"];
    let script = format!(
        "for kind in {}; do echo $kind $(readlink /proc/self/ns/$kind); done; echo me $$; \
         echo host $(hostname); echo cg $(cut -d: -f3 /proc/self/cgroup | sort -u); \
         echo links $(ls /sys/class/net); ping -c1 -W1 127.0.0.1 >/dev/null 2>&1; \
         nc -l -p 80 -e echo through & \
         until said=$(nc 127.0.0.1 80 </dev/null 2>&1); do sleep 0.05; done; echo served $said; \
         echo cgroups $(ls /sys/fs/cgroup | wc -l); ps | wc -l",
        kinds.join(" ")
    );
    let log = output(&node, &node.shell("spaces", &script));
    for kind in kinds {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let theirs = value(&log, &format!("{kind} "));
        assert!(
            theirs.starts_with(kind) && theirs != ours.to_str().unwrap(),
            "{kind}: {log}"
        );
    }
    assert_eq!(value(&log, "me "), "1");
    assert_eq!(value(&log, "host "), "sandbox");
    assert_eq!(value(&log, "links "), "lo");
    assert_eq!(
        value(&log, "served "),
        "through",
        "loopback is up and low ports can be had"
    );
    assert_eq!(value(&log, "cgroups "), "0", "no hierarchy is visible");
    // Hierarchies that a sandbox does not enter show the node's own place, and say nothing else.
    assert!(!value(&log, "cg ").contains("buildflow"), "{log}");
}

#[test]
fn rights_are_short_and_cannot_grow() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp|Groups|Uid|Gid|Sig(Blk|Ign))' /proc/self/status; \
                  echo score $(cat /proc/self/oom_score_adj); ulimit -n; ls -l /proc/self/fd";
    let log = output(&node, &node.shell("root", script));
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, sys_chroot,
    // setfcap
    let short = "00000000800404fb";
    for (key, expected) in [
        ("CapBnd", short),
        ("CapPrm", short),
        ("CapEff", short),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("SigBlk", "0000000000000000"),
        ("SigIgn", "0000000000000000"),
        ("score ", "500"),
    ] {
        assert_eq!(value(&log, key), expected, "{key}\n{log}");
    }
    let descriptors = log.lines().filter(|line| line.contains(" -> ")).count();
    // The one with which ls reads the folder is closed before it is looked at.
    assert_eq!(descriptors, 3, "{log}");
    let mut spec = node.shell(
        "user",
        &format!("{script}; echo home $HOME; touch /etc/x || echo refused"),
    );
    spec.user = Some("build".into());
    let log = output(&node, &spec);
    assert_eq!(value(&log, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(value(&log, "Groups"), "1500");
    assert_eq!(value(&log, "CapEff"), "0000000000000000");
    assert_eq!(value(&log, "home "), "/home/build");
    assert!(log.contains("refused"), "{log}");
}

#[test]
fn kernel_files_are_masked_or_read_only() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let script = "
        for file in /proc/kcore /proc/keys /proc/timer_list /proc/kmsg /proc/interrupts \
            /proc/kpagecount /proc/kpageflags /proc/kpagecgroup; do
            [ -e $file ] && echo $file $(head -c 100 $file 2>/dev/null | wc -c)
        done
        for folder in /proc/acpi /proc/scsi /sys/firmware; do
            [ -e $folder ] && echo $folder $(ls $folder | wc -l)
        done
        tries() { eval \"$1\" 2>/dev/null && echo DONE \"$1\"; }
        tries 'echo x > /proc/sys/kernel/core_pattern'
        tries 'echo b > /proc/sysrq-trigger'
        tries 'echo 1 > /proc/sys/net/ipv4/ip_forward'
        tries 'mkdir /sys/fs/cgroup/x'
        tries 'echo 1 > /sys/kernel/mm/ksm/run'
        tries 'echo -1000 > /proc/self/oom_score_adj'
        tries 'mknod /tmp/disk b 254 0'
        tries 'mknod /dev/mem c 1 1'
        tries 'mount -t tmpfs none /tmp'
        tries 'umount /proc'
        tries 'unshare -m true'
        tries 'chroot /proc/1/root/../../.. /bin/ls /work'
        tries 'hostname other'
        tries 'dmesg'
        echo x > /dev/null && head -c 10 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c
        echo end";
    let log = output(&node, &node.shell("masked", script));
    assert!(!log.contains("DONE"), "{log}");
    assert!(log.ends_with("10\n4\nend\n"), "{log}");
    let probes: Vec<&str> = log.lines().filter(|line| line.starts_with('/')).collect();
    assert!(probes.len() >= 5, "{log}");
    for probe in probes {
        assert!(probe.ends_with(" 0"), "{probe}");
    }
}

#[test]
fn the_file_system_has_no_devices_and_changes_only_its_upper_layer() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let spec = node.shell(
        "files",
        "cat /dev/planted; echo read $?; mv /etc /etc2 && mv /etc2 /etc && rm /etc/group && \
         echo new > /etc/new && df /dev/shm | tail -1",
    );
    let planted = spec.rootfs.upper.join("planted");
    let made = nix::sys::stat::mknod(
        &planted,
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::sys::stat::makedev(1, 5),
    );
    made.unwrap();
    let mut spec = spec;
    spec.argv[2] = spec.argv[2].replace("/dev/planted", "/planted");
    let log = output(&node, &spec);
    assert!(log.contains("read 1"), "a planted device can be read: {log}");
    assert!(log.contains("16384"), "size of /dev/shm: {log}");
    let mut none = node.shell("no-shm", "head -c 8192 /dev/zero > /dev/shm/x; echo end");
    none.limits.shm_bytes = 0;
    let shm = output(&node, &none);
    assert!(shm.contains("No space left"), "none is a little, not all: {shm}");
    assert!(spec.rootfs.upper.join("etc/new").is_file());
    assert!(node.image().join("etc/group").is_file(), "the layer below is untouched");
    assert!(!node.image().join("etc/new").exists());
}

/// What the kernel lets root write by its number alone, without a capability.
#[test]
fn no_switch_of_the_kernel_s_can_be_opened_for_writing() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let script = "
        find /proc /sys -path '/proc/[0-9]*' -prune -o -type f -perm /222 -print 2>/dev/null > /tmp/all
        echo all $(wc -l < /tmp/all)
        while read file; do (: >> \"$file\") 2>/dev/null && echo \"open $file\"; done < /tmp/all
        (: >> /tmp/all) && echo works";
    let log = output(&node, &node.shell("writes", script));
    assert!(value(&log, "all ").parse::<u32>().unwrap() > 100, "{log}");
    // Who wants to be told of pressure writes into these; nothing changes by it.
    let open: Vec<&str> = log
        .lines()
        .filter_map(|line| line.strip_prefix("open "))
        .filter(|file| !file.starts_with("/proc/pressure/"))
        .collect();
    assert!(open.is_empty(), "{open:?}");
    assert!(log.ends_with("works\n"), "{log}");
}

/// Root inside owns what root outside owns: no inode of the node's may be within reach.
#[test]
fn no_file_of_the_node_s_comes_along_with_the_standard_descriptors() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let script = "
        for fd in 0 1 2; do echo $fd $(stat -L -c %d /proc/self/fd/$fd); done
        echo own $(stat -c %d /dev/null)
        chmod 000 /proc/self/fd/0 && echo changed $(stat -c %a /dev/null)
        kill -9 -1; echo alive";
    use std::os::unix::fs::MetadataExt as _;
    let before = fs::metadata("/dev/null").unwrap();
    // On the own one only: what would be changed otherwise is the machine's.
    let probe = output(&node, &node.shell("probe", script.split("chmod").next().unwrap()));
    assert_eq!(value(&probe, "0 "), value(&probe, "own "), "{probe}");
    assert_ne!(value(&probe, "own "), before.dev().to_string(), "{probe}");
    let log = output(&node, &node.shell("change", script));
    assert!(log.contains("changed 0") && log.ends_with("alive\n"), "{log}");
    assert_eq!(fs::metadata("/dev/null").unwrap().mode(), before.mode());
}

/// The node's own root as the image, for its compiler. The upper layer has to lie on another file
/// system than the lower one that contains it.
fn on_host_root(node: &Node, id: &str, script: &str) -> SandboxSpec {
    let own = node.folder().join("run").join(format!("layers-{id}"));
    let mut spec = node.spec(id, &["/bin/sh", "-ec", script]);
    spec.rootfs.lowers = vec![PathBuf::from("/")];
    spec.rootfs.upper = own.join("upper");
    spec.rootfs.work = own.join("work");
    fs::create_dir_all(&spec.rootfs.upper).unwrap();
    fs::create_dir_all(&spec.rootfs.work).unwrap();
    fs::create_dir(spec.rootfs.upper.join("try")).unwrap();
    spec.cwd = "/try".into();
    spec
}

fn forget_layers(node: &Node, id: &str) {
    fs::remove_dir_all(node.folder().join("run").join(format!("layers-{id}"))).unwrap();
}

const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#define TRY(...) do { errno = 0; long r = syscall(__VA_ARGS__); \
    printf("%s = %s\n", #__VA_ARGS__, r < 0 ? strerrorname_np(errno) : "DONE"); fflush(stdout); } while (0)
static int child(void *unused) { return 0; }
static void foreign(const char *name, void (*call)(void)) {
    pid_t pid = fork(); int status = 0;
    if (!pid) { call(); _exit(0); }
    waitpid(pid, &status, 0);
    printf("%s = %s\n", name, WIFSIGNALED(status) ? "KILLED" : "DONE");
}
#ifdef __x86_64__
static void int80(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L)); }
#endif
int main(void) {
    char stack[65536];
    TRY(SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
    TRY(SYS_umount2, "/proc", 2);
    TRY(SYS_unshare, CLONE_NEWUSER);
    TRY(SYS_unshare, CLONE_NEWNS);
    TRY(SYS_setns, 0, 0);
    TRY(SYS_bpf, 0, 0, 0);
    TRY(SYS_keyctl, 0, 0, 0, 0, 0);
    TRY(SYS_add_key, "user", "x", "y", 1, -3);
    TRY(SYS_ptrace, 0, 0, 0, 0);
    TRY(SYS_perf_event_open, 0, 0, -1, -1, 0);
    TRY(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0);
    TRY(SYS_open_by_handle_at, 0, 0, 0);
    TRY(SYS_init_module, 0, 0, "");
    TRY(SYS_kexec_load, 0, 0, 0, 0);
    TRY(SYS_reboot, 0, 0, 0, 0);
    TRY(SYS_pivot_root, "/", "/tmp");
    TRY(SYS_fsopen, "tmpfs", 0);
    TRY(SYS_userfaultfd, 0);
    TRY(SYS_syslog, 3, 0, 0);
    TRY(SYS_swapon, "/x", 0);
    TRY(SYS_sethostname, "x", 1);
    TRY(SYS_personality, 0x0040000);
    TRY(SYS_socket, 40, SOCK_STREAM, 0);
    TRY(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0);
    TRY(SYS_socket, AF_INET, SOCK_RAW, 1);
    TRY(SYS_socket, AF_PACKET, SOCK_RAW, 0);
    TRY(SYS_io_uring_setup, 1, 0);
    TRY(SYS_clone3, 0, 0);
    TRY(1000, 0);
    TRY(SYS_getpid | 0x40000000);
    errno = 0;
    int r = clone(child, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, 0);
    printf("clone = %s\n", r < 0 ? strerrorname_np(errno) : "DONE");
#ifdef __x86_64__
    foreign("int80", int80);
#endif
    return 0;
}
"#;

#[test]
fn dangerous_calls_are_refused_whichever_way_they_are_made() {
    if !is_root() {
        return;
    }
    if !Path::new("/usr/bin/gcc").exists() {
        eprintln!("SKIPPED: /usr/bin/gcc is needed to compile the probe; apt install gcc");
        return;
    }
    let node = Node::new();
    let spec = on_host_root(&node, "probe", "gcc -o probe probe.c; ./probe");
    fs::write(spec.rootfs.upper.join("try/probe.c"), PROBE).unwrap();
    let log = output(&node, &spec);
    forget_layers(&node, "probe");
    let absent = ["SYS_io_uring_setup", "SYS_clone3", "1000", "SYS_getpid | 0x40000000"];
    let mut seen = 0;
    for line in log.lines() {
        let (call, verdict) = line.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
        let expected = match call {
            "int80" => "KILLED",
            call if absent.iter().any(|name| call.starts_with(name)) => "ENOSYS",
            _ => "EPERM",
        };
        assert_eq!(verdict, expected, "{call}");
        seen += 1;
    }
    assert_eq!(seen, if cfg!(target_arch = "x86_64") { 32 } else { 31 }, "{log}");
}

#[test]
fn compilers_and_their_friends_run() {
    if !is_root() {
        return;
    }
    let tools = ["/usr/bin/gcc", "/usr/bin/make", "/usr/bin/git"];
    if let Some(missing) = tools.iter().find(|tool| !Path::new(tool).exists()) {
        eprintln!("SKIPPED: {missing} is needed; apt install gcc make git");
        return;
    }
    let node = Node::new();
    let script = "
        export HOME=/try
        printf 'int main(void) { return 0; }' > main.c
        printf 'all: main\\n\\t./main\\n' > Makefile
        make -j4
        git init -q . && git add . && git -c user.name=n -c user.email=e commit -qm one
        git log --oneline | wc -l
        if [ -x /usr/bin/python3 ]; then
            /usr/bin/python3 -c 'import subprocess, threading, socket, tempfile, multiprocessing as m
t = threading.Thread(target=print, args=[\"thread\"]); t.start(); t.join()
print(subprocess.check_output([\"echo\", \"child\"]).decode(), end=\"\")
a, b = socket.socketpair(); a.send(b\"x\"); m.Lock(); tempfile.mkdtemp()'
        fi
        tar cf - main.c | tar tf - && id -u && su -s /bin/sh nobody -c 'id -un' && chown 1:1 main.c
        echo end";
    let mut spec = on_host_root(&node, "tools", script);
    spec.env.push(("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    let log = output(&node, &spec);
    forget_layers(&node, "tools");
    assert!(log.contains("main.c\n0\nnobody\nend\n"), "{log}");
}

/// A process may cut the tie by which the kernel kills it with its shim.
#[test]
fn a_step_that_outlives_its_shim_is_killed_all_the_same() {
    if !is_root() {
        return;
    }
    if !Path::new("/usr/bin/setpriv").exists() {
        eprintln!("SKIPPED: /usr/bin/setpriv is needed to cut the tie; apt install util-linux");
        return;
    }
    let node = Node::new();
    let script = "echo up; exec setpriv --pdeathsig clear sleep 600";
    let spec = on_host_root(&node, "untied", script);
    let launched = node.launcher.launch(&spec).unwrap();
    node.wait_log(&spec, "up");
    let sleeps = || {
        node.traces()
            .processes
            .iter()
            .any(|process| process.ends_with(" sleep"))
    };
    let until = Instant::now() + PATIENCE;
    while !sleeps() {
        assert!(Instant::now() < until, "{:?}", node.traces());
        std::thread::sleep(Duration::from_millis(5));
    }
    let shim = nix::unistd::Pid::from_raw(launched.shim_pid.cast_signed());
    let gone = node.launcher.shim_pidfd("untied").unwrap().unwrap();
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut polled = [nix::poll::PollFd::new(gone.as_fd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut polled, 10_000_u16).unwrap();
    assert!(sleeps(), "the tie was cut: {:?}", node.traces());
    assert_eq!(node.wait("untied").end, End::ShimDied);
    assert_eq!(node.traces().processes, Vec::<String>::new());
    node.launcher.remove("untied").unwrap();
    forget_layers(&node, "untied");
}

/// An image may put a link wherever the runtime mounts or makes something.
#[test]
fn links_in_an_image_do_not_lead_out_of_it() {
    if !is_root() {
        return;
    }
    let node = Node::new();
    let victim = node.folder().join("victim");
    let links = ["dev", "dev/pts", "dev/shm", "proc", "sys", "etc", "tmp"];
    for (count, link) in links.into_iter().enumerate() {
        for (kind, target) in [("absolute", victim.clone()), ("relative", up_to(&victim))] {
            fs::create_dir(&victim).unwrap();
            fs::write(victim.join("passwd"), "intruder:x:7:7::/:/bin/sh\n").unwrap();
            let mut spec = node.shell(&format!("link-{count}-{kind}"), "true");
            spec.user = Some("intruder".into());
            let path = spec.rootfs.upper.join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&target, &path).unwrap();
            let (record, log) = node.run(&spec);
            let refused = matches!(record.end, End::SpecRefused { .. } | End::SandboxFailed { .. });
            assert!(refused, "{link} {kind}: {record:?} {log}");
            spec = node.shell(&format!("link-{count}-{kind}-root"), "true");
            let path = spec.rootfs.upper.join(link);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(&target, &path).unwrap();
            let (record, _) = node.run(&spec);
            let found: Vec<_> = fs::read_dir(&victim).unwrap().flatten().collect();
            assert_eq!(found.len(), 1, "{link} {kind}: {record:?} made {found:?}");
            assert!(found[0].file_name() == "passwd");
            fs::remove_dir_all(&victim).unwrap();
        }
    }
}

/// A relative link that climbs to the root of whatever it is followed in, and down again.
fn up_to(path: &Path) -> PathBuf {
    PathBuf::from("../".repeat(20)).join(path.strip_prefix("/").unwrap())
}
