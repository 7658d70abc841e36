//! The gRPC interface, generated from `proto/`, and its conversions from and to the nouns of `model`.
//!
//! Not here: servers, clients, authentication.

pub mod codec;

/// Package `buildflow.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::too_many_lines,
    reason = "generated from proto/buildflow/v1, where the messages are described"
)]
pub mod v1 {
    tonic::include_proto!("buildflow.v1");
}

/// The proto files as a `google.protobuf.FileDescriptorSet`, for reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("buildflow.v1");

/// What every message can do, e.g. tell its encoded length.
pub use prost::Message;
/// Values that are as free as JSON's: `google.protobuf.Struct` and what is in one.
pub use prost_types::{ListValue, Struct, Value, value};

/// The most bytes of log in one message.
pub const LOG_DATA_MAX: usize = 256 * 1024;

/// The largest message either side accepts, bytes: a step's definition with 2 MiB of environment fits.
pub const MESSAGE_MAX: usize = 8 * 1024 * 1024;

impl From<model::Fence> for v1::Fence {
    fn from(fence: model::Fence) -> Self {
        Self {
            epoch: fence.epoch,
            counter: fence.counter,
        }
    }
}

impl From<v1::Fence> for model::Fence {
    fn from(fence: v1::Fence) -> Self {
        Self {
            epoch: fence.epoch,
            counter: fence.counter,
        }
    }
}

impl From<model::Resources> for v1::Resources {
    fn from(r: model::Resources) -> Self {
        Self {
            cpu_millis: r.cpu_millis,
            memory_bytes: r.memory_bytes,
            disk_bytes: r.disk_bytes,
        }
    }
}

impl From<v1::Resources> for model::Resources {
    fn from(r: v1::Resources) -> Self {
        Self {
            cpu_millis: r.cpu_millis,
            memory_bytes: r.memory_bytes,
            disk_bytes: r.disk_bytes,
        }
    }
}
