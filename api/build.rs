//! Embeds what `page/` was built into, so that the program serves its page from itself.
//!
//! Writes a table of the files with their media types, as they are and compressed. Where the page
//! was not built the table is empty and the program says so; nothing here runs npm.

use flate2::{Compression, write::GzEncoder};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Where the page's build leaves its files; the folder itself is in the tree, so that it can be watched.
const BUILT: &str = "../page/dist";

/// What keeps the folder in the tree.
const KEEP: &str = ".gitkeep";

fn main() {
    println!("cargo::rerun-if-changed={BUILT}");
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where"));
    let built = manifest.join(BUILT);
    let mut files = Vec::new();
    find(&built, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    for (index, file) in files.iter().enumerate() {
        let name = file.strip_prefix(&built).expect("found below it");
        let bytes = fs::read(file).expect("a file of the page can be read");
        let packed = out.join(format!("page-{index}.gz"));
        fs::write(&packed, compressed(&bytes)).expect("the output folder can be written");
        writeln!(
            table,
            "    File {{ path: {:?}, kind: {:?}, bytes: include_bytes!({:?}), gzip: include_bytes!({:?}) }},",
            format!("/{}", name.to_str().expect("UTF-8").replace('\\', "/")),
            media_type(file),
            file.canonicalize().expect("it was just read"),
            packed,
        )
        .expect("a string takes it");
    }
    table.push(']');
    fs::write(out.join("page.rs"), table).expect("the output folder can be written");
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, files);
        } else if path.file_name().is_some_and(|n| n != KEEP) {
            files.push(path);
        }
    }
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn media_type(file: &Path) -> &'static str {
    match file.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        other => panic!("the page has a file of a kind that is not served: .{other}"),
    }
}
