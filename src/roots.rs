//! Whose certificates are trusted: one source of roots for REST and the stream alike.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

/// The variable by which OpenSSL, curl and others are told of a file with roots. Networks that
/// look into TLS set it on their machines.
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";

/// The roots of trust: a file's, or else Mozilla's as built in.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The certificates of the file, each of which rustls can use.
    file: Option<Vec<CertificateDer<'static>>>,
}

/// A file that gives no roots.
#[derive(Debug)]
pub struct RootsError {
    path: PathBuf,
    why: String,
}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RootsError { path, why } = self;
        write!(f, "{path:?} gives no root certificates: {why} (set by ca_file or {SSL_CERT_FILE})")
    }
}

impl std::error::Error for RootsError {}

impl Roots {
    /// The roots of `ca_file`, else of the file that `SSL_CERT_FILE` names, else the built-in
    /// ones. A file takes the place of the built-in roots, it does not add to them.
    pub fn find(ca_file: Option<&Path>) -> Result<Roots, RootsError> {
        let named = || std::env::var_os(SSL_CERT_FILE).filter(|name| !name.is_empty());
        match ca_file.map(Path::to_owned).or_else(|| named().map(PathBuf::from)) {
            Some(path) => Roots::read(&path),
            None => Ok(Roots { file: None }),
        }
    }

    /// The roots of a PEM file. Certificates that rustls cannot use are left out, as the bundles
    /// of operating systems have some; a file of nothing else is refused.
    fn read(path: &Path) -> Result<Roots, RootsError> {
        let refuse = |why: String| RootsError { path: path.to_owned(), why };
        let mut certificates = Vec::new();
        let file = CertificateDer::pem_file_iter(path).map_err(|e| refuse(e.to_string()))?;
        for certificate in file {
            let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
            if RootCertStore::empty().add(certificate.clone()).is_ok() {
                certificates.push(certificate);
            }
        }
        if certificates.is_empty() {
            return Err(refuse("it has no usable PEM certificate".to_owned()));
        }
        Ok(Roots { file: Some(certificates) })
    }

    /// The certificates of the file; nothing where the built-in roots hold.
    pub fn file(&self) -> Option<&[CertificateDer<'static>]> {
        self.file.as_deref()
    }

    /// A client's TLS that trusts them, by the crypto provider that REST has as well.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut store = RootCertStore::empty();
        match &self.file {
            // Each was tried when the file was read.
            Some(file) => {
                store.add_parsable_certificates(file.iter().cloned());
            }
            None => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("because ring has the suites of both versions of TLS")
            .with_root_certificates(store)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// What to tell a user whose connection failed over the other side's certificate.
pub fn distrust(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref()? {
        // A root of the right name and with another key is that of an authority made anew.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Some(
            "its certificate is not trusted: where a proxy looks into TLS, name that proxy's root \
             in ca_file or SSL_CERT_FILE",
        ),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("its certificate is another host's: look at the address"),
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => Some("its certificate is not valid now: look at this machine's clock"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_of_certificates_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        fs::write(&path, format!("a remark\n{}", made.cert.pem())).unwrap();
        let roots = Roots::find(Some(&path)).unwrap();
        assert_eq!(roots.file(), Some(&[made.cert.der().clone()][..]));
    }

    #[test]
    fn a_file_without_any_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, why) in [
            (None, "No such file"),
            (Some(""), "no usable"),
            (Some("not PEM at all"), "no usable"),
            (Some(pem), "no usable"),
        ] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let refused = Roots::find(Some(&path)).unwrap_err().to_string();
            assert!(refused.contains("ca.pem") && refused.contains(why), "{refused}");
        }
    }
}
