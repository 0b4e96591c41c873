//! What a kubeconfig may say, and all that it may not.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use focom_operator::o_cloud::kubeconfig::{ClusterCredentials, read};
use serde_json::{Value, json};

/// Never to be seen in a message.
const SECRET: &str = "s3cr3t-t0ken";

fn pem(label: &str) -> String {
    BASE64_STANDARD.encode(format!("-----BEGIN {label}-----\n{SECRET}\n-----END {label}-----\n"))
}

fn good() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {},
        "clusters": [{"name": "site", "cluster": {
            "server": "https://10.0.0.1:6443", "certificate-authority-data": pem("CERTIFICATE"),
        }}],
        "users": [{"name": "focom", "user": {"token": SECRET}}],
        "contexts": [{"name": "focom@site", "context": {"cluster": "site", "user": "focom"}}],
        "current-context": "focom@site",
    })
}

/// The good one with one place changed; `null` takes the place out.
fn with(pointer: &str, value: Value) -> String {
    let mut file = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { Some(&mut file) } else { file.pointer_mut(parent) }.unwrap();
    match (parent, value) {
        (Value::Object(map), Value::Null) => {
            map.remove(key).unwrap();
        }
        (Value::Object(map), value) => {
            map.insert(key.to_owned(), value);
        }
        (Value::Array(items), value) if key == "-" => items.push(value),
        (parent, _) => panic!("{pointer}: {parent}"),
    }
    file.to_string()
}

fn refusal(text: &str) -> String {
    match read(text.as_bytes()) {
        Ok(_) => panic!("accepted: {text}"),
        Err(refused) => {
            messages::record(&refused.to_string());
            refused.to_string()
        }
    }
}

fn accepted(text: &str) -> ClusterCredentials {
    read(text.as_bytes()).unwrap_or_else(|refused| panic!("{refused}: {text}"))
}

const CLUSTER: &str = "/clusters/0/cluster";
const USER: &str = "/users/0/user";

#[test]
fn what_is_needed_is_read() {
    let access = accepted(&good().to_string());
    assert_eq!(access.server, "https://10.0.0.1:6443");
    let file = access.kubeconfig().unwrap();
    assert_eq!(file.clusters.len(), 1);
    let auth = file.auth_infos[0].auth_info.clone().unwrap();
    assert!(auth.token.is_some() && auth.exec.is_none() && auth.client_key.is_none());
    for harmless in [
        with(
            "/clusters/0/cluster/extensions",
            json!([{"name": "cluster_info", "extension": {"provider": "minikube"}}]),
        ),
        with("/clusters/0/cluster/insecure-skip-tls-verify", json!(false)),
        with("/clusters/0/cluster/disable-compression", json!(true)),
        with("/clusters/0/cluster/tls-server-name", json!("api.site.example.org")),
        with("/clusters/0/cluster/server", json!("https://proxy.example.org/k8s/clusters/c-1")),
        with("/contexts/0/context/namespace", json!("default")),
        with("/preferences", Value::Null),
        with("/kind", Value::Null),
    ] {
        accepted(&harmless);
    }
    let mut certificate = good();
    certificate["users"][0]["user"] =
        json!({"client-certificate-data": pem("CERTIFICATE"), "client-key-data": pem("EC PRIVATE KEY")});
    accepted(&certificate.to_string());
}

#[test]
fn everything_else_is_refused_by_name() {
    let at = |place: &str, key: &str| format!("{place}/{key}");
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", SECRET]});
    let cases = [
        (with(&at(USER, "exec"), exec.clone()), "users[0].user.exec is not allowed: it would run a program"),
        (with("/users/-", json!({"name": "unused", "user": {"exec": exec}})), "users[1].user.exec is not allowed"),
        (with(&at(USER, "exec"), json!({})), "users[0].user.exec is not allowed"),
        (with(&at(USER, "auth-provider"), json!({"name": "gcp", "config": {"cmd-path": "/bin/sh"}})), "users[0].user.auth-provider is not allowed"),
        (with(&at(USER, "auth-provider"), json!({"name": "oidc"})), "users[0].user.auth-provider is not allowed"),
        (with(&at(USER, "tokenFile"), json!("/var/run/secrets/kubernetes.io/serviceaccount/token")), "users[0].user.tokenFile is not allowed: it would read a file"),
        (with(&at(USER, "client-certificate"), json!("/etc/passwd")), "users[0].user.client-certificate is not allowed: it would read a file"),
        (with(&at(USER, "client-key"), json!("/etc/shadow")), "users[0].user.client-key is not allowed: it would read a file"),
        (with(&at(CLUSTER, "certificate-authority"), json!("/etc/ssl/cert.pem")), "clusters[0].cluster.certificate-authority is not allowed: it would read a file"),
        (with(&at(CLUSTER, "insecure-skip-tls-verify"), json!(true)), "clusters[0].cluster.insecure-skip-tls-verify is not allowed"),
        (with(&at(CLUSTER, "insecure-skip-tls-verify"), json!("false")), "clusters[0].cluster.insecure-skip-tls-verify is not allowed"),
        (with(&at(CLUSTER, "proxy-url"), json!("http://10.0.0.9:3128")), "clusters[0].cluster.proxy-url is not allowed"),
        (with(&at(CLUSTER, "proxy-url"), json!("socks5://10.0.0.9")), "clusters[0].cluster.proxy-url is not allowed"),
        (with(&at(USER, "as"), json!("system:admin")), "users[0].user.as is not allowed: it impersonates"),
        (with(&at(USER, "as-uid"), json!("0")), "users[0].user.as-uid is not allowed: it impersonates"),
        (with(&at(USER, "as-groups"), json!(["system:masters"])), "users[0].user.as-groups is not allowed: it impersonates"),
        (with(&at(USER, "as-user-extra"), json!({"scopes": ["all"]})), "users[0].user.as-user-extra is not allowed: it impersonates"),
        (with(&at(USER, "username"), json!("admin")), "users[0].user.username is not allowed"),
        (with(&at(USER, "password"), json!(SECRET)), "users[0].user.password is not allowed"),
        (with(&at(CLUSTER, "server"), json!("http://10.0.0.1:8080")), "clusters[0].cluster.server is not https"),
        (with(&at(CLUSTER, "server"), json!("unix:///var/run/docker.sock")), "clusters[0].cluster.server is not a URL"),
        (with(&at(CLUSTER, "server"), json!("file:///etc/passwd")), "clusters[0].cluster.server is not a URL"),
        (with(&at(CLUSTER, "server"), json!("10.0.0.1:6443")), "clusters[0].cluster.server is not a URL"),
        (with(&at(CLUSTER, "server"), json!("https://")), "clusters[0].cluster.server is not a URL"),
        (with(&at(CLUSTER, "server"), json!(format!("https://admin:{SECRET}@10.0.0.1"))), "clusters[0].cluster.server has a user"),
        (with(&at(CLUSTER, "server"), json!("https://10.0.0.1/?a=b")), "clusters[0].cluster.server has a query"),
        (with(&at(CLUSTER, "server"), json!("https://10.0.0.1/#a")), "clusters[0].cluster.server has a query or a fragment"),
        (with(&at(CLUSTER, "server"), json!("https://10.0.0.1\r\nHost: evil")), "clusters[0].cluster.server is not a URL"),
        (with(&at(CLUSTER, "server"), Value::Null), "clusters[0].cluster.server is missing"),
        (with(&at(CLUSTER, "server"), json!(["https://10.0.0.1"])), "clusters[0].cluster.server is not a text"),
        (with(&at(CLUSTER, "disable-compression"), json!("no")), "clusters[0].cluster.disable-compression is neither true nor false"),
        (with(&at(CLUSTER, "tls-server-name"), json!("a b")), "clusters[0].cluster.tls-server-name is not a host name"),
        (with(&at(CLUSTER, "certificate-authority-data"), json!("not base64!")), "clusters[0].cluster.certificate-authority-data is not CERTIFICATE in PEM"),
        (with(&at(CLUSTER, "certificate-authority-data"), json!(BASE64_STANDARD.encode(SECRET))), "clusters[0].cluster.certificate-authority-data is not CERTIFICATE in PEM"),
        (with(&at(USER, "client-key-data"), json!(pem("RSA PRIVATE KEY"))), "users[0].user.client-certificate-data is missing"),
        (with(&at(USER, "client-certificate-data"), json!(pem("CERTIFICATE"))), "users[0].user.client-key-data is missing"),
        (with(&at(USER, "token"), Value::Null), "users[0].user has neither a token nor a client certificate"),
        (with(&at(USER, "token"), json!("")), "users[0].user.token is empty"),
        (with(&at(USER, "token"), json!(format!("{SECRET}\r\nX-Remote-User: admin"))), "users[0].user.token is empty, or has spaces"),
        (with(&at(USER, "token"), json!({"from": SECRET})), "users[0].user.token is not a text"),
        (with(&at(USER, "impersonate"), json!("admin")), "users[0].user.impersonate is not a field that is allowed"),
        (with(&at(USER, "Exec"), json!({})), "users[0].user.Exec is not a field that is allowed"),
        (with(&at(USER, "tokenfile"), json!("/etc/passwd")), "users[0].user.tokenfile is not a field that is allowed"),
        (with(&at(USER, &format!("{SECRET} in a key")), json!(1)), "users[0].user has a field of an impossible name"),
        (with("/users/0/exec", json!({})), "users[0].exec is not allowed"),
        (with("/exec", json!({})), "exec is not allowed"),
        (with("/preferences", json!({"colors": true})), "preferences is not empty"),
        (with("/kind", json!("Secret")), "kind is not Config"),
        (with("/apiVersion", json!("v2")), "apiVersion is not v1"),
        (with("/current-context", Value::Null), "current-context is missing"),
        (with("/current-context", json!("elsewhere")), "current-context names none of contexts"),
        (with("/contexts/0/context/user", json!("nobody")), "the current context's user names none of users"),
        (with("/contexts/0/context/cluster", json!("nowhere")), "the current context's cluster names none of clusters"),
        (with("/contexts/0/context/exec", json!({})), "contexts[0].context.exec is not allowed"),
        (with("/users/-", json!({"name": "focom", "user": {"token": "other"}})), "users[1].name is there twice"),
        (with("/clusters/-", json!({"name": "site", "cluster": {"server": "https://10.0.0.2"}})), "clusters[1].name is there twice"),
        (with("/clusters", json!({"site": {}})), "clusters is not a list"),
        (with("/users", json!(["focom"])), "users[0] is not a map"),
        ("[]".to_owned(), "is not a map of fields"),
        (String::new(), "is not a map of fields"),
        (format!("token: {SECRET}: :"), "it is not one YAML document"),
        (format!("{}\n---\n{}", good(), good()), "it is not one YAML document"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n".to_owned(), "it is not one YAML document"),
        (" ".repeat(300 * 1024), "it has more than 256 KiB"),
    ];
    for (text, wanted) in &cases {
        let told = refusal(text);
        assert!(told.contains(wanted), "{told:?} and not {wanted:?} for {text}");
        assert!(!told.contains(SECRET), "{told}");
    }
    let not_text = read(&[0xff, 0xfe, 0x00]).err().unwrap().to_string();
    messages::record(&not_text);
    assert_eq!(not_text, "it is not text in UTF-8");
    assert!(cases.len() >= 60);
}
