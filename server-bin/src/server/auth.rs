//! The gate that a connection stands before, with `-Y`, until it has named a user (rule Q1).
//!
//! Lives here: what is answered before the gate opens. Not here: the users (see `users`), the commands behind it (see
//! `commands`), SASL (see `login`).

use super::counters::Counters;
use crate::users::Users;
use hotspare_memcached::binary::REQUEST_MAGIC;
use hotspare_memcached::classic::Tokens;

/// The longest `user password` (rule Q1).
const TOKEN_BYTES_MAX: u64 = 16384;

/// A line that is not whole by then is closed upon (rule Q1).
const LINE_BYTES_MAX: usize = 2048;

/// A whole line below this is closed upon (rule Q1).
const LINE_BYTES_MIN: usize = 6;

/// Whether a connection may do what it likes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gate {
    is_open: bool,
}

/// What a connection before the gate does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// So many bytes have been looked at and answered.
    Answered { consumed: usize, reply: &'static str },
    /// More input is needed.
    Incomplete { bytes_needed: usize },
    /// Not to be answered.
    Close,
}

impl Gate {
    /// Open from the start where nobody need be named.
    pub(crate) fn new(is_open: bool) -> Gate {
        Gate { is_open }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Opens if that is a user's password. The one place where it opens.
    pub(crate) fn admit(&mut self, user: &[u8], password: &[u8], users: &Users, counters: &Counters) -> bool {
        counters.auth_cmds.add(1);
        self.is_open = users.admit(user, password);
        if !self.is_open {
            counters.auth_errors.add(1);
        }
        self.is_open
    }

    /// Looks for `set <any> <any> <any> <bytes>` and, behind it, `user password` (rule Q1).
    pub(crate) fn look(&mut self, input: &[u8], users: &Users, counters: &Counters) -> Look {
        // The binary protocol has no lines to wait for.
        if input.first() == Some(&REQUEST_MAGIC) {
            return Look::Close;
        }
        // A line is too long by its own bytes, however many of them have come.
        let begun = &input[..input.len().min(LINE_BYTES_MAX + 1)];
        let Some(line_end) = begun.iter().position(|byte| *byte == b'\n') else {
            let hopeless = begun.len() > LINE_BYTES_MAX;
            return if hopeless { Look::Close } else { Look::Incomplete { bytes_needed: input.len() + 1 } };
        };
        let line_bytes = line_end + 1;
        if line_bytes < LINE_BYTES_MIN {
            return Look::Close;
        }
        let line = input[..line_end].strip_suffix(b"\r").unwrap_or(&input[..line_end]);
        let Some(token_bytes) = token_bytes(line) else {
            return Look::Answered { consumed: line_bytes, reply: "CLIENT_ERROR unauthenticated\r\n" };
        };
        if token_bytes > TOKEN_BYTES_MAX {
            return Look::Answered { consumed: line_bytes, reply: "CLIENT_ERROR auth token too long\r\n" };
        }
        let consumed = line_bytes + token_bytes as usize + 2;
        let Some(block) = input.get(line_bytes..consumed) else {
            return Look::Incomplete { bytes_needed: consumed };
        };
        Look::Answered { consumed, reply: self.try_token(block, users, counters) }
    }

    fn try_token(&mut self, block: &[u8], users: &Users, counters: &Counters) -> &'static str {
        let Some(token) = block.strip_suffix(b"\r\n") else {
            return "CLIENT_ERROR bad command line termination\r\n";
        };
        let mut words = Tokens::new(token).iter();
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            return "CLIENT_ERROR bad authentication token format\r\n";
        };
        match self.admit(user, password, users, counters) {
            true => "STORED\r\n",
            false => "CLIENT_ERROR authentication failure\r\n",
        }
    }
}

/// The stated length of the data block, if the line is a `set`.
fn token_bytes(line: &[u8]) -> Option<u64> {
    let mut words = Tokens::new(line).iter();
    let name = words.next()?;
    let digits = words.nth(3).filter(|_| name == b"set")?;
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

#[cfg(test)]
mod tests {

    use super::*;

    /// What a fresh connection is answered, and whether it is in then.
    fn look(input: &[u8]) -> (Look, bool) {
        let mut gate = Gate::new(false);
        let look = gate.look(input, &Users::parse(b"ann:other\nbob:secret").unwrap(), &Counters::default());
        (look, gate.is_open())
    }

    #[test]
    fn q1_only_a_set_with_a_users_password_opens() {
        for block in ["bob secret", "  bob  secret ", "ann other", "bob secret and more"] {
            let input = format!("set any 1 x {} noreply\r\n{block}\r\nget a\r\n", block.len());
            let consumed = input.len() - "get a\r\n".len();
            assert_eq!(look(input.as_bytes()), (Look::Answered { consumed, reply: "STORED\r\n" }, true));
        }
        let refused = [
            ("get any\r\n", "unauthenticated"),
            ("add a 0 0 10\r\n", "unauthenticated"),
            ("set a 0 0\r\n", "unauthenticated"),
            ("set a 0 0 -1\r\n", "unauthenticated"),
            ("set a 0 0 16385\r\n", "auth token too long"),
            ("set a 0 0 2147483646\r\n", "auth token too long"),
            ("set a 0 0 9\r\nbobsecret\r\n", "bad authentication token format"),
            ("set a 0 0 4\r\nbob \r\n", "bad authentication token format"),
            ("set a 0 0 10\r\nbob secretxx", "bad command line termination"),
            ("set a 0 0 9\r\nbob secre\r\n", "authentication failure"),
            ("set a 0 0 10\r\nann secret\r\n", "authentication failure"),
        ];
        for (input, why) in refused {
            let (look, open) = look(input.as_bytes());
            let Look::Answered { consumed, reply } = look else { panic!("{input:?}: {look:?}") };
            assert_eq!((consumed, reply, open), (input.len(), &*format!("CLIENT_ERROR {why}\r\n"), false));
        }
    }

    #[test]
    fn q1_what_can_be_no_set_is_closed_upon() {
        let long = [&[b'x'; 2049][..], b"\r\n"].concat();
        for input in [&b"get\r\n"[..], b"\n", &long[..2049], &long, b"\x80\x0b", b"\x80\x0b\0\0\0\0\n"] {
            assert_eq!(look(input), (Look::Close, false));
        }
        assert_eq!(look(&[b'x'; 2048]).0, Look::Incomplete { bytes_needed: 2049 });
        assert_eq!(look(b"set a 0 0 10\r\nbob").0, Look::Incomplete { bytes_needed: 26 });
    }
}
