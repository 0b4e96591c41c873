//! Reads an O-Cloud's kubeconfig: where its API is, whom to trust, and a token or a client certificate, all of it inline.
//!
//! Whoever may write the Secret is not whoever runs the operator. So this is a list of what is allowed, and everything else is
//! refused before anything is done with it: programs to run, files to read, proxies, impersonation, unchecked certificates.
//! Entries that no context uses count too. No message repeats a value.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Uri;
use kube::config::Kubeconfig;
use operator_kit::write::apply::content_hash;
use serde_json::{Map, Value, json};

/// Largest kubeconfig that is looked at, in bytes: far above real ones, far below a Secret's limit.
const SIZE_MAX: usize = 256 * 1024;
/// Keys whose values mean nothing to us and do no harm.
const IGNORED: [&str; 1] = ["extensions"];

/// What a kubeconfig says that is within bounds. It holds credentials, so it has no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// The API's address, `https://…`.
    pub server: String,
    /// Name that the server's certificate must have, where it is not the address's.
    pub tls_server_name: Option<String>,
    /// PEM bundle of the authorities that are trusted, base64; the system's, where there is none.
    pub authority: Option<String>,
    credentials: Credentials,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    token: Option<String>,
    /// Certificate and key, each PEM in base64.
    certificate: Option<(String, String)>,
}

/// Why a kubeconfig is not used: the field, and what is wrong with it; never its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    fn at(path: &str, why: &str) -> Self {
        if path.is_empty() { Self(why.to_owned()) } else { Self(format!("{path} {why}")) }
    }
}

/// Reads the current context of a kubeconfig.
///
/// # Errors
/// [`Refused`], with the first field that is not allowed, missing or of the wrong form.
pub fn read(content: &[u8]) -> Result<Access, Refused> {
    if content.len() > SIZE_MAX {
        return Err(Refused::at("", &format!("it has more than {} KiB", SIZE_MAX / 1024)));
    }
    let text = std::str::from_utf8(content).map_err(|_| Refused::at("", "it is not text in UTF-8"))?;
    // The parser's own message quotes the text.
    let file: Value = serde_saphyr::from_str(text).map_err(|_| Refused::at("", "it is not one YAML document"))?;
    let file = Fields::of(&file, String::new())?;
    file.only(&["apiVersion", "kind", "preferences", "clusters", "users", "contexts", "current-context"])?;
    file.constant("apiVersion", "v1")?;
    file.constant("kind", "Config")?;
    if file.get("preferences").is_some_and(|value| value.as_object().is_none_or(|fields| !fields.is_empty())) {
        return Err(file.refuse("preferences", "is not empty"));
    }
    let clusters = file.named("clusters", "cluster", cluster)?;
    let users = file.named("users", "user", user)?;
    let contexts = file.named("contexts", "context", context)?;
    let current = file.text("current-context")?.ok_or_else(|| file.refuse("current-context", "is missing"))?;
    let find = |what: &str, list: &str| Refused::at(what, &format!("names none of {list}"));
    let (cluster, user) = entry(&contexts, &current).ok_or_else(|| find("current-context", "contexts"))?;
    let cluster = entry(&clusters, cluster).ok_or_else(|| find("the current context's cluster", "clusters"))?;
    let credentials = entry(&users, user).ok_or_else(|| find("the current context's user", "users"))?;
    Ok(Access { credentials: credentials.clone(), ..cluster.clone() })
}

impl Access {
    /// Tells one O-Cloud from another without saying where it is: a hash of the address and of who is trusted. A new token or
    /// client certificate does not change it.
    pub fn mark(&self) -> String {
        content_hash(&json!([self.server, self.tls_server_name, self.authority]))
    }

    /// The token, where there is one.
    pub fn token(&self) -> Option<&str> {
        self.credentials.token.as_deref()
    }

    /// For kube, which gets nothing but what stands here.
    ///
    /// # Errors
    /// [`Refused`], when kube's own type cannot be made of it, which is a defect.
    pub fn kubeconfig(&self) -> Result<Kubeconfig, Refused> {
        let Credentials { token, certificate } = &self.credentials;
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
        serde_json::from_value(file).map_err(|_| Refused::at("", "it cannot be handed on"))
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

fn cluster(fields: &Fields<'_>) -> Result<Access, Refused> {
    fields.only(&[
        "server",
        "certificate-authority-data",
        "tls-server-name",
        "disable-compression",
        "insecure-skip-tls-verify",
    ])?;
    if fields.get("insecure-skip-tls-verify").is_some_and(|value| value.as_bool() != Some(false)) {
        return Err(
            fields.refuse("insecure-skip-tls-verify", "is not allowed: anybody could answer in the O-Cloud's place")
        );
    }
    if fields.get("disable-compression").is_some_and(|value| !value.is_boolean()) {
        return Err(fields.refuse("disable-compression", "is neither true nor false"));
    }
    let server = fields.text("server")?.ok_or_else(|| fields.refuse("server", "is missing"))?;
    address(&server).map_err(|why| fields.refuse("server", why))?;
    let tls_server_name = fields.text("tls-server-name")?;
    if tls_server_name.as_deref().is_some_and(|name| !is_host_name(name)) {
        return Err(fields.refuse("tls-server-name", "is not a host name"));
    }
    Ok(Access {
        server,
        tls_server_name,
        authority: fields.pem("certificate-authority-data", "CERTIFICATE")?,
        credentials: Credentials { token: None, certificate: None },
    })
}

fn address(server: &str) -> Result<(), &'static str> {
    let uri: Uri = server.parse().map_err(|_| "is not a URL")?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") => return Err("is not https: credentials would go over the wire in the clear"),
        _ => return Err("is not a URL that begins with https://"),
    }
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user or a password in it");
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("has no host");
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

fn user(fields: &Fields<'_>) -> Result<Credentials, Refused> {
    fields.only(&["token", "client-certificate-data", "client-key-data"])?;
    let token = fields.text("token")?;
    if token
        .as_deref()
        .is_some_and(|token| token.is_empty() || !token.chars().all(|character| character.is_ascii_graphic()))
    {
        return Err(fields.refuse("token", "is empty, or has spaces or characters that no token has"));
    }
    let certificate = fields.pem("client-certificate-data", "CERTIFICATE")?;
    let key = fields.pem("client-key-data", "PRIVATE KEY")?;
    let certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => return Err(fields.refuse("client-key-data", "is missing beside client-certificate-data")),
        (None, Some(_)) => return Err(fields.refuse("client-certificate-data", "is missing beside client-key-data")),
        (None, None) => None,
    };
    if token.is_none() && certificate.is_none() {
        return Err(Refused::at(&fields.path, "has neither a token nor a client certificate"));
    }
    Ok(Credentials { token, certificate })
}

/// Names of a cluster and a user.
fn context(fields: &Fields<'_>) -> Result<(String, String), Refused> {
    fields.only(&["cluster", "user", "namespace"])?;
    fields.text("namespace")?;
    let name = |key: &str| fields.text(key)?.ok_or_else(|| fields.refuse(key, "is missing"));
    Ok((name("cluster")?, name("user")?))
}

/// An object of the file, with its path for messages.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    fn of(value: &'a Value, path: String) -> Result<Self, Refused> {
        match value.as_object() {
            Some(map) => Ok(Self { map, path }),
            None if path.is_empty() => Err(Refused::at("", "it is not a map of fields")),
            None => Err(Refused::at(&path, "is not a map of fields")),
        }
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn refuse(&self, key: &str, why: &str) -> Refused {
        Refused::at(&self.at(key), why)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Refuses every other field.
    fn only(&self, allowed: &[&str]) -> Result<(), Refused> {
        for (key, value) in self.map {
            let known = allowed.contains(&key.as_str()) || IGNORED.contains(&key.as_str());
            if !known && !value.is_null() {
                // A key can be anything, a misplaced secret too; what does not look like a field's name is not repeated.
                let plain = key.len() <= 32 && key.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '-');
                return Err(if plain {
                    self.refuse(key, why_forbidden(key))
                } else {
                    Refused::at(&self.path, "has a field of an impossible name")
                });
            }
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Result<Option<String>, Refused> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.refuse(key, "is not a text")),
        }
    }

    fn constant(&self, key: &str, wanted: &str) -> Result<(), Refused> {
        match self.text(key)? {
            Some(found) if found != wanted => Err(self.refuse(key, &format!("is not {wanted}"))),
            _ => Ok(()),
        }
    }

    /// PEM of this label in base64, as it stands there.
    fn pem(&self, key: &str, label: &str) -> Result<Option<String>, Refused> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let content = BASE64_STANDARD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let is_pem = content.is_some_and(|pem| {
            pem.lines()
                .any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(&format!("{label}-----")))
        });
        if is_pem { Ok(Some(text)) } else { Err(self.refuse(key, &format!("is not {label} in PEM, base64"))) }
    }

    /// A list of `{name, <key>: {…}}`; names are unique.
    fn named<T>(
        &self,
        list: &str,
        key: &str,
        read: impl Fn(&Fields<'_>) -> Result<T, Refused>,
    ) -> Result<Vec<(String, T)>, Refused> {
        let Some(value) = self.get(list) else { return Ok(Vec::new()) };
        let items = value.as_array().ok_or_else(|| self.refuse(list, "is not a list"))?;
        let mut found: Vec<(String, T)> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let item = Fields::of(item, format!("{list}[{index}]"))?;
            item.only(&["name", key])?;
            let name = item.text("name")?.ok_or_else(|| item.refuse("name", "is missing"))?;
            if entry(&found, &name).is_some() {
                return Err(item.refuse("name", "is there twice"));
            }
            let inner = item.get(key).ok_or_else(|| item.refuse(key, "is missing"))?;
            found.push((name, read(&Fields::of(inner, item.at(key))?)?));
        }
        Ok(found)
    }
}

fn why_forbidden(key: &str) -> &'static str {
    match key {
        "exec" => "is not allowed: it would run a program in the operator",
        "auth-provider" => "is not allowed: it would run a plug-in; put a token there",
        "tokenFile" => "is not allowed: it would read a file of the operator; put the token into token",
        "client-certificate" => {
            "is not allowed: it would read a file of the operator; put the content into client-certificate-data"
        }
        "client-key" => "is not allowed: it would read a file of the operator; put the content into client-key-data",
        "certificate-authority" => {
            "is not allowed: it would read a file of the operator; put the content into certificate-authority-data"
        }
        "proxy-url" => "is not allowed: requests would go by way of a proxy of the Secret's choice",
        "as" | "as-uid" | "as-groups" | "as-user-extra" => "is not allowed: it impersonates somebody",
        "username" | "password" => "is not allowed: Kubernetes knows no passwords; use a token or a client certificate",
        _ => "is not a field that is allowed here",
    }
}
