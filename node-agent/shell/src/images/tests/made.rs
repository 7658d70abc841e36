//! Builds layers and layouts byte by byte, legal or not.

use crate::images::document::digest_of;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A tar that is written without anybody checking it.
pub(super) struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// An entry with every field chosen.
    pub(super) fn entry(
        mut self,
        kind: u8,
        name: &str,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        {
            let old = header.as_old_mut();
            let n = name.len().min(old.name.len());
            old.name[..n].copy_from_slice(&name.as_bytes()[..n]);
            let n = link.len().min(old.linkname.len());
            old.linkname[..n].copy_from_slice(&link.as_bytes()[..n]);
            old.linkflag = [kind];
        }
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        let padding = data.len().next_multiple_of(512) - data.len();
        self.bytes.resize(self.bytes.len() + padding, 0);
        self
    }

    pub(super) fn file(self, name: &str, text: &str) -> Self {
        self.entry(b'0', name, "", text.as_bytes(), |_| {})
    }

    pub(super) fn folder(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"", |header| header.set_mode(0o755))
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"", |_| {})
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"", |_| {})
    }

    /// An extended header for the entry that follows.
    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest..).find(|n| n.to_string().len() + rest == *n).unwrap();
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry(b'x', "pax", "", &body, |_| {})
    }

    pub(super) fn done(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub(super) fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => zstd::stream::encode_all(tar, 1).unwrap(),
    }
}

/// A layout folder.
pub(super) struct MadeLayout {
    pub(super) dir: PathBuf,
}

impl MadeLayout {
    pub(super) fn new(layouts: &Path, name: &str) -> Self {
        let dir = layouts.join(name);
        std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir }
    }

    pub(super) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest_of(bytes);
        std::fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    pub(super) fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir
            .join("blobs/sha256")
            .join(digest.strip_prefix("sha256:").unwrap())
    }

    /// An image of these layers, lowest first; its descriptor.
    pub(super) fn image(&self, layers: &[(Vec<u8>, Packing)]) -> Value {
        self.image_for("amd64", layers)
    }

    pub(super) fn image_for(&self, architecture: &str, layers: &[(Vec<u8>, Packing)]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| digest_of(tar)).collect();
        self.image_with(architecture, layers, &diff_ids)
    }

    pub(super) fn image_with(&self, architecture: &str, layers: &[(Vec<u8>, Packing)], diff_ids: &[String]) -> Value {
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": { "Env": ["PATH=/bin", "A=b c"], "User": "1000:100", "WorkingDir": "/srv" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layers: Vec<Value> = layers
            .iter()
            .map(|(tar, packing)| {
                let kind = match packing {
                    Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
                    Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
                    Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
                };
                self.blob(kind, &pack(tar, *packing))
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        )
    }

    pub(super) fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        // A new file every time, as programs that write layouts do.
        let fresh = self.dir.join("index.json.new");
        std::fs::write(&fresh, index.to_string()).unwrap();
        std::fs::rename(fresh, self.dir.join("index.json")).unwrap();
    }

    /// A layout with one image.
    pub(super) fn single(layouts: &Path, name: &str, layers: &[(Vec<u8>, Packing)]) -> Self {
        let layout = Self::new(layouts, name);
        let image = layout.image(layers);
        layout.index(&[image]);
        layout
    }
}

pub(super) fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    descriptor
}

pub(super) fn on_platform(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}
