//! The repository keeps its own house rules; see `tests::tidy` for what they are.

use std::path::Path;

#[test]
fn the_repository_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository around this package");
    let violations = tests::tidy::check_tree(root).expect("a readable repository");
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} house rules broken:\n{}", list.len(), list.join("\n"));
}

#[test]
fn each_rule_of_memcached_has_a_test_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository around this package");
    let unnamed = tests::tidy::rules::unnamed_in_tree(root).expect("a readable repository");
    assert!(
        unnamed.is_empty(),
        "no test's name begins with these rules, as in `f1_f2_lines_are_framed`: {unnamed:?}"
    );
}
