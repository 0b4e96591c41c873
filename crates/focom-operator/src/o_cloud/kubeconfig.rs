//! Reads an O-Cloud's kubeconfig: the address of its API, the certificate authority, and a token or a client
//! certificate, all inline.
//!
//! The author of the Secret need not be trusted by the operator. So only listed fields are allowed, and every other one
//! is rejected before anything is used: programs to run, files to read, proxies, impersonation, unchecked certificates.
//! This holds for entries that no context uses, too. No message repeats a value.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use kube::config::Kubeconfig;
use operator_kit::write::apply::content_hash;
use serde_json::{Map, Value, json};

/// Largest kubeconfig that is read, in bytes: far above real ones, far below a Secret's limit.
const SIZE_MAX: usize = 256 * 1024;
/// Fields that are allowed and ignored.
const IGNORED: [&str; 1] = ["extensions"];

/// What a kubeconfig says, checked. It holds credentials, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterCredentials {
    /// The API's address, `https://…`.
    pub server: String,
    /// Name that the server's certificate must have, where it is not the address's.
    pub tls_server_name: Option<String>,
    /// PEM bundle of the trusted certificate authorities, in base64; `None` for the system's.
    pub authority: Option<String>,
    credentials: UserCredentials,
}

#[derive(Clone, PartialEq, Eq)]
struct UserCredentials {
    token: Option<String>,
    /// Certificate and key, each PEM in base64.
    certificate: Option<(String, String)>,
}

/// Why a kubeconfig is not used: the field, and what is wrong with it; never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KubeconfigError(String);

impl KubeconfigError {
    fn at(path: &str, why: &str) -> Self {
        if path.is_empty() { Self(why.to_owned()) } else { Self(format!("{path} {why}")) }
    }
}

/// Reads the current context of a kubeconfig.
///
/// # Errors
/// [`KubeconfigError`], with the first field that is not allowed, missing or of the wrong form.
pub fn read(content: &[u8]) -> Result<ClusterCredentials, KubeconfigError> {
    if content.len() > SIZE_MAX {
        return Err(KubeconfigError::at("", &format!("it has more than {} KiB", SIZE_MAX / 1024)));
    }
    let text = std::str::from_utf8(content).map_err(|_| KubeconfigError::at("", "it is not text in UTF-8"))?;
    // The parser's own message quotes the text.
    let file: Value =
        serde_saphyr::from_str(text).map_err(|_| KubeconfigError::at("", "it is not one YAML document"))?;
    let file = Fields::of(&file, String::new())?;
    file.deny_unknown_fields(&[
        "apiVersion",
        "kind",
        "preferences",
        "clusters",
        "users",
        "contexts",
        "current-context",
    ])?;
    file.expect_value("apiVersion", "v1")?;
    file.expect_value("kind", "Config")?;
    if file.get("preferences").is_some_and(|value| value.as_object().is_none_or(|fields| !fields.is_empty())) {
        return Err(file.error_at("preferences", "is not empty"));
    }
    let clusters = file.named_list("clusters", "cluster", cluster)?;
    let users = file.named_list("users", "user", user)?;
    let contexts = file.named_list("contexts", "context", context)?;
    let current = file.text("current-context")?.ok_or_else(|| file.error_at("current-context", "is missing"))?;
    let find = |what: &str, list: &str| KubeconfigError::at(what, &format!("names none of {list}"));
    let (cluster, user) = entry(&contexts, &current).ok_or_else(|| find("current-context", "contexts"))?;
    let cluster = entry(&clusters, cluster).ok_or_else(|| find("the current context's cluster", "clusters"))?;
    let credentials = entry(&users, user).ok_or_else(|| find("the current context's user", "users"))?;
    Ok(ClusterCredentials { credentials: credentials.clone(), ..cluster.clone() })
}

impl ClusterCredentials {
    /// Identifies an O-Cloud without revealing its address: a hash of the address and of the trusted
    /// authorities. A new token or client certificate does not change it. Sixteen hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        content_hash(&json!([self.server, self.tls_server_name, self.authority]))
    }

    /// The token, where there is one.
    pub fn token(&self) -> Option<&str> {
        self.credentials.token.as_deref()
    }

    /// A kubeconfig for kube, made of the checked fields only.
    ///
    /// # Errors
    /// If kube cannot read it, which is a defect of the operator.
    pub fn kubeconfig(&self) -> serde_json::Result<Kubeconfig> {
        let UserCredentials { token, certificate } = &self.credentials;
        let (certificate, key) = certificate.clone().unzip();
        let mut file = json!({
            "clusters": [{"name": "o-cloud", "cluster": {
                "server": self.server, "tls-server-name": self.tls_server_name, "certificate-authority-data": self.authority,
            }}],
            "users": [{"name": "o-cloud", "user": {
                "token": token, "client-certificate-data": certificate, "client-key-data": key,
            }}],
            "contexts": [{"name": "o-cloud", "context": {"cluster": "o-cloud", "user": "o-cloud"}}],
            "current-context": "o-cloud",
        });
        drop_nulls(&mut file);
        serde_json::from_value(file)
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn entry<'a, T>(list: &'a [(String, T)], name: &str) -> Option<&'a T> {
    list.iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

fn cluster(fields: &Fields<'_>) -> Result<ClusterCredentials, KubeconfigError> {
    fields.deny_unknown_fields(&[
        "server",
        "certificate-authority-data",
        "tls-server-name",
        "disable-compression",
        "insecure-skip-tls-verify",
    ])?;
    if fields.get("insecure-skip-tls-verify").is_some_and(|value| value.as_bool() != Some(false)) {
        return Err(
            fields.error_at("insecure-skip-tls-verify", "is not allowed: any server could pass for the O-Cloud")
        );
    }
    if fields.get("disable-compression").is_some_and(|value| !value.is_boolean()) {
        return Err(fields.error_at("disable-compression", "is neither true nor false"));
    }
    let server = fields.text("server")?.ok_or_else(|| fields.error_at("server", "is missing"))?;
    address(&server).map_err(|why| fields.error_at("server", why))?;
    let tls_server_name = fields.text("tls-server-name")?;
    if tls_server_name.as_deref().is_some_and(|name| !is_host_name(name)) {
        return Err(fields.error_at("tls-server-name", "is not a host name"));
    }
    Ok(ClusterCredentials {
        server,
        tls_server_name,
        authority: fields.pem("certificate-authority-data", "CERTIFICATE")?,
        credentials: UserCredentials { token: None, certificate: None },
    })
}

fn address(server: &str) -> Result<(), &'static str> {
    let uri: Uri = server.parse().map_err(|_| "is not a URL")?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return Err("is not https: credentials would go over the wire in the clear"),
        _ => return Err("is not a URL that begins with https://"),
    }
    let authority = uri.authority().ok_or("is not a URL")?;
    if authority.as_str().contains('@') {
        return Err("has a user or a password in it");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("is not a URL");
    }
    if uri.query().is_some() || server.contains('#') {
        return Err("has a query or a fragment");
    }
    Ok(())
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.chars().all(|character| character.is_ascii_alphanumeric() || "-.:".contains(character))
}

fn user(fields: &Fields<'_>) -> Result<UserCredentials, KubeconfigError> {
    fields.deny_unknown_fields(&["token", "client-certificate-data", "client-key-data"])?;
    let token = fields.text("token")?;
    if token
        .as_deref()
        .is_some_and(|token| token.is_empty() || !token.chars().all(|character| character.is_ascii_graphic()))
    {
        return Err(fields.error_at("token", "is empty, or has spaces or characters that no token has"));
    }
    let certificate = fields.pem("client-certificate-data", "CERTIFICATE")?;
    let key = fields.pem("client-key-data", "PRIVATE KEY")?;
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(fields.error_at("client-key-data", "is missing beside client-certificate-data")),
        (None, Some(_)) => return Err(fields.error_at("client-certificate-data", "is missing beside client-key-data")),
        (None, None) => None,
    };
    if token.is_none() && certificate.is_none() {
        return Err(KubeconfigError::at(&fields.path, "has neither a token nor a client certificate"));
    }
    Ok(UserCredentials { token, certificate })
}

/// Names of a cluster and a user.
fn context(fields: &Fields<'_>) -> Result<(String, String), KubeconfigError> {
    fields.deny_unknown_fields(&["cluster", "user", "namespace"])?;
    fields.text("namespace")?;
    let name = |key: &str| fields.text(key)?.ok_or_else(|| fields.error_at(key, "is missing"));
    Ok((name("cluster")?, name("user")?))
}

/// An object in the file, with its path for messages.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, path: String) -> Result<Self, KubeconfigError> {
        match value.as_object() {
            Some(map) => Ok(Self { map, path }),
            None if path.is_empty() => Err(KubeconfigError::at("", "it is not a map of fields")),
            None => Err(KubeconfigError::at(&path, "is not a map of fields")),
        }
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn error_at(&self, key: &str, why: &str) -> KubeconfigError {
        KubeconfigError::at(&self.at(key), why)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Rejects every field that is not in `allowed`.
    fn deny_unknown_fields(&self, allowed: &[&str]) -> Result<(), KubeconfigError> {
        for (key, value) in self.map {
            let known = allowed.contains(&key.as_str()) || IGNORED.contains(&key.as_str());
            if !known && !value.is_null() {
                // A key may be a misplaced secret, so it is not repeated unless it looks like the name of a field.
                let plain = key.len() <= 32 && key.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '-');
                return Err(if plain {
                    self.error_at(key, rejection_reason(key))
                } else {
                    KubeconfigError::at(&self.path, "has a field of an impossible name")
                });
            }
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<Option<String>, KubeconfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.error_at(key, "is not a text")),
        }
    }

    fn expect_value(&self, key: &str, wanted: &str) -> Result<(), KubeconfigError> {
        match self.text(key)? {
            Some(found) if found != wanted => Err(self.error_at(key, &format!("is not {wanted}"))),
            _ => Ok(()),
        }
    }

    /// The field as it is, if it holds PEM of this label in base64.
    fn pem(&self, key: &str, label: &str) -> Result<Option<String>, KubeconfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let content = BASE64_STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let is_pem = content.is_some_and(|pem| {
            pem.lines()
                .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----")))
        });
        if is_pem { Ok(Some(text)) } else { Err(self.error_at(key, &format!("is not {label} in PEM, base64"))) }
    }

    /// A list of `{name, <key>: {…}}`; names are unique.
    fn named_list<T>(
        &self,
        list: &str,
        key: &str,
        read: impl Fn(&Fields<'_>) -> Result<T, KubeconfigError>,
    ) -> Result<Vec<(String, T)>, KubeconfigError> {
        let Some(value) = self.get(list) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| self.error_at(list, "is not a list"))?;
        let mut found: Vec<(String, T)> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let item = Fields::of(item, format!("{list}[{index}]"))?;
            item.deny_unknown_fields(&["name", key])?;
            let name = item.text("name")?.ok_or_else(|| item.error_at("name", "is missing"))?;
            if entry(&found, &name).is_some() {
                return Err(item.error_at("name", "is there twice"));
            }
            let inner = item.get(key).ok_or_else(|| item.error_at(key, "is missing"))?;
            found.push((name, read(&Fields::of(inner, item.at(key))?)?));
        }
        Ok(found)
    }
}

fn rejection_reason(key: &str) -> &'static str {
    match key {
        "exec" => "is not allowed: it would run a program in the operator",
        "auth-provider" => "is not allowed: it would run a plug-in; use a token",
        "tokenFile" => "is not allowed: it would read a file of the operator; put the token into token",
        "client-certificate" => {
            "is not allowed: it would read a file of the operator; put the content into client-certificate-data"
        }
        "client-key" => "is not allowed: it would read a file of the operator; put the content into client-key-data",
        "certificate-authority" => {
            "is not allowed: it would read a file of the operator; put the content into certificate-authority-data"
        }
        "proxy-url" => "is not allowed: requests would go through a proxy that the Secret names",
        "as" | "as-uid" | "as-groups" | "as-user-extra" => "is not allowed: it impersonates another user",
        "username" | "password" => {
            "is not allowed: Kubernetes accepts no passwords; use a token or a client certificate"
        }
        _ => "is not a field that is allowed here",
    }
}
