//! Credentials for an API server, for any user.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client, Config};

use crate::certificates::{Authority, Pair};
use crate::folder::write_private;

/// Lifetime of a service account's token: longer than any test.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// The address of an API server and the authority that signs its clients' certificates. Makes credentials for any user.
/// Cheap to clone.
#[derive(Clone)]
pub struct Access {
    server: Arc<str>,
    authority: Arc<Authority>,
}

impl Access {
    pub(crate) fn new(server: &str, authority: Arc<Authority>) -> Self {
        Self { server: server.into(), authority }
    }

    /// The API server's address, such as `https://127.0.0.1:20443`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The certificate of the authority that signed the server's certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.authority.pair().certificate
    }

    /// The authority that signs the certificates of the server and of its clients.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A client configuration for this user, with a new client certificate; at most two groups. The user may be a
    /// service account (`system:serviceaccount:NAMESPACE:NAME`): no token is needed.
    pub fn config_as(&self, user: &str, groups: &[&str]) -> Result<Config> {
        let pair = self.authority.client(user, groups)?;
        let address = self.server.parse().with_context(|| format!("{} is no address", self.server))?;
        let mut config = Config::new(address);
        config.root_cert = Some(vec![certificate_bytes(self.ca_pem())?]);
        config.auth_info.client_certificate_data = Some(BASE64_STANDARD.encode(&pair.certificate));
        config.auth_info.client_key_data = Some(BASE64_STANDARD.encode(&pair.key).into());
        Ok(config)
    }

    /// A client that acts as this user.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        Ok(Client::try_from(self.config_as(user, groups)?)?)
    }

    /// Writes a kubeconfig for this user, with all credentials inline.
    pub fn kubeconfig_as(&self, user: &str, groups: &[&str], path: &Path) -> Result<()> {
        let Pair { certificate, key } = self.authority.client(user, groups)?;
        let credentials = format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            BASE64_STANDARD.encode(certificate),
            BASE64_STANDARD.encode(key)
        );
        self.write_kubeconfig(&credentials, path)
    }

    /// Writes a kubeconfig with a new token of an existing service account.
    pub(crate) async fn service_account_kubeconfig(&self, namespace: &str, name: &str, path: &Path) -> Result<()> {
        let admin = self.client_as("admin", &["system:masters"])?;
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..Default::default() },
            ..Default::default()
        };
        let answer = Api::<ServiceAccount>::namespaced(admin, namespace)
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for service account {namespace}/{name}; does it exist yet?"))?;
        let status = answer.status.context("the API server answered a token request without a token")?;
        self.write_kubeconfig(&format!("token: {}", status.token), path)
    }

    fn write_kubeconfig(&self, credentials: &str, path: &Path) -> Result<()> {
        let server = &self.server;
        let authority = BASE64_STANDARD.encode(self.ca_pem());
        let text = format!(
            "apiVersion: v1
kind: Config
current-context: testenv
contexts:
- name: testenv
  context:
    cluster: testenv
    user: testenv
clusters:
- name: testenv
  cluster:
    server: {server}
    certificate-authority-data: {authority}
users:
- name: testenv
  user:
    {credentials}
"
        );
        write_private(path, text.as_bytes())
    }
}

/// The bytes of a PEM certificate.
fn certificate_bytes(pem: &str) -> Result<Vec<u8>> {
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64_STANDARD.decode(text).context("a certificate is not PEM")
}
