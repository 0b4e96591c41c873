//! Certificates that end are renewed by themselves: those of the control plane by a job, those of BYOH's agents by the unit on their hosts.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_api::Kind;
use cluster_api::byoh::ByoHost;
use cluster_api::labels::CERTIFICATES_EXPIRY_ANNOTATION;
use hostsim::Failure;
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use o2ims_operator::provisioner::byoh::installer;
use o2ims_types::{ProvisioningRequest, ProvisioningState as State, conditions, names};
use operator_kit::write::status::find;
use sandbox::Stack;
use serde_json::json;
use testenv::servers::Server;

use crate::harness::{CLUSTER, Outcome, Scenario, Shared, Tenant, on_servers, shared, wait};
use crate::lifecycle::installing;
use crate::servers::assert_clean;
use crate::support;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        on_servers("certificates_that_end_tomorrow_are_renewed_on_servers", servers).slow(),
        on_servers("the_unit_renews_also_where_no_script_has_installed_it", without_installer).slow(),
        shared("certificates_that_end_are_renewed_by_a_job", simulated),
    ]
}

/// Waits until the condition CertificatesValid has this status, and its message these words.
async fn until_told(tenant: &Tenant, status: &str, words: &str) -> anyhow::Result<ProvisioningRequest> {
    let is_told = |request: Option<&ProvisioningRequest>| {
        let conditions = request.and_then(|request| Some(request.status.as_ref()?.conditions.as_slice()));
        let told = find(conditions.unwrap_or_default(), conditions::CERTIFICATES_VALID);
        told.is_some_and(|told| told.status == status && told.message.contains(words))
    };
    let what = format!("CertificatesValid to be {status} with {words:?}");
    wait(tenant.requests(), "request", &what, CLUSTER, is_told).await?.context("the request is gone")
}

/// Waits until a host has a job that renews certificates, or has none any more.
async fn until_job(tenant: &Tenant, host: &str, has_one: bool, limit: Duration) -> anyhow::Result<()> {
    let is_so = |host: Option<&ByoHost>| {
        let job = host.and_then(|host| host.annotations().get(names::JOB_ANNOTATION));
        host.is_some() && job.is_some_and(|job| job.starts_with("certificates-")) == has_one
    };
    wait(tenant.byohosts(), host, &format!("{host} to have a job that renews: {has_one}"), limit, is_so).await?;
    Ok(())
}

/// With Cluster API's real controllers: it is told before, and again afterwards; a job that fails is tried again when its owner says so.
async fn simulated(stack: Shared) -> Outcome {
    let (tenant, mut request) = installing(&stack, "renewed", json!({"method": "installer"})).await?;
    request["metadata"]["name"] = json!("request");
    tenant.apply(&request).await?;
    tenant.until("request", State::Fulfilled, "", CLUSTER).await?;
    until_told(&tenant, "True", "the first to end is").await?;
    let master = tenant.host(1);
    // BYOH lets nobody but its agent change a host.
    let agent = stack.management.client_as(&format!("byoh:host:{master}"), &["byoh:hosts"])?;
    let own: Api<ByoHost> = Api::namespaced(agent, &tenant.namespace);
    let ends_tomorrow = async || {
        let end = Timestamp::now() + 24.hours();
        let dates = json!({"agent": Timestamp::now() + 2400.hours(), "controlPlane": end, "renew": "Soon"});
        let patch = json!({"metadata": {"annotations": {names::CERTIFICATES_ANNOTATION: dates.to_string()}}});
        own.patch(&master, &PatchParams::default(), &Patch::Merge(patch)).await
    };
    ends_tomorrow().await?;
    until_job(&tenant, &master, true, CLUSTER).await?;
    until_job(&tenant, &master, false, CLUSTER).await?;
    until_told(&tenant, "True", "the first to end is").await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", CLUSTER).await?;

    support::order(&tenant, "now").await?;
    support::until_made(&tenant, &[&tenant.host(1), &tenant.host(2)], "now").await?;

    stack.site.host(&master).context("no such host")?.fail(Failure::Job);
    ends_tomorrow().await?;
    let told =
        format!("the certificates of the control plane on host 1 ({master}) were not renewed: simulated failure");
    until_told(&tenant, "False", &told).await?;
    let failed = tenant.until("request", State::Fulfilled, &told, CLUSTER).await?;
    stack.site.host(&master).context("no such host")?.heal();
    let message = failed.status.context("no status")?.provisioning_status.provisioning_message;
    let retry = message.split_once("/retry=").and_then(|(_, rest)| rest.split(' ').next()).context("no command")?;
    let patch = json!({"metadata": {"annotations": {names::RETRY_ANNOTATION: retry}}});
    tenant.requests().patch("request", &PatchParams::default(), &Patch::Merge(patch)).await?;
    until_job(&tenant, &master, false, CLUSTER).await?;
    until_told(&tenant, "True", "the first to end is").await?;

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// The agent's certificate, and on a master that of the API server, are issued again by the same authorities, so that they began long ago and end
/// tomorrow; that of the API server on the day that is given. The unit looks at its next start.
const AGE: &str = r#"
set -euo pipefail
work=$(mktemp -d)
cd "$work"
touch index.txt
cat >ca.conf <<END
[ca]
default_ca = all
[all]
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copyall
unique_subject = no
[any]
organizationName = optional
commonName = supplied
END
# sign CA CA-KEY CERTIFICATE KEY NEW DAY
sign() {
    openssl x509 -x509toreq -copy_extensions copyall -in "$3" -signkey "$4" -out request.pem
    openssl ca -batch -config ca.conf -preserveDN -notext -cert "$1" -keyfile "$2" -in request.pem -out "$5" \
        -startdate 20200101000000Z -enddate "$(date --utc --date="$6" +%Y%m%d%H%M%SZ)"
}
data() { kubectl config view --kubeconfig /root/.byoh/config --raw --minify --output "jsonpath={.users[0].user.client-$1-data}" | base64 --decode; }
data certificate >old.crt
data key >old.key
sign /root/ca.crt /root/ca.key old.crt old.key agent.crt tomorrow
kubectl config --kubeconfig /root/.byoh/config set-credentials default-auth --client-certificate=agent.crt --client-key=old.key --embed-certs=true
if [ -e /etc/kubernetes/pki/apiserver.crt ]; then
    pki=/etc/kubernetes/pki
    sign $pki/ca.crt $pki/ca.key $pki/apiserver.crt $pki/apiserver.key api.crt "$1"
    cat api.crt >$pki/apiserver.crt
    touch --date='1 year ago' $pki/apiserver.crt
fi
rm -r "$work" /root/ca.crt /root/ca.key
systemctl restart byoh-hostagent o2ims-host
"#;

/// The agent's certificate is good for months again, and the agent was started after that.
const AGENT: &str = r#"
renewed() {
    kubectl config view --kubeconfig /root/.byoh/config --raw --minify --output 'jsonpath={.users[0].user.client-certificate-data}' |
        base64 --decode | openssl x509 -noout -checkend 20000000 &&
        [ "$(stat --format=%Y "/proc/$(systemctl show --property=MainPID --value byoh-hostagent)")" -ge "$(stat --format=%Y /root/.byoh/config)" ]
}
for ((i = 0; i < 60; i++)); do
    ! renewed || exit 0
    sleep 2
done
cat /root/.byoh/config /var/lib/o2ims-jobs/certificates
journalctl --unit o2ims-host --lines 20 --no-pager
exit 1
"#;

/// What is renewed is in use: the API server shows the certificate of its file, and every file and kubeconfig of the control plane is good for months.
const MASTER: &str = r#"
set -euo pipefail
shown=$(openssl s_client -connect 127.0.0.1:6443 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint)
[ "$shown" = "$(openssl x509 -noout -fingerprint -in /etc/kubernetes/pki/apiserver.crt)" ]
for file in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt; do openssl x509 -noout -checkend 20000000 -in "$file"; done
for file in admin controller-manager scheduler; do
    sed -n 's/^ *client-certificate-data: //p' "/etc/kubernetes/$file.conf" | base64 --decode | openssl x509 -noout -checkend 20000000
done
"#;

/// Carries [`AGE`] out.
async fn aged(stack: &Stack, server: &Server, day: &str) -> Outcome {
    let access = stack.management.access();
    let authority = access.authority().pair();
    server.write("/root/ca.crt", &authority.certificate).await?;
    server.write("/root/ca.key", &authority.key).await?;
    server.run(&["bash", "-c", AGE, "age", day]).await.map(drop)
}

/// With `install.method: none` the playbook brings the unit. There BYOH's record says which machine the host is.
async fn without_installer(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "brought", 1).await?;
    stack.power_on("brought", "brought", 2..=2, true).await?;
    let server = stack.server(&tenant.host(2))?;
    tenant.template("none", json!({"install": {"method": "none"}})).await?;
    tenant.apply(&tenant.request_for("none", "request", &[2], &[])).await?;
    tenant.until("request", State::Fulfilled, "1 master, 0 workers", 2 * CLUSTER).await?;
    let [program, service] = installer::unit();
    let program = program.replace("@NAMESPACE@", &tenant.namespace).replace("@HOST@", server.name());
    server.write("/usr/local/sbin/o2ims-host", &program).await?;
    server.write("/etc/systemd/system/o2ims-host.service", &service.replace("@HOME@", "/root")).await?;
    let start = "chmod 755 /usr/local/sbin/o2ims-host && systemctl daemon-reload && systemctl enable --now o2ims-host";
    server.run(&["bash", "-c", start]).await?;
    until_told(&tenant, "True", "the first to end is").await?;
    aged(stack, server, "tomorrow").await?;
    until_job(&tenant, server.name(), true, CLUSTER).await?;
    until_job(&tenant, server.name(), false, 2 * CLUSTER).await?;
    server.run(&["bash", "-c", AGENT]).await?;
    server.run(&["bash", "-c", MASTER]).await?;
    until_told(&tenant, "True", "the first to end is").await?;
    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await
}

async fn servers(stack: &mut Stack) -> Outcome {
    let tenant = Tenant::on_servers(stack, "years", 2).await?;
    tenant.apply(&tenant.request("request", "request", &[1], &[2])).await?;
    tenant.until("request", State::Fulfilled, "1 master, 1 worker", CLUSTER).await?;
    until_told(&tenant, "True", "the first to end is").await?;
    let age = async |server: &Server, day: &str| aged(stack, server, day).await;
    let read = async || -> anyhow::Result<Option<String>> {
        let configs = tenant.objects(Kind::KubeadmConfig).list(&ListParams::default()).await?;
        Ok(configs.iter().find_map(|config| config.annotations().get(CERTIFICATES_EXPIRY_ANNOTATION).cloned()))
    };
    let before = read().await?.context("Cluster API has read no date")?;
    let (master, worker) = (stack.server(&tenant.host(1))?, stack.server(&tenant.host(2))?);
    let containers = master.node_processes().await?;
    age(master, "tomorrow").await?;
    age(worker, "tomorrow").await?;
    until_job(&tenant, master.name(), true, CLUSTER).await?;
    until_job(&tenant, master.name(), false, 2 * CLUSTER).await?;
    for server in [master, worker] {
        server.run(&["bash", "-c", AGENT]).await?;
    }
    master.run(&["bash", "-c", MASTER]).await?;
    let now = master.node_processes().await?;
    for program in ["etcd", "kube-apiserver", "kube-controller", "kube-scheduler"] {
        let of = |processes: &std::collections::BTreeSet<String>| {
            processes.iter().find(|process| process.contains(&format!(" {program}"))).cloned()
        };
        ensure!(of(&now).is_some() && of(&now) != of(&containers), "{program} was not restarted: {now:?}");
    }
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", CLUSTER).await?;
    until_told(&tenant, "True", "the first to end is").await?;
    ensure!(tenant.ready_nodes("request").await? == [tenant.host(1), tenant.host(2)], "not both nodes are Ready");
    let is_read_again = async {
        while read().await?.is_none_or(|date| date == before) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(CLUSTER, is_read_again).await.context("Cluster API does not read the new date")??;

    // One that has ended already, so that nothing can connect to the cluster; and the power is cut while it is renewed.
    age(master, "yesterday").await?;
    let runs = |host: Option<&ByoHost>| {
        let annotation = |key: &str| host.and_then(|host| host.annotations().get(key).cloned()).unwrap_or_default();
        let told = annotation(names::JOB_STATUS_ANNOTATION);
        annotation(names::JOB_ANNOTATION).split(' ').next().is_some_and(|id| !id.is_empty() && told.contains(id))
            && told.contains("Running")
    };
    wait(tenant.byohosts(), master.name(), "the job to run", CLUSTER, runs).await?;
    master.power_cycle().await?;
    until_job(&tenant, master.name(), false, 2 * CLUSTER).await?;
    master.run(&["bash", "-c", AGENT]).await?;
    master.run(&["bash", "-c", MASTER]).await?;
    tenant.until("request", State::Fulfilled, "cluster is ready: 1 master, 1 worker", 2 * CLUSTER).await?;
    until_told(&tenant, "True", "the first to end is").await?;

    tenant.delete("request").await?;
    tenant.until_gone("request", CLUSTER).await?;
    tenant.assert_hosts_free().await?;
    assert_clean(&stack.servers).await
}
