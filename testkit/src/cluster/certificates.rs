//! The keys and certificates of one cluster, written into its folder. One authority signs servers and clients.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

pub(super) const CA_CERTIFICATE: &str = "ca.crt";
pub(super) const SERVER_CERTIFICATE: &str = "server.crt";
pub(super) const SERVER_KEY: &str = "server.key";
pub(super) const TOKEN_KEY: &str = "service-account.key";
pub(super) const TOKEN_PUBLIC_KEY: &str = "service-account.pub";
const ADMIN_CERTIFICATE: &str = "admin.crt";
const ADMIN_KEY: &str = "admin.key";

/// What clients need.
pub(super) struct Certificates {
    pub(super) ca_der: Vec<u8>,
    pub(super) ca: PathBuf,
    pub(super) admin: PathBuf,
    pub(super) admin_key: PathBuf,
}

impl Certificates {
    /// Makes and writes all of them.
    pub(super) fn write(folder: &Path) -> Result<Self> {
        let (ca, issuer) = authority()?;
        fs::write(folder.join(CA_CERTIFICATE), ca.pem())?;

        let mut server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.distinguished_name = name(None, "kube-apiserver");
        sign(server, &issuer, folder, SERVER_CERTIFICATE, SERVER_KEY)?;

        let mut admin = CertificateParams::default();
        admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        admin.distinguished_name = name(Some("system:masters"), "admin");
        sign(admin, &issuer, folder, ADMIN_CERTIFICATE, ADMIN_KEY)?;

        let tokens = KeyPair::generate()?;
        fs::write(folder.join(TOKEN_KEY), tokens.serialize_pem())?;
        fs::write(folder.join(TOKEN_PUBLIC_KEY), tokens.public_key_pem())?;

        Ok(Self {
            ca_der: ca.der().to_vec(),
            ca: folder.join(CA_CERTIFICATE),
            admin: folder.join(ADMIN_CERTIFICATE),
            admin_key: folder.join(ADMIN_KEY),
        })
    }
}

fn authority() -> Result<(rcgen::Certificate, Issuer<'static, KeyPair>)> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name = name(None, "testkit");
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate, Issuer::new(params, key)))
}

fn sign(
    mut params: CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
    folder: &Path,
    certificate: &str,
    key: &str,
) -> Result<()> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let pair = KeyPair::generate()?;
    fs::write(folder.join(certificate), params.signed_by(&pair, issuer)?.pem())?;
    fs::write(folder.join(key), pair.serialize_pem())?;
    Ok(())
}

fn name(organisation: Option<&str>, common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name.push(DnType::CommonName, common);
    name
}
