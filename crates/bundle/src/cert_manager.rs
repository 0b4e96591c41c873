//! cert-manager. Its programs are in Go modules that cannot be downloaded from the module proxy, so they are built from
//! its packages with `main` functions of our own (`modules/cert-manager`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testenv::build::{Built, Cache, Module, Recipe};
use testenv::command::run;
use testenv::tools::{Tool, tool};
use testenv::versions;
use tokio::process::Command;

use crate::program::{Program, REGISTRY};

const SOURCES: &str = "github.com/cert-manager/cert-manager";
const VERSION: &str = versions::CERT_MANAGER;
pub(crate) const NAMESPACE: &str = "cert-manager";

static MODULE: Module = testenv::module!("cert-manager", "controller/main.go", "webhook/main.go", "cainjector/main.go");

pub(crate) const CONTROLLER: &str = "cert-manager-controller";
pub(crate) const WEBHOOK: &str = "cert-manager-webhook";
pub(crate) const CAINJECTOR: &str = "cert-manager-cainjector";

pub(crate) const PROGRAMS: [Recipe; 3] =
    [recipe(CONTROLLER, "./controller", 100), recipe(WEBHOOK, "./webhook", 20), recipe(CAINJECTOR, "./cainjector", 10)];

const fn recipe(name: &'static str, package: &'static str, seconds: u32) -> Recipe {
    Recipe {
        stamps: "-X github.com/cert-manager/cert-manager/pkg/util.AppVersion=VERSION",
        ..Recipe::new(name, VERSION, &MODULE, package, seconds)
    }
}

/// Builds the three programs; returns their names and files.
pub(crate) async fn programs(cache: &Cache) -> Result<Vec<(&'static str, Built)>> {
    let mut programs = Vec::new();
    for recipe in &PROGRAMS {
        programs.push((recipe.name, cache.program(recipe).await?));
    }
    Ok(programs)
}

/// The folder of cert-manager's sources; downloaded if they are not there.
pub(crate) async fn sources(cache: &Cache) -> Result<PathBuf> {
    cache.sources(&MODULE, SOURCES).await
}

/// Renders the chart of the same version (CRDs, rights, three Deployments, webhooks) and returns it, YAML.
pub(crate) async fn render(cache: &Cache, programs: &[Program]) -> Result<String> {
    let values = values(programs)?.to_string();
    let folder = cache
        .folder("bundle-cert-manager", &[VERSION, &values, "2"], 5, async |folder| {
            let chart = folder.join("chart");
            let from = sources(cache).await?.join("deploy/charts/cert-manager");
            copy(&from, &chart)?;
            // The sources name no version of it.
            let about = fs::read_to_string(chart.join("Chart.yaml"))?;
            fs::write(chart.join("Chart.yaml"), about.replace("v0.0.0", VERSION))?;
            fs::write(folder.join("values.json"), &values)?;
            let mut helm = Command::new(tool(Tool::Helm, |line| eprintln!("{line}")).await?);
            helm.args([
                "template",
                "cert-manager",
                "chart",
                "--namespace",
                NAMESPACE,
                "--kube-version",
                versions::OLDEST_KUBERNETES,
            ]);
            helm.args(["--values", "values.json"]).current_dir(&folder);
            // The result must not depend on the user's settings.
            helm.env("HELM_CONFIG_HOME", &folder).env("HELM_CACHE_HOME", &folder).env("HELM_DATA_HOME", &folder);
            let text = run(&mut helm).await.context("rendering the chart of cert-manager")?;
            fs::remove_dir_all(chart)?;
            Ok(fs::write(folder.join("rendered.yaml"), text)?)
        })
        .await?;
    Ok(fs::read_to_string(folder.join("rendered.yaml"))?)
}

/// The values of the chart.
fn values(programs: &[Program]) -> Result<Value> {
    let image = |name: &str| -> Result<Value> {
        let program = programs.iter().find(|program| program.name == name).context("cert-manager was not built")?;
        Ok(json!({"repository": format!("{REGISTRY}/{name}"), "tag": program.tag}))
    };
    Ok(json!({
        "crds": {"enabled": true},
        "global": {"leaderElection": {"namespace": NAMESPACE}},
        "image": image(CONTROLLER)?,
        "webhook": {
            "image": image(WEBHOOK)?,
            // The webhook is ready within a second or two.
            "readinessProbe": {"initialDelaySeconds": 1, "periodSeconds": 2},
            "resources": resources(),
        },
        "cainjector": {"image": image(CAINJECTOR)?, "resources": resources()},
        "resources": resources(),
        "maxConcurrentChallenges": 0,
        "startupapicheck": {"enabled": false},
    }))
}

fn resources() -> Value {
    json!({"requests": {"cpu": "10m", "memory": "32Mi"}})
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            // A new file: a copy would be read-only like the files of the module cache.
            fs::write(to, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
