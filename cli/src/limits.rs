//! The limits that the kernel puts on a role's process, and how it gives it memory.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one. A running step costs its agent some
/// descriptors, every reader and every node costs a server one; the usual soft limit of 1,024 is
/// meant for programs that still use `select`. Steps get a limit of their own.
pub(crate) fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(cause) = raised {
        tracing::warn!(%cause, "the limit of open files stays as it is");
    }
}

/// Has this process's memory given in small pages only. A server that waits for a thousand nodes would
/// hold a third more otherwise: pages of 2 MiB of which a corner is in use.
///
/// Not for agents: the processes of steps would inherit it.
pub(crate) fn small_pages() {
    if let Err(cause) = nix::sys::prctl::set_thp_disable(true) {
        tracing::warn!(%cause, "memory is given in huge pages, too");
    }
}
