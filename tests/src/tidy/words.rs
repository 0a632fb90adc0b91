//! What a file must say and what it must not: docs, `unsafe`, clocks, serde, unfinished work, vague names.
//!
//! Lives here: the checks on words. They read tokens, so strings and comments never trip them.

use super::Violation;
use super::source::Source;

/// The one file that may read the system's clock.
const CLOCK_FILE: &str = "engine/src/clock.rs";
/// The files of the engine that may use serde: the wire, images, and the typed cache.
const SERDE_FILES: &[&str] = &[
    "engine/src/cache/image/head.rs",
    "engine/src/replication/record.rs",
    "engine/src/replication/message.rs",
    "engine/src/typed.rs",
    "engine/src/typed/tests.rs",
];
/// File and folder names that say nothing.
const VAGUE_NAMES: &[&str] = &["util", "utils", "common", "misc"];
/// How far above an `unsafe` its reason may end: a statement broken over lines.
const REASON_DISTANCE_MAX: usize = 3;

/// A name says what lives in the file.
pub fn check_file_name(path: &str) -> Vec<Violation> {
    path.split('/')
        .filter(|part| VAGUE_NAMES.contains(&part.split('.').next().unwrap_or_default()))
        .map(|part| Violation::new(path, 0, format!("`{part}` says nothing; name what lives there")))
        .collect()
}

/// Every file begins with what lives there.
pub fn check_module_doc(source: &Source<'_>) -> Vec<Violation> {
    let inner = |attribute: &syn::Attribute| matches!(attribute.style, syn::AttrStyle::Inner(_));
    if source.tree.attrs.iter().any(|attribute| inner(attribute) && attribute.path().is_ident("doc")) {
        return Vec::new();
    }
    vec![Violation::new(source.path, 1, "no `//!` doc")]
}

/// `unsafe` stands only in the engine's storage, and each has its reason.
pub fn check_unsafe(source: &Source<'_>) -> Vec<Violation> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for line in source.lines_with(&["unsafe"]) {
        if !source.path.starts_with("engine/src/storage/") {
            found.push(Violation::new(source.path, line, "`unsafe` outside engine/src/storage"));
        } else if !has_reason(&lines, line) {
            found.push(Violation::new(source.path, line, "`unsafe` without `// SAFETY:`"));
        }
    }
    found
}

/// Whether the comment on `line`, or the one that ends just above its statement, gives a reason.
fn has_reason(lines: &[&str], line: usize) -> bool {
    let is_reason = |text: &str| text.contains("// SAFETY:") || text.contains("/// # Safety");
    let is_comment = |text: &str| text.starts_with("//") || text.starts_with("#[");
    if is_reason(lines[line - 1]) {
        return true;
    }
    let mut code_lines = 0;
    let mut in_comment = false;
    for text in lines[..line - 1].iter().rev().map(|text| text.trim()) {
        if is_comment(text) {
            in_comment = true;
            if is_reason(text) {
                return true;
            }
            continue;
        }
        code_lines += 1;
        let ended = text.is_empty() || text.ends_with([';', '{', '}']);
        if in_comment || ended || code_lines > REASON_DISTANCE_MAX {
            return false;
        }
    }
    false
}

/// In the engine, time comes from the configured clock only.
pub fn check_clock_reads(source: &Source<'_>) -> Vec<Violation> {
    if !source.path.starts_with("engine/src/") || source.path == CLOCK_FILE {
        return Vec::new();
    }
    let reads: [&[&str]; 3] =
        [&["Instant", ":", ":", "now"], &["SystemTime", ":", ":", "now"], &["clock_gettime"]];
    reads
        .iter()
        .flat_map(|pattern| source.lines_with(pattern))
        .map(|line| Violation::new(source.path, line, format!("reads a clock outside {CLOCK_FILE}")))
        .collect()
}

/// In the engine, serde stays with the wire and the typed cache.
pub fn check_serde(source: &Source<'_>) -> Vec<Violation> {
    if !source.path.starts_with("engine/src/") || SERDE_FILES.contains(&source.path) {
        return Vec::new();
    }
    ["serde", "serde_bytes", "Serialize", "Deserialize"]
        .iter()
        .flat_map(|word| source.lines_with(&[word]))
        .map(|line| Violation::new(source.path, line, "serde outside the wire and the typed cache"))
        .collect()
}

/// Nothing is left to do later.
pub fn check_unfinished(source: &Source<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        for line in source.lines_with(&[name, "!"]) {
            found.push(Violation::new(source.path, line, format!("`{name}!`")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn run(check: fn(&Source<'_>) -> Vec<Violation>, path: &str, text: &str) -> Vec<usize> {
        check(&Source::parse(path, text).unwrap()).into_iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn vague_names_are_found_for_files_and_folders() {
        for path in ["engine/src/utils.rs", "tests/common/mod.rs", "server-bin/src/misc.rs"] {
            assert_eq!(check_file_name(path).len(), 1, "{path}");
        }
        assert_eq!(check_file_name("engine/src/commonest.rs"), []);
    }

    #[test]
    fn a_missing_module_doc_is_found() {
        assert_eq!(run(check_module_doc, "a.rs", "/// An item's doc.\nfn f() {}\n"), [1]);
        assert_eq!(run(check_module_doc, "a.rs", "//! Doc.\n"), NONE);
        assert_eq!(run(check_module_doc, "a.rs", "#![no_main]\n//! Doc.\n"), NONE);
    }

    #[test]
    fn unsafe_outside_storage_is_found_even_with_a_reason() {
        let text = "fn f() {\n    // SAFETY: fine.\n    unsafe { g() }\n}\n";
        assert_eq!(run(check_unsafe, "engine/src/cache.rs", text), [3]);
        assert_eq!(run(check_unsafe, "engine/src/storage/slabs.rs", text), NONE);
    }

    #[test]
    fn unsafe_in_storage_without_a_reason_is_found() {
        let text = "fn f() {\n    // SAFETY: of another.\n    g();\n    unsafe { g() }\n}\n";
        assert_eq!(run(check_unsafe, "engine/src/storage/slabs.rs", text), [4]);
    }

    #[test]
    fn a_reason_above_a_broken_statement_or_an_unsafe_function_counts() {
        let broken = "fn f() {\n    // SAFETY: in\n    // range.\n    let a =\n        unsafe { g() };\n}\n";
        assert_eq!(run(check_unsafe, "engine/src/storage/slabs.rs", broken), NONE);
        let function = "/// # Safety\n/// In range.\n#[inline]\nunsafe fn g() {}\n";
        assert_eq!(run(check_unsafe, "engine/src/storage/slabs.rs", function), NONE);
    }

    #[test]
    fn clock_reads_in_the_engine_are_found() {
        let text =
            "fn f() {\n    Instant::now();\n    std::time::SystemTime::now();\n    clock_gettime(c);\n}\n";
        assert_eq!(run(check_clock_reads, "engine/src/cache.rs", text), [2, 3, 4]);
        assert_eq!(run(check_clock_reads, "engine/src/clock.rs", text), NONE);
        assert_eq!(run(check_clock_reads, "transport-tcp/src/lib.rs", text), NONE);
    }

    #[test]
    fn serde_in_the_engine_is_found_outside_its_files() {
        let text = "use serde::Deserialize;\n";
        assert_eq!(run(check_serde, "engine/src/config.rs", text), [1, 1]);
        assert_eq!(run(check_serde, "engine/src/replication/message.rs", text), NONE);
        assert_eq!(run(check_serde, "server-bin/src/admin.rs", text), NONE);
    }

    #[test]
    fn unfinished_work_is_found_and_words_in_strings_are_not() {
        let text = "fn f() {\n    todo!();\n    unimplemented!();\n    dbg!(1);\n    g(\"todo!()\");\n}\n";
        assert_eq!(run(check_unfinished, "a.rs", text), [2, 3, 4]);
    }
}
