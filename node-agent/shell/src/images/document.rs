//! The documents of an image: index, manifest, configuration. What they say is checked here,
//! before anything is fetched because of it. Pure.

use crate::images::error::ImageError;
use crate::images::settings::Platform;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The largest index, manifest or configuration; registries refuse larger ones too.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;
/// The most layers: with the step's own and the checkout still far below overlay's 500.
pub(crate) const LAYERS_MAX: usize = 128;

/// What a document is asked for with.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Points at a blob.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<DescribedPlatform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct DescribedPlatform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: String,
}

/// An index or a manifest.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

/// A manifest: the configuration and the layers, lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// An image's configuration, as far as it is used.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    pub(crate) config: Option<Runtime>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Runtime {
    #[serde(default)]
    pub(crate) env: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) user: Option<String>,
    #[serde(default)]
    pub(crate) working_dir: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// `sha256:` and 64 small hexadecimal digits; the digits.
pub(crate) fn check_digest<'a>(image: &str, digest: &'a str) -> Result<&'a str, ImageError> {
    let legal = |hex: &&str| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digest
        .strip_prefix("sha256:")
        .filter(legal)
        .ok_or_else(|| malformed(image, &format!("`{}` is not a sha256 digest", cut(digest))))
}

/// The digest of a document's bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn verify(image: &str, what: &str, expected: &str, bytes: &[u8]) -> Result<(), ImageError> {
    let found = digest_of(bytes);
    if found == expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        image: image.to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}

/// Reads an index or a manifest by what it holds, whatever it is called.
pub(crate) fn parse(image: &str, bytes: &[u8]) -> Result<Document, ImageError> {
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|e| malformed(image, &format!("its manifest is not readable: {e}")))?;
    if raw.schema_version != 2 {
        return Err(malformed(
            image,
            &format!("its manifest has schema version {}, not 2", raw.schema_version),
        ));
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) => {
            check_all(image, manifests.iter())?;
            Ok(Document::Index(manifests))
        }
        (None, Some(config), Some(layers)) => {
            check_all(image, layers.iter().chain([&config]))?;
            check_layers(image, &layers)?;
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        // A document that is both could be one thing to whoever checked it and the other to us.
        _ => Err(malformed(
            image,
            "its manifest is neither an index nor an image's manifest",
        )),
    }
}

fn check_all<'a>(image: &str, descriptors: impl Iterator<Item = &'a Descriptor>) -> Result<(), ImageError> {
    for descriptor in descriptors {
        check_digest(image, &descriptor.digest)?;
    }
    Ok(())
}

fn check_layers(image: &str, layers: &[Descriptor]) -> Result<(), ImageError> {
    if layers.len() > LAYERS_MAX {
        return Err(ImageError::TooLarge {
            image: image.to_owned(),
            what: format!("its number of layers, {},", layers.len()),
            limit: LAYERS_MAX.to_string(),
        });
    }
    for layer in layers {
        if !layer.media_type.contains("tar") || layer.media_type.contains("encrypted") {
            let why = format!(
                "its layer of type `{}` is not a file system's; is it an image?",
                cut(&layer.media_type)
            );
            return Err(malformed(image, &why));
        }
    }
    Ok(())
}

/// Reads the configuration and pairs the layers with the digests of their contents.
pub(crate) fn parse_config(
    image: &str,
    bytes: &[u8],
    manifest: &Manifest,
    platform: &Platform,
) -> Result<(Config, Vec<(Descriptor, String)>), ImageError> {
    let config: Config = serde_json::from_slice(bytes)
        .map_err(|e| malformed(image, &format!("its configuration is not readable: {e}")))?;
    let differs = |found: &str, wanted: &str| !found.is_empty() && found != wanted;
    if differs(&config.os, &platform.os) || differs(&config.architecture, &platform.architecture) {
        return Err(ImageError::NoPlatform {
            image: image.to_owned(),
            wanted: platform.to_string(),
            found: cut(format!("{}/{}", config.os, config.architecture)),
        });
    }
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        let why = format!(
            "its manifest has {} layers and its configuration {}",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        );
        return Err(malformed(image, &why));
    }
    for diff_id in &config.rootfs.diff_ids {
        check_digest(image, diff_id)?;
    }
    let layers = manifest
        .layers
        .iter()
        .cloned()
        .zip(config.rootfs.diff_ids.iter().cloned())
        .collect();
    Ok((config, layers))
}

/// The manifest for `platform`: the first whose platform is the same, the plainest variant first.
pub(crate) fn pick<'a>(
    image: &str,
    manifests: &'a [Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ImageError> {
    let fits = |d: &&Descriptor| {
        d.platform
            .as_ref()
            .is_some_and(|p| p.os == platform.os && p.architecture == platform.architecture)
    };
    // Later variants may need instructions that this machine lacks; `v8` is all there is of arm64.
    let rank = |d: &&Descriptor| match d.platform.as_ref().map_or("", |p| p.variant.as_str()) {
        "" => 0,
        "v1" | "v8" => 1,
        _ => 2,
    };
    if let Some(found) = manifests.iter().filter(fits).min_by_key(rank) {
        return Ok(found);
    }
    match manifests {
        [only] if only.platform.is_none() => Ok(only),
        _ => Err(ImageError::NoPlatform {
            image: image.to_owned(),
            wanted: platform.to_string(),
            found: listed(manifests),
        }),
    }
}

fn listed(manifests: &[Descriptor]) -> String {
    const SHOWN_MAX: usize = 12;
    let platforms = manifests.iter().filter_map(|d| d.platform.as_ref());
    let mut names: Vec<String> = platforms.map(|p| cut(format!("{}/{}", p.os, p.architecture))).collect();
    names.sort();
    names.dedup();
    names.truncate(SHOWN_MAX);
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// The manifest or index of a layout's index that `tag` or, without one, the platform picks.
pub(crate) fn choose(
    image: &str,
    manifests: Vec<Descriptor>,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<Descriptor, ImageError> {
    let mut names: Vec<String> = manifests.iter().filter_map(Descriptor::tag).map(cut).collect();
    names.sort();
    names.dedup();
    let not_found = |why: String| ImageError::NotFound {
        image: image.to_owned(),
        why,
    };
    let mut candidates = manifests;
    if let Some(tag) = tag.or((names.len() > 1 && names.iter().any(|name| name == "latest")).then_some("latest")) {
        candidates.retain(|d| d.tag() == Some(tag));
        if candidates.is_empty() {
            return Err(not_found(format!(
                "the layout has no tag `{tag}`, it has: {}",
                names.join(", ")
            )));
        }
    } else if names.len() > 1 {
        return Err(not_found(format!(
            "the layout holds several images; write one of {} after a `:`",
            names.join(", ")
        )));
    }
    candidates.dedup_by(|a, b| a.digest == b.digest);
    match candidates.as_slice() {
        [] => Err(malformed(image, "its index.json lists no image")),
        // Its configuration or its own index tells the platform.
        [only] => Ok(only.clone()),
        several => pick(image, several, platform).cloned(),
    }
}

impl Descriptor {
    /// The name that an index gives to it. Some programs write the whole reference, most the tag alone.
    fn tag(&self) -> Option<&str> {
        let name = self.annotations.get("org.opencontainers.image.ref.name")?;
        Some(match name.rsplit_once(':') {
            Some((_, tag)) if !tag.contains('/') => tag,
            _ => name,
        })
    }
}

fn cut(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn malformed(image: &str, why: &str) -> ImageError {
    ImageError::Malformed {
        image: image.to_owned(),
        why: why.to_owned(),
    }
}
