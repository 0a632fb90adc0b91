//! Who may depend on whom: workspace crates by their manifests, the engine's modules by their paths.
//!
//! Lives here: the table of allowed arrows and the two checks. A new crate needs a row before it may depend on another.

use super::Violation;
use super::source::Source;

/// For each folder of a workspace crate: the workspace crates it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("protocol-memcached", &[]),
    ("transport-tls", &["hotspare"]),
    ("transport-tcp", &["hotspare", "hotspare-tls"]),
    ("transport-quic", &["hotspare", "hotspare-tls"]),
    ("server-bin", &["hotspare", "hotspare-memcached", "hotspare-tls", "hotspare-tcp", "hotspare-quic"]),
    (
        "tests",
        &[
            "hotspare",
            "hotspare-memcached",
            "hotspare-tls",
            "hotspare-tcp",
            "hotspare-quic",
            "hotspare-server",
        ],
    ),
    ("fuzz", &["hotspare", "hotspare-memcached", "hotspare-server", "tests"]),
];

/// Inside the engine: a module and the ones it must not name.
const ENGINE_BARRED: &[(&str, &[&str])] =
    &[("storage", &["replication", "cache", "driver"]), ("replication", &["storage", "cache", "driver"])];

/// A crate's manifest names no workspace crate that its row lacks.
pub fn check_manifest(path: &str, text: &str) -> Vec<Violation> {
    let Some((folder, _)) = path.split_once('/') else { return Vec::new() };
    let allowed = ARROWS.iter().find(|(name, _)| *name == folder).map_or(&[][..], |(_, allowed)| *allowed);
    dependencies(text)
        .into_iter()
        .filter(|(_, name)| is_workspace_crate(name) && !allowed.contains(&name.as_str()))
        .map(|(line, name)| Violation::new(path, line, format!("{folder} must not depend on {name}")))
        .collect()
}

fn is_workspace_crate(name: &str) -> bool {
    name == "hotspare" || name.starts_with("hotspare-") || name == "tests"
}

/// The names of all dependencies (also dev and build ones) with their lines.
fn dependencies(text: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.starts_with("workspace");
            if let Some((_, name)) = section.split_once("dependencies.") {
                found.push((index + 1, name.trim_matches('"').to_owned()));
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.push((index + 1, name.trim_matches('"').to_owned()));
        }
    }
    found
}

/// In the engine, storage and replication know neither each other nor what joins them.
pub fn check_engine_modules(source: &Source<'_>) -> Vec<Violation> {
    let Some(inner) = source.path.strip_prefix("engine/src/") else { return Vec::new() };
    let module = inner.split(['/', '.']).next().unwrap_or_default();
    let Some((_, barred)) = ENGINE_BARRED.iter().find(|(name, _)| *name == module) else { return Vec::new() };
    named_modules(source)
        .into_iter()
        .filter(|(_, name)| barred.contains(&name.as_str()))
        .map(|(line, name)| Violation::new(source.path, line, format!("{module} must not use crate::{name}")))
        .collect()
}

/// What follows `crate::` or `super::`, also inside the braces of one `use`.
fn named_modules(source: &Source<'_>) -> Vec<(usize, String)> {
    let words = &source.words;
    let mut found = Vec::new();
    for at in 0..words.len().saturating_sub(3) {
        let root = matches!(words[at].text.as_str(), "crate" | "super");
        if !root || words[at + 1].text != ":" || words[at + 2].text != ":" {
            continue;
        }
        if words[at + 3].text != "{" {
            found.push((words[at + 3].line, words[at + 3].text.clone()));
            continue;
        }
        let mut depth = 0;
        for (index, word) in words.iter().enumerate().skip(at + 3) {
            match word.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                name if depth == 1 && matches!(words[index - 1].text.as_str(), "{" | ",") => {
                    found.push((word.line, name.to_owned()));
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).unwrap();
        check_engine_modules(&source).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn a_transport_on_the_protocol_is_found() {
        let text = "[dependencies]\nhotspare.workspace = true\nhotspare-memcached = { path = \"..\" }\n";
        let found = check_manifest("transport-tcp/Cargo.toml", text);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "transport-tcp/Cargo.toml:3: transport-tcp must not depend on hotspare-memcached"
        );
    }

    #[test]
    fn the_engine_on_a_transport_is_found_in_every_kind_of_section() {
        let text =
            "[dev-dependencies]\nhotspare-tcp.workspace = true\n[target.'cfg(unix)'.dependencies.tests]\n";
        assert_eq!(check_manifest("engine/Cargo.toml", text).len(), 2);
    }

    #[test]
    fn the_protocol_on_the_engine_is_found() {
        let text = "[dependencies]\nhotspare.workspace = true\n";
        assert_eq!(check_manifest("protocol-memcached/Cargo.toml", text).len(), 1);
    }

    #[test]
    fn allowed_arrows_and_the_root_pass() {
        let text = "[dependencies]\nhotspare.workspace = true\nbytes = \"1\"\n";
        assert_eq!(check_manifest("server-bin/Cargo.toml", text), []);
        assert_eq!(
            check_manifest("Cargo.toml", "[workspace.dependencies]\nhotspare = { path = \"engine\" }\n"),
            []
        );
    }

    #[test]
    fn storage_naming_replication_is_found_plain_in_braces_and_by_super() {
        let plain = "use crate::replication::log::Log;\n";
        let braces = "use crate::{clock::Millis, replication::{log, frame}};\n";
        for text in
            [plain, braces, "use super::super::replication;\n", "fn f() { crate::replication::g(); }\n"]
        {
            assert_eq!(
                modules("engine/src/storage/shard.rs", text),
                ["storage must not use crate::replication"],
                "{text}"
            );
        }
    }

    #[test]
    fn replication_naming_the_cache_is_found() {
        assert_eq!(modules("engine/src/replication/mod.rs", "use crate::cache::Cache;\n").len(), 1);
    }

    #[test]
    fn the_driver_may_name_all() {
        let text = "use crate::{cache::Cache, replication::log, storage::shard};\n";
        assert!(modules("engine/src/driver.rs", text).is_empty());
        assert!(
            modules("engine/src/storage/lru.rs", "use crate::clock::Millis;\nuse super::item;\n").is_empty()
        );
    }
}
