//! A Rust file as the checks see it: its text, its syntax tree, and its words in order with their lines.
//!
//! Lives here: parsing. Words inside strings and comments are not words, so a check never trips over them.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// One token: a word, a sign, a bracket or a literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its text; of a literal only `"literal"`.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its last line: another one only for literals that run over several.
    pub line_last: usize,
}

/// A parsed file.
pub struct Source<'a> {
    /// Its path, relative to the repository.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Its syntax tree.
    pub tree: syn::File,
    /// Its words in order.
    pub words: Vec<Word>,
}

impl<'a> Source<'a> {
    /// Parses `text`.
    pub fn parse(path: &'a str, text: &'a str) -> Result<Source<'a>, syn::Error> {
        let tree = syn::parse_file(text)?;
        let stream: TokenStream = text.parse()?;
        let mut words = Vec::new();
        flatten(stream, &mut words);
        Ok(Source { path, text, tree, words })
    }

    /// The lines at which the words `pattern` stand one after the other.
    pub fn lines_with(&self, pattern: &[&str]) -> Vec<usize> {
        self.words
            .windows(pattern.len())
            .filter(|window| window.iter().zip(pattern).all(|(word, text)| word.text == *text))
            .map(|window| window[0].line)
            .collect()
    }
}

fn flatten(stream: TokenStream, words: &mut Vec<Word>) {
    for token in stream {
        let (line, line_last) = (token.span().start().line, token.span().end().line);
        let text = match &token {
            TokenTree::Ident(ident) => ident.to_string(),
            TokenTree::Punct(sign) => sign.as_char().to_string(),
            TokenTree::Literal(_) => "literal".to_owned(),
            TokenTree::Group(group) if is_doc(group) => {
                // A doc comment: take back its `#` (and `!`).
                while words.last().is_some_and(|word| matches!(word.text.as_str(), "#" | "!")) {
                    words.pop();
                }
                continue;
            }
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                words.push(Word { text: open.to_owned(), line, line_last: line });
                flatten(group.stream(), words);
                words.push(Word { text: close.to_owned(), line: line_last, line_last });
                continue;
            }
        };
        words.push(Word { text, line, line_last });
    }
}

fn is_doc(group: &Group) -> bool {
    let mut inner = group.stream().into_iter();
    let is = |token: Option<TokenTree>, text: &str| token.is_some_and(|token| token.to_string() == text);
    group.delimiter() == Delimiter::Bracket && is(inner.next(), "doc") && is(inner.next(), "=")
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_carry_their_lines_and_strings_hide_theirs() {
        let source = Source::parse("a.rs", "fn f() {\n    g::h(\"todo!\"); // todo!\n}\n").unwrap();
        assert_eq!(source.lines_with(&["g", ":", ":", "h"]), [2]);
        assert!(source.lines_with(&["todo"]).is_empty());
        assert_eq!(source.words.last().unwrap(), &Word { text: "}".to_owned(), line: 3, line_last: 3 });
    }

    #[test]
    fn doc_comments_are_not_words() {
        let source = Source::parse("a.rs", "//! Doc.\n/// Doc.\n#[inline]\nfn f() {}\n").unwrap();
        assert_eq!(source.words[0].line, 3);
    }
}
