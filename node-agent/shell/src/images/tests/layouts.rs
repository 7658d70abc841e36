//! What good layouts become.

use super::made::{Layer, MadeLayout, Packing, on_platform, tagged};
use super::{Node, find, read, root_or_skip};
use crate::images::tree::OPAQUE;
use crate::images::{ImageError, Images, Platform};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::process::Command;

fn amd64(settings: &mut crate::images::ImageSettings) {
    settings.platform = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
    };
}

#[tokio::test]
async fn every_packing_gives_the_same_layers() {
    if !root_or_skip("every_packing_gives_the_same_layers") {
        return;
    }
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let node = Node::with(amd64);
        let base = Layer::new()
            .folder("./etc/")
            .file("./etc/name", "base")
            .file("only-base", "1")
            .done();
        let top = Layer::new().file("etc/name", "top").done();
        MadeLayout::single(&node.layouts(), "img", &[(base, packing), (top, packing)]);
        let image = node.images.ensure("oci:img").await.unwrap();
        assert_eq!(image.lowers.len(), 2);
        assert_eq!(
            (read(&image, "etc/name").as_str(), read(&image, "only-base").as_str()),
            ("top", "1"),
            "{packing:?}"
        );
        assert_eq!(image.config.env, ["PATH=/bin", "A=b c"]);
        assert_eq!(
            (image.config.user.as_str(), image.config.working_dir.as_str()),
            ("1000:100", "/srv")
        );
        assert!(image.digest.starts_with("sha256:") && image.bytes_fetched > 0);
        node.assert_nothing_half();
    }
}

#[tokio::test]
async fn owners_modes_times_links_and_capabilities_are_kept() {
    if !root_or_skip("owners_modes_times_links_and_capabilities_are_kept") {
        return;
    }
    let node = Node::with(amd64);
    // cap_net_raw+ep; the value holds a newline, as any bytes may.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let layer = Layer::new()
        .entry(b'0', "sudo", "", b"x", |h| {
            h.set_mode(0o4755);
            h.set_uid(12);
            h.set_gid(34);
        })
        .entry(b'5', "tmp", "", b"", |h| h.set_mode(0o1777))
        .file("tmp/in", "y")
        .hard_link("tmp/again", "tmp/in")
        .symlink("abs", "/etc/passwd")
        .symlink("up", "../../..")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("mtime", b"12.5"),
            ("SCHILY.xattr.user.x", b"1"),
        ])
        .file("ping", "z")
        .pax(&[("path", long.as_bytes())])
        .file("short", "long")
        .entry(b'6', "pipe", "", b"", |_| {})
        .done();
    MadeLayout::single(&node.layouts(), "img", &[(layer, Packing::Gzip)]);
    let image = node.images.ensure("oci:img").await.unwrap();
    let root = &image.lowers[0];
    let meta = |path: &str| root.join(path).symlink_metadata().unwrap();
    assert_eq!(
        (meta("sudo").mode() & 0o7777, meta("sudo").uid(), meta("sudo").gid()),
        (0o4755, 12, 34)
    );
    assert_eq!(
        (meta("tmp").mode() & 0o7777, meta("tmp").mtime()),
        (0o1777, 1_000_000_000)
    );
    assert_eq!(meta("tmp/in").ino(), meta("tmp/again").ino());
    assert_eq!(root.join("abs").read_link().unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(root.join("up").read_link().unwrap().to_str(), Some("../../.."));
    assert_eq!(meta("abs").mtime(), 1_000_000_000);
    assert_eq!((meta("ping").mtime(), meta("ping").mtime_nsec()), (12, 500_000_000));
    let mut value = [0; 64];
    let n = rustix::fs::lgetxattr(root.join("ping"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..n], capability);
    assert!(
        rustix::fs::lgetxattr(root.join("ping"), "user.x", &mut value[..]).is_err(),
        "dropped"
    );
    assert_eq!(std::fs::read_to_string(root.join(long)).unwrap(), "long");
    assert!(!root.join("pipe").exists(), "left out");
}

#[tokio::test]
async fn whiteouts_become_overlays_own() {
    if !root_or_skip("whiteouts_become_overlays_own") {
        return;
    }
    let node = Node::with(amd64);
    let base = Layer::new()
        .file("gone", "1")
        .file("dir/old", "1")
        .file("kept", "1")
        .file("both/old", "1")
        .done();
    let top = Layer::new()
        .file(".wh.gone", "")
        .folder("dir")
        .file("dir/.wh..wh..opq", "")
        .file("dir/new", "2")
        .file("deep/down/.wh.never", "")
        .file(".wh..wh.plnk", "")
        .file(".wh.both", "")
        .folder("both")
        .file("both/new", "2")
        .file("same", "2")
        .file(".wh.same", "")
        .done();
    MadeLayout::single(&node.layouts(), "img", &[(base, Packing::Gzip), (top, Packing::Plain)]);
    let image = node.images.ensure("oci:img").await.unwrap();
    let top = &image.lowers[0];
    for path in ["gone", "deep/down/never"] {
        let meta = top.join(path).symlink_metadata().unwrap();
        assert!(meta.file_type().is_char_device() && meta.rdev() == 0, "{path}");
    }
    for path in ["dir", "both"] {
        let mut value = [0; 4];
        let n = rustix::fs::lgetxattr(top.join(path), OPAQUE, &mut value[..]).unwrap();
        assert_eq!(&value[..n], b"y", "{path}");
    }
    assert_eq!(
        std::fs::read_to_string(top.join("same")).unwrap(),
        "2",
        "a layer does not hide its own"
    );
    let names: Vec<_> = std::fs::read_dir(top)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        !names.iter().any(|name| name.to_string_lossy().starts_with(".wh.")),
        "{names:?}"
    );

    let Some(found) = seen_through_overlay(
        &node,
        &image,
        &["gone", "dir/old", "dir/new", "kept", "both/old", "both/new", "same"],
    ) else {
        return;
    };
    assert_eq!(found, ["dir/new", "kept", "both/new", "same"], "the kernel agrees");
}

/// Which of the paths a mount of the image shows; `None`, said loudly, when it cannot be mounted.
fn seen_through_overlay<'a>(node: &Node, image: &crate::images::ReadyImage, paths: &[&'a str]) -> Option<Vec<&'a str>> {
    let merged = node.home.path().join("merged");
    std::fs::create_dir(&merged).unwrap();
    let lowers = image
        .lowers
        .iter()
        .map(|l| l.display().to_string())
        .collect::<Vec<_>>()
        .join(":");
    let (flags, options) = (nix::mount::MsFlags::empty(), format!("lowerdir={lowers}"));
    let mounted = nix::mount::mount(Some("overlay"), &merged, Some("overlay"), flags, Some(options.as_str()));
    if let Err(error) = mounted {
        eprintln!("SKIPPED the mount of whiteouts_become_overlays_own: overlay cannot be mounted: {error}");
        return None;
    }
    let seen = |path: &&&str| merged.join(path).symlink_metadata().is_ok();
    let found = paths.iter().filter(seen).copied().collect();
    nix::mount::umount(&merged).unwrap();
    Some(found)
}

#[tokio::test]
async fn a_root_that_hides_everything_ends_the_stack() {
    if !root_or_skip("a_root_that_hides_everything_ends_the_stack") {
        return;
    }
    let node = Node::with(amd64);
    let base = Layer::new().file("old", "1").done();
    let middle = Layer::new().file(".wh..wh..opq", "").file("new", "2").done();
    let top = Layer::new().file("x", "3").done();
    MadeLayout::single(
        &node.layouts(),
        "img",
        &[base, middle, top].map(|tar| (tar, Packing::Gzip)),
    );
    let image = node.images.ensure("oci:img").await.unwrap();
    assert_eq!(image.lowers.len(), 2);
    assert!(find(&image, "old").is_none() && find(&image, "new").is_some());
}

#[tokio::test]
async fn a_layer_that_stands_twice_is_given_once() {
    if !root_or_skip("a_layer_that_stands_twice_is_given_once") {
        return;
    }
    let node = Node::with(amd64);
    let (a, b) = (Layer::new().file("f", "a").done(), Layer::new().file("f", "b").done());
    let layers = [a.clone(), b, a].map(|tar| (tar, Packing::Gzip));
    MadeLayout::single(&node.layouts(), "img", &layers);
    let image = node.images.ensure("oci:img").await.unwrap();
    assert_eq!((image.lowers.len(), read(&image, "f").as_str()), (2, "a"));
}

#[tokio::test]
async fn the_platform_picks_from_an_index() {
    if !root_or_skip("the_platform_picks_from_an_index") {
        return;
    }
    let node = Node::with(amd64);
    let layout = MadeLayout::new(&node.layouts(), "img");
    let arm = layout.image_for("arm64", &[(Layer::new().file("arch", "arm").done(), Packing::Gzip)]);
    let amd = layout.image_for("amd64", &[(Layer::new().file("arch", "amd").done(), Packing::Gzip)]);
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [on_platform(arm.clone(), "arm64"), on_platform(amd.clone(), "amd64")],
    });
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.to_string().as_bytes());
    layout.index(&[index]);
    assert_eq!(
        read(&node.images.ensure("oci:img").await.unwrap(), "arch"),
        "amd",
        "through an index of its own"
    );
    layout.index(&[on_platform(arm.clone(), "arm64"), on_platform(amd, "amd64")]);
    assert_eq!(read(&node.images.ensure("oci:img").await.unwrap(), "arch"), "amd");
    for manifests in [vec![on_platform(arm.clone(), "arm64")], vec![arm.clone()]] {
        layout.index(&manifests);
        let error = node.images.ensure("oci:img").await.unwrap_err();
        assert!(
            matches!(&error, ImageError::NoPlatform { found, .. } if found.contains("arm64")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn tags_of_a_layout_are_found_by_name() {
    if !root_or_skip("tags_of_a_layout_are_found_by_name") {
        return;
    }
    let node = Node::with(amd64);
    let layout = MadeLayout::new(&node.layouts(), "dir/img");
    let image = |text: &str| layout.image(&[(Layer::new().file("v", text).done(), Packing::Gzip)]);
    let (one, two) = (tagged(image("1"), "one"), tagged(image("2"), "docker.io/x/y:two"));
    layout.index(&[one.clone(), two.clone()]);
    assert_eq!(read(&node.images.ensure("oci:dir/img:one").await.unwrap(), "v"), "1");
    assert_eq!(read(&node.images.ensure("oci:dir/img:two").await.unwrap(), "v"), "2");
    let absolute = format!("oci:{}:two", layout.dir.display());
    assert_eq!(read(&node.images.ensure(&absolute).await.unwrap(), "v"), "2");
    let error = node.images.ensure("oci:dir/img:three").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::NotFound { why, .. } if why.contains("one, two") || why.contains("two, one")),
        "{error}"
    );
    let error = node.images.ensure("oci:dir/img").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::NotFound { why, .. } if why.contains("several images")),
        "{error}"
    );
    layout.index(&[tagged(image("3"), "latest"), two]);
    assert_eq!(
        read(&node.images.ensure("oci:dir/img").await.unwrap(), "v"),
        "3",
        "a changed layout is read again"
    );
}

#[tokio::test]
async fn a_layout_in_a_tar_is_read_in_place() {
    if !root_or_skip("a_layout_in_a_tar_is_read_in_place") {
        return;
    }
    let node = Node::with(amd64);
    let layout = MadeLayout::single(
        &node.layouts(),
        "img",
        &[(Layer::new().file("v", "in a tar").done(), Packing::Zstd)],
    );
    let tar = |flags: &str, name: &str| {
        let made = Command::new("tar")
            .args([flags, name, "-C", "img", "."])
            .current_dir(node.layouts())
            .status();
        assert!(made.unwrap().success());
    };
    tar("-cf", "img.tar");
    tar("-czf", "packed.tar");
    std::fs::remove_dir_all(&layout.dir).unwrap();
    assert_eq!(read(&node.images.ensure("oci:img.tar").await.unwrap(), "v"), "in a tar");
    let error = node.images.ensure("oci:packed.tar").await.unwrap_err();
    assert!(
        matches!(&error, ImageError::Malformed { why, .. } if why.contains("uncompressed tar")),
        "{error}"
    );
}

#[tokio::test]
async fn layouts_outside_of_the_allowed_folders_are_refused() {
    let node = Node::with(amd64);
    let outside = tempfile::tempdir().unwrap();
    MadeLayout::single(outside.path(), "img", &[(Layer::new().done(), Packing::Gzip)]);
    std::os::unix::fs::symlink(outside.path().join("img"), node.layouts().join("link")).unwrap();
    for reference in [
        format!("oci:{}/img", outside.path().display()),
        "oci:link".into(),
        "oci:../store".into(),
    ] {
        let error = node.images.ensure(&reference).await.unwrap_err();
        assert!(
            matches!(error, ImageError::IllegalReference { .. }),
            "{reference}: {error}"
        );
    }
    let error = node.images.ensure("oci:nothing").await.unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    std::fs::create_dir(node.layouts().join("empty")).unwrap();
    let error = node.images.ensure("oci:empty").await.unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    nix::unistd::mkfifo(&node.layouts().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    node.images.ensure("oci:pipe").await.unwrap_err();
}

#[tokio::test]
async fn a_warm_image_reads_nothing_and_is_quick() {
    if !root_or_skip("a_warm_image_reads_nothing_and_is_quick") {
        return;
    }
    let node = Node::with(amd64);
    let layout = MadeLayout::single(
        &node.layouts(),
        "img",
        &[(Layer::new().file("a", "1").done(), Packing::Gzip)],
    );
    let first = node.images.ensure("oci:img").await.unwrap();
    // With the blobs gone only what is remembered can answer.
    std::fs::remove_dir_all(layout.dir.join("blobs")).unwrap();
    for _ in 0..100 {
        let again = node.images.ensure("oci:img").await.unwrap();
        assert_eq!((again.bytes_fetched, &again.lowers), (0, &first.lowers));
    }
}

#[tokio::test]
async fn requests_at_the_same_time_unpack_once() {
    if !root_or_skip("requests_at_the_same_time_unpack_once") {
        return;
    }
    let node = Node::with(amd64);
    let big = "x".repeat(3_000_000);
    MadeLayout::single(
        &node.layouts(),
        "img",
        &[(Layer::new().file("a", &big).done(), Packing::Gzip)],
    );
    let asks = (0..12).map(|_| {
        let images = node.images.clone();
        tokio::spawn(async move { images.ensure("oci:img").await.unwrap() })
    });
    let mut fetched = 0;
    for ask in asks.collect::<Vec<_>>() {
        fetched += usize::from(ask.await.unwrap().bytes_fetched > 0);
    }
    assert_eq!((fetched, node.layers()), (1, 1));
    node.assert_nothing_half();
}

#[tokio::test]
async fn a_start_removes_what_was_half_unpacked_and_keeps_the_rest() {
    if !root_or_skip("a_start_removes_what_was_half_unpacked_and_keeps_the_rest") {
        return;
    }
    let node = Node::with(|settings| {
        amd64(settings);
        settings.bytes_max = 1;
    });
    let image = |name: &str| {
        MadeLayout::single(
            &node.layouts(),
            name,
            &[(Layer::new().file(name, name).done(), Packing::Gzip)],
        );
    };
    image("one");
    image("two");
    let one = node.images.ensure("oci:one").await.unwrap();
    let two = node.images.ensure("oci:two").await.unwrap();
    assert_eq!(node.layers(), 2, "both in use, whatever the budget");
    let half = node.images.root().join("temporary/draft-1-1");
    std::fs::create_dir_all(half.join("etc")).unwrap();

    let mut settings = crate::images::ImageSettings::new(node.images.root());
    amd64(&mut settings);
    settings.bytes_max = 1;
    settings.layout_dirs = vec![node.layouts()];
    let later = Images::open(settings).unwrap();
    assert!(!half.exists());
    let held = later.adopt(&[one.lowers[0].clone(), "/elsewhere".into()]);
    image("three");
    let three = later.ensure("oci:three").await.unwrap();
    assert!(one.lowers[0].exists(), "in use by a step that outlived the agent");
    assert!(!two.lowers[0].exists(), "nobody needs it");
    drop((held, three));
    image("four");
    later.ensure("oci:four").await.unwrap();
    assert!(!one.lowers[0].exists());
}
