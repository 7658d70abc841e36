//! Generates the gRPC types from the proto files, and their description for reflection.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo says where")?);
    tonic_prost_build::configure()
        .codec_path("crate::codec::SmallCodec")
        .file_descriptor_set_path(out.join("buildflow.v1.bin"))
        .compile_protos(
            &["proto/buildflow/v1/fleet.proto", "proto/buildflow/v1/run.proto"],
            &["proto"],
        )?;
    Ok(())
}
