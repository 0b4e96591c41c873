//! Kubeconfigs that want the operator to do something else than to speak to an API server. The operator runs as it always
//! does; what it must not touch are traps that notice.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};
use rustix::fs::inotify;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Outcome, Scenario, Tenant, World, beside};
use crate::o_clouds::{put_o_cloud, put_secret};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![beside("hostile_kubeconfigs_are_refused_before_anything_is_done", hostile_kubeconfigs)]
}

/// A file that notices who opens it, a program that notices who runs it, and a port that notices who connects.
struct Traps {
    folder: PathBuf,
    watch: std::os::fd::OwnedFd,
    connections: Arc<AtomicU32>,
    address: std::net::SocketAddr,
}

impl Traps {
    async fn set(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("traps");
        fs::create_dir_all(&folder)?;
        let ran = folder.join("ran");
        fs::write(folder.join("file"), "content")?;
        fs::write(folder.join("program"), format!("#!/bin/sh\necho ran >>{}\n", ran.display()))?;
        fs::set_permissions(folder.join("program"), fs::Permissions::from_mode(0o755))?;
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
        for name in ["file", "program"] {
            inotify::add_watch(&watch, folder.join(name), inotify::WatchFlags::OPEN | inotify::WatchFlags::ACCESS)?;
        }
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { folder, watch, connections, address })
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Fails if one of them was stepped into.
    fn untouched(&self) -> Outcome {
        ensure!(!self.folder.join("ran").exists(), "a program was run");
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        let opened = inotify::Reader::new(&self.watch, &mut buffer).next().is_ok();
        ensure!(!opened, "a file was opened");
        let connections = self.connections.load(Ordering::SeqCst);
        ensure!(connections == 0, "{connections} connections were made");
        Ok(())
    }

    /// Fails if the traps do not notice anything: then they prove nothing.
    async fn spring(&self) -> Outcome {
        let status = tokio::process::Command::new(self.folder.join("program")).status().await?;
        ensure!(status.success() && self.folder.join("ran").exists(), "the program does not notice that it runs");
        fs::read(self.folder.join("file"))?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
        ensure!(
            inotify::Reader::new(&self.watch, &mut buffer).next().is_ok(),
            "the file does not notice that it is opened"
        );
        tokio::net::TcpStream::connect(self.address).await?;
        let deadline = tokio::time::Instant::now() + crate::harness::SOON;
        while self.connections.load(Ordering::SeqCst) == 0 {
            ensure!(tokio::time::Instant::now() < deadline, "the port does not notice connections");
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// One place of the kubeconfig set to something hostile, and the field that has to be named.
type Case = (&'static str, &'static str, Value);

fn cases(traps: &Traps) -> Vec<Case> {
    let (file, program) = (traps.path("file"), traps.path("program"));
    let trap = traps.address;
    let exec = |more: Value| {
        let mut exec =
            json!({"apiVersion": "client.authentication.k8s.io/v1", "command": program, "interactiveMode": "Never"});
        template_schema::overlay(&mut exec, more);
        exec
    };
    let (user, cluster) = ("/users/0/user", "/clusters/0/cluster");
    let mut cases = vec![
        (user, "exec", exec(json!({}))),
        (user, "exec", exec(json!({"args": ["a"]}))),
        (user, "exec", exec(json!({"env": [{"name": "LD_PRELOAD", "value": file}]}))),
        (user, "exec", exec(json!({"apiVersion": "client.authentication.k8s.io/v1beta1"}))),
        (user, "exec", exec(json!({"installHint": file}))),
        (user, "exec", json!({})),
        (user, "exec", json!("")),
        (user, "exec", json!([program])),
        (user, "auth-provider", json!({"name": "gcp", "config": {"cmd-path": program, "cmd-args": "a"}})),
        (
            user,
            "auth-provider",
            json!({"name": "oidc", "config": {"idp-issuer-url": format!("https://{trap}"), "id-token": "a", "refresh-token": "a", "client-id": "a", "client-secret": "a"}}),
        ),
        (user, "auth-provider", json!({"name": "oidc", "config": {"idp-certificate-authority": file}})),
        (user, "auth-provider", json!({"name": "azure"})),
        (user, "tokenFile", json!(file)),
        (user, "tokenFile", json!("/var/run/secrets/kubernetes.io/serviceaccount/token")),
        (user, "tokenFile", json!("")),
        (user, "client-certificate", json!(file)),
        (user, "client-key", json!(file)),
        (user, "client-key", json!("/proc/self/environ")),
        (user, "username", json!("admin")),
        (user, "password", json!("p")),
        (user, "as", json!("system:admin")),
        (user, "as-uid", json!("1")),
        (user, "as-groups", json!(["system:masters"])),
        (user, "as-user-extra", json!({"a": ["b"]})),
        (user, "impersonate", json!("admin")),
        (user, "tokenfile", json!(file)),
        (user, "EXEC", exec(json!({}))),
        (user, "token", json!("a\r\nHost: other")),
        (user, "token", json!("")),
        (cluster, "certificate-authority", json!(file)),
        (cluster, "certificate-authority", json!("/etc/ssl/certs/ca-certificates.crt")),
        (cluster, "insecure-skip-tls-verify", json!(true)),
        (cluster, "insecure-skip-tls-verify", json!("true")),
        (cluster, "proxy-url", json!(format!("http://{trap}"))),
        (cluster, "proxy-url", json!(format!("https://{trap}"))),
        (cluster, "proxy-url", json!(format!("socks5://{trap}"))),
        (cluster, "proxy-url", json!("")),
        (cluster, "server", json!(format!("http://{trap}"))),
        (cluster, "server", json!(format!("https://user:password@{trap}"))),
        (cluster, "server", json!(format!("https://{trap}/?a=b"))),
        (cluster, "server", json!(format!("https://{trap}/#a"))),
        (cluster, "server", json!(format!("ftp://{trap}"))),
        (cluster, "server", json!(format!("unix://{file}"))),
        (cluster, "server", json!(format!("file://{file}"))),
        (cluster, "server", json!(trap.to_string())),
        (cluster, "tls-server-name", json!("a b")),
        (cluster, "certificate-authority-data", json!(file)),
        ("/contexts/0/context", "exec", exec(json!({}))),
        ("/contexts/0/context", "user", json!("somebody")),
        ("", "preferences", json!({"colors": true})),
        ("", "exec", exec(json!({}))),
        ("", "kind", json!("Pod")),
    ];
    // Each feature also where no context leads to, and beside another one.
    for (feature, value) in [
        ("exec", exec(json!({}))),
        ("tokenFile", json!(file)),
        ("client-key", json!(file)),
        ("auth-provider", json!({"name": "gcp", "config": {"cmd-path": program}})),
    ] {
        cases.push(("/users/-", feature, json!({"name": "unused", "user": {feature: value}})));
        cases.push((user, feature, value));
    }
    cases.push((
        "/clusters/-",
        "proxy-url",
        json!({"name": "unused", "cluster": {"server": "https://a", "proxy-url": format!("http://{trap}")}}),
    ));
    cases.push((
        "/clusters/-",
        "certificate-authority",
        json!({"name": "unused", "cluster": {"server": "https://a", "certificate-authority": file}}),
    ));
    cases
}

/// The kubeconfig with the case's value in its place.
fn spoiled(kubeconfig: &str, (place, field, value): &Case) -> anyhow::Result<String> {
    let mut file: Value = serde_saphyr::from_str(kubeconfig)?;
    match place.strip_suffix("/-") {
        Some(list) => file.pointer_mut(list).and_then(Value::as_array_mut).context("a list")?.push(value.clone()),
        None => file.pointer_mut(place).context("a place")?[*field] = value.clone(),
    }
    Ok(file.to_string())
}

async fn hostile_kubeconfigs(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "hostile").await?;
    sandbox::focom::allow_secrets(&tenant.parts.smo, &tenant.namespace).await?;
    let traps = Traps::set(tenant.parts.smo.dir()).await?;
    let cases = cases(&traps);
    for (number, case) in cases.iter().enumerate() {
        let name = format!("hostile-{number}");
        put_secret(&tenant, &name, "kubeconfig", &spoiled(&tenant.parts.kubeconfig_b, case)?).await?;
        put_o_cloud(&tenant, &name).await?;
    }
    for (number, case) in cases.iter().enumerate() {
        let o_cloud = tenant.until_o_cloud(&format!("hostile-{number}"), "KubeconfigRefused").await?;
        let ready =
            o_cloud.status.and_then(|status| status.conditions.into_iter().find(|found| found.type_ == "Ready"));
        let told = ready.context("a condition")?.message;
        let (_, field, _) = case;
        ensure!(told.contains(field), "{case:?}: {told}");
        for content in [traps.path("file"), traps.path("program"), traps.address.to_string()] {
            ensure!(!told.contains(&content), "{case:?}: the message repeats the kubeconfig: {told}");
        }
    }
    traps.untouched()?;
    let children =
        fs::read_dir("/proc")?.filter_map(Result::ok).filter(|entry| is_child_of_the_operator(&entry.path(), &tenant));
    ensure!(children.count() == 0, "the operator has child processes");
    ensure!(cases.len() >= 60, "only {} cases", cases.len());
    traps.spring().await
}

fn is_child_of_the_operator(process: &Path, tenant: &Tenant) -> bool {
    let Ok(focom) = tenant.parts.focom.try_lock() else { return false };
    let Some(id) = focom.as_ref().and_then(sandbox::Operator::id) else { return false };
    fs::read_to_string(process.join("status"))
        .is_ok_and(|status| status.lines().any(|line| line == format!("PPid:\t{id}")))
}
