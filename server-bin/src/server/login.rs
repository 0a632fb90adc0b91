//! The gate before every request: whether this connection may do anything but log in (rules Q1, Q2).
//!
//! Lives here: a connection's login, and SASL PLAIN's message. Not here: passwords (see `users`), the words of a
//! dialect (see `binary`).

use super::counters::Counters;
use crate::settings::Settings;
use crate::users::Users;

/// A connection's login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nobody has to.
    NotNeeded,
    /// Not yet, or the last try failed.
    Out,
    /// A mechanism was chosen and its message is awaited.
    Begun,
    /// Done.
    In,
}

impl Login {
    pub(crate) fn new(settings: &Settings) -> Login {
        if settings.sasl_users.is_some() { Login::Out } else { Login::NotNeeded }
    }

    /// Whether a request must not be carried out; one that is part of a login may always.
    pub(crate) fn bars(self, is_part_of_login: bool) -> bool {
        matches!(self, Login::Out | Login::Begun) && !is_part_of_login
    }

    /// Tries a name and a password; whether they are right. An earlier login does not survive a failed one.
    pub(crate) fn try_password(
        &mut self,
        users: &Users,
        named: Option<(&[u8], &[u8])>,
        counters: &Counters,
    ) -> bool {
        counters.auth_cmds.add(1);
        let admitted = named.is_some_and(|(name, password)| users.admit(name, password));
        if !admitted {
            counters.auth_errors.add(1);
        }
        *self = if admitted { Login::In } else { Login::Out };
        admitted
    }
}

/// The name and password of SASL PLAIN's message: `[who to act as] NUL name NUL password`. Nobody acts as another.
pub(crate) fn read_plain(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = message.splitn(3, |byte| *byte == 0);
    let (acts_as, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    (acts_as.is_empty() || acts_as == name).then_some((name, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q2_a_plain_message_has_a_name_and_a_password() {
        assert_eq!(read_plain(b"\0ada\0pass"), Some((&b"ada"[..], &b"pass"[..])));
        assert_eq!(read_plain(b"ada\0ada\0"), Some((&b"ada"[..], &b""[..])));
        for bad in [&b""[..], b"ada", b"ada\0pass", b"bob\0ada\0pass"] {
            assert_eq!(read_plain(bad), None, "{}", bad.escape_ascii());
        }
    }
}
