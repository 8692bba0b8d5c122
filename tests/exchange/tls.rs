//! A certificate authority which lives as long as one test, and the server's certificate from it.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

pub struct Authority {
    pub ca_pem: String,
    pub server: Arc<ServerConfig>,
}

impl Authority {
    /// An authority that vouches for `localhost` and 127.0.0.1.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("because ring makes keys on any machine");
        let mut params = CertificateParams::new(Vec::new()).expect("because no name is given");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "fixture exchange");
        let ca = params.self_signed(&key).expect("because the parameters are complete");
        let issuer = Issuer::new(params, key);

        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server_key = KeyPair::generate().expect("because ring makes keys on any machine");
        let params = CertificateParams::new(names).expect("because both names are well-formed");
        let certificate =
            params.signed_by(&server_key, &issuer).expect("because the issuer may sign");
        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        // The provider is named, for a process may link more than one.
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("because ring knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .expect("because key and certificate were made together");
        Self { ca_pem: ca.pem(), server: Arc::new(server) }
    }
}
