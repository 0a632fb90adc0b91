//! Secrets in files: reading them, and which are too short to keep anybody out.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

/// The longest secret, in bytes.
pub(super) const SECRET_BYTES_MAX: u64 = 4096;

/// The shortest secret of a group, in bytes, and of an admin server that other machines reach.
pub(super) const SECRET_BYTES_MIN: usize = 16;

/// A secret's bytes, without the line end that editors put behind it.
pub(super) fn read_secret(file: &Path, what: &str) -> Result<Vec<u8>, String> {
    let name = file.display();
    let unreadable = |why| format!("can't read the {what} in {name}: {why}");
    let mut bytes = Vec::new();
    // A device or a pipe has no size to ask for beforehand.
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("the {what} in {name} has more than {SECRET_BYTES_MAX} bytes; give one line"));
    }
    let secret = bytes.trim_ascii_end();
    if secret.is_empty() {
        return Err(format!(
            "the {what} in {name} is empty; write at least {SECRET_BYTES_MIN} random characters into it"
        ));
    }
    Ok(secret.to_vec())
}

/// Whether an admin server that other machines reach may start with this token.
pub(super) fn check_far_token(address: SocketAddr, token: Option<&[u8]>) -> Result<(), String> {
    match token.map(<[u8]>::len) {
        None => Err(format!("--admin {address} is not a loopback address; give --admin-token-file")),
        Some(bytes) if bytes < SECRET_BYTES_MIN => Err(format!(
            "the token of --admin-token-file has {bytes} bytes and could be guessed from other machines; write at least \
             {SECRET_BYTES_MIN} random characters into it"
        )),
        Some(_) => Ok(()),
    }
}
