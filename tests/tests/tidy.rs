//! The repository keeps its own house rules; see `tests::tidy` for what they are.

use std::path::Path;

#[test]
fn the_repository_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository around this package");
    let violations = tests::tidy::check_tree(root).expect("a readable repository");
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} house rules broken:\n{}", list.len(), list.join("\n"));
}
