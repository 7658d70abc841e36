//! Which system calls exist inside a sandbox: an allow-list, compiled once into filter programs.
//!
//! Two programs are installed, in this order. The first knows what is allowed; all else does not
//! exist (`ENOSYS`, so that programs fall back, as C libraries do from `clone3` to `clone`). The
//! second names what exists and is refused (`EPERM`): it wins where both refuse, because of two
//! equal verdicts the kernel takes that of the program installed last. Both kill a process which
//! calls through the table of another architecture, and the numbers of x32 are in no list.
//!
//! Not here: installing them. The shim does that just before exec.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// The kernel's own limit on the length of one program.
const INSTRUCTIONS_MAX: usize = 4_096;
/// Bytes of one instruction.
pub const INSTRUCTION_BYTES: usize = 8;

/// Filter programs in the order in which they are installed; each is a whole number of
/// instructions as the kernel takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterPrograms(pub Vec<Vec<u8>>);

/// A list that cannot be compiled. Cannot happen with the lists below; a test compiles them.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The compiler refused it.
    #[error("seccomp list cannot be compiled: {0}")]
    Compile(#[from] BackendError),
    /// This machine's architecture is not known.
    #[error("there is no seccomp list for {0}")]
    Architecture(&'static str),
    /// More instructions than the kernel takes.
    #[error("seccomp program has {0} instructions, the kernel takes {INSTRUCTIONS_MAX}")]
    TooLong(usize),
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// What every program may call.
const ALLOWED: &[libc::c_long] = calls! {
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir
    SYS_chroot SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_clone
    SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit
    SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod
    SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr
    SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync
    SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_robust_list SYS_getcpu SYS_getcwd
    SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername
    SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid
    SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid
    SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1
    SYS_inotify_rm_watch SYS_io_cancel SYS_io_destroy SYS_io_getevents
    SYS_io_setup SYS_io_submit SYS_ioctl SYS_ioprio_get SYS_ioprio_set SYS_kill
    SYS_landlock_add_rule SYS_landlock_create_ruleset SYS_landlock_restrict_self SYS_lgetxattr
    SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr SYS_lseek SYS_lsetxattr
    SYS_madvise SYS_membarrier SYS_memfd_create SYS_memfd_secret SYS_mincore SYS_mkdirat
    SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr
    SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap
    SYS_mseal SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall
    SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2
    SYS_personality SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free
    SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_prlimit64
    SYS_process_mrelease SYS_pselect6 SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead
    SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages
    SYS_removexattr SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction
    SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend
    SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
    SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget
    SYS_semop SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer
    SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
    SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt
    SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_socket SYS_socketpair SYS_splice
    SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs SYS_sysinfo SYS_tee
    SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime
    SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times
    SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4
    SYS_waitid SYS_write SYS_writev
};

/// What only the older table of x86-64 has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create
    SYS_epoll_wait SYS_eventfd SYS_fchmodat2 SYS_fork SYS_futimesat SYS_get_thread_area SYS_getdents SYS_getpgrp
    SYS_inotify_init SYS_lchown SYS_link SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open
    SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select SYS_set_thread_area
    SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[];

/// What exists and is refused, whoever calls.
const REFUSED: &[libc::c_long] = calls! {
    SYS_acct SYS_add_key SYS_bpf SYS_clock_settime SYS_delete_module SYS_fanotify_init
    SYS_finit_module SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick SYS_init_module SYS_kcmp
    SYS_kexec_file_load SYS_kexec_load SYS_keyctl SYS_mbind SYS_migrate_pages SYS_mount
    SYS_mount_setattr SYS_move_mount SYS_move_pages SYS_open_by_handle_at SYS_open_tree
    SYS_perf_event_open SYS_pidfd_getfd SYS_pivot_root SYS_process_madvise SYS_process_vm_readv
    SYS_process_vm_writev SYS_ptrace SYS_quotactl SYS_quotactl_fd SYS_reboot SYS_request_key
    SYS_set_mempolicy SYS_setdomainname SYS_sethostname SYS_setns SYS_settimeofday SYS_swapoff
    SYS_swapon SYS_syslog SYS_umount2 SYS_unshare SYS_userfaultfd SYS_vhangup
};

/// What only the table of x86-64 has.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = calls! {
    SYS__sysctl SYS_ioperm SYS_iopl SYS_uselib SYS_ustat SYS_sysfs
};
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Flags of `clone` which make namespaces.
const NAMESPACE_FLAGS: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Execution domains that are allowed: Linux, 32-bit Linux, each with the old uname, and asking.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Socket families that are allowed: what programs use, and none of the kernel's odd corners.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Compiles the lists for this machine. Takes some ten milliseconds at most; once per agent.
///
/// # Errors
/// When there is no list for this architecture.
pub fn compile() -> Result<FilterPrograms, SeccompError> {
    let arch = std::env::consts::ARCH;
    let target = TargetArch::try_from(arch).map_err(|_| SeccompError::Architecture(arch))?;
    let allowed = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    let first = program(
        allowed,
        SeccompAction::Errno(errno(libc::ENOSYS)),
        SeccompAction::Allow,
        target,
    )?;
    let second = program(
        refusals()?,
        SeccompAction::Allow,
        SeccompAction::Errno(errno(libc::EPERM)),
        target,
    )?;
    Ok(FilterPrograms(vec![first, second]))
}

fn errno(number: i32) -> u32 {
    number.cast_unsigned()
}

type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

fn refusals() -> Result<Rules, BackendError> {
    let mut rules: Rules = REFUSED
        .iter()
        .chain(REFUSED_HERE)
        .map(|call| (*call, Vec::new()))
        .collect();
    let mut namespaces = Vec::new();
    for flag in NAMESPACE_FLAGS {
        let bit = u64::from(flag.cast_unsigned());
        let set = condition(SeccompCmpOp::MaskedEq(bit), bit)?;
        namespaces.push(SeccompRule::new(vec![set])?);
    }
    rules.insert(libc::SYS_clone, namespaces);
    let families = FAMILIES.map(i32::cast_unsigned);
    rules.insert(libc::SYS_socket, vec![none_of(&families)?]);
    rules.insert(libc::SYS_personality, vec![none_of(&PERSONALITIES)?]);
    Ok(rules)
}

/// A rule that matches when the first argument is none of `values`.
fn none_of(values: &[u32]) -> Result<SeccompRule, BackendError> {
    let conditions: Result<Vec<_>, _> = values
        .iter()
        .map(|value| condition(SeccompCmpOp::Ne, u64::from(*value)))
        .collect();
    SeccompRule::new(conditions?)
}

fn condition(op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, value)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    listed: SeccompAction,
    target: TargetArch,
) -> Result<Vec<u8>, SeccompError> {
    let filter = SeccompFilter::new(rules, otherwise, listed, target)?;
    let program = BpfProgram::try_from(filter)?;
    if program.len() > INSTRUCTIONS_MAX {
        return Err(SeccompError::TooLong(program.len()));
    }
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION_BYTES);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.push(instruction.jt);
        bytes.push(instruction.jf);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ERRNO: u32 = 0x0005_0000;
    const HERE: u32 = if cfg!(target_arch = "x86_64") {
        0xc000_003e
    } else {
        0xc000_00b7
    };
    const I386: u32 = 0x4000_0003;

    /// What one call looks like to a filter.
    fn call(arch: u32, number: i64, first_argument: u64) -> [u32; 16] {
        let mut data = [0u32; 16];
        data[0] = u32::try_from(number).unwrap();
        data[1] = arch;
        data[4] = u32::try_from(first_argument & 0xffff_ffff).unwrap();
        data[5] = u32::try_from(first_argument >> 32).unwrap();
        data
    }

    /// The kernel's classic BPF machine, as far as these programs use it.
    fn run(program: &[u8], data: &[u32; 16]) -> u32 {
        let mut accumulator = 0u32;
        let mut at = 0usize;
        loop {
            let one = &program[at * INSTRUCTION_BYTES..][..INSTRUCTION_BYTES];
            let code = u16::from_ne_bytes([one[0], one[1]]);
            let k = u32::from_ne_bytes([one[4], one[5], one[6], one[7]]);
            let (yes, no) = (usize::from(one[2]), usize::from(one[3]));
            at += 1;
            match code {
                0x20 => accumulator = data[k as usize / 4],
                0x54 => accumulator &= k,
                0x05 => at += k as usize,
                0x15 => at += if accumulator == k { yes } else { no },
                0x25 => at += if accumulator > k { yes } else { no },
                0x35 => at += if accumulator >= k { yes } else { no },
                0x06 => return k,
                other => panic!("instruction {other:#x} at {at}"),
            }
        }
    }

    /// The kernel's choice among the verdicts: the strictest, of equal ones the last installed.
    fn verdict(programs: &FilterPrograms, data: &[u32; 16]) -> u32 {
        let rank = |verdict: u32| (verdict & 0xffff_0000).cast_signed();
        let verdicts = programs.0.iter().rev().map(|program| run(program, data));
        verdicts
            .reduce(|kept, next| if rank(next) < rank(kept) { next } else { kept })
            .unwrap()
    }

    #[test]
    fn each_call_gets_the_verdict_that_its_kind_deserves() {
        let refused = ERRNO | libc::EPERM.cast_unsigned();
        let absent = ERRNO | libc::ENOSYS.cast_unsigned();
        let new_user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        let cases = [
            ("read", libc::SYS_read, 0, ALLOW),
            ("execve", libc::SYS_execve, 0, ALLOW),
            ("clone for a thread", libc::SYS_clone, 0x3d_0f00, ALLOW),
            ("clone for a user namespace", libc::SYS_clone, new_user | 17, refused),
            ("clone for a mount namespace", libc::SYS_clone, 0x2_0011, refused),
            ("clone3, whose flags no filter can see", libc::SYS_clone3, 0, absent),
            ("mount", libc::SYS_mount, 0, refused),
            ("unshare", libc::SYS_unshare, 0, refused),
            ("setns", libc::SYS_setns, 0, refused),
            ("bpf", libc::SYS_bpf, 0, refused),
            ("keyctl", libc::SYS_keyctl, 0, refused),
            ("ptrace", libc::SYS_ptrace, 0, refused),
            ("io_uring_setup", libc::SYS_io_uring_setup, 0, absent),
            ("a call of the future", 1_000, 0, absent),
            ("unix socket", libc::SYS_socket, 1, ALLOW),
            ("netlink socket", libc::SYS_socket, 16, ALLOW),
            ("vsock socket", libc::SYS_socket, 40, refused),
            ("crypto socket", libc::SYS_socket, 38, refused),
            ("personality, plain", libc::SYS_personality, 0, ALLOW),
            ("personality, asking", libc::SYS_personality, 0xffff_ffff, ALLOW),
            (
                "personality without randomization",
                libc::SYS_personality,
                0x4_0000,
                refused,
            ),
        ];
        let programs = compile().unwrap();
        for (name, number, argument, expected) in cases {
            let found = verdict(&programs, &call(HERE, number, argument));
            assert_eq!(found, expected, "{name}: {found:#x} instead of {expected:#x}");
        }
    }

    #[test]
    fn the_tables_of_other_architectures_are_closed() {
        let programs = compile().unwrap();
        for number in [0, 1, 20, 165] {
            assert_eq!(verdict(&programs, &call(I386, number, 0)), KILL_PROCESS);
            let x32 = verdict(&programs, &call(HERE, number | 0x4000_0000, 0));
            assert_eq!(x32, ERRNO | libc::ENOSYS.cast_unsigned());
        }
    }

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let both: Vec<_> = ALLOWED
            .iter()
            .chain(ALLOWED_HERE)
            .filter(|call| REFUSED.contains(call) || REFUSED_HERE.contains(call))
            .collect();
        assert!(both.is_empty(), "{both:?}");
    }
}
