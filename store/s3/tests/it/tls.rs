//! An endpoint with a certificate of an authority of its own.

use crate::server::S3Server;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::sync::Arc;
use store::{BlobName, BlobStore};
use store_s3::{S3Blobs, S3Config};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Speaks TLS for a server that does not; answers its address and its authority's certificate (PEM).
async fn before(server: String) -> (String, String) {
    let mut authority = CertificateParams::new(Vec::<String>::new()).expect("legal");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let ca_pem = authority.self_signed(&authority_key).expect("signed").pem();
    let issuer = Issuer::new(authority, authority_key);
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("legal");
    let own_key = KeyPair::generate().expect("a key");
    let certificate = own.signed_by(&own_key, &issuer).expect("signed");
    let key = PrivateKeyDer::try_from(own_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("https://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                // A client that does not believe the certificate ends it here.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut behind = TcpStream::connect(server).await.expect("the server");
                drop(tokio::io::copy_bidirectional(&mut stream, &mut behind).await);
            });
        }
    });
    (endpoint, ca_pem)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_believed_when_it_is_named() {
    let Some(server) = S3Server::start().filter(S3Server::is_own) else {
        return;
    };
    let (endpoint, ca_pem) = before(server.address()).await;
    let with = |ca_pem: Option<String>| S3Config {
        endpoint: Some(endpoint.clone()),
        ca_pem,
        ..server.config()
    };
    let blobs = S3Blobs::connect(with(Some(ca_pem))).await.expect("it is believed");
    let name = BlobName::new("a/b").expect("legal");
    blobs.put(&name, b"bytes".to_vec()).await.expect("stored");
    assert_eq!(blobs.get(&name).await.expect("there"), b"bytes");

    let (_, of_another) = before(server.address()).await;
    for stranger in [None, Some(of_another)] {
        let refused = S3Blobs::connect(with(stranger))
            .await
            .expect_err("a stranger")
            .to_string();
        assert!(
            refused.contains(&endpoint) && refused.to_lowercase().contains("certificate") && refused.contains("`ca`"),
            "{refused}"
        );
    }
}
