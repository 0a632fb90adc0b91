//! The words of a line: separated by one or more spaces, and by nothing else (rule F2).

/// Words, found as they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'a> {
    line: &'a [u8],
}

/// The keys of a get: as many as the line has, each checked when the line was parsed (rule R2).
pub type Keys<'a> = Tokens<'a>;

impl<'a> Tokens<'a> {
    /// The words of a line without its end.
    pub fn new(line: &'a [u8]) -> Tokens<'a> {
        Tokens { line }
    }

    /// Each word, in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.line.split(|byte| *byte == b' ').filter(|word| !word.is_empty())
    }

    /// Whether there is no more than one word, as far as a glance tells.
    pub fn is_one(&self) -> bool {
        !self.line.trim_ascii().contains(&b' ')
    }

    /// Takes the first word off.
    pub(crate) fn next_word(&mut self) -> Option<&'a [u8]> {
        let start = self.line.iter().position(|byte| *byte != b' ')?;
        let rest = &self.line[start..];
        let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
        self.line = &rest[end..];
        Some(&rest[..end])
    }

    /// Takes a last word `noreply` off; whether it was there (rule F10).
    pub(crate) fn take_noreply(&mut self) -> bool {
        let end = self.line.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
        match self.line[..end].strip_suffix(b"noreply") {
            Some(before) if before.is_empty() || before.ends_with(b" ") => {
                self.line = before;
                true
            }
            _ => false,
        }
    }
}
