//! The house rules as checks: arrows between crates and modules, sizes, docs, and forbidden words.
//!
//! Lives here: the walk over the repository and the list of checks. The checks themselves are functions over a path
//! (relative to the repository, with `/`) and a text, in [`arrows`], [`sizes`] and [`words`], so that each can be
//! tested with a planted violation. Not here: what `rustfmt`, `clippy` and the compiler already say.

pub mod arrows;
pub mod rules;
pub mod sizes;
pub mod source;
pub mod words;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use source::Source;

/// One broken rule, at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file, relative to the repository.
    pub path: String,
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Violation {
    /// A violation of `path` at `line`.
    pub fn new(path: &str, line: usize, message: impl Into<String>) -> Violation {
        Violation { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Every check that reads a Rust file, with its name.
const SOURCE_CHECKS: &[fn(&Source<'_>) -> Vec<Violation>] = &[
    arrows::check_engine_modules,
    sizes::check_file_length,
    sizes::check_function_lengths,
    words::check_module_doc,
    words::check_unsafe,
    words::check_clock_reads,
    words::check_serde,
    words::check_unfinished,
];

/// Checks one file: a manifest or a Rust source; any other has no rules.
pub fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut found = words::check_file_name(path);
    if path.ends_with("Cargo.toml") {
        found.extend(arrows::check_manifest(path, text));
    } else if path.ends_with(".rs") {
        match Source::parse(path, text) {
            Ok(source) => found.extend(SOURCE_CHECKS.iter().flat_map(|check| check(&source))),
            Err(error) => found.push(Violation::new(path, 0, format!("is not Rust: {error}"))),
        }
    }
    found
}

/// Checks every file below `root`, except what builds leave behind and hidden folders.
pub fn check_tree(root: &Path) -> io::Result<Vec<Violation>> {
    let mut found = Vec::new();
    for_each_file(root, |path, text| found.extend(check(path, text)))?;
    found.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(found)
}

/// Shows every manifest and Rust source below `root`, by its path from there, except what builds leave behind and hidden folders.
fn for_each_file(root: &Path, mut look: impl FnMut(&str, &str)) -> io::Result<()> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !matches!(name.as_str(), "target" | "corpus" | "artifacts") {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") || name == "Cargo.toml" {
                let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
                look(&relative, &fs::read_to_string(&path)?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_rust_is_a_violation() {
        let found = check("engine/src/a.rs", "//! Doc.\nfn (");
        assert!(found[0].message.starts_with("is not Rust"), "{found:?}");
    }

    #[test]
    fn files_without_rules_pass() {
        assert_eq!(check("README.md", "todo!()"), []);
    }

    #[test]
    fn a_tree_is_walked_and_its_violations_are_sorted() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/target")).unwrap();
        fs::write(folder.path().join("b/x.rs"), "fn main() {}\n").unwrap();
        fs::write(folder.path().join("a.rs"), "//! Doc.\nfn main() { todo!() }\n").unwrap();
        fs::write(folder.path().join("b/target/y.rs"), "fn main() {}\n").unwrap();
        let paths: Vec<_> = check_tree(folder.path()).unwrap().into_iter().map(|v| v.path).collect();
        assert_eq!(paths, ["a.rs", "b/x.rs"]);
    }
}
