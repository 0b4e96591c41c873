//! Hosts with the container runtime of the bundle as static programs: Debian 13, which the bundle's packages are not for, and Debian 12.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use o2ims_types::ProvisioningRequest;
use sandbox::installation::{self, as_built};
use sandbox::waiting::wait;
use sandbox::{Stack, inventory};
use serde_json::json;
use testenv::servers::Server;

use crate::{Outcome, REQUEST, STATE, Setting, state};

/// Every file of a server, but for data of the system's own programs, and for empty folders that pods and containerd have
/// made.
const FILES: &str = r"find / -xdev '(' -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev -o -path /var/log -o -path /var/cache \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /root ')' -prune \
        -o -type d -empty '(' -path '/etc/cni*' -o -path /usr/lib/modules -o -path '/usr/libexec/kubernetes*' ')' \
        -o -type d '(' -path /etc/cni -o -path '/usr/libexec/kubernetes*' ')' -o -printf '%p\n' | sort";
/// Fails where a server is not as the playbook makes it.
const SET_UP: &str = r#"set -ex
test "$(readlink "/proc/$(systemctl show --property MainPID --value containerd)/exe")" = /opt/container-runtime/bin/containerd
systemctl is-enabled containerd
ctr version | grep -c 'Version: *v2' | grep -x 2
runc --version | grep libseccomp
crictl info >/dev/null
grep -x 'version = 3' /etc/containerd/config.toml
grep -F 'BinaryName = "/opt/container-runtime/bin/runc"' /etc/containerd/config.toml
readlink /opt/cni/bin/bridge | grep -x /opt/container-runtime/cni/bridge
for program in containerd containerd-shim-runc-v2 runc crictl; do
    if ldd "$(readlink -f "$(command -v $program)")"; then exit 1; fi
done"#;
/// A containerd of the site's, in the folder that the playbook would use (simulated: a program that only sleeps).
const SITES_CONTAINERD: &str = r"set -e
mkdir -p /opt/container-runtime/bin /etc/containerd /var/lib/containerd
cp /usr/bin/sleep /opt/container-runtime/bin/containerd
printf '[Service]\nExecStart=/opt/container-runtime/bin/containerd infinity\n' >/etc/systemd/system/containerd.service
echo 'version = 2' >/etc/containerd/config.toml
echo data >/var/lib/containerd/docker
systemctl daemon-reload
systemctl start containerd";
/// Settings that containerd 2 would ignore.
const VOID: &str = r#"{"containerd_extra_config": "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\""}"#;
/// Fails where containers of a node are without a filter of system calls, or do not run with these programs.
const NODE: &str = r#"set -ex
grep -x $'Seccomp:\t2' "/proc/$(pgrep -x kube-apiserver)/status"
for shim in $(pgrep containerd-shim); do
    readlink "/proc/$shim/exe" | grep -x /opt/container-runtime/bin/containerd-shim-runc-v2
done
crictl pods --quiet | grep ."#;

/// A cluster on a host of each, and back; and servers that are left out, with the cause.
pub async fn from_programs_and_back(stack: &mut Stack, mut setting: Setting) -> Outcome {
    let thirteen = [("target-5", 15), ("target-6", 16)];
    let mut others = Vec::new();
    for (name, number) in thirteen {
        others.push(stack.debian_13_server(name, number).await?);
    }
    for server in &others {
        server.power_on().await?;
    }
    let hosts: Vec<Arc<Server>> = vec![others[0].clone(), setting.servers[1].clone()];
    for server in &hosts {
        let release = server.run(&["cat", "/etc/debian_version"]).await?;
        eprintln!("{}: Debian {}, {}", server.name(), release.trim(), server.run(&["systemctl", "--version"]).await?);
    }
    whole_files(&mut setting).await?;
    let key = setting.input["hosts"][0]["keyFile"].clone();
    let input = |server: &Server, id: u8| {
        let (name, address) = (server.name(), server.address());
        json!({"name": name, "address": address, "user": "root", "hostId": id, "keyFile": key})
    };
    let all = [(&hosts[0], 1), (&hosts[1], 2), (&others[1], 6), (&setting.servers[2], 3)];
    setting.input["hosts"] = json!(all.map(|(server, id)| input(server, id)));
    setting.write_input()?;
    let mut before = Vec::new();
    for server in &hosts {
        before.push(server.run(&["bash", "-c", FILES]).await?);
    }

    let other = "Debian GNU/Linux 13 (trixie); the packages in sources.files are for debian 12. Set sources.containerd to programs";
    told(&setting, &others[0], other).await?;
    setting.input["sources"]["containerd"] = json!("programs");
    setting.write_input()?;
    others[1].run(&["dpkg", "--purge", "conntrack"]).await?;
    told(&setting, &others[1], "apt cannot install conntrack: ").await?;
    setting.servers[2].run(&["touch", "/usr/local/sbin/runc"]).await?;
    told(&setting, &setting.servers[2], "/usr/local/sbin/runc: another containerd is installed").await?;
    setting.servers[2].run(&["rm", "/usr/local/sbin/runc"]).await?;
    only_what_was_made_is_purged(&setting, &setting.servers[2]).await?;

    let both = ["-e", "hosts=target-5,target-2"];
    let three = ["-e", "hosts=target-5,target-2,target-6", "--check"];
    let check = setting.control.run("site.yaml", &three).await?.succeeded()?;
    check.says("target-5 (10.77.0.15, hostId 1) would be registered")?;
    check.says(
        "sources.files has none for this distribution, so apt fetches conntrack from the repositories in /etc/apt",
    )?;
    let first = setting.control.run("site.yaml", &both).await?.succeeded()?;
    first.says("target-5 (10.77.0.15, hostId 1) is registered")?;
    for server in &hosts {
        server.run(&["bash", "-c", SET_UP]).await?;
    }
    let second = setting.control.run("site.yaml", &both).await?.succeeded()?;
    for server in &hosts {
        ensure!(second.count(server.name(), "changed")? == 0, "a second run has changed it:\n{}", second.text);
    }

    cluster_comes_and_goes(stack, &setting, &hosts[0]).await?;
    setting.input["sources"]["containerd"] = json!("files");
    setting.write_input()?;
    told(&setting, &hosts[1], "/opt/container-runtime: another containerd is installed").await?;
    setting.input["sources"]["containerd"] = json!("programs");
    setting.write_input()?;
    setting.control.run("reset.yaml", &[&both[..], &["-e", "purge=true"]].concat()).await?.succeeded()?;
    for (server, before) in hosts.iter().zip(before) {
        nothing_is_left(server, &before).await?;
        let processes = server.run(&["bash", "-c", "pgrep --list-full 'containerd|kube|etcd|byoh' || true"]).await?;
        ensure!(processes.is_empty(), "running on {}, which was reset:\n{processes}", server.name());
    }
    let registered = inventory::hosts(stack.management.admin(), "default").list(&ListParams::default()).await?;
    ensure!(registered.items.is_empty(), "hosts that were reset are still registered");
    Ok(())
}

/// Gives the files of the hosts the container runtime, as in a bundle.
async fn whole_files(setting: &mut Setting) -> Outcome {
    let files = setting.input["sources"]["files"].as_str().context("a folder")?.to_owned();
    let runtime = testenv::servers::runtime(|line| eprintln!("{line}")).await?;
    let whole = setting.control.folder.join("hosts");
    std::fs::create_dir(&whole)?;
    for folder in ["bin", "packages", "images"] {
        symlink(format!("{files}/{folder}"), whole.join(folder))?;
    }
    symlink(runtime, whole.join("runtime"))?;
    setting.input["sources"]["files"] = json!(whole);
    Ok(())
}

/// The server is left out with these words, and nothing of it is changed.
async fn told(setting: &Setting, server: &Server, words: &str) -> Outcome {
    let before = server.run(&["bash", "-c", STATE]).await?;
    let run = setting.control.run("site.yaml", &["-e", &format!("hosts={}", server.name())]).await?.failed()?;
    run.says(words)?;
    ensure!(server.run(&["bash", "-c", STATE]).await? == before, "{} was changed:\n{}", server.name(), run.text);
    Ok(())
}

/// A server that was reset has no file that it had not before.
async fn nothing_is_left(server: &Server, before: &str) -> Outcome {
    let after = server.run(&["bash", "-c", FILES]).await?;
    let left: Vec<_> = after.lines().filter(|line| !before.lines().any(|known| known == *line)).collect();
    ensure!(left.is_empty(), "left on {}, which was reset:\n{}", server.name(), left.join("\n"));
    Ok(())
}

/// A server on which the role was interrupted becomes what it was; and a containerd of the site's stays.
async fn only_what_was_made_is_purged(setting: &Setting, server: &Server) -> Outcome {
    let host = format!("hosts={}", server.name());
    let purge = ["-e", &host, "-e", "purge=true"];
    let void = setting.control.run("site.yaml", &["-e", &host, "-e", VOID]).await?.failed()?;
    void.says("containerd_extra_config has settings of io.containerd.grpc.v1.cri, which containerd 2 ignores")?;

    server.run(&["mkdir", "-p", "/opt/cni/bin"]).await?;
    let before = server.run(&["bash", "-c", FILES]).await?;
    let missing = r#"{"containerd_programs": ["0  bin/nowhere"]}"#;
    let interrupted = setting.control.run("site.yaml", &["-e", &host, "-e", missing]).await?.failed()?;
    interrupted.says("Copy the programs: ")?;
    server.run(&["test", "-d", "/opt/container-runtime/bin"]).await?;
    setting.control.run("reset.yaml", &purge).await?.succeeded()?;
    nothing_is_left(server, &before).await?;
    server.run(&["test", "-d", "/opt/cni/bin"]).await?;

    server.run(&["bash", "-c", SITES_CONTAINERD]).await?;
    let words = "/opt/container-runtime, /etc/systemd/system/containerd.service: another containerd is installed";
    told(setting, server, words).await?;
    let all = format!("{STATE}\n{FILES}");
    let before = server.run(&["bash", "-c", &all]).await?;
    setting.control.run("reset.yaml", &purge).await?.succeeded()?;
    let after = server.run(&["bash", "-c", &all]).await?;
    ensure!(after == before, "a purge has changed what the site has:\n{after}\nand not\n{before}");
    server.run(&["systemctl", "is-active", "containerd"]).await?;
    Ok(())
}

async fn cluster_comes_and_goes(stack: &mut Stack, setting: &Setting, master: &Server) -> Outcome {
    // A runc that the site brings later is not run.
    let wrong = r"printf '#!/bin/sh\nexit 1\n' >/usr/local/sbin/runc && chmod 755 /usr/local/sbin/runc";
    master.run(&["bash", "-c", wrong]).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), "default");
    let example = as_built(installation::EXAMPLE).replace("target-1", master.name());
    stack.management.apply_yaml(&example).await?;
    let fulfilled = |request: Option<&ProvisioningRequest>| request.and_then(state).as_deref() == Some("fulfilled");
    wait(requests.clone(), "core-cluster-request", "the cluster core", REQUEST, fulfilled).await?;
    master.run(&["bash", "-c", NODE]).await?;
    // Another bundle's programs are told, and not replaced.
    master.run(&["sed", "-i", "s/containerd .*/containerd v2.0.0/", "/opt/container-runtime/versions"]).await?;
    let run = setting.control.run("site.yaml", &["-e", &format!("hosts={}", master.name())]).await?.succeeded()?;
    run.says("its container runtime is containerd v2.0.0, runc")?;
    ensure!(run.count(master.name(), "changed")? == 0, "a host in use was changed:\n{}", run.text);
    requests.delete("core-cluster-request", &DeleteParams::default()).await?;
    wait(requests, "core-cluster-request", "the end of core", REQUEST, |request| request.is_none()).await?;
    let pods = master.run(&["crictl", "pods", "--quiet"]).await?;
    ensure!(pods.is_empty(), "pods are left on {}: {pods}", master.name());
    master.run(&["rm", "/usr/local/sbin/runc"]).await?;
    Ok(())
}
