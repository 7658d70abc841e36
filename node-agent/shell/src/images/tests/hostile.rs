//! What no image may do: each kind is refused by name, and leaves nothing.

use super::made::{Layer, MadeLayout, Packing, pack};
use super::{Node, root_or_skip};
use crate::images::document::digest_of;
use crate::images::tree::{self, Fault};
use crate::images::{ImageError, Platform};
use serde_json::json;
use std::io::Read;
use std::path::Path;

fn node() -> Node {
    Node::with(|settings| {
        settings.platform = Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
        };
        settings.layer_bytes_max = 8 << 20;
    })
}

/// A file outside of the store that attacks aim at.
struct Victim {
    dir: tempfile::TempDir,
}

impl Victim {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "untouched").unwrap();
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn assert_untouched(&self, case: &str) {
        assert_eq!(
            std::fs::read_to_string(self.dir.path().join("file")).unwrap(),
            "untouched",
            "{case}"
        );
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 1, "{case}");
    }
}

/// What it is, the layer, and a word of the refusal.
type Case = (&'static str, Layer, &'static str);

fn hostile_links(target: &str, file: &str) -> Vec<Case> {
    vec![
        ("dot dot", Layer::new().file("a/../../x", "x"), "`..`"),
        ("dot dot alone", Layer::new().folder(".."), "`..`"),
        ("an absolute name", Layer::new().file(file, "x"), "absolute"),
        (
            "through a link",
            Layer::new().symlink("l", target).file("l/file", "x"),
            "symbolic link",
        ),
        (
            "through a link by a folder",
            Layer::new().symlink("l", target).folder("l/new/deep"),
            "symbolic link",
        ),
        (
            "through a link with dots",
            Layer::new()
                .folder("d")
                .symlink("d/l", "../../../..")
                .file("d/l/tmp/x", "x"),
            "symbolic link",
        ),
        (
            "through a file",
            Layer::new().file("f", "x").file("f/x", "x"),
            "not a folder",
        ),
        ("a hard link outside", Layer::new().hard_link("h", file), "absolute"),
        ("a hard link up", Layer::new().hard_link("h", "../../x"), "`..`"),
        (
            "a hard link through a link",
            Layer::new().symlink("l", target).hard_link("h", "l/file"),
            "symbolic link",
        ),
        (
            "a hard link to nothing",
            Layer::new().hard_link("h", "none"),
            "not in the same layer",
        ),
        (
            "a hard link to nothing deep",
            Layer::new().hard_link("h", "none/none"),
            "not in the same layer",
        ),
        (
            "a hard link to a folder",
            Layer::new().folder("d").hard_link("h", "d"),
            "no file",
        ),
        (
            "a hard link to the root",
            Layer::new().hard_link("h", "."),
            "root folder",
        ),
    ]
}

fn hostile_names(target: &str) -> Vec<Case> {
    let long = "n".repeat(5_000);
    let part = "p".repeat(256);
    let device = |kind| Layer::new().entry(kind, "dev/sda", "", b"", |h| h.set_device_major(8).unwrap());
    vec![
        ("a character device", device(b'3'), "device"),
        ("a block device", device(b'4'), "device"),
        (
            "a whiteout made by hand",
            Layer::new().entry(b'3', "x", "", b"", |_| {}),
            "device",
        ),
        (
            "a whiteout of dot dot",
            Layer::new().file(".wh...", ""),
            "hides nothing",
        ),
        (
            "a whiteout of nothing",
            Layer::new().file("d/.wh.", ""),
            "hides nothing",
        ),
        (
            "a whiteout through a link",
            Layer::new().symlink("l", target).file("l/.wh.file", ""),
            "symbolic link",
        ),
        (
            "opaque through a link",
            Layer::new().symlink("l", target).file("l/.wh..wh..opq", ""),
            "symbolic link",
        ),
        (
            "a full folder replaced",
            Layer::new().file("d/x", "").symlink("d", target),
            "not empty",
        ),
        ("a file for the root", Layer::new().file("./", "x"), "root folder"),
        ("a link for the root", Layer::new().symlink(".", target), "root folder"),
        (
            "a long name",
            Layer::new().pax(&[("path", long.as_bytes())]).file("s", ""),
            "4095",
        ),
        (
            "a long part",
            Layer::new().pax(&[("path", part.as_bytes())]).file("s", ""),
            "255",
        ),
        (
            "a zero in a name",
            Layer::new().pax(&[("path", b"a\0b")]).file("s", ""),
            "zero byte",
        ),
        (
            "an unknown kind",
            Layer::new().entry(b'Z', "x", "", b"", |_| {}),
            "unknown",
        ),
        ("an empty link", Layer::new().symlink("l", ""), "empty"),
        (
            "a huge owner",
            Layer::new().pax(&[("uid", b"4294967296")]).file("s", ""),
            "owner",
        ),
        (
            "no owner",
            Layer::new().pax(&[("gid", b"4294967295")]).file("s", ""),
            "owner",
        ),
    ]
}

#[tokio::test]
async fn hostile_entries_are_refused_by_name() {
    if !root_or_skip("hostile_entries_are_refused_by_name") {
        return;
    }
    let victim = Victim::new();
    let (target, file) = (victim.path(), format!("{}/file", victim.path()));
    let cases = hostile_links(&target, &file).into_iter().chain(hostile_names(&target));
    let node = node();
    for (n, (case, layer, why)) in cases.into_iter().enumerate() {
        let name = format!("img{n}");
        MadeLayout::single(&node.layouts(), &name, &[(layer.done(), Packing::Gzip)]);
        let error = node
            .images
            .ensure(&format!("oci:{name}"))
            .await
            .map(|_| case)
            .unwrap_err();
        assert!(
            matches!(&error, ImageError::Hostile { why: found, .. } if found.contains(why)),
            "{case}: {error}"
        );
        victim.assert_untouched(case);
        node.assert_nothing_half();
        assert_eq!(node.layers(), 0, "{case}");
    }
}

#[tokio::test]
async fn a_file_that_replaces_a_link_stays_inside() {
    if !root_or_skip("a_file_that_replaces_a_link_stays_inside") {
        return;
    }
    let (victim, node) = (Victim::new(), node());
    let file = format!("{}/file", victim.path());
    let layer = Layer::new()
        .symlink("x", &file)
        .file("x", "mine")
        .symlink("y", &victim.path())
        .folder("y")
        .file("y/file", "mine")
        .symlink("z", &file)
        .hard_link("h", "z")
        .done();
    MadeLayout::single(&node.layouts(), "img", &[(layer, Packing::Gzip)]);
    let image = node.images.ensure("oci:img").await.unwrap();
    assert_eq!(std::fs::read_to_string(image.lowers[0].join("x")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(image.lowers[0].join("y/file")).unwrap(), "mine");
    assert!(
        image.lowers[0].join("h").symlink_metadata().unwrap().is_symlink(),
        "a link to the link itself"
    );
    victim.assert_untouched("replaced links");
}

type Damage = fn(&Path);

#[tokio::test]
async fn damaged_layers_are_never_used() {
    if !root_or_skip("damaged_layers_are_never_used") {
        return;
    }
    let tar = Layer::new().file("a", &"some text ".repeat(1000)).done();
    let damage: [(&str, Damage); 4] = [
        ("changed", |blob| {
            let mut bytes = std::fs::read(blob).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(blob, bytes).unwrap();
        }),
        ("truncated", |blob| {
            let bytes = std::fs::read(blob).unwrap();
            std::fs::write(blob, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("emptied", |blob| std::fs::write(blob, "").unwrap()),
        ("another layer", |blob| {
            std::fs::write(blob, pack(&Layer::new().file("b", "evil").done(), Packing::Gzip)).unwrap();
        }),
    ];
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        for (case, damage) in damage {
            let node = node();
            let layout = MadeLayout::single(&node.layouts(), "img", &[(tar.clone(), packing)]);
            let digest = digest_of(&pack(&tar, packing));
            damage(&layout.blob_path(&digest));
            let error = node.images.ensure("oci:img").await.unwrap_err();
            assert!(
                matches!(&error, ImageError::DigestMismatch { expected, .. } if *expected == digest)
                    || matches!(&error, ImageError::Malformed { why, .. } if why.contains("longer")),
                "{case} {packing:?}: {error}"
            );
            assert_eq!(node.layers(), 0);
            node.assert_nothing_half();
        }
    }
}

#[tokio::test]
async fn a_layer_with_other_contents_than_promised_is_refused() {
    if !root_or_skip("a_layer_with_other_contents_than_promised_is_refused") {
        return;
    }
    let node = node();
    let layout = MadeLayout::new(&node.layouts(), "img");
    let promised = digest_of(b"something else");
    let layer = (Layer::new().file("a", "1").done(), Packing::Gzip);
    let image = layout.image_with("amd64", &[layer], std::slice::from_ref(&promised));
    layout.index(&[image]);
    let error = node.images.ensure("oci:img").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::DigestMismatch { expected, .. } if *expected == promised),
        "{error}"
    );
    assert_eq!(node.layers(), 0);
}

#[tokio::test]
async fn a_bomb_ends_at_the_limit() {
    if !root_or_skip("a_bomb_ends_at_the_limit") {
        return;
    }
    let big = Layer::new().file("zeroes", &"\0".repeat(64 << 20)).done();
    for packing in [Packing::Gzip, Packing::Zstd] {
        let node = node();
        assert!(pack(&big, packing).len() < 1 << 20, "it is a bomb");
        MadeLayout::single(&node.layouts(), "img", &[(big.clone(), packing)]);
        let error = node.images.ensure("oci:img").await.unwrap_err();
        assert!(
            matches!(&error, ImageError::TooLarge { limit, .. } if limit.starts_with("8388608")),
            "{error}"
        );
        node.assert_nothing_half();
    }
}

/// The same bytes again and again.
struct Endless {
    bytes: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = (&self.bytes[self.at..]).read(buffer)?;
        self.at = (self.at + count) % self.bytes.len();
        Ok(count)
    }
}

#[test]
fn folders_without_end_take_no_memory_without_end() {
    let name = vec!["n".repeat(250); 16].join("/");
    let mut bytes = Layer::new().pax(&[("path", name.as_bytes())]).folder("short").done();
    bytes.truncate(bytes.len() - 1024); // the zeroes that would end it
    let root = tempfile::tempdir().unwrap();
    let fault = tree::lay_out(Endless { bytes, at: 0 }, root.path()).unwrap_err();
    let expected = format!("{} bytes", tree::FOLDER_NAMES_BYTES_MAX);
    assert!(
        matches!(&fault, Fault::TooLarge { limit, .. } if *limit == expected),
        "{fault:?}"
    );
}

#[tokio::test]
async fn sizes_that_lie_are_noticed() {
    if !root_or_skip("sizes_that_lie_are_noticed") {
        return;
    }
    let lying = Layer::new()
        .entry(b'0', "a", "", b"short", |h| h.set_size(1 << 40))
        .done();
    let sparse = Layer::new().entry(b'S', "a", "", b"x", |_| {}).done();
    let pax_sparse = Layer::new()
        .pax(&[("GNU.sparse.realsize", b"1099511627776")])
        .file("a", "x")
        .done();
    let endless_name = Layer::new().entry(b'L', "x", "", b"", |h| h.set_size(1 << 40)).done();
    let no_tar = b"this is no tar at all".repeat(100);
    for (case, tar) in [
        ("lying", lying),
        ("sparse", sparse),
        ("sparse by an extended header", pax_sparse),
        ("an endless name", endless_name),
        ("no tar", no_tar),
    ] {
        let node = node();
        MadeLayout::single(&node.layouts(), "img", &[(tar, Packing::Gzip)]);
        let error = node.images.ensure("oci:img").await.unwrap_err();
        assert!(matches!(error, ImageError::Malformed { .. }), "{case}: {error}");
        node.assert_nothing_half();
    }
}

#[tokio::test]
async fn documents_that_make_no_sense_are_refused() {
    let node = node();
    let layout = MadeLayout::new(&node.layouts(), "img");
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar", &Layer::new().done());
    let config = layout.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let manifest = |value: serde_json::Value| layout.blob("x", value.to_string().as_bytes());
    let many: Vec<_> = (0..129).map(|_| layer.clone()).collect();
    let mut helm = layer.clone();
    helm["mediaType"] = json!("application/vnd.cncf.helm.chart.content.v1");
    let mut odd_digest = layer.clone();
    odd_digest["digest"] = json!("sha256:../../../../etc/passwd");
    let cases = [
        ("not JSON", layout.blob("x", b"<html>")),
        ("deep JSON", layout.blob("x", "[".repeat(100_000).as_bytes())),
        (
            "both",
            manifest(json!({"schemaVersion": 2, "manifests": [], "config": config, "layers": [layer]})),
        ),
        ("neither", manifest(json!({"schemaVersion": 2}))),
        (
            "old",
            manifest(json!({"schemaVersion": 1, "config": config, "layers": [layer]})),
        ),
        (
            "many",
            manifest(json!({"schemaVersion": 2, "config": config, "layers": many})),
        ),
        (
            "a chart",
            manifest(json!({"schemaVersion": 2, "config": config, "layers": [helm]})),
        ),
        (
            "odd digest",
            manifest(json!({"schemaVersion": 2, "config": config, "layers": [odd_digest]})),
        ),
        (
            "no rootfs",
            manifest(json!({"schemaVersion": 2, "config": config, "layers": [layer]})),
        ),
        (
            "no blob",
            json!({"mediaType": "x", "digest": format!("sha256:{}", "0".repeat(64)), "size": 1}),
        ),
    ];
    for (case, descriptor) in cases {
        layout.index(&[descriptor]);
        let error = node.images.ensure("oci:img").await.unwrap_err();
        assert!(
            matches!(error, ImageError::Malformed { .. } | ImageError::TooLarge { .. }),
            "{case}: {error}"
        );
    }
    // An index that leads to itself cannot be made; one that is changed on disk is noticed.
    let honest = layout.image(&[(Layer::new().done(), Packing::Plain)]);
    let digest = honest["digest"].as_str().unwrap().to_owned();
    std::fs::write(layout.blob_path(&digest), r#"{"schemaVersion":2}"#).unwrap();
    layout.index(&[honest]);
    let error = node.images.ensure("oci:img").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::DigestMismatch { expected, .. } if *expected == digest),
        "{error}"
    );
    std::fs::write(layout.dir.join("index.json"), vec![b' '; 5 << 20]).unwrap();
    let error = node.images.ensure("oci:img").await.unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_half() {
    if !root_or_skip("a_full_disk_leaves_nothing_half") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let store = home.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let mounted = nix::mount::mount(
        Some("tmpfs"),
        &store,
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=2m"),
    );
    if let Err(error) = mounted {
        eprintln!("SKIPPED a_full_disk_leaves_nothing_half: a tmpfs cannot be mounted: {error}");
        return;
    }
    let outcome = tokio::spawn({
        let (home, store) = (home.path().to_owned(), store.clone());
        async move {
            let mut settings = crate::images::ImageSettings::new(&store);
            settings.layout_dirs = vec![home.join("layouts")];
            settings.platform.architecture = "amd64".into();
            let images = crate::images::Images::open(settings).unwrap();
            let big = Layer::new().file("small", "1").file("big", &"x".repeat(4 << 20)).done();
            MadeLayout::single(&home.join("layouts"), "big", &[(big, Packing::Gzip)]);
            MadeLayout::single(
                &home.join("layouts"),
                "small",
                &[(Layer::new().file("a", "1").done(), Packing::Gzip)],
            );
            let error = images.ensure("oci:big").await.unwrap_err();
            assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
            for folder in ["temporary", "layers"] {
                assert_eq!(std::fs::read_dir(store.join(folder)).unwrap().count(), 0, "{folder}");
            }
            // And the room is there again.
            images.ensure("oci:small").await.unwrap();
        }
    })
    .await;
    nix::mount::umount(&store).unwrap();
    outcome.unwrap();
}
