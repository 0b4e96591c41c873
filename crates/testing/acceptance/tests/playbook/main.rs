//! The playbook over ssh: from freshly installed machines to clusters, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]
#![allow(clippy::too_many_lines, reason = "a scenario is one story, a table one list")]

mod any_distribution;
mod preparations;
mod virtual_machine;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use acceptance::{ansible, top};
use anyhow::{Context as _, anyhow, ensure};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use libtest_mimic::{Arguments, Trial};
use o2ims_types::{FocomProvisioningRequest, ProvisioningRequest};
use preparations::{Becomes, ROUNDS, Site};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::installation::as_built;
use sandbox::waiting::wait;

use sandbox::{OperatorOptions, Stack, StackOptions, focom, installation, inventory};
use serde_json::{Value, json};
use testenv::kubernetes_version;
use testenv::servers::{Login, Server};
use tokio::process::Command;

type Outcome = anyhow::Result<()>;

/// The variable that, if it is set, makes the test print the output of each run of the playbook.
const VERBOSE: &str = "O2IMS_PLAYBOOK_OUTPUT";
const NAMES: [&str; 4] = ["target-1", "target-2", "target-3", "target-4"];
const BROKEN: &str = "broken_machines_stop_no_others";
const SITES_HAVE_THEIR_OWN: &str = "what_a_site_has_on_its_servers_stays";
/// How many invalid inputs are tried at the same time.
const SIDE_BY_SIDE: usize = 3;
/// How long a request may take to be fulfilled, and to be deleted.
const REQUEST: Duration = Duration::from_secs(300);
/// A package of the site that depends on one which the playbook has installed.
const SITE_TOOL: &str = r"set -e
mkdir -p /tmp/site-tool/DEBIAN
printf '%s\n' 'Package: site-tool' 'Version: 1' 'Architecture: all' 'Depends: containerd' 'Maintainer: site' 'Description: x' >/tmp/site-tool/DEBIAN/control
dpkg-deb --build /tmp/site-tool /tmp/site-tool.deb
dpkg --install /tmp/site-tool.deb";

/// What a site has set on its server: containerd and the kubelet, swap that `/etc/fstab` does not know, a high limit of
/// inotify, no name in `/etc/hosts`, and cloud-init that writes this file.
const SITE_SETTINGS: &str = r"set -e
mkdir -p /etc/containerd /etc/cloud/cloud.cfg.d /var/lib/cloud/instance
printf 'version = 2\n# mirror of the site\n' >/etc/containerd/config.toml
echo KUBELET_EXTRA_ARGS=--node-labels=site=a >/etc/default/kubelet
printf '[Swap]\nWhat=/swapfile\n' >/etc/systemd/system/swapfile.swap
printf '[Service]\nType=oneshot\nExecStart=/usr/bin/touch /run/swap-made\n' >/etc/systemd/system/zramswap.service
systemctl daemon-reload
echo 1000000 >/proc/sys/fs/inotify/max_user_watches
sed -i '/target-1/d' /etc/hosts
echo 'manage_etc_hosts: true' >/var/lib/cloud/instance/cloud-config.txt";

/// Fails where such a server is not as the playbook makes it.
const SITE_SET_UP: &str = r#"set -ex
grep -q SystemdCgroup /etc/containerd/config.toml
grep -q 'mirror of the site' /etc/containerd/config.toml.*~
grep -q node-labels=site=a /etc/default/kubelet.*~
systemctl show --property DropInPaths swapfile.swap | grep /swap.d/90-o2ims-host.conf
systemctl start zramswap
test ! -e /run/swap-made
test "$(cat /proc/sys/fs/inotify/max_user_instances)" = 8192
test "$(cat /proc/sys/fs/inotify/max_user_watches)" = 1000000
grep -x 'fs.inotify.max_user_instances = 8192' /etc/sysctl.d/05-o2ims-host.conf
grep -x 'fs.inotify.max_user_watches = 1000000' /etc/sysctl.d/05-o2ims-host.conf
grep -x '10.77.0.11 target-1' /etc/hosts
grep -x 'manage_etc_hosts: false' /etc/cloud/cloud.cfg.d/90-o2ims-host.cfg
for service in containerd kubelet byoh-hostagent; do
    environment=$(systemctl show --property Environment $service)
    echo "$environment" | grep -F ' HTTPS_PROXY=http://10.77.0.1:3128 '
    echo "$environment" | grep -vF LD_PRELOAD
    networks=10.128.0.0/12,10.244.0.0/16,10.77.0.0/24
    echo "$environment" | grep " NO_PROXY=.cluster.local,.svc,$networks,10.77.0.1,127.0.0.1,::1,localhost,mirror.site.example\$"
done
grep -z ^HTTP_PROXY= "/proc/$(systemctl show --property MainPID --value containerd)/environ"
apt-config dump | grep -F 'mirror.site.example "DIRECT"'"#;

/// Fails where something is left of that after a reset.
const SITE_RESET: &str = r#"set -ex
test -z "$(systemctl show --property DropInPaths --value swapfile.swap)"
systemctl start zramswap
test -e /run/swap-made
test -z "$(find /etc/apt/apt.conf.d /etc/sysctl.d /etc/systemd/system -name '*o2ims-host*')"
if grep -z ^HTTP_PROXY= "/proc/$(systemctl show --property MainPID --value containerd)/environ"; then exit 1; fi"#;

/// ClusterTemplates whose networks must not get into the settings of hosts: one is no network, and one is of another
/// namespace.
const TEMPLATES: &str = r#"
apiVersion: o2ims.provisioning.oran.org/v1alpha1
kind: ClusterTemplate
metadata: {name: no-network-v1, namespace: default}
spec: {name: no-network, version: v1, install: {method: none}, defaults: {podCidr: 'x" "LD_PRELOAD=/tmp/evil', serviceCidr: "0.0.0.0/0"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other-team}
---
apiVersion: o2ims.provisioning.oran.org/v1alpha1
kind: ClusterTemplate
metadata: {name: others-v1, namespace: other-team}
spec: {name: others, version: v1, install: {method: none}, defaults: {podCidr: 198.51.100.0/24}}
"#;

/// Makes a server without apt, with a kubelet as from a package for dnf, that is reached by an address which it does not
/// have. A former release wrote that one into `/etc/hosts`.
const WITHOUT_APT: &str = r"set -e
mv /etc/apt /etc/apt.site
mkdir -p /etc/sysconfig
sed -i s,/etc/default/kubelet,/etc/sysconfig/kubelet, /etc/systemd/system/kubelet.service.d/10-kubeadm.conf
systemctl daemon-reload
rm /etc/default/kubelet
echo nameserver 192.0.2.53 >/etc/resolv.conf
sed -i '/target-1/d' /etc/hosts
echo '10.77.0.31 target-1' >>/etc/hosts
ip route add local 10.77.0.31 dev lo";

/// Fails where such a server is not as the playbook makes it.
const WITHOUT_APT_SET_UP: &str = r"set -ex
test ! -e /etc/apt
grep -e --eviction-hard= /etc/sysconfig/kubelet
test ! -e /etc/default/kubelet
test ! -e /etc/systemd/system/containerd.service.d
systemctl show --property Environment byoh-hostagent | grep -F HTTPS_PROXY=http://10.77.0.1:3128
grep -x '10.77.0.11 target-1' /etc/hosts";

/// A server whose address is a host route, with a DNS server of its own, a firewall, and the node of another cluster.
const UNFIT: &str = r"set -e
mkdir -p /etc/kubernetes
touch /etc/kubernetes/kubelet.conf
echo nameserver 127.0.0.1 >/etc/resolv.conf
printf '[Service]\nExecStart=/usr/bin/sleep infinity\n' >/etc/systemd/system/firewalld.service
systemctl daemon-reload
systemctl start firewalld
ip address add 10.77.0.14/32 dev eth0
ip address delete 10.77.0.14/24 dev eth0
ip route replace 10.77.0.0/24 dev eth0
ip route replace default via 10.77.0.1";

/// Makes a flat repository without packages, signed by a key that it has beside it.
const REPOSITORY: &str = concat!(
    "set -e\nmkdir -p /srv/repository\n: >/srv/repository/Packages\ncat >/srv/repository/InRelease <<'END'\n",
    include_str!("repository/InRelease"),
    "END\ncat >/srv/repository/Release.key <<'END'\n",
    include_str!("repository/Release.key"),
    "END\nchmod -R a+rX /srv/repository",
);

/// Makes a repository with a package, and names it beside one that is not reached.
const SITE_REPOSITORIES: &str = r#"set -e
mkdir -p /tmp/site-tool/DEBIAN /srv/site
fields='Package: site-tool
Version: 1
Architecture: all
Maintainer: site
Description: x'
echo "$fields" >/tmp/site-tool/DEBIAN/control
dpkg-deb --build /tmp/site-tool /srv/site/site-tool.deb
sum=$(sha256sum /srv/site/site-tool.deb)
printf '%s\nFilename: ./site-tool.deb\nSize: %s\nSHA256: %s\n' "$fields" "$(stat -c %s /srv/site/site-tool.deb)" "${sum%% *}" >/srv/site/Packages
chmod -R a+rX /srv/site
echo 'deb [trusted=yes] file:/srv/site ./' >/etc/apt/sources.list.d/site.list
echo 'deb [trusted=yes] http://127.0.0.1:9 ./' >/etc/apt/sources.list.d/dead.list"#;

/// Preparations that another trial has: what they are, and its name.
const ELSEWHERE: [(&str, &str); 11] = [
    ("another containerd and Kubernetes of the site's, without apt", SITES_HAVE_THEIR_OWN),
    ("containerd, kubelet and proxy set up by the site", SITES_HAVE_THEIR_OWN),
    ("swap of zram, and by a unit", SITES_HAVE_THEIR_OWN),
    ("cloud-init that writes /etc/hosts", SITES_HAVE_THEIR_OWN),
    ("a repository that is not reached, and one with a new key", SITES_HAVE_THEIR_OWN),
    ("no default route", BROKEN),
    ("a full disk", BROKEN),
    ("a resolver at 127.0.0.1", BROKEN),
    ("an address that is a host route", BROKEN),
    ("firewalld", BROKEN),
    ("a node of another cluster", BROKEN),
];

/// Shows changes of a server, except those of its agent: files of the system, their times, and the start times of
/// services.
const STATE: &str = r"find /etc /opt /usr/bin /usr/sbin /usr/local /usr/lib/systemd /usr/lib/cni /var/lib/dpkg /var/lib/o2ims-host -xdev -type f \
        -printf '%p %T@ %s\n' 2>/dev/null | grep -v byoh | sort
    hostname
    cat /proc/sys/net/ipv4/ip_forward
    systemctl show containerd kubelet --property Id,ActiveEnterTimestamp,MainPID
    ctr --namespace k8s.io tasks list 2>/dev/null | sort";

fn main() -> ExitCode {
    // One at a time, because they share a network.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let venv = match ansible::venv() {
        Ok(venv) => venv,
        Err(why) => {
            eprintln!("LEFT OUT: what needs ansible ({why:#})");
            return libtest_mimic::run(&arguments, Vec::new()).exit_code();
        }
    };
    let mut trials = Vec::new();
    let mut add = |name: &str, slow: bool, body: fn(&Path) -> Outcome| {
        let venv = venv.clone();
        let trial = Trial::test(name, move || body(&venv).map_err(|error| format!("{error:#}").into()));
        trials.push(trial.with_ignored_flag(slow));
    };
    add("what_is_wrong_in_the_input_is_told_by_host_and_field", false, wrong_inputs);
    add("the_checks_of_the_input_agree_with_its_schema", false, table);
    add("ansible_lint_finds_nothing", false, lint);
    if let Some(why) = testenv::servers::left_out().unwrap() {
        eprintln!("LEFT OUT: what needs real servers ({why})");
    } else {
        add("machines_out_of_the_box_become_clusters_and_come_back", true, |venv| {
            on_servers(venv, from_the_box_and_back)
        });
        add("a_runtime_of_static_programs_carries_clusters_on_any_distribution", true, |venv| {
            on_servers(venv, any_distribution::from_programs_and_back)
        });
        add("hosts_in_use_get_certificates_and_nothing_else", true, |venv| on_servers(venv, in_use));
        add(BROKEN, false, |venv| on_servers(venv, some_are_broken));
        add("servers_prepared_badly_are_told_or_made_right", true, |venv| on_servers(venv, prepared_badly));
        add(SITES_HAVE_THEIR_OWN, true, |venv| on_servers(venv, sites_have_their_own));
    }
    if let Some(why) = testenv::servers::virtual_machines_left_out().unwrap() {
        eprintln!("LEFT OUT: what needs a virtual machine ({why})");
    } else {
        add("a_virtual_machine_becomes_a_cluster_and_comes_back", true, virtual_machine::host_and_cluster);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The output of a run of ansible-playbook.
struct Run {
    success: bool,
    text: String,
    took: Duration,
}

impl Run {
    fn succeeded(self) -> anyhow::Result<Self> {
        ensure!(self.success, "the playbook failed:\n{}", self.text);
        Ok(self)
    }

    fn failed(self) -> anyhow::Result<Self> {
        ensure!(!self.success, "the playbook succeeded:\n{}", self.text);
        Ok(self)
    }

    fn says(&self, words: &str) -> Outcome {
        // ansible folds long lines.
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains(words), "{words:?} was not said:\n{}", self.text);
        Ok(())
    }

    /// A host's number of tasks with this result, from the recap.
    fn count(&self, host: &str, what: &str) -> anyhow::Result<u32> {
        let recap = self.text.split("PLAY RECAP").nth(1).context("there is no recap")?;
        let line = recap.lines().find(|line| line.split_whitespace().next() == Some(host));
        let counted =
            line.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix(what)?.strip_prefix('=')));
        Ok(counted.with_context(|| format!("no {what} of {host} in the recap:\n{}", self.text))?.parse()?)
    }

    /// What the end of the run says of one host.
    fn said_of(&self, host: &str) -> String {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts: Vec<_> = text.split(" (10.77.0.").collect();
        parts.windows(2).filter(|pair| pair[0].ends_with(host)).map(|pair| pair[1]).collect()
    }

    fn changed_nothing(&self) -> Outcome {
        for name in NAMES {
            ensure!(self.count(name, "changed")? == 0, "{name} was changed:\n{}", self.text);
        }
        Ok(())
    }
}

/// A folder with an input file, and ansible.
struct Control {
    folder: PathBuf,
    venv: PathBuf,
    /// The folder of kubectl.
    kubectl: PathBuf,
    ssh: String,
    /// Variables of the playbook, JSON.
    variables: String,
}

impl Control {
    async fn run(&self, playbook: &str, more: &[&str]) -> anyhow::Result<Run> {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", self.venv.join("bin").display(), self.kubectl.display());
        let begun = Instant::now();
        let output = Command::new(self.venv.join("bin/ansible-playbook"))
            .arg(top().join("ansible").join(playbook))
            .args(["-e", &self.variables])
            .args(more)
            .current_dir(&self.folder)
            // From this variable the playbook knows the folder in which it was called.
            .env("PWD", &self.folder)
            .env("PATH", path)
            .env("ANSIBLE_HOME", self.folder.join("ansible"))
            .env("ANSIBLE_SSH_ARGS", &self.ssh)
            // Servers of another test have the same addresses.
            .env("ANSIBLE_SSH_CONTROL_PATH_DIR", self.folder.join("ssh"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("starting ansible-playbook")?;
        let text = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
        let run = Run { success: output.status.success(), text, took: begun.elapsed() };
        eprintln!("{playbook} {}: {:.1} s", more.join(" "), run.took.as_secs_f32());
        if std::env::var_os(VERBOSE).is_some() {
            eprintln!("{}", run.text);
        }
        Ok(run)
    }
}

struct Setting {
    control: Control,
    servers: Vec<Arc<Server>>,
    input: Value,
}

impl Setting {
    fn write_input(&self) -> Outcome {
        Ok(fs::write(self.control.folder.join("input.json"), self.input.to_string())?)
    }
}

fn on_servers(venv: &Path, body: impl AsyncFnOnce(&mut Stack, Setting) -> Outcome) -> Outcome {
    tokio::runtime::Runtime::new()?.block_on(async {
        let line = |line: &str| eprintln!("{line}");
        let mut stack =
            Stack::start(StackOptions::new(sandbox::program("o2ims-operator")?).with_servers(), line).await?;
        let result = async {
            let setting = setting(&mut stack, venv.to_path_buf()).await?;
            body(&mut stack, setting).await
        }
        .await;
        result.and(stack.stop().await)
    })
}

/// Four freshly installed machines, and the input for them.
async fn setting(stack: &mut Stack, venv: PathBuf) -> anyhow::Result<Setting> {
    let files = testenv::servers::host_files(|line| eprintln!("{line}")).await?;
    let folder = stack.management.dir().join("control");
    fs::create_dir(&folder)?;
    stack.management.kubeconfig_as("platform-operator", &["system:masters"], &folder.join("management.kubeconfig"))?;
    let mut servers = Vec::new();
    for (number, name) in (11..).zip(NAMES) {
        servers.push(stack.debian_server(name, number)?);
    }
    futures::future::try_join_all(servers.iter().map(|server| server.power_on())).await?;
    let login = stack.login()?;
    let mut hosts: Vec<_> = (1..)
        .zip(&servers)
        .map(|(number, server)| {
            json!({
                "name": server.name(), "address": server.address(), "user": "root", "hostId": number,
                "labels": {"rack": format!("r{number}")}, "keyFile": login.key,
            })
        })
        .collect();
    // The key may also be one that ssh finds by itself.
    hosts[3].as_object_mut().context("a host")?.remove("keyFile");
    let input = json!({
        "kubeconfig": "management.kubeconfig", "k8sVersion": kubernetes_version(),
        "sources": {"containerd": "files", "kubernetes": "files", "files": files}, "hosts": hosts,
    });
    let ssh = ssh_options(&login);
    let variables = ansible::SHARED_KERNEL_VARIABLES.to_owned();
    let kubectl = stack.management.kubectl().parent().context("kubectl is in a folder")?.to_path_buf();
    let setting = Setting { control: Control { folder, venv, kubectl, ssh, variables }, servers, input };
    setting.write_input()?;
    Ok(setting)
}

/// Arguments of ssh for ansible.
fn ssh_options(login: &Login) -> String {
    format!(
        "-o UserKnownHostsFile={} -o IdentityFile={} -o ControlMaster=auto -o ControlPersist=20s",
        login.known_hosts.display(),
        login.key.display()
    )
}

/// The provisioning state of a request.
fn state(request: &ProvisioningRequest) -> Option<String> {
    let request = serde_json::to_value(request).ok()?;
    Some(request["status"]["provisioningStatus"]["provisioningState"].as_str()?.to_owned())
}

async fn from_the_box_and_back(stack: &mut Stack, mut setting: Setting) -> Outcome {
    // Nothing listens there, so this shows that agents, hosts and clusters are reached without it.
    setting.input["proxy"] = json!({"http": "http://10.77.0.1:3128"});
    setting.write_input()?;
    let Setting { control, .. } = &setting;
    let hosts = inventory::hosts(stack.management.admin(), "default");

    setting.servers[1].run(&["mkdir", "-p", "/etc/cloud/cloud.cfg.d"]).await?;
    let check = control.run("site.yaml", &["--check"]).await?.succeeded()?;
    check.says("target-4 (10.77.0.14, hostId 4) would be registered")?;
    ensure!(hosts.list(&ListParams::default()).await?.items.is_empty(), "--check has registered hosts");
    let first = control.run("site.yaml", &[]).await?.succeeded()?;
    for (number, name) in (1..).zip(NAMES) {
        first.says(&format!("{name} (10.77.0.1{number}, hostId {number}) is registered"))?;
        let host = hosts.get(name).await?;
        let wanted = BTreeMap::from([("host-id", number.to_string()), ("rack", format!("r{number}"))]);
        for (label, value) in wanted {
            ensure!(host.labels().get(label) == Some(&value), "{name}: {:?}", host.labels());
        }
    }
    let second = control.run("site.yaml", &[]).await?.succeeded()?;
    second.changed_nothing()?;
    let check = control.run("site.yaml", &["--check", "-e", "hosts=target-1"]).await?.succeeded()?;
    ensure!(check.count("target-1", "changed")? == 0, "--check would change a host that is done:\n{}", check.text);
    setting.servers[1].run(&["grep", "preserve_hostname: true", "/etc/cloud/cloud.cfg.d/90-o2ims-host.cfg"]).await?;
    eprintln!("first run {:.1} s, second {:.1} s", first.took.as_secs_f32(), second.took.as_secs_f32());

    stack.start_focom(&OperatorOptions::new(sandbox::program("focom-operator")?)).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), "default");
    let by_smo: Api<FocomProvisioningRequest> = Api::namespaced(stack.management.admin(), "default");
    stack.management.apply_yaml(&as_built(installation::EXAMPLE)).await?;
    stack.management.apply_yaml(&as_built(focom::EXAMPLE)).await?;
    let fulfilled = |request: Option<&ProvisioningRequest>| request.and_then(state).as_deref() == Some("fulfilled");
    wait(requests.clone(), "core-cluster-request", "the cluster core", REQUEST, fulfilled).await?;
    let fulfilled = |request: Option<&FocomProvisioningRequest>| {
        request.and_then(|request| request.remote_state()) == Some("fulfilled")
    };
    wait(by_smo.clone(), "edge-cluster-request", "the cluster edge", REQUEST, fulfilled).await?;
    // The playbook has these in force already; a node keeps them by files of its own.
    let kept = "grep -x 'net.ipv4.ip_forward = 1' /etc/sysctl.d/90-o2ims.conf && \
        grep -x 'fs.inotify.max_user_instances = 8192' /etc/sysctl.d/05-o2ims.conf";
    setting.servers[0].run(&["bash", "-c", kept]).await?;

    // Hosts in a cluster are not changed.
    control.run("site.yaml", &[]).await?.succeeded()?.changed_nothing()?;
    certificates_are_renewed(&setting).await?;
    let request = requests.get("core-cluster-request").await?;
    ensure!(state(&request).as_deref() == Some("fulfilled"), "{:?}", state(&request));
    for playbook in ["unregister.yaml", "reset.yaml"] {
        let refused = control.run(playbook, &["-e", "hosts=target-1"]).await?.failed()?;
        refused.says("ByoHost default/target-1 is in use by cluster core and ProvisioningRequest")?;
        refused.says("core-cluster-request")?;
        ensure!(refused.count("target-1", "changed")? == 0, "a host in use was changed:\n{}", refused.text);
    }

    requests.delete("core-cluster-request", &DeleteParams::default()).await?;
    by_smo.delete("edge-cluster-request", &DeleteParams::default()).await?;
    wait(requests, "core-cluster-request", "the end of core", REQUEST, |request| request.is_none()).await?;
    wait(by_smo, "edge-cluster-request", "the end of edge", REQUEST, |request| request.is_none()).await?;

    let run = control.run("unregister.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    run.says("target-1 (10.77.0.11, hostId 1) is unregistered")?;
    ensure!(hosts.get_opt("target-1").await?.is_none() && hosts.get_opt("target-2").await?.is_some(), "the wrong host");
    let server = &setting.servers[0];
    ensure!(server.run(&["systemctl", "is-active", "byoh-hostagent"]).await.is_err(), "the agent still runs");
    ensure!(server.run(&["ls", "/root/.byoh/config"]).await.is_err(), "the credentials are still there");
    let left = "ls -d /etc/systemd/system/byoh-hostagent.service.d /etc/sysctl.d/*-o2ims.conf 2>/dev/null || true";
    let left = server.run(&["bash", "-c", left]).await?;
    ensure!(left.trim().is_empty(), "left on a host that was unregistered:\n{left}");
    let run = control.run("site.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    run.says("target-1 (10.77.0.11, hostId 1) is registered")?;
    ensure!(hosts.get_opt("target-1").await?.is_some(), "target-1 is not registered again");

    let purge = ["-e", "hosts=target-2", "-e", "purge=true"];
    setting.servers[1].run(&["bash", "-c", SITE_TOOL]).await?;
    let refused = control.run("reset.yaml", &purge).await?.failed()?;
    refused.says("site-tool would be removed too")?;
    ensure!(refused.count("target-2", "changed")? == 0, "it was changed all the same:\n{}", refused.text);
    setting.servers[1].run(&["dpkg", "--purge", "site-tool"]).await?;
    control.run("reset.yaml", &purge).await?.succeeded()?;
    ensure!(hosts.get_opt("target-2").await?.is_none(), "a host that was reset is still registered");
    let left = "ls -d /usr/local/bin/byoh-hostagent /usr/local/bin/kubelet /opt/kubernetes /usr/bin/containerd /etc/containerd \
        /etc/systemd/system/kubelet.service /etc/systemd/system/swap.d /etc/byoh /etc/sysctl.d/90-o2ims-host.conf \
        /etc/sysctl.d/05-o2ims-host.conf /etc/systemd/system/byoh-hostagent.service.d /etc/default/kubelet \
        /etc/cloud/cloud.cfg.d/90-o2ims-host.cfg /etc/apt/apt.conf.d/90o2ims-host-proxy 2>/dev/null || true";
    let left = setting.servers[1].run(&["bash", "-c", left]).await?;
    ensure!(left.trim().is_empty(), "left on a machine that was reset:\n{left}");
    control
        .run("site.yaml", &["-e", "hosts=target-2"])
        .await?
        .succeeded()?
        .says("target-2 (10.77.0.12, hostId 2) is registered")?;
    Ok(())
}

/// Hosts in a cluster: one has lost its certificate, as after a year, and that of the other one expires soon.
async fn certificates_are_renewed(Setting { control, servers, .. }: &Setting) -> Outcome {
    const CERTIFICATE: &str = "/root/.byoh/config";
    servers[0].run(&["rm", CERTIFICATE]).await?;
    control.run("site.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    servers[0].run(&["test", "-s", CERTIFICATE]).await?;
    let before = servers[1].run(&["cat", CERTIFICATE]).await?;
    let soon = "preflight_certificate_percent=100";
    control
        .run("site.yaml", &["-e", "hosts=target-2", "-e", soon])
        .await?
        .succeeded()?
        .says("percent of the lifetime of the certificate in /root/.byoh/config are left")?;
    ensure!(servers[1].run(&["cat", CERTIFICATE]).await? != before, "the certificate was not renewed");
    control.run("site.yaml", &[]).await?.succeeded()?.changed_nothing()
}

/// A host of a running cluster without the operator's unit, as an earlier release has left it, gets what the install script has put on the others.
async fn unit_is_brought(Setting { control, servers, .. }: &Setting) -> Outcome {
    const READ: &str = "cat /usr/local/sbin/o2ims-host /etc/systemd/system/o2ims-host.service";
    const TAKE: &str =
        "systemctl disable --now o2ims-host && rm /usr/local/sbin/o2ims-host /etc/systemd/system/o2ims-host.service";
    let installed = servers[0].run(&["bash", "-c", READ]).await?;
    servers[0].run(&["bash", "-c", TAKE]).await?;
    let on_one = ["-e", "hosts=target-1"];
    let run = control.run("unit.yaml", &on_one).await?.succeeded()?;
    run.says("target-1 (10.77.0.11, hostId 1) has the unit")?;
    ensure!(servers[0].run(&["bash", "-c", READ]).await? == installed, "it is not what the install script writes");
    servers[0].run(&["systemctl", "is-active", "o2ims-host"]).await?;
    let run = control.run("unit.yaml", &on_one).await?.succeeded()?;
    ensure!(run.count("target-1", "changed")? == 0, "a second run has changed target-1:\n{}", run.text);
    let refused = control.run("unit.yaml", &["-e", "hosts=target-3"]).await?.failed()?;
    refused.says("ByoHost default/target-3 is not there: register the host with site.yaml first")
}

/// Hosts of a running cluster, for which the input has another version and another host id, while all certificates are
/// renewed: nothing else of them changes, and the differences are reported.
async fn in_use(stack: &mut Stack, mut setting: Setting) -> Outcome {
    const BOTH: [&str; 4] = ["-e", "hosts=target-1,target-2", "-e", "preflight_certificate_percent=100"];
    setting.input["proxy"] = json!({"http": "http://10.77.0.1:3128"});
    setting.write_input()?;
    setting.control.run("site.yaml", &BOTH[..2]).await?.succeeded()?;
    stack.management.apply_yaml(&as_built(installation::EXAMPLE)).await?;
    let requests: Api<ProvisioningRequest> = Api::namespaced(stack.management.admin(), "default");
    let fulfilled = |request: Option<&ProvisioningRequest>| request.and_then(state).as_deref() == Some("fulfilled");
    wait(requests.clone(), "core-cluster-request", "the cluster core", REQUEST, fulfilled).await?;
    // With other hosts and ClusterTemplates this list becomes another one, and nothing is to be done.
    setting.input["proxy"]["noProxy"] = json!(["late.site.example"]);
    setting.write_input()?;
    let run = setting.control.run("site.yaml", &BOTH[..2]).await?.succeeded()?;
    run.says("target-1 is in use by cluster core and ProvisioningRequest")?;
    ensure!(!run.text.contains("stay as they are"), "something differs on a host that was just made:\n{}", run.text);

    unit_is_brought(&setting).await?;

    let hosts = inventory::hosts(stack.management.admin(), "default");
    // In the same way the GPU operator adds its runtime.
    let runtime = r#"printf '%s\n' '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]' '  runtime_type = "io.containerd.runc.v2"' \
        >>/etc/containerd/config.toml"#;
    setting.servers[0].run(&["bash", "-c", runtime]).await?;
    setting.input["k8sVersion"] = json!(next_patch());
    setting.input["hosts"][0]["hostId"] = json!(71);
    setting.input["proxy"]["http"] = json!("http://10.77.0.1:3129");
    setting.write_input()?;
    let states = async |servers: &[Arc<Server>]| {
        futures::future::try_join_all(servers[..2].iter().map(|server| server.run(&["bash", "-c", STATE]))).await
    };
    let before = states(&setting.servers).await?;
    let labels = hosts.get("target-1").await?.metadata.labels;
    let certificate = setting.servers[0].run(&["cat", "/root/.byoh/config"]).await?;
    for more in [&["--check"][..], &[]] {
        let run = setting.control.run("site.yaml", &[&BOTH, more].concat()).await?.succeeded()?;
        run.says("target-1 is in use by cluster core and ProvisioningRequest")?;
        run.says(&format!("its kubelet is {}, and input.json says {}", kubernetes_version(), next_patch()))?;
        run.says("/etc/containerd/config.toml is not as the playbook would write it")?;
        run.says("its proxies are not those of input.json")?;
        run.says("its ByoHost has not the label host-id=71")?;
        ensure!(states(&setting.servers).await? == before, "more than certificates was changed:\n{}", run.text);
        let renewed = setting.servers[0].run(&["cat", "/root/.byoh/config"]).await? != certificate;
        ensure!(renewed == more.is_empty(), "the certificate: {renewed}\n{}", run.text);
    }
    ensure!(hosts.get("target-1").await?.metadata.labels == labels, "labels of a host in use were changed");
    let request = requests.get("core-cluster-request").await?;
    ensure!(state(&request).as_deref() == Some("fulfilled"), "{:?}", state(&request));
    Ok(())
}

/// A full disk and no default route, an ssh server that is off, and an unfit machine with a node of another cluster; the
/// fourth machine is registered.
async fn some_are_broken(stack: &mut Stack, mut setting: Setting) -> Outcome {
    nothing_fits(&mut setting).await?;
    let Setting { control, servers, .. } = &setting;
    servers[2].run(&["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", "/var/lib/containerd"]).await?;
    servers[2].run(&["ip", "route", "delete", "default"]).await?;
    servers[1].run(&["systemctl", "stop", "ssh"]).await?;
    servers[3].run(&["bash", "-c", UNFIT]).await?;
    let run = control.run("site.yaml", &[]).await?.failed()?;
    run.says("3 of 4 hosts failed: target-2 (10.77.0.12): ")?;
    run.says("ssh root@10.77.0.12 (port 22) does not work")?;
    run.says("target-3 (10.77.0.13): ")?;
    run.says("disk: 100 MiB are free in /var/lib/containerd; at least 4096 MiB are wanted")?;
    run.says("there is no IPv4 default route, by which BYOH's agent finds the machine's addresses")?;
    run.says("target-4 (10.77.0.14): ")?;
    run.says("/etc/resolv.conf names only 127.0.0.1, which in a pod is the pod itself")?;
    run.says("target-4 (10.77.0.14): note: network: the address 10.77.0.14/32 of eth0 is a host route")?;
    run.says("firewall: firewalld is active, and the playbook opens no port: open tcp 6443")?;
    run.says("but of none that this management cluster has made (there is no /root/.byoh/config)")?;
    let registered = inventory::hosts(stack.management.admin(), "default").list(&ListParams::default()).await?;
    let registered: Vec<_> = registered.items.iter().map(ResourceExt::name_any).collect();
    ensure!(registered == ["target-1"], "{registered:?} are registered:\n{}", run.text);
    Ok(())
}

/// A server with its own settings, and one with the name of another; then what goes wrong with the first
/// one's packages and certificate, and its reset.
async fn sites_have_their_own(stack: &mut Stack, mut setting: Setting) -> Outcome {
    let hosts = inventory::hosts(stack.management.admin(), "default");
    let [own, other] = [0, 2].map(|number| setting.servers[number].clone());
    setting.input["proxy"] = json!({"http": "http://10.77.0.1:3128", "noProxy": ["mirror.site.example"]});
    setting.write_input()?;
    stack.management.apply_yaml(TEMPLATES).await?;
    own.run(&["bash", "-c", SITE_SETTINGS]).await?;
    setting.control.run("site.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    // dpkg asked no question, and the old file is kept beside the new one.
    own.run(&["bash", "-c", SITE_SET_UP]).await?;
    // Another host on the same LAN is none of this one's business.
    let good = setting.input.clone();
    let more = json!({"name": "target-5", "address": "10.77.0.15", "user": "root", "hostId": 5});
    setting.input["hosts"].as_array_mut().context("hosts")?.push(more);
    setting.write_input()?;
    let run = setting.control.run("site.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    ensure!(run.count("target-1", "changed")? == 0, "a second run has changed target-1:\n{}", run.text);

    // Another server with the name target-1, as on another site.
    let registered = hosts.get("target-1").await?;
    let before = other.run(&["bash", "-c", STATE]).await?;
    setting.input["hosts"] = json!([good["hosts"][2]]);
    setting.input["hosts"][0]["name"] = json!("target-1");
    setting.input["hosts"][0]["hostId"] = json!(71);
    setting.write_input()?;
    for playbook in ["site.yaml", "unregister.yaml", "reset.yaml"] {
        let run = setting.control.run(playbook, &["-e", "hosts=target-1"]).await?.failed()?;
        run.says("ByoHost default/target-1 is another server's (addresses 10.77.0.11, free)")?;
        ensure!(run.count("target-1", "changed")? == 0, "it was changed:\n{}", run.text);
    }
    ensure!(other.run(&["bash", "-c", STATE]).await? == before, "something of the other server was changed");
    let now = hosts.get("target-1").await?;
    ensure!(now.resource_version() == registered.resource_version(), "the ByoHost was changed: {now:#?}");

    // The same server without the files of its agent, as after a new installation, is registered again. What would leave
    // a new server out is only told, since this one has its ByoHost.
    setting.input = good;
    setting.write_input()?;
    own.run(&["bash", "-c", "systemctl stop byoh-hostagent && rm -rf /root/.byoh /etc/byoh"]).await?;
    let rules = "add table inet site; \
        add chain inet site input { type filter hook input priority 0; policy drop; }; add rule inet site input accept";
    own.run(&["nft", rules]).await?;
    own.run(&["bash", "-c", "echo nameserver 127.0.0.1 >/etc/resolv.conf"]).await?;
    let run = setting.control.run("site.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    run.says("target-1 (10.77.0.11, hostId 1) is registered")?;
    run.says("target-1 (10.77.0.11): note: firewall: nftables is active, and the playbook opens no port")?;
    run.says("the machine's user data has manage_etc_hosts, so /etc/hosts is written anew at each start")?;
    run.says("resolver: /etc/resolv.conf names only 127.0.0.1, which in a pod is the pod itself")?;

    repositories_fail(&mut setting).await?;
    no_certificate_is_issued(stack, &setting).await?;
    setting.control.run("reset.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    own.run(&["bash", "-c", SITE_RESET]).await?;
    all_is_present(&mut setting).await
}

/// What [`preparations::ROUNDS`] has; then programs of the site's that are not fit.
async fn prepared_badly(stack: &mut Stack, mut setting: Setting) -> Outcome {
    let key = setting.input["hosts"][0]["keyFile"].clone();
    let mut number = 0;
    let mut registered = Vec::new();
    for sites in ROUNDS {
        let mut hosts = Vec::new();
        for server in &setting.servers {
            server.power_off().await?;
        }
        let servers: Vec<_> = (number + 1..)
            .zip(sites)
            .map(|(number, _)| {
                match setting.servers.iter().find(|server| server.name() == format!("target-{number}")) {
                    Some(server) => Ok(server.clone()),
                    None => stack.debian_server(&format!("target-{number}"), 10 + number),
                }
            })
            .collect::<anyhow::Result<_>>()?;
        for (server, site) in servers.iter().zip(sites) {
            server.power_on().await?;
            number += 1;
            hosts.push(json!({
                "name": server.name(), "address": server.address(), "user": site.user, "hostId": number, "keyFile": key,
            }));
        }
        setting.servers = servers;
        setting.input["hosts"] = json!(hosts);
        setting.write_input()?;
        registered = prepare_and_judge(&setting, sites).await?;
    }
    for (name, trial) in ELSEWHERE {
        eprintln!("{name}: in {trial}");
    }
    not_fit(&mut setting, registered.first().context("no host was registered")?).await
}

/// Prepares the servers, and runs the playbook, twice where hosts are registered. It returns these.
async fn prepare_and_judge(setting: &Setting, sites: &[Site]) -> anyhow::Result<Vec<String>> {
    // apt writes its database anew without a change.
    const PACKAGES: &str =
        "grep -v '^/var/lib/dpkg/'; dpkg-query --show --showformat='${Package} ${Version} ${Status}\n'";
    let state = format!("{{ {STATE}; }} | {{ {PACKAGES}; }}");
    let files = Path::new(setting.input["sources"]["files"].as_str().context("a folder")?).join("packages");
    let on = async |server: &Server, what: &str, shell: &str| {
        let shell = format!("set -ex\n{shell}");
        server.run(&["bash", "-c", &shell]).await.with_context(|| what.to_owned())
    };
    let mut before = Vec::new();
    for (server, site) in setting.servers.iter().zip(sites) {
        if site.filters {
            install_filters(server, &files).await?;
        }
        for preparation in site.preparations {
            on(server, preparation.name, preparation.prepare).await?;
        }
        before.push(server.run(&["bash", "-c", &state]).await?);
    }
    let run = setting.control.run("site.yaml", &[]).await?;
    let mut registered = Vec::new();
    for ((server, site), before) in setting.servers.iter().zip(sites).zip(before) {
        let name = server.name();
        let said = run.said_of(name);
        let left_out = site.preparations.iter().any(|each| matches!(each.outcome, Becomes::Told(_)));
        ensure!(left_out != said.contains("is registered"), "{name}: {said}\n{}", run.text);
        if left_out {
            ensure!(run.count(name, "changed")? == 0, "{name} was changed:\n{}", run.text);
            let now = server.run(&["bash", "-c", &state]).await?;
            ensure!(now == before, "something of {name} was changed:\n{before}\n{now}");
        } else {
            registered.push(name.to_owned());
        }
        for preparation in site.preparations {
            let became = match preparation.outcome {
                Becomes::Told(words) | Becomes::Noted(words) => {
                    ensure!(said.contains(words), "{}: {words:?} is not in {said:?}", preparation.name);
                    if left_out { "told, and left out" } else { "told, and registered" }
                }
                Becomes::MadeRight(shell) => {
                    on(server, preparation.name, &shell.replace("VERSION", kubernetes_version())).await?;
                    "made right"
                }
            };
            on(server, preparation.name, preparation.kept).await?;
            eprintln!("{name}: {}: {became}", preparation.name);
        }
    }
    if !registered.is_empty() {
        let run = setting.control.run("site.yaml", &["-e", &format!("hosts={}", registered.join(","))]).await?;
        let run = run.succeeded()?;
        for host in &registered {
            ensure!(run.count(host, "changed")? == 0, "a second run has changed {host}:\n{}", run.text);
        }
    }
    Ok(registered)
}

/// Installs iptables and nftables, as a site has them that has a firewall.
async fn install_filters(server: &Server, packages: &Path) -> Outcome {
    const NAMES: [&str; 7] = [
        "iptables_",
        "nftables_",
        "libip6tc2_",
        "libnftables1_",
        "libnftnl11_",
        "libnfnetlink0_",
        "libnetfilter-conntrack3_",
    ];
    let folder = PathBuf::from(format!("/proc/{}/root/var/tmp", server.first_process().await?));
    for entry in fs::read_dir(packages)? {
        let name = entry?.file_name().into_string().map_err(|name| anyhow!("{}", name.display()))?;
        if NAMES.iter().any(|wanted| name.starts_with(wanted)) {
            fs::copy(packages.join(&name), folder.join(&name))?;
        }
    }
    server.run(&["bash", "-c", "dpkg --install /var/tmp/*.deb && rm /var/tmp/*.deb"]).await.map(drop)
}

/// The patch version after the one that is there; nobody has it.
fn next_patch() -> String {
    let (minor, patch) = kubernetes_version().rsplit_once('.').unwrap();
    format!("{minor}.{}", patch.parse::<u32>().unwrap() + 1)
}

/// Programs that are `present` and not fit are told before anything is changed, here a file that was removed.
async fn not_fit(setting: &mut Setting, host: &str) -> Outcome {
    const KEPT: &str = "/etc/modules-load.d/90-o2ims-host.conf";
    const DISABLE: &str = r#"sed -i '1i disabled_plugins = ["io.containerd.grpc.v1.cri"]' /etc/containerd/config.toml && systemctl restart containerd"#;
    let server = setting.servers.iter().find(|server| server.name() == host).context("a server")?.clone();
    server.run(&["rm", KEPT]).await?;
    server.run(&["bash", "-c", DISABLE]).await?;
    let (there, wanted) = (kubernetes_version(), next_patch());
    let words = format!("{wanted} is wanted (sources.kubernetes is present, so it has to be installed already)");
    let cases = [
        ("kubernetes", wanted.as_str(), words.as_str()),
        ("containerd", there, "containerd runs without its CRI plugin; take cri out of disabled_plugins"),
    ];
    for (source, version, words) in cases {
        setting.input["k8sVersion"] = json!(version);
        setting.input["sources"][source] = json!("present");
        setting.write_input()?;
        let run = setting.control.run("site.yaml", &["-e", &format!("hosts={host}")]).await?.failed()?;
        run.says(words)?;
        ensure!(run.count(host, "changed")? == 0, "{host} was changed:\n{}", run.text);
        ensure!(server.run(&["ls", KEPT]).await.is_err(), "{KEPT} was written:\n{}", run.text);
        eprintln!("{host}: {source} of the site's that is not fit: told, and left out");
    }
    Ok(())
}

/// A server without apt, whose containerd and Kubernetes are the site's: they are neither set up nor restarted.
async fn all_is_present(setting: &mut Setting) -> Outcome {
    const CONTAINERD: [&str; 5] = ["systemctl", "show", "--property", "MainPID,ActiveEnterTimestamp", "containerd"];
    let own = setting.servers[0].clone();
    own.run(&["bash", "-c", WITHOUT_APT]).await?;
    setting.input["sources"]["containerd"] = json!("present");
    setting.input["sources"]["kubernetes"] = json!("present");
    setting.input["hosts"][0]["address"] = json!("10.77.0.31");
    setting.write_input()?;
    let before = own.run(&CONTAINERD).await?;
    let run = setting.control.run("site.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    run.says("target-1 (10.77.0.31, hostId 1) is registered")?;
    own.run(&["bash", "-c", WITHOUT_APT_SET_UP]).await?;
    setting.control.run("reset.yaml", &["-e", "hosts=target-1"]).await?.succeeded()?;
    ensure!(own.run(&CONTAINERD).await? == before, "the site's containerd was restarted");
    Ok(())
}

/// Another version from a repository that is not there, and from one that has changed its key: it is fetched anew. One
/// of the site's that is not there is in the way of nothing but of what only it could have.
async fn repositories_fail(setting: &mut Setting) -> Outcome {
    const OLD_KEY: &str =
        "cp /etc/apt/trusted.gpg.d/debian-archive-bookworm-stable.asc /etc/apt/keyrings/o2ims-host.asc";
    const SAME_KEY: [&str; 3] = ["cmp", "/srv/repository/Release.key", "/etc/apt/keyrings/o2ims-host.asc"];
    let good = setting.input.clone();
    setting.input["k8sVersion"] = json!(next_patch());
    setting.input["sources"]["kubernetes"] = json!("repository");
    setting.write_input()?;
    let server = &setting.servers[0];
    server.run(&["bash", "-c", REPOSITORY]).await?;
    let with = async |repository: &str, packages: &Value| {
        let variables = json!({
            "kubernetes_repository": repository, "kubernetes_repository_key": "file:/srv/repository/Release.key",
            "kubernetes_packages": packages,
        })
        .to_string();
        let more = ["-e", "hosts=target-1", "-e", &variables];
        setting.control.run("site.yaml", &more).await?.failed()
    };
    let run = with("http://127.0.0.1:9/", &json!([])).await?;
    run.says("apt-get update: Failed to fetch http://127.0.0.1:9/InRelease")?;
    server.run(&SAME_KEY).await?;
    server.run(&["bash", "-c", OLD_KEY]).await?;
    server.run(&["bash", "-c", SITE_REPOSITORIES]).await?;
    let run = with("file:/srv/repository/", &json!(["site-tool"])).await?;
    run.says("Unable to locate package kubelet")?;
    server.run(&SAME_KEY).await?;
    server.run(&["dpkg", "--status", "site-tool"]).await?;
    let run = with("file:/srv/repository/", &json!(["nowhere"])).await?;
    run.says("apt cannot install nowhere: ")?;
    run.says("Unable to locate package nowhere")?;
    run.says("Failed to fetch http://127.0.0.1:9/")?;
    run.says("nothing was changed")?;
    setting.input = good;
    setting.write_input()
}

/// A management cluster whose controllers sign nothing, and one that knows no bootstrap tokens. After that the host is
/// registered, with a file of DNS servers for its kubelet.
async fn no_certificate_is_issued(stack: &Stack, setting: &Setting) -> Outcome {
    const LOSE: &str = "systemctl stop byoh-hostagent && rm -rf /root/.byoh";
    let control = &setting.control;
    let server = &setting.servers[0];
    server.run(&["bash", "-c", "echo nameserver 192.0.2.53 >/etc/resolv.site"]).await?;
    // Time enough for the agent to ask, and for BYOH to approve that, beside all that runs here.
    let more = [
        "-e",
        "hosts=target-1",
        "-e",
        "kubernetes_resolv_conf=/etc/resolv.site",
        "-e",
        "agent_registration_seconds=60",
    ];

    server.run(&["bash", "-c", LOSE]).await?;
    let stopped = Stopped::stop(controllers(stack)?)?;
    let run = control.run("site.yaml", &more).await?.failed()?;
    drop(stopped);
    run.says("certificatesigningrequest byoh-csr-target-1 is approved, and no controller signs it")?;

    server.run(&["bash", "-c", LOSE]).await?;
    let tokens: Api<Secret> = Api::namespaced(stack.management.admin(), "kube-system");
    let run = tokio::select! {
        run = control.run("site.yaml", &more) => run?.failed()?,
        error = delete_tokens(tokens) => return Err(error),
    };
    run.says("does not accept bootstrap tokens")?;
    ensure!(server.run(&["systemctl", "is-active", "byoh-hostagent"]).await.is_err(), "the agent was started");

    control.run("site.yaml", &more[..4]).await?.succeeded()?.says("target-1 (10.77.0.11, hostId 1) is registered")?;
    server.run(&["grep", "=--resolv-conf=/etc/resolv.site --eviction-hard=", "/etc/default/kubelet"]).await.map(drop)
}

/// A process that is stopped until this is dropped. Otherwise it would stay, and not even end with the stack.
struct Stopped(Pid);

impl Stopped {
    fn stop(process: Pid) -> anyhow::Result<Self> {
        kill_process(process, Signal::STOP)?;
        Ok(Self(process))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The process of the management cluster's kube-controller-manager.
fn controllers(stack: &Stack) -> anyhow::Result<Pid> {
    let is_it = |id: &i32| {
        let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split('\0').next().is_some_and(|program| program.ends_with("kube-controller-manager"))
    };
    let id = stack.management.process_ids().into_iter().find(is_it).context("no kube-controller-manager runs")?;
    Pid::from_raw(id).context("a process has an id")
}

/// Deletes bootstrap tokens as soon as they are made, so that no API server accepts them. It ends with an error only.
async fn delete_tokens(secrets: Api<Secret>) -> anyhow::Error {
    let tokens = watcher::Config::default().fields("type=bootstrap.kubernetes.io/token");
    let mut made = watcher(secrets.clone(), tokens).default_backoff().applied_objects().boxed();
    loop {
        match made.try_next().await {
            // A token that was changed meanwhile is deleted already.
            Ok(Some(token)) => drop(secrets.delete(&token.name_any(), &DeleteParams::default()).await),
            Ok(None) => return anyhow!("the watch of bootstrap tokens ended"),
            Err(error) => return error.into(),
        }
    }
}

/// Programs for another processor, packages for another distribution, and a management API that the machine cannot
/// reach are reported, and the machine is not changed.
async fn nothing_fits(setting: &mut Setting) -> Outcome {
    let good = setting.input.clone();
    let folder = setting.control.folder.join("arm");
    fs::create_dir_all(folder.join("bin"))?;
    fs::create_dir_all(folder.join("packages"))?;
    fs::write(folder.join("packages/x_1_arm64.deb"), "")?;
    fs::write(folder.join("packages/os-release"), "ID=ubuntu\nVERSION_ID=\"24.04\"\n")?;
    for program in ["kubelet", "kubeadm", "kubectl", "byoh-hostagent"] {
        let mut head = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0";
        head[18] = if std::env::consts::ARCH == "aarch64" { 62 } else { 183 };
        fs::write(folder.join("bin").join(program), head)?;
    }
    setting.input["sources"]["files"] = json!(folder);
    setting.input["apiServer"] = json!("https://10.77.0.1:1");
    setting.write_input()?;
    let run = setting.control.run("site.yaml", &["-e", "hosts=target-1"]).await?.failed()?;
    run.says("1 of 1 hosts failed: target-1 (10.77.0.11): ")?;
    run.says("and the programs in sources.files are for")?;
    run.says("Debian GNU/Linux 12 (bookworm); the packages in sources.files are for ubuntu 24.04")?;
    run.says("this machine does not reach https://10.77.0.1:1: Connection refused")?;
    ensure!(run.count("target-1", "changed")? == 0, "target-1 was changed:\n{}", run.text);
    setting.input = good;
    setting.write_input()
}

/// A change of a valid input file, and the message about it.
fn mistakes() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/hosts/1/hostId", json!(1), "hosts[1] (b): hostId: 1 is also a's; each host needs its own"),
        ("/hosts/1/hostId", json!("1"), "hosts[1] (b): hostId: 1 is also a's; each host needs its own"),
        ("/hosts/1/hostId", json!(-1), "hosts[1] (b): hostId: -1 is out of range: 0 to 2147483647"),
        (
            "/hosts/1/hostId",
            json!(1.5),
            "hosts[1] (b): hostId: must be a number or a string, not a number with a fraction",
        ),
        ("/hosts/1/hostId", json!("x y"), "hosts[1] (b): hostId: 'x y' is no label value"),
        ("/hosts/1/hostId", json!(true), "hosts[1] (b): hostId: must be a number or a string, not true"),
        ("/hosts/1/name", json!("a"), "hosts[1] (a): name: a is also another host's"),
        ("/hosts/1/name", json!("Target_2"), "hosts[1] (Target_2): name: 'Target_2' is no DNS label"),
        ("/hosts/1/name", json!(""), "hosts[1]: name: is empty"),
        ("/hosts/1/name", json!("localhost"), "hosts[1] (localhost): name: localhost is every machine's name"),
        (
            "/hosts/1/address",
            json!("192.0.2.1"),
            "hosts[1] (b): address: 192.0.2.1 is also a's; each host needs its own",
        ),
        (
            "/hosts/1/address",
            json!("192.0.2.300"),
            "hosts[1] (b): address: '192.0.2.300' is neither an IP address nor a DNS name",
        ),
        ("/hosts/1/address", json!("not an address"), "hosts[1] (b): address: 'not an address' is neither"),
        ("/hosts/1/user", json!("two words"), "hosts[1] (b): user: 'two words' is no user name"),
        ("/hosts/1/user", json!(null), "hosts[1] (b): user: must be a string, not null"),
        ("/hosts/1/port", json!(0), "hosts[1] (b): port: 0 is no port: 1 to 65535"),
        ("/hosts/1/port", json!("22"), "hosts[1] (b): port: must be a number, not a string"),
        ("/hosts/1/keyFile", json!("nowhere"), "hosts[1] (b): keyFile: "),
        ("/hosts/1/labels", json!({"rack": 7}), "hosts[1] (b): labels[rack]: must be a string, not a number"),
        ("/hosts/1/labels", json!({"rack": "a b"}), "hosts[1] (b): labels[rack]: is no label value"),
        ("/hosts/1/labels", json!({"-rack": "a"}), "hosts[1] (b): labels[-rack]: is no label key"),
        ("/hosts/1/labels", json!({"host-id": "9"}), "hosts[1] (b): labels[host-id]: this label cannot be given"),
        ("/hosts/1/labels", json!({"cluster.x-k8s.io/cluster-name": "x"}), "belongs to the operators"),
        ("/hosts/1/hostid", json!(2), "hosts[1] (b): hostid: unknown field; did you mean hostId?"),
        ("/hosts/1", json!("b"), "hosts[1]: must be an object, not a string"),
        ("/hosts", json!([]), "hosts: is empty"),
        ("/hosts", json!({}), "hosts: must be a list, not an object"),
        ("/kubeconfig", json!("nowhere"), "nowhere is no file: the kubeconfig of the management cluster is wanted"),
        ("/namespace", json!("My Namespace"), "namespace: 'My Namespace' is no DNS label"),
        ("/k8sVersion", json!("1.33"), "k8sVersion: '1.33' is no Kubernetes version such as v1.33.1"),
        ("/apiServer", json!("http://192.0.2.9"), "apiServer: 'http://192.0.2.9' is not https://HOST:PORT"),
        (
            "/sources/containerd",
            json!("docker"),
            "sources.containerd: 'docker' is none of packages, files, programs, present",
        ),
        ("/sources/containerd", json!("programs"), "sources.files: is missing, and sources.containerd is programs"),
        ("/sources/kubernetes", json!("files"), "sources.files: is missing, and sources.kubernetes is files"),
        ("/sources/files", json!("nowhere"), "nowhere is no folder"),
        ("/sources/agent", json!("management.kubeconfig"), "management.kubeconfig is no program for Linux"),
        ("/proxy", json!({"http": "proxy:3128"}), "proxy.http: 'proxy:3128' is not http://HOST:PORT"),
        (
            "/proxy",
            json!({"http": "http://user:secret@proxy:3128"}),
            "proxy.http: names a user, and everybody could read the password",
        ),
        ("/hostz", json!([]), "hostz: unknown field; did you mean hosts?"),
    ]
}

/// The same with text that is not valid JSON.
const UNREADABLE: [(&str, &str); 3] = [
    ("{\n  \"kubeconfig\": \"x\",\n  \"hosts\": [,]\n}", "line 3, column 13: no valid JSON"),
    ("[]", "must be an object, not a list"),
    ("{\"hosts\": [], \"hosts\": []}", "the field \"hosts\" is given twice"),
];

fn wrong_inputs(venv: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().to_path_buf();
    fs::write(folder.join("management.kubeconfig"), "")?;
    fs::copy(std::env::current_exe()?, folder.join("agent"))?;
    let good = json!({
        "kubeconfig": "management.kubeconfig", "k8sVersion": kubernetes_version(), "sources": {"agent": "agent"},
        "hosts": [
            {"name": "a", "address": "192.0.2.1", "user": "root", "hostId": 1},
            {"name": "b", "address": "192.0.2.2", "user": "root", "hostId": 2},
        ],
    });
    let mut cases: Vec<(String, &str)> = UNREADABLE.iter().map(|(text, said)| ((*text).to_owned(), *said)).collect();
    for (pointer, value, said) in mistakes() {
        let mut input = good.clone();
        let (parent, field) = pointer.rsplit_once('/').context("a pointer")?;
        match input.pointer_mut(parent).context("a place")? {
            Value::Array(list) => list[field.parse::<usize>()?] = value,
            object => object[field] = value,
        }
        cases.push((input.to_string(), said));
    }
    for field in ["name", "address", "user", "hostId"] {
        let mut input = good.clone();
        input["hosts"][0].as_object_mut().context("a host")?.remove(field);
        let said = [
            "hosts[0]: name: is missing",
            "hosts[0] (a): address: is missing",
            "user: is missing",
            "hostId: is missing",
        ];
        let index = ["name", "address", "user", "hostId"].iter().position(|name| *name == field).context("a field")?;
        cases.push((input.to_string(), said[index]));
    }
    eprintln!("{} wrong inputs", cases.len());
    let control = Control {
        folder: folder.clone(),
        venv: venv.to_path_buf(),
        kubectl: folder,
        ssh: String::new(),
        variables: "{}".to_owned(),
    };
    tokio::runtime::Runtime::new()?.block_on(async {
        let refused = cases.into_iter().enumerate().map(async |(number, (input, said))| {
            let file = format!("input-{number}.json");
            fs::write(control.folder.join(&file), &input)?;
            let run = control.run("site.yaml", &["-e", &format!("input={file}")]).await?.failed()?;
            run.says(said).with_context(|| input.clone())?;
            run.says("nothing was touched")
        });
        stream::iter(refused).buffer_unordered(SIDE_BY_SIDE).try_collect::<()>().await?;
        // All at the same time.
        let mut input = good;
        input["hosts"][0]["address"] = json!("nowhere.");
        input["hosts"][0]["port"] = json!(0);
        input["hosts"][1]["hostId"] = json!(1);
        fs::write(control.folder.join("input.json"), input.to_string())?;
        let run = control.run("site.yaml", &[]).await?.failed()?;
        run.says("input.json: 2 mistakes; nothing was touched")?;
        run.says("hosts[0] (a): port: 0 is no port: 1 to 65535")?;
        run.says("hosts[1] (b): hostId: 1 is also a's; each host needs its own")
    })
}

fn table(venv: &Path) -> Outcome {
    let mut tests = std::process::Command::new(venv.join("bin/python"));
    tests.args(["-B", "-m", "unittest", "discover", "--start-directory", "tests"]);
    quiet(&mut tests)
}

fn lint(venv: &Path) -> Outcome {
    let path = std::env::var("PATH").unwrap_or_default();
    let scratch = tempfile::tempdir()?;
    let mut lint = std::process::Command::new(venv.join("bin/ansible-lint"));
    lint.args(["--offline", "--strict", "--nocolor"]);
    lint.env("PATH", format!("{}:{path}", venv.join("bin").display())).env("ANSIBLE_HOME", scratch.path());
    quiet(&mut lint)
}

/// Runs a program in the folder of the playbook. An error has its output.
fn quiet(command: &mut std::process::Command) -> Outcome {
    let output = command.current_dir(top().join("ansible")).stdin(Stdio::null()).output()?;
    let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
    ensure!(output.status.success(), "{said}");
    Ok(())
}
