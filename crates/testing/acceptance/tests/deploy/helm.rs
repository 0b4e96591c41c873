//! A release of the chart: installed, upgraded, and uninstalled, on a cluster of its own.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testenv::tools::Tool;
use testenv::{ManagementCluster, Options};
use tokio::runtime::Runtime;

use crate::Test;
use crate::rendering::tool;
use crate::run::{Outcome, must, run, top};

/// The tests.
pub const TESTS: &[Test] = &[("helm_upgrades_the_crds_and_leaves_them_when_it_uninstalls", false, upgrades_and_leaves)];

const CRD: &str = "provisioningrequests.o2ims.provisioning.oran.org";

fn upgrades_and_leaves() -> Outcome {
    let runtime = Runtime::new()?;
    let options = Options { cluster_api: false, byoh: false, ..Options::default() };
    let management = runtime.block_on(ManagementCluster::start(options, |line| eprintln!("{line}")))?;
    let outcome = life(&management);
    runtime.block_on(management.stop())?;
    outcome
}

fn life(management: &ManagementCluster) -> Outcome {
    let (program, folder) = (tool(Tool::Helm)?, tempfile::tempdir()?);
    let kubeconfig = management.dir().join("admin.kubeconfig");
    management.kubeconfig_as("admin", &["system:masters"], &kubeconfig)?;
    let kubeconfig = kubeconfig.to_str().context("not UTF-8")?;
    let helm = |arguments: &[&str]| {
        let common = ["--kubeconfig", kubeconfig, "--namespace", "default"];
        must(&program, [arguments, &common].concat(), "")
    };
    let kubectl =
        |arguments: &[&str]| must(management.kubectl(), [&["--kubeconfig", kubeconfig], arguments].concat(), "");
    let columns = || -> anyhow::Result<usize> {
        let crd: Value = serde_json::from_str(&kubectl(&["get", "crd", CRD, "-o", "json"])?.out)?;
        Ok(crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array().map_or(0, Vec::len))
    };

    // An older chart, whose CRD lacks a part of the current one, and which has not all of its values.
    let older = folder.path().join("chart");
    let older_text = older.to_str().context("not UTF-8")?;
    must("cp".as_ref(), ["-rL", top().join("deploy/chart").to_str().context("not UTF-8")?, older_text], "")?;
    let file = older.join(format!("files/crds/{CRD}.yaml"));
    let mut crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    crd["spec"]["versions"][0].as_object_mut().context("no version")?.remove("additionalPrinterColumns");
    std::fs::write(&file, crd.to_string())?;
    let file = older.join("values.yaml");
    let mut values: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    for newer in ["monitoring", "podSecurityContext", "containerSecurityContext"] {
        values.as_object_mut().context("no values")?.remove(newer).with_context(|| format!("no value {newer}"))?;
    }
    std::fs::write(&file, values.to_string())?;

    helm(&["upgrade", "--install", "o2ims", older_text])?;
    ensure!(columns()? == 0, "the older chart's CRD is not there");
    helm(&["upgrade", "o2ims", "deploy/chart", "--reuse-values", "--set=focom.replicas=1"])?;
    ensure!(columns()? > 0, "the CRD was not upgraded");
    let fields = "jsonpath={.spec.replicas} {.spec.template.spec.securityContext.runAsUser}";
    let seen = kubectl(&["-n", "focom-system", "get", "deployment", "focom-operator", "-o", fields])?.out;
    ensure!(seen == "1 65532", "replicas and user: {seen}");

    helm(&["uninstall", "o2ims", "--wait"])?;
    let left = kubectl(&["get", "crd,ns,deployments,clusterroles", "--all-namespaces", "-o", "name"])?.out;
    for kept in [CRD, "focomprovisioningrequests.focom.nephio.org", "namespace/o2ims-system", "namespace/focom-system"]
    {
        ensure!(left.contains(kept), "{kept} went with the release: {left}");
    }
    for gone in [
        "deployment.apps/",
        "clusterrole.rbac.authorization.k8s.io/o2ims",
        "clusterrole.rbac.authorization.k8s.io/focom",
    ] {
        ensure!(!left.contains(gone), "{gone} stayed: {left}");
    }
    // A new release takes over the objects that stay.
    helm(&["upgrade", "--install", "o2ims", "deploy/chart"])?;
    helm(&["uninstall", "o2ims", "--wait"])?;

    // One of another name and namespace does so when it is told to.
    let other =
        ["install", "oran", "deploy/chart", "--kubeconfig", kubeconfig, "--namespace=platform", "--create-namespace"];
    let refused = run(&program, other, "")?;
    ensure!(!refused.well && refused.errors.contains("invalid ownership metadata"), "{}", refused.errors);
    must(&program, [&other[..], &["--take-ownership"]].concat(), "")?;
    must(&program, ["uninstall", "oran", "--wait", "--kubeconfig", kubeconfig, "--namespace=platform"], "")?;

    // And so does one for what kubectl has applied with other values.
    kubectl(&["apply", "-k", "deploy/overlays/management-cluster"])?;
    let over = ["upgrade", "--install", "o2ims", "deploy/chart", "--set=image.tag=0.0.1", "--take-ownership"];
    let over = [&over[..], &["--kubeconfig", kubeconfig, "--namespace", "default"]].concat();
    let refused = run(&program, over.clone(), "")?;
    ensure!(!refused.well && refused.errors.contains("conflict"), "{}", refused.errors);
    must(&program, [&over[..], &["--force-conflicts"]].concat(), "")?;
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    let seen = kubectl(&["-n", "focom-system", "get", "deployment", "focom-operator", "-o", image])?.out;
    ensure!(seen.ends_with(":0.0.1"), "image: {seen}");
    Ok(())
}
