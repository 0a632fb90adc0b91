//! Names and passwords of clients, from a file of `user:password` lines as memcached has it.
//!
//! Lives here: reading them, and comparing without telling by the time it takes who is there or how far a guess was
//! right. Not here: what a client may do before it has logged in (see `server::login`).

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use subtle::{Choice, ConstantTimeEq};

/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who may log in. A clone is the same users.
#[derive(Clone)]
pub struct Users(Arc<[User]>);

struct User {
    name: Vec<u8>,
    password: Vec<u8>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({})", self.0.len())
    }
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, is too long, names nobody, or has a line without a colon.
    pub fn read(file: &Path) -> Result<Users, String> {
        let name = file.display();
        let unreadable = |why| format!("can't read the passwords in {name}: {why}");
        let mut text = Vec::new();
        let opened = File::open(file).map_err(unreadable)?;
        opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("{name} has more than {FILE_BYTES_MAX} bytes; give user:password lines"));
        }
        Users::parse(&text).map_err(|why| format!("{name} {why}; give user:password lines"))
    }

    /// Reads lines. A password is all behind the first colon; empty lines are none, and the last may lack its end.
    ///
    /// # Errors
    /// Nobody is named, or a line has no colon.
    pub fn parse(text: &[u8]) -> Result<Users, String> {
        let mut users = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0);
            let colon = colon.ok_or_else(|| format!("has no user and colon in line {}", index + 1))?;
            users.push(User { name: line[..colon].to_vec(), password: line[colon + 1..].to_vec() });
        }
        if users.is_empty() {
            return Err("names nobody".to_owned());
        }
        Ok(Users(users.into()))
    }

    /// Whether this is a user's password. Each user is compared, whoever fits; only lengths show in the time.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let fits = |user: &User| user.name.ct_eq(name) & user.password.ct_eq(password);
        self.0.iter().fold(Choice::from(0), |found, user| found | fits(user)).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn q2_lines_are_users_and_everything_behind_the_colon_is_the_password() {
        let users = Users::parse(b"ada:pass:word\r\n\nbob:\neve:x").unwrap();
        assert!(users.admit(b"ada", b"pass:word"));
        assert!(users.admit(b"bob", b""));
        assert!(users.admit(b"eve", b"x"));
        for (name, password) in [("ada", "pass"), ("ada", "x"), ("eve", ""), ("", ""), ("nobody", "x")] {
            assert!(!users.admit(name.as_bytes(), password.as_bytes()), "{name}:{password}");
        }
        assert!(!format!("{users:?}").contains("pass"), "a log must not have it");
    }

    proptest! {
        #[test]
        fn any_bytes_are_users_by_their_lines_or_refused(
            lines in prop::collection::vec("[ab:\r\u{0}é]{0,6}", 0..6), ends: bool,
        ) {
            let text = lines.join("\n") + if ends { "\n" } else { "" };
            let lines = || lines.iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).filter(|line| !line.is_empty());
            match Users::parse(text.as_bytes()) {
                Ok(users) => for line in lines() {
                    let (name, password) = line.split_once(':').unwrap();
                    prop_assert!(users.admit(name.as_bytes(), password.as_bytes()));
                    let other = format!("{password}x");
                    prop_assert!(!users.admit(name.as_bytes(), other.as_bytes()));
                },
                Err(_) => prop_assert!(lines().next().is_none() || lines().any(|line| line.find(':').unwrap_or(0) == 0)),
            }
        }
    }

    #[test]
    fn what_is_no_list_of_users_is_refused() {
        assert!(Users::parse(b"\n").unwrap_err().contains("nobody"));
        assert!(Users::parse(b"a:b\nword\n").unwrap_err().contains("line 2"));
        assert!(Users::parse(b":password").is_err());
    }
}
