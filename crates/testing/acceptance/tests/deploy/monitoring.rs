//! What is shipped for Prometheus and Grafana: it names metrics that the operators have, and each alert fires when it should.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, ensure};
use operator_kit::cache::CachedObjects;
use operator_kit::metrics::Metrics;
use serde_json::{Value, json};
use testenv::tools::Tool;

use crate::Test;
use crate::rendering::{chart, compare, kubectl, objects, tool};
use crate::run::{Outcome, must, run, top};

/// The tests.
pub const TESTS: &[Test] = &[
    ("alerts_and_dashboards_are_about_metrics_that_exist", false, alerts_and_dashboards_are_about_metrics_that_exist),
    ("metrics_and_alerts_are_documented", false, metrics_and_alerts_are_documented),
    ("each_alert_fires_when_it_should", true, each_alert_fires_when_it_should),
    ("the_chart_renders_the_objects_for_monitoring", false, the_chart_renders_the_objects_for_monitoring),
];

const OPERATORS: [&str; 2] = ["o2ims-operator", "focom-operator"];

/// Names of an operator's metrics.
fn metrics(operator: &'static str) -> Vec<String> {
    let metrics = Metrics::new(operator, "0");
    if operator == "o2ims-operator" {
        let (requests, hosts, machines) =
            (CachedObjects::default().store(), CachedObjects::default().store(), CachedObjects::default().store());
        o2ims_operator::metrics::Metrics::new(&metrics, &requests, &hosts, &machines);
    } else {
        let (requests, o_clouds) = (CachedObjects::default().store(), CachedObjects::default().store());
        focom_operator::metrics::register(&metrics, &requests, &o_clouds);
    }
    metrics.names()
}

fn read(operator: &str, file: &str) -> anyhow::Result<String> {
    let path = top().join("deploy/monitoring").join(operator).join(file);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The PrometheusRule.
fn rules(operator: &str) -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&read(operator, "rules.yaml")?)?)
}

/// The alerts in a PrometheusRule.
fn alerts(rules: &Value) -> impl Iterator<Item = &Value> {
    let groups = rules["spec"]["groups"].as_array().into_iter().flatten();
    groups.flat_map(|group| group["rules"].as_array().into_iter().flatten())
}

/// Every query in a file.
fn queries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(queries)).collect()
        }
        Value::Array(items) => items.iter().flat_map(queries).collect(),
        _ => Vec::new(),
    }
}

/// The metrics that a query names: all of ours begin with one of these.
fn named(query: &str) -> BTreeSet<&str> {
    let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| ["o2ims_", "focom_", "process_"].iter().any(|prefix| word.starts_with(prefix))).collect()
}

fn alerts_and_dashboards_are_about_metrics_that_exist() -> Outcome {
    for operator in OPERATORS {
        let metrics = metrics(operator);
        let of_histogram = |name: &str| {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part));
            base.is_some_and(|base| metrics.iter().any(|metric| metric == base))
        };
        let dashboard: Value = serde_json::from_str(&read(operator, "dashboard.json")?)?;
        for (file, content) in [("rules.yaml", rules(operator)?), ("dashboard.json", dashboard)] {
            let queries = queries(&content);
            ensure!(queries.len() > 5, "{operator}: {file} has {} queries", queries.len());
            for query in queries {
                let named = named(&query);
                ensure!(!named.is_empty(), "{operator}: {file} names none of our metrics in {query}");
                for name in named {
                    let exists = metrics.iter().any(|metric| metric == name) || of_histogram(name);
                    ensure!(exists, "{operator}: {file} names {name} in {query}, which is not among {metrics:?}");
                }
            }
        }
    }
    Ok(())
}

fn metrics_and_alerts_are_documented() -> Outcome {
    let text = std::fs::read_to_string(top().join("docs/deployment.md"))?;
    for operator in OPERATORS {
        for metric in metrics(operator) {
            // What both operators have is there once, without the prefix.
            let (_, rest) = metric.split_once('_').context("no prefix")?;
            let is_told = [format!("`{metric}"), format!("`…_{rest}")].iter().any(|told| text.contains(told));
            ensure!(is_told, "docs/deployment.md does not have {metric}");
        }
        for alert in alerts(&rules(operator)?) {
            let name = alert["alert"].as_str().context("a rule that is no alert")?;
            ensure!(text.contains(&format!("`{name}`")), "docs/deployment.md does not have {name}");
            for pointer in
                ["/labels/severity", "/annotations/summary", "/annotations/description", "/annotations/action"]
            {
                let is_there = alert.pointer(pointer).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
                ensure!(is_there, "{name} lacks {pointer}");
            }
        }
    }
    Ok(())
}

/// Writes rules and their tests as promtool reads them.
fn write_rules(folder: &Path, rules: &Value, tests: &str) -> Outcome {
    std::fs::write(folder.join("rules.yaml"), rules["spec"].to_string())?;
    Ok(std::fs::write(folder.join("tests.yaml"), tests)?)
}

fn each_alert_fires_when_it_should() -> Outcome {
    let promtool = tool(Tool::Promtool)?;
    for operator in OPERATORS {
        let folder = tempfile::tempdir()?;
        let path = |file: &str| folder.path().join(file).display().to_string();
        let tests = top().join("crates/testing/acceptance/tests/deploy/alerts").join(format!("{operator}.yaml"));
        let tests = std::fs::read_to_string(tests)?;
        let rules = rules(operator)?;
        for alert in alerts(&rules) {
            let name = alert["alert"].as_str().unwrap_or_default();
            ensure!(tests.contains(&format!("\"{name}\"")), "no test has {name} fire");
        }
        write_rules(folder.path(), &rules, &tests)?;
        must(&promtool, ["check", "rules", "--lint-fatal", &path("rules.yaml")], "")?;
        must(&promtool, ["test", "rules", &path("tests.yaml")], "")?;

        // The tests see each rule that is wrong.
        for (position, alert) in alerts(&rules).enumerate() {
            let mut wrong = rules.clone();
            let rule =
                wrong.pointer_mut(&format!("/spec/groups/0/rules/{position}")).context("there are several groups")?;
            rule["expr"] = json!("vector(1)");
            write_rules(folder.path(), &wrong, &tests)?;
            let told = run(&promtool, ["test", "rules", &path("tests.yaml")], "")?;
            ensure!(!told.well, "{} passes when it always fires: {}", alert["alert"], told.out);
        }
    }
    Ok(())
}

fn the_chart_renders_the_objects_for_monitoring() -> Outcome {
    let path = top().join("deploy/chart");
    let usual = objects(&chart(&path, &[])?)?;
    let added = |values: &[&str]| -> anyhow::Result<_> {
        let mut all = objects(&chart(&path, &[&["--set=monitoring.enabled=true"], values].concat())?)?;
        all.retain(|key, _| !usual.contains_key(key));
        Ok(all)
    };
    let by_kustomize =
        |folder: &str| objects(&must(&kubectl()?, ["kustomize", &format!("deploy/monitoring{folder}")], "")?.out);
    compare("monitoring", &by_kustomize("")?, &added(&[])?)?;
    compare("of an SMO", &by_kustomize("/focom-operator")?, &added(&["--set=o2ims.install=false"])?)?;

    let labelled = added(&["--set=monitoring.labels.release=here"])?;
    for kind in ["PodMonitor", "PrometheusRule"] {
        let labels = &labelled[&format!("{kind} o2ims-system o2ims-operator")]["metadata"]["labels"];
        ensure!(labels == &json!({"app.kubernetes.io/name": "o2ims-operator", "release": "here"}), "{kind}: {labels}");
    }
    for operator in OPERATORS {
        let namespace = operator.replace("operator", "system");
        let key = |kind: &str| format!("{kind} {namespace} {operator}");
        let monitor = &labelled[&key("PodMonitor")]["spec"];
        let template = &usual[&key("Deployment")]["spec"]["template"];
        let wanted = monitor["selector"]["matchLabels"].as_object().context("no labels")?;
        let selects = wanted.iter().all(|(name, value)| &template["metadata"]["labels"][name] == value);
        let port = &monitor["podMetricsEndpoints"][0]["port"];
        ensure!(selects && port == &template["spec"]["containers"][0]["ports"][0]["name"], "{operator}: {monitor}");
    }
    Ok(())
}
