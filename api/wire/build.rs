//! Generates the gRPC types from the proto files.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .codec_path("crate::codec::SmallCodec")
        .compile_protos(&["proto/buildflow/v1/fleet.proto"], &["proto"])?;
    Ok(())
}
