//! Each rule of memcached's semantics has a test that says so in its name.
//!
//! Lives here: the rules' numbers, as the specification has them, and the look through all tests' names. Not here: what the rules
//! say (see the specification), whether a test tests its rule (a reader has to see that).

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// The letters of the specification's sections, and how many rules each has.
const RULES: [(char, u32); 15] = [
    ('f', 10),
    ('l', 8),
    ('x', 4),
    ('c', 3),
    ('s', 5),
    ('r', 4),
    ('a', 6),
    ('g', 9),
    ('m', 7),
    ('d', 12),
    ('q', 2),
    ('u', 1),
    ('b', 8),
    ('t', 5),
    ('z', 12),
];

/// The rules that the name of some function in these sources begins with, as `f1_f2_lines_are_framed` names F1 and F2.
pub fn named_in<'a>(sources: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for line in sources.into_iter().flat_map(str::lines) {
        let Some((_, name)) = line.trim_start().split_once("fn ") else { continue };
        let words = name.split(['_', '(', '<']);
        named.extend(words.take_while(|word| is_rule(word)).map(str::to_uppercase));
    }
    named
}

fn is_rule(word: &str) -> bool {
    let mut letters = word.chars();
    let section = letters.next();
    let number = letters.as_str();
    section.is_some_and(|section| RULES.iter().any(|(known, _)| *known == section))
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// The rules that no test names.
pub fn unnamed(named: &BTreeSet<String>) -> Vec<String> {
    let all = RULES.iter().flat_map(|(section, count)| {
        (1..=*count).map(move |number| format!("{}{number}", section.to_ascii_uppercase()))
    });
    all.filter(|rule| !named.contains(rule)).collect()
}

/// The rules that no function in a Rust source below `root` names.
///
/// # Errors
/// A file or folder can't be read.
pub fn unnamed_in_tree(root: &Path) -> io::Result<Vec<String>> {
    let mut named = BTreeSet::new();
    super::for_each_file(root, |path, text| {
        if path.ends_with(".rs") {
            named.extend(named_in([text]));
        }
    })?;
    Ok(unnamed(&named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_from_the_beginning_of_names() {
        let named =
            named_in(["    fn f8_f10_noreply_is_silent() {\nfn x1y_no_rule() {}\nfn it_is_not_f9() {}"]);
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["F10", "F8"]);
    }

    #[test]
    fn a_rule_without_a_test_is_told() {
        let named = named_in(["fn c1_c3_uniques() {}"]);
        assert!(unnamed(&named).contains(&"C2".to_owned()) && !unnamed(&named).contains(&"C3".to_owned()));
    }
}
