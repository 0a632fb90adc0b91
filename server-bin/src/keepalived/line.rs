//! One line of keepalived's notify FIFO: `INSTANCE "name" MASTER 100`.

/// The longest line that is looked at, in bytes; keepalived's own have an instance's name and little more.
pub(crate) const LINE_BYTES_MAX: usize = 512;

/// What a line says of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// This machine has the virtual address now.
    Master,
    /// Another machine has it.
    Backup,
    /// This machine may not have it: its track script fails, or its link is down.
    Fault,
    /// keepalived ends, or has forgotten the instance.
    Stop,
    /// This machine has it and hears another, of lower priority, that believes to have it as well.
    LowerHeard,
}

/// The instance's name and what is said of it, or why the line says nothing.
pub(crate) fn parse(line: &[u8]) -> Result<(&str, Notice), &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "it is no text")?;
    let rest = text.strip_prefix("INSTANCE \"").ok_or("it is of no instance")?;
    let (name, rest) = rest.rsplit_once("\" ").ok_or("the name has no end")?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err("the name is no name");
    }
    let mut words = rest.split(' ');
    let notice = match words.next() {
        Some("MASTER") => Notice::Master,
        Some("BACKUP") => Notice::Backup,
        Some("FAULT") => Notice::Fault,
        Some("STOP" | "DELETED") => Notice::Stop,
        Some("MASTER_RX_LOWER_PRI") => Notice::LowerHeard,
        _ => return Err("the state is unknown"),
    };
    let priority = words.next().ok_or("the priority is missing")?;
    match (priority.parse::<u8>(), words.next()) {
        (Ok(_), None) => Ok((name, notice)),
        _ => Err("the priority is no number up to 255, or there is more behind it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalived_s_lines_are_understood() {
        assert_eq!(parse(b"INSTANCE \"hotspare\" MASTER 101"), Ok(("hotspare", Notice::Master)));
        assert_eq!(parse(b"INSTANCE \"VI 1\" BACKUP 0"), Ok(("VI 1", Notice::Backup)));
        assert_eq!(parse(b"INSTANCE \"a\" FAULT 100"), Ok(("a", Notice::Fault)));
        assert_eq!(parse(b"INSTANCE \"a\" STOP 100"), Ok(("a", Notice::Stop)));
        assert_eq!(parse(b"INSTANCE \"a\" MASTER_RX_LOWER_PRI 100"), Ok(("a", Notice::LowerHeard)));
    }

    #[test]
    fn odd_lines_say_nothing() {
        for odd in [
            &b""[..],
            b"GROUP \"a\" MASTER 100",
            b"INSTANCE a MASTER 100",
            b"INSTANCE \"a MASTER 100",
            b"INSTANCE \"\" MASTER 100",
            b"INSTANCE \"a\" MASTER",
            b"INSTANCE \"a\" MASTER 256",
            b"INSTANCE \"a\" MASTER 100 100",
            b"INSTANCE \"a\" master 100",
            b"INSTANCE \"a\" BACKUP_PRIORITY 100",
            b"INSTANCE \"\x1b[2J\" MASTER 100",
            b"INSTANCE \"\xff\" MASTER 100",
            b" INSTANCE \"a\" MASTER 100",
        ] {
            assert!(parse(odd).is_err(), "{}", odd.escape_ascii());
        }
    }
}
