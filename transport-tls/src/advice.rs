//! What an operator should look at when a handshake has failed: the flags of the server that most likely don't fit.
//!
//! Not here: what failed, which rustls says.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// The peer answered, but not by TLS.
pub const NOT_TLS: &str = "it does not speak TLS and this node does; give that node --replication-tls-cert, -key and -ca as well, \
    or start this one without them";

const OTHER_AUTHORITY: &str = "the two nodes' certificates are of different authorities; both need the same --replication-tls-ca, and \
    certificates that it signed (hotspare cert)";

const OTHER_HOST: &str = "dial it by a host that its certificate names, or make it another one with that host: hotspare cert DIR \
    --names NAME/HOST";

/// What to look at when a handshake failed so; `None` where the error says all that is known.
pub fn advice(why: &Error) -> Option<&'static str> {
    match why {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(NOT_TLS),
        // Authorities that `hotspare cert` made have one name: then it is the signature that does not fit.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Some(OTHER_AUTHORITY)
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(OTHER_HOST),
        Error::AlertReceived(alert) => advice_on_alert(*alert),
        _ => None,
    }
}

/// The same by the alert alone, this node's or the peer's: QUIC tells no more.
pub fn advice_on_alert(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => Some(OTHER_AUTHORITY),
        _ => None,
    }
}
