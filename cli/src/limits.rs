//! The limits that the kernel puts on a role's process.

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
