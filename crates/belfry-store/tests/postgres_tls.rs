//! The ways to a server by TLS, as `sslmode` names them.

#![allow(clippy::unwrap_used, reason = "a test")]

use belfry_store::{Database, Options, Store};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use testkit::{Postgres, postgres::FAST, skip};

const USAGE: &str = "local all all trust
hostssl asks all 127.0.0.1/32 trust clientcert=verify-ca
hostssl all all 127.0.0.1/32 trust
";

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for this name, and its key.
fn leaf(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> [String; 2] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // Other than the authority's, or OpenSSL takes it for its own authority.
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    [certificate.pem(), key.serialize_pem()]
}

#[test]
fn whom_to_trust() {
    let (ours, theirs) = (authority(), authority());
    let [certificate, key] = leaf(&ours, "localhost");
    let files =
        [("server.crt", &*certificate), ("server.key", &*key), ("ca.crt", &*ours.pem()), ("pg_hba.conf", USAGE)];
    let tls = [("ssl", "on"), ("ssl_ca_file", "ca.crt"), ("listen_addresses", "127.0.0.1")];
    let settings: Vec<_> = FAST.iter().copied().chain(tls).collect();
    let Some(server) = Postgres::start_with(&settings, &files).unwrap() else { return skip("PostgreSQL is missing") };
    server.sql("postgres", "CREATE DATABASE plain").unwrap();
    server.sql("postgres", "CREATE DATABASE asks").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [client, client_key] = leaf(&ours, "belfry");
    let [stranger, stranger_key] = leaf(&theirs, "belfry");
    let file = |name: &str, contents: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.display().to_string()
    };
    let (ours, theirs) = (file("ours", &ours.pem()), file("theirs", &theirs.pem()));
    let client = format!("sslcert={}&sslkey={}", file("client", &client), file("client.key", &client_key));
    let stranger = format!("sslcert={}&sslkey={}", file("stranger", &stranger), file("stranger.key", &stranger_key));
    for (host, database, query, expected) in [
        ("127.0.0.1", "plain", "sslmode=disable".to_owned(), Err("pg_hba.conf")),
        ("127.0.0.1", "plain", String::new(), Ok(())),
        ("127.0.0.1", "plain", "sslmode=require".to_owned(), Ok(())),
        ("127.0.0.1", "plain", format!("sslmode=require&sslrootcert={theirs}"), Err("invalid peer certificate")),
        ("127.0.0.1", "plain", format!("sslmode=verify-ca&sslrootcert={ours}"), Ok(())),
        ("127.0.0.1", "plain", format!("sslmode=verify-ca&sslrootcert={theirs}"), Err("invalid peer certificate")),
        ("127.0.0.1", "plain", format!("sslmode=verify-full&sslrootcert={ours}"), Err("not valid for name")),
        ("localhost", "plain", format!("sslmode=verify-full&sslrootcert={ours}"), Ok(())),
        ("localhost", "plain", format!("sslmode=verify-full&sslrootcert={theirs}"), Err("invalid peer certificate")),
        ("localhost", "plain", "sslmode=verify-full&sslrootcert=/nowhere".to_owned(), Err("/nowhere")),
        ("localhost", "asks", format!("sslmode=verify-full&sslrootcert={ours}"), Err("certificate")),
        ("localhost", "asks", format!("sslmode=verify-full&sslrootcert={ours}&{stranger}"), Err("PostgreSQL: ")),
        ("localhost", "asks", format!("sslmode=verify-full&sslrootcert={ours}&{client}"), Ok(())),
    ] {
        let url = format!("postgres://postgres@{host}:{}/{database}?{query}", server.port());
        let opened = Store::open_postgres(&Database::at(&url), Options::default());
        match (opened.map(drop), expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{url}: {error}"),
            (opened, _) => panic!("{url}: {opened:?}"),
        }
    }
}
