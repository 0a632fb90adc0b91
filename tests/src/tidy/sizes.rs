//! How long a function and a file may be.
//!
//! Lives here: the two limits. Blank lines and comments are free in functions: the limit is not a reason to explain less.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::Violation;
use super::source::Source;

/// Code lines of one function, its signature and braces included.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Lines of one file, all kinds.
pub const FILE_LINES_MAX: usize = 800;

/// No file is longer than [`FILE_LINES_MAX`].
pub fn check_file_length(source: &Source<'_>) -> Vec<Violation> {
    let lines = source.text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![Violation::new(source.path, lines, format!("{lines} lines; at most {FILE_LINES_MAX}"))]
}

/// No function is longer than [`FUNCTION_LINES_MAX`].
pub fn check_function_lengths(source: &Source<'_>) -> Vec<Violation> {
    let mut functions = Functions { spans: Vec::new() };
    functions.visit_file(&source.tree);
    let code = code_lines(source);
    let mut found = Vec::new();
    for (name, first, last) in functions.spans {
        let lines = code[first - 1..last].iter().filter(|is_code| **is_code).count();
        if lines > FUNCTION_LINES_MAX {
            let message = format!("fn {name} has {lines} code lines; at most {FUNCTION_LINES_MAX}");
            found.push(Violation::new(source.path, first, message));
        }
    }
    found
}

/// For each line whether a word stands on it.
fn code_lines(source: &Source<'_>) -> Vec<bool> {
    let mut code = vec![false; source.text.lines().count() + 1];
    for word in &source.words {
        code[word.line - 1..word.line_last].fill(true);
    }
    code
}

struct Functions {
    spans: Vec<(String, usize, usize)>,
}

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        self.spans.push((signature.ident.to_string(), first, block.span().end().line));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str) -> Vec<Violation> {
        check_function_lengths(&Source::parse("a.rs", text).unwrap())
    }

    /// A function of exactly `lines` code lines, with blank lines and comments between them.
    fn function(lines: usize) -> String {
        let body = "    f();\n\n    // Why.\n    /* And\n    why. */\n".repeat(lines - 2);
        format!("/// Doc.\nfn long() {{\n{body}}}\n")
    }

    #[test]
    fn a_function_of_71_code_lines_is_found_and_one_of_70_is_not() {
        assert_eq!(lengths(&function(70)), []);
        assert_eq!(lengths(&function(71))[0].to_string(), "a.rs:2: fn long has 71 code lines; at most 70");
    }

    #[test]
    fn methods_trait_methods_and_nested_functions_are_measured() {
        let long = function(71);
        for text in [
            format!("impl A {{ {long} }}"),
            format!("trait A {{ {long} }}"),
            format!("mod tests {{ fn outer() {{ let c = || {{ {long} }}; }} }}"),
        ] {
            assert!(!lengths(&text).is_empty(), "{text}");
        }
    }

    #[test]
    fn lines_of_a_long_literal_count() {
        assert_eq!(lengths(&format!("fn f() {{ g(\"{}\"); }}\n", "x\n".repeat(71))).len(), 1);
    }

    #[test]
    fn a_file_of_801_lines_is_found() {
        let longest = "//! Doc.\n".repeat(800);
        assert_eq!(check_file_length(&Source::parse("a.rs", &longest).unwrap()), []);
        let longer = format!("{longest}//! One more.\n");
        assert_eq!(check_file_length(&Source::parse("a.rs", &longer).unwrap()).len(), 1);
    }
}
