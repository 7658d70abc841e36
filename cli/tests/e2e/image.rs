//! OCI image layouts made by hand: a busybox to run steps in, and layers with whatever a test wants.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

/// Writes bytes into the layout under their digest; answers `(digest, size)`.
fn add_blob(layout: &Path, bytes: &[u8]) -> (String, usize) {
    let digest = hex::encode(Sha256::digest(bytes));
    let folder = layout.join("blobs/sha256");
    fs::create_dir_all(&folder).expect("blobs folder");
    fs::write(folder.join(&digest), bytes).expect("blob");
    (format!("sha256:{digest}"), bytes.len())
}

/// A layout with one image of one plain-tar layer.
pub(crate) fn write_layout(layout: &Path, layer: &[u8]) {
    let (layer_digest, layer_size) = add_blob(layout, layer);
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [layer_digest] },
    });
    let (config_digest, config_size) = add_blob(layout, config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size }],
    });
    let (digest, size) = add_blob(layout, manifest.to_string().as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size }],
    });
    fs::write(layout.join("index.json"), index.to_string()).expect("index");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
}

/// A tar with busybox, its applets as links, and the folders a root file system has.
pub(crate) fn busybox_layer() -> Vec<u8> {
    busybox_builder().into_inner().expect("tar")
}

/// The same, open for more entries.
pub(crate) fn busybox_builder() -> tar::Builder<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for folder in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "workspace"] {
        let mut header = entry(tar::EntryType::Directory, if folder == "tmp" { 0o1777 } else { 0o755 });
        tar.append_data(&mut header, folder, std::io::empty()).expect("folder");
    }
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut header = entry(tar::EntryType::Regular, 0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", busybox.as_slice())
        .expect("busybox");
    for applet in APPLETS {
        let mut header = entry(tar::EntryType::Symlink, 0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")
            .expect("link");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nbuilder:x:1000:1000::/workspace:/bin/sh\n";
    let mut header = entry(tar::EntryType::Regular, 0o644);
    header.set_size(passwd.len() as u64);
    tar.append_data(&mut header, "etc/passwd", passwd.as_slice())
        .expect("passwd");
    tar
}

/// The applets that the tests' scripts use.
const APPLETS: &[&str] = &[
    "sh",
    "cat",
    "echo",
    "true",
    "false",
    "sleep",
    "seq",
    "dd",
    "tr",
    "head",
    "ls",
    "id",
    "env",
    "kill",
    "mknod",
    "mount",
    "touch",
    "rm",
    "grep",
    "yes",
    "test",
    "pwd",
    "date",
    "wc",
    "sort",
    "mkdir",
    "ln",
    "chmod",
    "stat",
    "hostname",
    "ip",
    "ifconfig",
    "ps",
    "printf",
    "awk",
    "sed",
    "md5sum",
    "sha256sum",
];

/// A tar header with fixed times and owners, so that a layer's digest depends on its content only.
pub(crate) fn entry(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}
