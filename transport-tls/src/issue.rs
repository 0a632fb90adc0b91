//! Making a group's authority and its nodes' certificates.
//!
//! Lives here: what is in them. Not here: files (the server's `cert` command), and renewing: make new ones, and have each
//! node read them ([`Credentials::reload`](crate::Credentials::reload)).

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Where a node can always be dialled from its own machine: in every certificate.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A group's authority: whoever has its key lets nodes in.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority, whose certificate names it `name`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(name: &str) -> Result<Authority, Error> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Authority { issuer: Issuer::new(parameters, key), certificate })
    }

    /// The authority that was made earlier, from the PEM texts of its certificate and its key.
    ///
    /// # Errors
    /// A text is none of the kind, the certificate is no authority's, or the key is another one's.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Authority, String> {
        let key = KeyPair::from_pem(key).map_err(|why| format!("the key: {why}"))?;
        let unreadable = |why: &dyn std::fmt::Display| format!("the certificate: {why}");
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|why| unreadable(&why))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|why| unreadable(&why))?;
        if !parsed.is_ca() {
            return Err("the certificate is no authority's".to_owned());
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err("the key is not the certificate's".to_owned());
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|why| unreadable(&why))?;
        Ok(Authority { issuer, certificate: certificate.to_owned() })
    }

    /// The authority itself.
    pub fn pem(&self) -> Issued {
        Issued { certificate: self.certificate.clone(), key: self.issuer.key().serialize_pem() }
    }

    /// A node's certificate: for its `name` and all its `hosts` (names and IP addresses), and for its own machine.
    ///
    /// # Errors
    /// One of the hosts is no host's name.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Result<Issued, Error> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        for host in hosts.iter().copied().chain(LOCAL_HOSTS) {
            parameters.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(host)?),
            });
        }
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    #[test]
    fn an_authority_from_its_files_signs_for_the_same_group() {
        let made = Authority::new("a group").unwrap();
        let texts = made.pem();
        let again = Authority::from_pem(&texts.certificate, &texts.key).unwrap();
        assert_eq!((again.pem().certificate, again.pem().key), (texts.certificate.clone(), texts.key));
        let issued = again.issue("late", &[]).unwrap();
        Credentials::from_pem(&texts.certificate, &issued.certificate, &issued.key).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let (_, late) = x509_parser::parse_x509_certificate(&der).unwrap();
        let der = CertificateDer::from_pem_slice(texts.certificate.as_bytes()).unwrap();
        let (_, authority) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(late.issuer(), authority.subject());
    }

    #[test]
    fn what_is_no_authority_is_refused_in_words() {
        let (one, other) = (Authority::new("a group").unwrap(), Authority::new("a group").unwrap());
        let node = one.issue("node", &[]).unwrap();
        let (one, other) = (one.pem(), other.pem());
        for (certificate, key, words) in [
            (&*one.certificate, &*other.key, "the key is not the certificate's"),
            (&node.certificate, &node.key, "no authority's"),
            ("nonsense", &one.key, "the certificate: "),
            (&one.certificate, "nonsense", "the key: "),
            (&one.certificate, &one.certificate, "the key: "),
        ] {
            let why = Authority::from_pem(certificate, key).unwrap_err();
            assert!(why.contains(words), "{words}: {why}");
        }
    }
}
