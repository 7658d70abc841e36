//! What needs no server: `init`, `schema`, `completion`.

use super::failure::{Exit, Failure};
use super::output::Output;
use clap::CommandFactory as _;
use model::pipeline::DEFAULT_FILE;
use pipeline::StarterKind;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

pub(super) fn init(folder: &Path, force: bool, output: &mut Output) -> Result<Exit, Failure> {
    let refused = |path: &Path, e: std::io::Error| Failure::Usage(format!("{}: {e}", path.display()));
    let entries = std::fs::read_dir(folder).map_err(|e| refused(folder, e))?;
    let names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    let path = folder.join(DEFAULT_FILE);
    let mut options = File::options();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = match options.open(&path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::Usage(format!(
                "{} is there already; --force replaces it",
                path.display()
            )));
        }
        other => other.map_err(|e| refused(&path, e))?,
    };
    let text = pipeline::starter(StarterKind::detect(&names));
    file.write_all(text.as_bytes()).map_err(|e| refused(&path, e))?;
    if output.is_json() {
        output.json(&serde_json::json!({ "file": path.display().to_string() }))?;
    } else {
        let path = path.display();
        output.line(&format!(
            "{path} is written; change it, then: buildflow pipeline validate {path}"
        ))?;
    }
    Ok(Exit::Success)
}

pub(super) fn schema(reference: bool, output: &mut Output) -> Result<Exit, Failure> {
    if reference {
        output.text(&pipeline::reference())?;
    } else {
        output.json(&pipeline::schema())?;
    }
    Ok(Exit::Success)
}

pub(super) fn completion(shell: clap_complete::Shell, output: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::Arguments::command(), "buildflow", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Success)
}
