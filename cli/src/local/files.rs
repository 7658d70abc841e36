//! Which pipeline file of a folder is meant, and files of variables.
//!
//! Not here: what is in a pipeline file (`pipeline`).

use crate::error::Failure;
use model::pipeline::DEFAULT_FILE;
use std::path::Path;

/// Where several pipelines lie, one in each file.
const FOLDER: &str = ".buildflow";

/// A file of variables is small; more is a mistake.
const VARIABLES_MAX_BYTES: u64 = 1024 * 1024;

/// The path below `top` of the only pipeline file, or of the one that is named.
pub(super) fn pipeline_file(top: &Path, named: Option<&str>) -> Result<String, Failure> {
    let mut found: Vec<String> = Vec::new();
    if top.join(DEFAULT_FILE).is_file() {
        found.push(DEFAULT_FILE.to_owned());
    }
    let entries = std::fs::read_dir(top.join(FOLDER));
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".yml") && entry.path().is_file() {
            found.push(format!("{FOLDER}/{name}"));
        }
    }
    found.sort();
    if let Some(named) = named {
        let wanted = format!("{FOLDER}/{named}.yml");
        return found
            .into_iter()
            .find(|file| *file == wanted)
            .ok_or_else(|| Failure::Usage(format!("there is no {wanted} in {}", top.display())));
    }
    match found.as_slice() {
        [] => Err(Failure::Usage(format!(
            "{} has no {DEFAULT_FILE}; `buildflow init` writes a first one",
            top.display()
        ))),
        [one] => Ok(one.clone()),
        several => match several.iter().find(|file| *file == DEFAULT_FILE) {
            Some(default) => Ok(default.clone()),
            None => Err(Failure::Usage(format!(
                "{} has several pipelines; name one with --pipeline: {}",
                top.display(),
                several.join(", ")
            ))),
        },
    }
}

/// Variables of a file: a `NAME=VALUE` on each line, the value as it is; empty lines and lines that begin with
/// `#` say nothing.
pub(crate) fn variables_of(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let refused = |why: &str| Failure::Usage(format!("{}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|e| refused(&e.to_string()))?.len();
    if size > VARIABLES_MAX_BYTES {
        return Err(refused("it is too large to be a file of variables"));
    }
    let bytes = std::fs::read(path).map_err(|e| refused(&e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| refused("it is no text in UTF-8"))?;
    read_variables(&text).map_err(|(line, why)| refused(&format!("line {line}: {why}")))
}

/// The number of the line that is wrong, from 1, and why.
fn read_variables(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
    let mut variables = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        match line.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                variables.push((name.trim().to_owned(), value.to_owned()));
            }
            _ => return Err((number + 1, "write NAME=VALUE".to_owned())),
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables() {
        let text = "# a comment\n\nA=1\nexport B=two words\r\nC=\nD=x=y\nE=\"quoted\"\n";
        let read = read_variables(text).expect("legal");
        let pairs: Vec<(&str, &str)> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", ""),
                ("D", "x=y"),
                ("E", "\"quoted\"")
            ]
        );
        assert_eq!(read_variables("A=1\nB\n").expect_err("no value").0, 2);
        assert_eq!(read_variables("=1").expect_err("no name").0, 1);
    }

    #[test]
    fn the_only_file_the_default_one_or_the_one_that_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path();
        let said = |named: Option<&str>| pipeline_file(top, named).map_err(|e| e.to_string());
        assert!(said(None).expect_err("no file").contains("buildflow init"));
        std::fs::create_dir(top.join(".buildflow")).expect("a folder");
        std::fs::write(top.join(".buildflow/app.yml"), "").expect("written");
        assert_eq!(said(None).as_deref(), Ok(".buildflow/app.yml"));
        std::fs::write(top.join(".buildflow/site.yml"), "").expect("written");
        assert!(said(None).expect_err("two files").contains("--pipeline"));
        assert_eq!(said(Some("site")).as_deref(), Ok(".buildflow/site.yml"));
        assert!(said(Some("../x")).is_err());
        std::fs::write(top.join(".buildflow.yml"), "").expect("written");
        assert_eq!(said(None).as_deref(), Ok(".buildflow.yml"));
    }
}
