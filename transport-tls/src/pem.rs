//! Certificates and keys in PEM files. Every error names the file.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates in a file, in its order.
///
/// # Errors
/// The file can't be read, is no PEM, or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |why| format!("can't read the certificates in {}: {why}", file.display());
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if found.is_empty() {
        return Err(format!("no certificate in {}", file.display()));
    }
    Ok(found)
}

/// The private key in a file.
///
/// # Errors
/// The file can't be read, or has none.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|why| format!("can't read the key in {}: {why}", file.display()))
}

/// The authorities in a file.
///
/// # Errors
/// As [`certificates`]; or one of them can't be an authority.
pub fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for authority in certificates(file)? {
        authorities.add(authority).map_err(|why| format!("{}: {why}", file.display()))?;
    }
    Ok(authorities)
}
