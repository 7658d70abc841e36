//! Images that try to write outside their own root, bring devices, or fill the disk.

use crate::cluster::{Cluster, step};
use crate::image::{entry, write_layout};
use serde_json::json;
use std::fs;
use tar::{Builder, EntryType};

fn raw_entry(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, link: Option<&str>, bytes: &[u8]) {
    // The builder refuses such names, so they are written into the header by hand.
    let mut header = entry(kind, 0o644);
    header.set_size(bytes.len() as u64);
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    if kind == EntryType::Block || kind == EntryType::Char {
        header.set_device_major(1).expect("fits");
        header.set_device_minor(1).expect("fits");
    }
    header.set_cksum();
    tar.append(&header, bytes).expect("appended");
}

/// What is put into a layer.
type Make = Box<dyn Fn(&mut Builder<Vec<u8>>)>;

/// Each way to reach `target`, a folder outside, from inside a layer.
fn hostile_layers(target: &str) -> Vec<(&'static str, Make)> {
    let absolute = format!("{target}/absolute");
    let to = target.to_owned();
    vec![
        (
            "dot-dot",
            Box::new(|t| raw_entry(t, EntryType::Regular, ESCAPED, None, b"x")),
        ),
        (
            "absolute",
            Box::new(move |t| raw_entry(t, EntryType::Regular, &absolute, None, b"x")),
        ),
        (
            "through-link",
            Box::new(move |t| {
                raw_entry(t, EntryType::Symlink, "door", Some(&to), b"");
                raw_entry(t, EntryType::Regular, "door/through", None, b"x");
            }),
        ),
        (
            "hard-link",
            Box::new(|t| raw_entry(t, EntryType::Link, "passwd", Some("../../../../../../etc/shadow"), b"")),
        ),
        (
            "block-device",
            Box::new(|t| raw_entry(t, EntryType::Block, "disk", None, b"")),
        ),
        (
            "char-device",
            Box::new(|t| raw_entry(t, EntryType::Char, "mem", None, b"")),
        ),
    ]
}

/// A name that would lie in the machine's own `/tmp`.
const ESCAPED: &str = "../../../../../../tmp/buildflow-e2e-escaped";

#[test]
fn hostile_layers_are_refused_and_touch_nothing_outside() {
    if !crate::can_run("hostile_layers_are_refused_and_touch_nothing_outside") {
        return;
    }
    let cluster = Cluster::start("");
    let outside = cluster.path().join("outside");
    fs::create_dir(&outside).expect("folder");
    for (name, make) in hostile_layers(&outside.display().to_string()) {
        let mut tar = Builder::new(Vec::new());
        make(&mut tar);
        write_layout(
            &cluster.path().join(format!("images/{name}")),
            &tar.into_inner().expect("tar"),
        );
        let pipeline = format!(
            "stages:\n  - name: one\n    steps:\n      - {{ name: only, image: \"oci:{name}\", run: 'true', checkout: false, resources: {{ memory: 64Mi, disk: 64Mi }} }}\n"
        );
        let run = cluster.ended(&cluster.submit(name, &pipeline));
        assert_eq!(step(&run, "only")["outcome"], json!("start_failed"), "{name}: {run:#}");
        let reached: Vec<_> = fs::read_dir(&outside).expect("folder").flatten().collect();
        assert!(reached.is_empty(), "{name} wrote outside: {reached:?}");
    }
    assert!(!std::path::Path::new("/tmp/buildflow-e2e-escaped").exists());
    cluster.stop_clean();
}

#[test]
fn a_full_disk_while_unpacking_fails_the_step_and_only_it() {
    if !crate::can_run("a_full_disk_while_unpacking_fails_the_step_and_only_it") {
        return;
    }
    // The agent's folder is a file system of 24 MiB; the image needs more.
    let mounted = tempfile::Builder::new()
        .prefix("buildflow-e2e-full-")
        .tempdir()
        .expect("folder");
    nix::mount::mount(
        Some("tmpfs"),
        mounted.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=24m"),
    )
    .expect("mounted");
    let cluster = Cluster::start_with_agent_data(&mounted.path().join("agent"), "");
    let mut tar = crate::image::busybox_builder();
    let mut header = entry(EntryType::Regular, 0o644);
    let big = vec![7u8; 64 << 20];
    header.set_size(big.len() as u64);
    tar.append_data(&mut header, "big", big.as_slice()).expect("appended");
    write_layout(&cluster.path().join("images/big"), &tar.into_inner().expect("tar"));
    let pipeline = |image: &str| {
        format!(
            "stages:\n  - name: one\n    steps:\n      - {{ name: only, image: \"oci:{image}\", run: 'true', resources: {{ memory: 64Mi, disk: 1Mi }} }}\n"
        )
    };
    let run = cluster.ended(&cluster.submit("big", &pipeline("big")));
    let reason = step(&run, "only")["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("disk"), "{reason}");
    // What was half unpacked is gone, so a smaller image still fits.
    let run = cluster.ended(&cluster.submit("small", &pipeline("busybox")));
    assert_eq!(run["status"], json!("success"), "{run:#}");
    drop(cluster);
    nix::mount::umount(mounted.path()).expect("unmounted: nothing of the agent is left on it");
}
