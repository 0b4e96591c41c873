//! A bundle is complete and names only images that it has, and a Kubernetes without anything else accepts its manifests
//! unchanged. No pod runs here, so the operators' programs are stand-ins.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test they are the message")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bundle::{Index, Options};
use serde_json::Value;
use testenv::{ManagementCluster, Options as ClusterOptions, Progress};
use tokio::process::Command;

#[tokio::test]
async fn a_bundle_is_whole_and_kubernetes_takes_its_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let index = make(folder.path()).await;
    let bundle = folder.path().join("bundle");

    images_are_those_of_the_manifests(&bundle, &index);
    for manifest in manifests(&bundle) {
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(!text.contains("${"), "{} has a variable that nobody replaced", manifest.display());
    }
    kubernetes_takes(&bundle).await;

    let (whole, text) = check(&bundle).await;
    let number = index.files.len() + index.images.len();
    assert!(whole && text.contains(&format!("all {number} files are as they were made")), "{text}");
    a_changed_byte_is_noticed(&bundle, &index).await;
}

#[tokio::test]
async fn a_folder_that_is_no_bundle_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letters.txt"), "dear").unwrap();
    let error = bundle::make(folder.path(), &Options::default(), Progress::new(|_| ())).await.err().unwrap();
    assert!(error.to_string().ends_with("is there and is no bundle: name another folder, or remove it"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join("letters.txt")).unwrap(), "dear");
    let (whole, text) = check(folder.path()).await;
    assert!(!whole && text.contains("is no bundle: it has no bundle.json"), "{text}");
}

#[tokio::test]
async fn nothing_stays_of_a_bundle_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let operators = folder.path().join("operators");
    fs::create_dir(&operators).unwrap();
    for name in ["o2ims-operator", "focom-operator"] {
        fs::copy("/bin/sh", operators.join(name)).unwrap();
    }
    let options = Options { operators: Some(operators), without_hosts: true };
    let error = bundle::make(&folder.path().join("bundle"), &options, Progress::new(|_| ())).await.err().unwrap();
    assert!(error.to_string().ends_with("is not a static program: scripts/build-release makes one"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the operators' folder is there");
}

async fn make(folder: &Path) -> Index {
    let operators = folder.join("operators");
    fs::create_dir(&operators).unwrap();
    for name in ["o2ims-operator", "focom-operator"] {
        fs::write(operators.join(name), format!("a stand-in for {name}")).unwrap();
    }
    let options = Options { operators: Some(operators), without_hosts: true };
    bundle::make(&folder.join("bundle"), &options, Progress::new(|line| eprintln!("{line}"))).await.unwrap()
}

/// The manifests, in the order in which they are applied.
fn manifests(bundle: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(bundle.join("manifests")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn images_are_those_of_the_manifests(bundle: &Path, index: &Index) {
    let mut named = BTreeSet::new();
    // The other manifests are for workload clusters, whose images are in hosts/.
    let numbered = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(char::is_numeric);
    for manifest in manifests(bundle).into_iter().filter(numbered) {
        let text = fs::read_to_string(manifest).unwrap();
        // CRDs are skipped: they have no pods, and take long to read.
        let documents = text.split("\n---\n").filter(|text| text.contains("\nkind: Deployment\n"));
        for document in documents {
            let deployment: Value = serde_saphyr::from_str(document).unwrap();
            for container in deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
                named.insert(container["image"].as_str().unwrap().to_owned());
                assert_eq!(container["imagePullPolicy"], "IfNotPresent");
            }
        }
    }
    let has: BTreeSet<_> = index.images.iter().map(|image| image.name.clone()).collect();
    assert_eq!(named, has);
    assert_eq!(has.len(), 9, "cert-manager's 3, Cluster API's 3, BYOH, and 2 operators: {has:?}");
}

async fn kubernetes_takes(bundle: &Path) {
    let options = ClusterOptions { cluster_api: false, byoh: false, ..ClusterOptions::default() };
    let management = ManagementCluster::start(options, |_| ()).await.unwrap();
    let kubeconfig = management.dir().join("admin.kubeconfig");
    management.kubeconfig_as("admin", &["system:masters"], &kubeconfig).unwrap();
    let kubectl = async |arguments: &[&str]| {
        let mut command = Command::new(management.kubectl());
        let output = command.arg("--kubeconfig").arg(&kubeconfig).args(arguments).output().await.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        // Pod security warns about a Deployment whose pods its namespace would reject.
        assert!(output.status.success() && errors.is_empty(), "kubectl {}: {errors}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    };
    for manifest in manifests(bundle) {
        let manifest = manifest.to_str().unwrap();
        let applied = kubectl(&["apply", "--server-side", "--validate=strict", "--filename", manifest]).await;
        assert!(applied.contains("serverside-applied"), "{manifest}: {applied}");
        let exempted = "jsonpath={.webhooks[?(@.name=='vbyohost.kb.io')].matchConditions[*].name}";
        if manifest.ends_with("50-byoh.yaml") {
            let configuration = "validatingwebhookconfigurations/byoh-validating-webhook-configuration";
            assert_eq!(kubectl(&["get", configuration, "--output", exempted]).await, "not-the-o2ims-operator");
        }
        // The webhook does not answer, because no pod runs here.
        kubectl(&["delete", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "--all"]).await;
    }
    let deployments = kubectl(&["get", "deployments", "--all-namespaces", "--output", "name"]).await;
    assert_eq!(deployments.lines().count(), 9, "{deployments}");
    management.stop().await.unwrap();
}

async fn a_changed_byte_is_noticed(bundle: &Path, index: &Index) {
    let file = &index.images[0].archive.file;
    let path = bundle.join(file);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_file(bundle.join("manifests/cni.yaml")).unwrap();
    fs::write(bundle.join("manifests/80-extra.yaml"), "").unwrap();
    let (whole, text) = check(bundle).await;
    assert!(!whole && text.contains("Copy it again, or make it anew"), "{text}");
    for problem in [
        format!("{file}: FAILED"),
        "manifests/cni.yaml: FAILED open or read".to_owned(),
        "manifests/80-extra.yaml: is not part of the bundle".to_owned(),
    ] {
        assert!(text.contains(&problem), "{problem:?} is not in {text:?}");
    }
}

/// The output of `./mgmt.sh bundle --check`, and whether it finds the bundle complete.
async fn check(bundle: &Path) -> (bool, String) {
    let mut command = Command::new(acceptance::top().join("mgmt.sh"));
    let output = command.args(["bundle", "--check"]).arg(bundle).env("LC_ALL", "C").output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}
