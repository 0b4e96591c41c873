//! The rendered overlays and chart.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use testenv::tools::Tool;
use testenv::versions;

use crate::Test;
use crate::run::{Outcome, must, run, top};

/// The tests.
pub const TESTS: &[Test] = &[
    ("the_chart_renders_the_objects_of_the_overlays", false, the_chart_renders_the_objects_of_the_overlays),
    ("values_reach_the_objects_that_they_are_for", false, values_reach_the_objects_that_they_are_for),
    ("values_fit_both_operators_to_a_platform", false, values_fit_both_operators_to_a_platform),
    ("traces_go_to_the_endpoint_and_its_port_is_open", false, traces_go_to_the_endpoint_and_its_port_is_open),
    ("wrong_values_are_refused_by_name", false, wrong_values_are_refused_by_name),
    ("a_packaged_chart_is_the_chart", false, a_packaged_chart_is_the_chart),
    ("policies_budgets_and_accounts_are_for_the_pods", false, policies_budgets_and_accounts_are_for_the_pods),
];

/// An overlay, and the chart's values for the same result.
pub const OVERLAYS: [(&str, &[&str]); 3] =
    [("management-cluster", &[]), ("o-cloud", &["--set=focom.install=false"]), ("smo", &["--set=o2ims.install=false"])];

pub fn tool(tool: Tool) -> anyhow::Result<PathBuf> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(testenv::tools::tool(tool, |line| eprintln!("{line}")))
}

pub fn kubectl() -> anyhow::Result<PathBuf> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(testenv::tools::kubectl(|line| eprintln!("{line}")))
}

/// The objects that `kubectl apply -k` of the overlay would apply.
pub fn overlay(name: &str) -> anyhow::Result<String> {
    Ok(must(&kubectl()?, ["kustomize", &format!("deploy/overlays/{name}")], "")?.out)
}

/// The objects that `helm install` would apply.
pub fn chart(path: &Path, values: &[&str]) -> anyhow::Result<String> {
    let path = path.to_str().context("not UTF-8")?;
    let oldest = format!("--kube-version={}", versions::OLDEST_KUBERNETES);
    let arguments = [&["template", "o2ims", path, "--namespace=default", &oldest], values].concat();
    Ok(must(&tool(Tool::Helm)?, arguments, "")?.out)
}

/// Objects by kind, namespace and name. Duplicates are an error.
pub fn objects(yaml: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("not YAML")?;
    for object in documents {
        if object.is_null() {
            continue;
        }
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
        let key = format!("{} {} {}", text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        if objects.insert(key.clone(), object).is_some() {
            bail!("{key} is there twice");
        }
    }
    ensure!(!objects.is_empty(), "no objects");
    Ok(objects)
}

fn the_chart_renders_the_objects_of_the_overlays() -> Outcome {
    for (name, values) in OVERLAYS {
        let by_kustomize = objects(&overlay(name)?)?;
        let mut by_helm = objects(&chart(&top().join("deploy/chart"), values)?)?;
        let mut kept = Vec::new();
        for (key, object) in &mut by_helm {
            // The only annotation that the chart adds; it is for Helm.
            let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
            if let Some(annotations) = annotations
                && annotations.remove("helm.sh/resource-policy") == Some(json!("keep"))
            {
                kept.push(key.as_str().split(' ').next().unwrap_or_default().to_owned());
                if annotations.is_empty() {
                    object["metadata"].as_object_mut().context("no metadata")?.remove("annotations");
                }
            }
        }
        let count = |kind: &str| by_kustomize.keys().filter(|key| key.starts_with(kind)).count();
        let expected = count("CustomResourceDefinition ") + count("Namespace ");
        ensure!(expected > 1 && kept.len() == expected, "{name}: {expected} objects should be kept: {kept:?}");
        compare(name, &by_kustomize, &by_helm)?;
    }
    Ok(())
}

/// Both must have the same objects.
pub fn compare(name: &str, expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Outcome {
    let keys = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    ensure!(keys(expected) == keys(found), "{name}: {:#?} instead of {:#?}", keys(found), keys(expected));
    for (key, object) in expected {
        ensure!(object == &found[key], "{name}: {key} differs:\n{:#}\ninstead of\n{object:#}", found[key]);
    }
    Ok(())
}

fn values_reach_the_objects_that_they_are_for() -> Outcome {
    let rendered = objects(&chart(
        &top().join("deploy/chart"),
        &[
            "--set=image.registry=registry.example.org:5000/o2ims",
            "--set=image.tag=0.2.0",
            "--set=image.pullPolicy=Always",
            "--set=image.pullSecrets={registry}",
            "--set=namespaces.create=false",
            "--set=crds.install=false",
            "--set=o2ims.replicas=1",
            "--set=o2ims.resources.limits.memory=1Gi",
            "--set=o2ims.env.LOG_LEVEL=debug",
            "--set=o2ims.nodeSelector.zone=a",
            "--set=o2ims.tolerations[0].key=dedicated",
        ],
    )?)?;
    let deployment = &rendered["Deployment o2ims-system o2ims-operator"];
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let seen = json!({
        "replicas": deployment["spec"]["replicas"],
        "image": container["image"],
        "policy": container["imagePullPolicy"],
        "resources": container["resources"],
        "env": container["env"][1],
        "secrets": pod["imagePullSecrets"],
        "nodes": pod["nodeSelector"],
        "toleration": pod["tolerations"][1],
    });
    let expected = json!({
        "replicas": 1,
        "image": "registry.example.org:5000/o2ims/o2ims-operator:0.2.0",
        "policy": "Always",
        // Everything else is unchanged.
        "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "20m", "memory": "64Mi"}},
        "env": {"name": "LOG_LEVEL", "value": "debug"},
        "secrets": [{"name": "registry"}],
        "nodes": {"zone": "a"},
        "toleration": {"key": "dedicated"},
    });
    ensure!(seen == expected, "{seen:#} instead of {expected:#}");
    let other = &rendered["Deployment focom-system focom-operator"];
    ensure!(other["spec"]["replicas"] == 2, "o2ims.replicas is not for the FOCOM operator");
    let unwanted = rendered.keys().find(|key| key.starts_with("Namespace ") || key.starts_with("CustomResource"));
    ensure!(unwanted.is_none(), "{unwanted:?}");

    let without = objects(&chart(&top().join("deploy/chart"), &["--set=networkPolicies.install=false"])?)?;
    ensure!(!without.keys().any(|key| key.starts_with("NetworkPolicy ")), "networkPolicies.install=false");
    Ok(())
}

/// Another port of the API server, and a platform that gives every namespace users of its own.
fn values_fit_both_operators_to_a_platform() -> Outcome {
    let values = [
        "--set=networkPolicies.apiServerPorts={16443}",
        "--set=podSecurityContext.runAsUser=null",
        "--set=containerSecurityContext.runAsGroup=1000",
    ];
    let rendered = objects(&chart(&top().join("deploy/chart"), &values)?)?;
    for (namespace, operator) in [("o2ims-system", "o2ims-operator"), ("focom-system", "focom-operator")] {
        let policy = &rendered[&format!("NetworkPolicy {namespace} {operator}-api-server")]["spec"];
        let expected = json!({
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": operator}}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"protocol": "TCP", "port": 16443}]}],
        });
        ensure!(policy == &expected, "{policy:#}");
        // The platform chooses the user; everything else stays.
        let pod = &rendered[&format!("Deployment {namespace} {operator}")]["spec"]["template"]["spec"];
        let expected = json!([
            {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                "runAsGroup": 1000,
            },
        ]);
        let seen = json!([pod["securityContext"], pod["containers"][0]["securityContext"]]);
        ensure!(seen == expected, "{operator}: {seen:#}");
    }
    Ok(())
}

fn traces_go_to_the_endpoint_and_its_port_is_open() -> Outcome {
    for (endpoint, port) in [
        ("http://collector.monitoring:4318", 4318),
        ("http://collector.monitoring", 80),
        ("https://collector.example.org/otlp", 443),
        ("https://[fd00::1]:4318", 4318),
    ] {
        let rendered = objects(&chart(&top().join("deploy/chart"), &[&format!("--set=traces.endpoint={endpoint}")])?)?;
        for (namespace, operator) in [("o2ims-system", "o2ims-operator"), ("focom-system", "focom-operator")] {
            let policy = &rendered[&format!("NetworkPolicy {namespace} {operator}-traces")]["spec"];
            let expected = json!({
                "podSelector": {"matchLabels": {"app.kubernetes.io/name": operator}}, "policyTypes": ["Egress"],
                "egress": [{"ports": [{"protocol": "TCP", "port": port}]}],
            });
            ensure!(policy == &expected, "{endpoint}: {policy:#}");
            let deployment = &rendered[&format!("Deployment {namespace} {operator}")];
            let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"][1];
            let expected = json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint});
            ensure!(env == &expected, "{operator}: {env:#}");
        }
    }
    Ok(())
}

fn wrong_values_are_refused_by_name() -> Outcome {
    let helm = tool(Tool::Helm)?;
    for (value, named) in [
        ("o2ims.replicas=-1", "/o2ims/replicas"),
        ("o2ims.replicas=two", "/o2ims/replicas"),
        ("focom.install=perhaps", "/focom/install"),
        ("monitoring.enabled=perhaps", "/monitoring/enabled"),
        ("traces.endpoint=collector:4318", "/traces/endpoint"),
        ("image.tag=no spaces", "/image/tag"),
        ("image.registry=https://registry.example.org", "/image/registry"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("networkPolicies.apiServerPorts={0}", "/networkPolicies/apiServerPorts/0"),
        ("podSecurityContext=none", "/podSecurityContext"),
        ("crds.instal=false", "instal"),
        ("operator.replicas=1", "operator"),
    ] {
        let written = run(
            &helm,
            ["template", "deploy/chart", "--set", value, "--kube-version", versions::OLDEST_KUBERNETES],
            "",
        )?;
        // Versions of Helm write the path with slashes or dots.
        let told = written.errors.replace('.', "/");
        ensure!(!written.well && told.contains(&named.replace('.', "/")), "{value}: {}", written.errors);
    }
    let old = run(&helm, ["template", "deploy/chart", "--kube-version=1.31.0"], "")?;
    ensure!(!old.well && old.errors.contains(">=1.32.0-0"), "Kubernetes 1.31: {}", old.errors);
    Ok(())
}

fn a_packaged_chart_is_the_chart() -> Outcome {
    let helm = tool(Tool::Helm)?;
    let oldest = ["--kube-version", versions::OLDEST_KUBERNETES];
    let lint = must(&helm, [&["lint", "--strict", "deploy/chart"][..], &oldest].concat(), "")?;
    ensure!(lint.out.contains("0 chart(s) failed"), "{}", lint.out);
    let folder = tempfile::tempdir()?;
    must(&helm, ["package", "deploy/chart", "--destination", folder.path().to_str().context("not UTF-8")?], "")?;
    let packaged = chart(&folder.path().join("o2ims-0.1.0.tgz"), &[])?;
    compare("package", &objects(&chart(&top().join("deploy/chart"), &[])?)?, &objects(&packaged)?)
}

fn policies_budgets_and_accounts_are_for_the_pods() -> Outcome {
    let rendered = objects(&overlay("management-cluster")?)?;
    for (namespace, operator) in [("o2ims-system", "o2ims-operator"), ("focom-system", "focom-operator")] {
        let object = |kind: &str| {
            let key = format!("{kind} {namespace} {operator}");
            rendered.get(&key).with_context(|| format!("{key} is not there"))
        };
        let template = &object("Deployment")?["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        let policy = object("NetworkPolicy")?;
        for selector in [
            &object("Deployment")?["spec"]["selector"],
            &template["spec"]["topologySpreadConstraints"][0]["labelSelector"],
            &object("PodDisruptionBudget")?["spec"]["selector"],
            &policy["spec"]["podSelector"],
        ] {
            let wanted = selector["matchLabels"].as_object().context("a selector without labels")?;
            let selects = !wanted.is_empty() && wanted.iter().all(|(name, value)| &labels[name] == value);
            ensure!(selects, "{selector} does not select {labels}");
        }
        // The probed ports are those that may be reached.
        let container = &template["spec"]["containers"][0];
        let open = &policy["spec"]["ingress"][0]["ports"][0]["port"];
        ensure!(policy["spec"]["ingress"].as_array().is_some_and(|rules| rules.len() == 1), "{policy:#}");
        for used in [
            &container["ports"][0]["name"],
            &container["livenessProbe"]["httpGet"]["port"],
            &container["readinessProbe"]["httpGet"]["port"],
        ] {
            ensure!(used.is_string() && used == open, "port {used} is not {open}");
        }
        // OpenShift's DNS answers on another port.
        let dns = json!([
            {"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53},
            {"protocol": "UDP", "port": 5353}, {"protocol": "TCP", "port": 5353},
        ]);
        ensure!(policy["spec"]["egress"][0]["ports"] == dns, "{policy:#}");
        let denied = &rendered[&format!("NetworkPolicy {namespace} default-deny")]["spec"];
        let everything = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
        ensure!(denied == &everything, "{denied:#}");
        let account = template["spec"]["serviceAccountName"].as_str().context("no account")?;
        ensure!(rendered.contains_key(&format!("ServiceAccount {namespace} {account}")), "{account} is not there");
        let class = template["spec"]["priorityClassName"].as_str().context("no priority")?;
        ensure!(rendered.contains_key(&format!("PriorityClass - {class}")), "{class} is not there");
    }
    // ./mgmt.sh up adds the port of the API server, if it is another one than these.
    let installer = std::fs::read_to_string(top().join("scripts/management-cluster"))?;
    let open = &rendered["NetworkPolicy o2ims-system o2ims-operator"]["spec"]["egress"][1]["ports"];
    let open: Vec<_> = open.as_array().into_iter().flatten().map(|port| port["port"].to_string()).collect();
    ensure!(
        installer.contains(&format!("\nreadonly OPEN_PORTS=({})\n", open.join(" "))),
        "up takes {open:?} for closed"
    );
    Ok(())
}
