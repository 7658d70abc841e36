//! Waiting until a descriptor is readable, without polling it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Something that owns a descriptor, registered with the event loop.
pub(crate) struct Readable<T: AsFd>(AsyncFd<Owner<T>>);

pub(crate) struct Owner<T>(T);

impl<T: AsFd> AsRawFd for Owner<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<T: AsFd> Readable<T> {
    /// Registers `inner` with the event loop of the calling task.
    pub(crate) fn new(inner: T) -> io::Result<Self> {
        #[allow(
            deprecated,
            reason = "its successor is unsafe, for types whose descriptor may change or close while they live; \
                      those here own one descriptor from beginning to end"
        )]
        let fd = AsyncFd::with_interest(Owner(inner), Interest::READABLE)?;
        Ok(Self(fd))
    }

    pub(crate) fn get(&self) -> &T {
        &self.0.get_ref().0
    }

    /// Until there is something to read; the guard is to be cleared once there is nothing more.
    pub(crate) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, Owner<T>>> {
        self.0.readable().await
    }
}
