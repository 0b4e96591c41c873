//! Keys and certificates: EC P-256, because RSA keys would take seconds on a small machine.

use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

/// The host names of an API server within its cluster.
const SERVER_NAMES: [&str; 4] = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// A certificate and its private key (PKCS#8), both PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// A certificate authority, with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pair: Pair,
}

impl Authority {
    /// A new authority with a self-signed certificate.
    pub fn generate(common_name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = parameters(common_name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pair = Pair { certificate: parameters.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok(Self { issuer: Issuer::new(parameters, key), pair })
    }

    /// An existing authority, such as a cluster's own.
    ///
    /// # Errors
    /// When the certificate is not valid, or the key is neither EC (P-256, P-384) nor RSA.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let pair = Pair { certificate: certificate.to_owned(), key: key.to_owned() };
        let key = KeyPair::from_pem(&to_pkcs8(key)?).context("the authority's key cannot be used")?;
        let issuer =
            Issuer::from_ca_cert_pem(certificate, key).context("the authority's certificate cannot be used")?;
        Ok(Self { issuer, pair })
    }

    /// The authority's own certificate and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Signs a serving certificate for an API server or a webhook at these addresses.
    pub fn server(&self, common_name: &str, addresses: &[IpAddr]) -> Result<Pair> {
        let mut parameters = parameters(common_name);
        for name in SERVER_NAMES {
            parameters.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        parameters.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        self.sign(parameters, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Signs a client certificate: API servers read the user from the common name, the groups from the organizations.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Pair> {
        let mut parameters = parameters(user);
        // rcgen holds each type of entry only once, so the second organization is given by its object identifier.
        let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
        if groups.len() > kinds.len() {
            bail!("a client certificate carries at most {} groups, {user} has {}", kinds.len(), groups.len());
        }
        for (kind, group) in kinds.into_iter().zip(groups) {
            parameters.distinguished_name.push(kind, *group);
        }
        self.sign(parameters, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut parameters: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Pair> {
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        parameters.extended_key_usages = vec![usage];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// A key for signing service account tokens: private (PKCS#8) and public part, PEM.
pub(crate) fn signing_key() -> Result<(String, String)> {
    let key = KeyPair::generate()?;
    Ok((key.serialize_pem(), key.public_key_pem()))
}

fn parameters(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    // Fixed dates will do, because a test cluster lives for minutes.
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2060, 1, 1);
    parameters
}

/// Converts a private key to PKCS#8, which is what rcgen reads. Go programs write PKCS#1 (RSA) or SEC 1 (EC), which
/// PKCS#8 wraps.
fn to_pkcs8(pem: &str) -> Result<String> {
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

    let (kind, body) = pem_body(pem).context("a private key is not PEM")?;
    let algorithm = match kind {
        "RSA PRIVATE KEY" => RSA.to_vec(),
        "EC PRIVATE KEY" => {
            let curve = [P256, P384]
                .into_iter()
                .find(|curve| body.windows(curve.len()).any(|window| window == *curve))
                .context("an EC private key does not name a curve that is known here (P-256, P-384)")?;
            [EC, curve].concat()
        }
        _ => return Ok(pem.to_owned()),
    };
    let version = [0x02, 0x01, 0x00];
    let content = [&version[..], &der(0x30, &algorithm), &der(0x04, &body)].concat();
    let lines: Vec<String> = BASE64_STANDARD
        .encode(der(0x30, &content))
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
}

/// The first private key of a PEM text: its label and its bytes. Go writes "EC PARAMETERS" before some keys.
fn pem_body(pem: &str) -> Option<(&str, Vec<u8>)> {
    let mut rest = pem;
    loop {
        let (_, after) = rest.split_once("-----BEGIN ")?;
        let (kind, after) = after.split_once("-----")?;
        let (body, after) = after.split_once("-----END ")?;
        if kind.ends_with("PRIVATE KEY") {
            let text: String = body.split_whitespace().collect();
            return Some((kind, BASE64_STANDARD.decode(text).ok()?));
        }
        rest = after;
    }
}

/// One DER element.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut element = vec![tag];
    if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
        element.push(short);
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        // A usize has at most 8 bytes.
        element.push(0x80 | u8::try_from(bytes.len()).unwrap_or(8));
        element.extend(bytes);
    }
    element.extend(content);
    element
}
