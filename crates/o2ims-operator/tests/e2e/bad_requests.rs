//! Requests that are wrong: refused at admission, or told what is wrong; nothing is made and nothing is held.

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, ResourceExt as _};
use o2ims_operator::provisioner::byoh::marks::MarkedHost as _;
use o2ims_types::rules::{MASTERS_ALONE, NEXT_VERSION, TAKE_BACK, WAY_OUT};
use o2ims_types::{ProvisioningRequest, ProvisioningState as State};
use serde_json::{Value, json};
use testenv::kubernetes_version;

use crate::admission::until_taken;
use crate::harness::{CLUSTER, Outcome, SOON, Scenario, Shared, Tenant, shared, wait};

#[path = "../../../o2ims-types/tests/corpus/mod.rs"]
pub mod corpus;

pub fn scenarios() -> Vec<Scenario> {
    vec![
        shared("bad_requests_are_refused_and_hold_nothing", bad_requests),
        shared("the_api_server_judges_every_value_as_the_operator_does", corpus_of_values),
        shared("what_cannot_change_is_refused", forbidden_changes),
        shared("what_the_api_server_would_not_create_is_told_before_a_host_is_held", dry_runs),
    ]
}

/// How a bad request ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The API server refuses it.
    Refused,
    /// The operator says that only a change helps.
    Failed,
    /// The operator says what it waits for.
    Pending,
}
use End::{Failed, Pending, Refused};

type Change = Box<dyn Fn(&mut Value)>;

/// Sets the value at a path below `spec`; `null` takes it away.
fn set(path: &'static str, value: Value) -> Change {
    Box::new(move |request| {
        let mut at = &mut request["spec"];
        let (parents, last) = path.rsplit_once('/').map_or((None, path), |(parents, last)| (Some(parents), last));
        for part in parents.into_iter().flat_map(|parents| parents.split('/')) {
            at = match part.parse::<usize>() {
                Ok(index) => &mut at[index],
                Err(_) => &mut at[part],
            };
        }
        if value.is_null() {
            at.as_object_mut().expect("an object").remove(last);
        } else if let Ok(index) = last.parse::<usize>() {
            at[index] = value.clone();
        } else {
            at[last] = value.clone();
        }
    })
}

const P: &str = "templateParameters";

/// What is done to a good request, how it ends, and words of the message.
fn cases() -> Vec<(String, Change, End, String)> {
    let long = "x".repeat(300);
    let mut cases: Vec<(String, Change, End, String)> = Vec::new();
    let mut case = |what: &str, change: Change, end: End, words: &str| {
        cases.push((what.to_owned(), change, end, words.to_owned()));
    };

    // Missing and wrong fields.
    case("no templateName", set("templateName", Value::Null), Refused, "templateName");
    case("empty templateName", set("templateName", json!("")), Refused, "templateName");
    case("no templateVersion", set("templateVersion", Value::Null), Refused, "templateVersion");
    case("no templateParameters", set(P, Value::Null), Refused, "templateParameters");
    case("templateParameters of the wrong type", set(P, json!("core")), Refused, "templateParameters");
    case("unknown template", set("templateName", json!("nothing")), Pending, "ClusterTemplate nothing-v1.0.0");
    case(
        "unknown template version",
        set("templateVersion", json!("v9")),
        Pending,
        "ClusterTemplate byoh-workload-cluster-v9",
    );
    case("no clusterName", set("templateParameters/clusterName", Value::Null), Refused, "clusterName");
    case("empty clusterName", set("templateParameters/clusterName", json!("")), Refused, "clusterName");
    case(
        "clusterName with capitals",
        set("templateParameters/clusterName", json!("Core")),
        Refused,
        "clusterName must be a DNS label",
    );
    case(
        "clusterName with an underscore",
        set("templateParameters/clusterName", json!("my_core")),
        Refused,
        "clusterName must be a DNS label",
    );
    case(
        "clusterName that begins with a digit",
        set("templateParameters/clusterName", json!("1core")),
        Refused,
        "clusterName must be a DNS label",
    );
    case(
        "clusterName that ends with a dash",
        set("templateParameters/clusterName", json!("core-")),
        Refused,
        "clusterName must be a DNS label",
    );
    case(
        "clusterName with a dot",
        set("templateParameters/clusterName", json!("a.b")),
        Refused,
        "clusterName must be a DNS label",
    );
    case(
        "clusterName with a newline",
        set("templateParameters/clusterName", json!("core\n")),
        Refused,
        "clusterName must be a DNS label",
    );
    case(
        "clusterName of 64 characters",
        set("templateParameters/clusterName", json!("a".repeat(64))),
        Refused,
        "clusterName must be a DNS label",
    );
    case("clusterName that is a number", set("templateParameters/clusterName", json!(7)), Refused, "clusterName");
    case(
        "unknown provisioner",
        set("templateParameters/clusterProvisioner", json!("metal3")),
        Failed,
        "clusterProvisioner \"metal3\" is not supported",
    );
    case("empty provisioner", set("templateParameters/clusterProvisioner", json!("")), Refused, "clusterProvisioner");

    // Versions.
    for version in ["1.33.1", "v1.33", "latest", "v2.0.0", "v1.033.1", "v1.33.1 ", "", "v1.33.x"] {
        case(
            &format!("version {version:?}"),
            set("templateParameters/k8sVersion", json!(version)),
            Refused,
            "k8sVersion must be a Kubernetes version",
        );
    }
    case("version that is a number", set("templateParameters/k8sVersion", json!(1.33)), Refused, "k8sVersion");

    // Hosts.
    case("no hosts", set("templateParameters/hosts", Value::Null), Refused, "hosts are required");
    case("no masters", set("templateParameters/hosts/masters", Value::Null), Refused, "masters");
    case("empty masters", set("templateParameters/hosts/masters", json!([])), Refused, "masters");
    case("hosts of the wrong type", set("templateParameters/hosts", json!(["bad-1"])), Refused, "hosts");
    case(
        "two masters",
        set("templateParameters/hosts/masters", json!([host(1), host(3)])),
        Refused,
        "hosts.masters must have an odd number",
    );
    case(
        "four masters",
        set("templateParameters/hosts/masters", json!([host(1), host(3), host(4), host(5)])),
        Refused,
        "hosts.masters must have an odd number",
    );
    case(
        "a master twice",
        set("templateParameters/hosts/masters", json!([host(1), host(1), host(3)])),
        Refused,
        "hosts.masters must not name a host twice",
    );
    case(
        "a worker twice",
        set("templateParameters/hosts/workers", json!([host(2), host(2)])),
        Refused,
        "hosts.workers must not name a host twice",
    );
    case(
        "a worker twice in two spellings",
        set("templateParameters/hosts/workers", json!([host(2), {"host_id": 2, "host_name": "bad-2"}])),
        Refused,
        "hosts.workers must not name a host twice",
    );
    case(
        "a host as master and worker",
        set("templateParameters/hosts/workers", json!([host(1)])),
        Refused,
        "must not name the same host",
    );
    case(
        "one id for two hosts",
        set("templateParameters/hosts/workers/0/hostId", json!(1)),
        Failed,
        "hostId 1 is given twice",
    );
    case(
        "three masters without endpoint",
        set("templateParameters/hosts/masters", json!([host(1), host(3), host(4)])),
        Failed,
        "controlPlaneEndpoint is required with 3 masters",
    );
    case(
        "a host without id",
        set("templateParameters/hosts/masters/0/hostId", Value::Null),
        Refused,
        "exactly one of hostId and host_id is required",
    );
    case(
        "a host without name",
        set("templateParameters/hosts/masters/0/hostName", Value::Null),
        Refused,
        "exactly one of hostName and host_name is required",
    );
    case(
        "an id twice over",
        set("templateParameters/hosts/masters/0/host_id", json!(1)),
        Refused,
        "exactly one of hostId and host_id is required",
    );
    case("a negative id", set("templateParameters/hosts/masters/0/hostId", json!(-1)), Refused, "hostId");
    case("an id with a space", set("templateParameters/hosts/masters/0/hostId", json!("a b")), Refused, "hostId");
    case("an id that is a list", set("templateParameters/hosts/masters/0/hostId", json!([1])), Refused, "hostId");
    case(
        "a name with capitals",
        set("templateParameters/hosts/masters/0/hostName", json!("Bad-1")),
        Refused,
        "hostName must be a DNS name",
    );
    case(
        "a path as name",
        set("templateParameters/hosts/masters/0/hostName", json!("../bad-1")),
        Refused,
        "hostName must be a DNS name",
    );
    case(
        "an unknown host",
        set("templateParameters/hosts/masters/0", json!({"hostId": 99, "hostName": "nobody"})),
        Pending,
        "host 99 (nobody) is not registered in namespace bad",
    );
    case(
        "an id of another host",
        set("templateParameters/hosts/masters/0/hostId", json!(5)),
        Pending,
        "host 5 (bad-1) is not that host: ByoHost bad/bad-1 has the label host-id=1",
    );
    case(
        "a host of another namespace",
        set("templateParameters/hosts/masters/0", json!({"hostId": 1, "hostName": "badother-1"})),
        Pending,
        "host 1 (badother-1) is not registered in namespace bad",
    );
    case(
        "an address that is none",
        set("templateParameters/hosts/masters/0/hostIp", json!("10.0.0.300")),
        Refused,
        "hostIp must be an IP address",
    );
    case(
        "an address of another host",
        set("templateParameters/hosts/masters/0/hostIp", json!("10.0.0.3")),
        Pending,
        "host 1 (bad-1) does not have the address 10.0.0.3",
    );
    case(
        "a host that has never reported",
        set("templateParameters/hosts/workers/0", json!({"hostId": 6, "hostName": "bad-dead"})),
        Pending,
        "host 6 (bad-dead) is not alive",
    );
    case(
        "a host that is in use",
        set("templateParameters/hosts/workers/0", json!({"hostId": 7, "hostName": "bad-used"})),
        Pending,
        "host 7 (bad-used) is in use by cluster elsewhere",
    );
    case(
        "more workers than there may be",
        Box::new(|request| {
            request["spec"][P]["hosts"]["workers"] = (10..=420).map(host).collect();
        }),
        Refused,
        "workers",
    );

    // Networks.
    for (field, value) in [
        ("podCidr", "192.168.0.0"),
        ("podCidr", "192.168.0.0/33"),
        ("podCidr", "300.0.0.0/8"),
        ("serviceCidr", "none"),
        ("podCidr", "192.168.1.0/16"),
        ("serviceCidr", "10.97.0.0/12"),
    ] {
        let path = if field == "podCidr" { "templateParameters/podCidr" } else { "templateParameters/serviceCidr" };
        case(
            &format!("{field} {value}"),
            set(path, json!(value)),
            Refused,
            &format!("{field} must be one network in CIDR form"),
        );
    }
    case(
        "networks that overlap",
        Box::new(|request| {
            request["spec"][P]["podCidr"] = json!("10.0.0.0/8");
            request["spec"][P]["serviceCidr"] = json!("10.96.0.0/12");
        }),
        Refused,
        "podCidr and serviceCidr must not overlap",
    );
    case(
        "a network that overlaps the template's",
        set("templateParameters/podCidr", json!("10.128.0.0/16")),
        Failed,
        "podCidr and serviceCidr must not overlap",
    );

    // Endpoint and labels.
    case(
        "an endpoint without host",
        set("templateParameters/controlPlaneEndpoint", json!({"port": 6443})),
        Refused,
        "host",
    );
    case(
        "an endpoint that is no name",
        set("templateParameters/controlPlaneEndpoint", json!({"host": "https://x:1"})),
        Refused,
        "controlPlaneEndpoint.host must be an IP address or a DNS name",
    );
    case(
        "port 0",
        set("templateParameters/controlPlaneEndpoint", json!({"host": "10.0.0.9", "port": 0})),
        Refused,
        "port",
    );
    case(
        "port 70000",
        set("templateParameters/controlPlaneEndpoint", json!({"host": "10.0.0.9", "port": 70000})),
        Refused,
        "port",
    );
    case(
        "a label of Cluster API",
        set("templateParameters/labels", json!({"cluster.x-k8s.io/cluster-name": "other"})),
        Failed,
        "labels must have valid label keys",
    );
    case(
        "a label of the operator",
        set("templateParameters/labels", json!({"o2ims.provisioning.oran.org/request-uid": "other"})),
        Failed,
        "labels must have valid label keys",
    );
    case(
        "a label key that is none",
        set("templateParameters/labels", json!({"a b": "c"})),
        Failed,
        "labels must have valid label keys",
    );
    case(
        "a label value that is none",
        set("templateParameters/labels", json!({"site": "a/b"})),
        Failed,
        "labels must have valid label keys",
    );
    case(
        "a label value that is too long",
        set("templateParameters/labels", json!({"site": "x".repeat(64)})),
        Refused,
        "labels",
    );

    // 300 characters, YAML and Go templates in every string.
    let strings = [
        "templateName",
        "templateVersion",
        "templateParameters/clusterName",
        "templateParameters/clusterProvisioner",
        "templateParameters/k8sVersion",
        "templateParameters/hosts/masters/0/hostId",
        "templateParameters/hosts/masters/0/hostName",
        "templateParameters/hosts/masters/0/hostIp",
        "templateParameters/podCidr",
        "templateParameters/serviceCidr",
    ];
    for path in strings {
        let field = path.rsplit('/').next().unwrap_or(path);
        case(&format!("300 characters in {path}"), set(path, json!(long)), Refused, field);
        for fragment in ["x: {y: [1]}\n- z", "{{ .Secret }}", "$(reboot)"] {
            // Names of templates are looked up; everything else has a form of its own.
            let (end, words) = match path {
                "templateName" | "templateVersion" => (Pending, "ClusterTemplate"),
                "templateParameters/clusterProvisioner" => (Failed, "clusterProvisioner"),
                _ => (Refused, field),
            };
            case(&format!("{fragment:?} in {path}"), set(path, json!(fragment)), end, words);
        }
    }
    case(
        "a template fragment as endpoint",
        set("templateParameters/controlPlaneEndpoint", json!({"host": "{{ .X }}"})),
        Refused,
        "controlPlaneEndpoint.host",
    );
    case(
        "a parameter that the schema of the template forbids",
        Box::new(|request| {
            request["spec"]["templateName"] = json!("strict");
            request["spec"]["templateVersion"] = json!("v1");
            request["spec"][P]["rack"] = json!("seven");
        }),
        Failed,
        "rack",
    );
    cases
}

fn host(number: u32) -> Value {
    json!({"hostId": number, "hostName": format!("bad-{number}")})
}

async fn bad_requests(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "bad", 5).await?;
    let other = Tenant::new(&stack, "badother", 1).await?;
    unusual_host(&stack, &tenant, "bad-dead", json!({"labels": {"host-id": "6"}}), false).await?;
    unusual_host(
        &stack,
        &tenant,
        "bad-used",
        json!({"labels": {"host-id": "7", "cluster.x-k8s.io/cluster-name": "elsewhere"}}),
        true,
    )
    .await?;
    tenant
        .template("strict", json!({"parameterSchema": {"type": "object", "properties": {"rack": {"type": "integer"}}}}))
        .await?;
    // The author of a template is told what is wrong with it before anybody requests it.
    tenant.until_template("strict", true, "").await?;
    tenant.template("broken", json!({"parameterSchema": {"type": 5}})).await?;
    tenant.until_template("broken", false, "parameterSchema is not a JSON Schema").await?;
    tenant.template("broken", json!({"parameterSchema": {"type": "object"}})).await?;
    tenant.until_template("broken", true, "").await?;
    let before = tenant.inventory().await?;
    let cases = cases();
    let count = cases.len();
    ensure!(count >= 60, "only {count} cases");
    let mut wrong = Vec::new();
    let mut waiting = Vec::new();
    for (number, (what, change, end, words)) in cases.into_iter().enumerate() {
        let name = format!("bad-{number}");
        let mut request = tenant.request(&name, &format!("bad{number}"), &[1], &[2]);
        change(&mut request);
        match tenant.apply(&request).await {
            Err(kube::Error::Api(status)) if end == Refused && status.message.contains(&words) => {}
            Err(error) => wrong.push(format!("{what}: expected {end:?} with {words:?}, got {error}")),
            Ok(_) if end == Refused => {
                wrong.push(format!("{what}: expected to be refused with {words:?}, was accepted"));
            }
            Ok(_) => waiting.push((what, name, end, words)),
        }
    }
    for (what, name, end, words) in waiting {
        let state = if end == Failed { State::Failed } else { State::Pending };
        let told =
            wait(tenant.requests(), &name, "a status", SOON, |request: Option<&o2ims_types::ProvisioningRequest>| {
                request.is_some_and(|request| !request.is_new())
            })
            .await?
            .and_then(|request| request.status)
            .context("no status")?
            .provisioning_status;
        if told.provisioning_state != state || !told.provisioning_message.contains(&words) {
            wrong.push(format!(
                "{what}: expected {state} with {words:?}, got {} with {:?}",
                told.provisioning_state, told.provisioning_message
            ));
        }
    }
    ensure!(wrong.is_empty(), "{} of {count} cases:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!("{count} bad requests were refused or told");

    let made: Vec<_> = tenant
        .inventory()
        .await?
        .difference(&before)
        .filter(|object| !object.starts_with("ProvisioningRequest "))
        .cloned()
        .collect();
    ensure!(made.is_empty(), "made for bad requests: {made:?}");
    for request in tenant.requests().list(&ListParams::default()).await? {
        ensure!(request.finalizers().is_empty(), "{} has a finalizer", request.name_any());
    }
    for host in kube::Api::<cluster_api::byoh::ByoHost>::namespaced(stack.management.admin(), "bad")
        .list(&ListParams::default())
        .await?
    {
        if let Some(holder) = host.holder() {
            bail!("{} is held by {holder}", host.name_any());
        }
    }
    other.assert_hosts_free().await
}

/// A ByoHost without an agent.
async fn unusual_host(stack: &Shared, tenant: &Tenant, name: &str, metadata: Value, reported: bool) -> Outcome {
    let client = stack.management.client_as(&format!("byoh:host:{name}"), &["byoh:hosts"])?;
    let kind = cluster_api::Kind::ByoHost;
    let api: kube::Api<kube::core::DynamicObject> =
        kube::Api::namespaced_with(client, &tenant.namespace, &kind.api_resource());
    let mut object = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {"name": name, "namespace": tenant.namespace}, "spec": {}});
    template_schema::overlay(&mut object["metadata"], metadata);
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    if reported {
        let status = json!({"status": {"hostinfo": {"osname": "linux", "osimage": "Ubuntu 20.04.6 LTS", "architecture": "amd64"}}});
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    Ok(())
}

/// The CEL half of the rules says of every value in the corpus what the corpus says.
async fn corpus_of_values(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "corpus", 0).await?;
    let kind = ApiResource::erase::<ProvisioningRequest>(&());
    let requests: Api<DynamicObject> = Api::namespaced_with(stack.management.admin(), &tenant.namespace, &kind);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let mut good = tenant.request("request", "core", &[1], &[2]);
    good["spec"][P]["hosts"] = json!({
        "masters": [{"hostId": 1, "hostName": "target-1"}], "workers": [{"hostId": 2, "hostName": "target-2"}],
    });
    let mut refused = good.clone();
    refused["spec"][P]["k8sVersion"] = json!("v1.33.1-rc.1");
    until_taken(&requests, &refused, false).await?;
    let mut wrong = Vec::new();
    for case in corpus::cases() {
        let mut request = good.clone();
        request["spec"][P] = case.applied_to(request["spec"][P].take());
        let answer = requests.create(&dry_run, &serde_json::from_value(request)?).await;
        let agrees = match (&answer, case.message) {
            (Ok(_), None) => true,
            // A pattern, a type or a length of the schema may come before the rule.
            (Err(kube::Error::Api(status)), Some(message)) => {
                let by_schema = ["should match", "should be at least", "Too long", "must be of type"];
                let is_told =
                    status.message.contains(message) || by_schema.iter().any(|words| status.message.contains(words));
                matches!(status.code, 403 | 422) && is_told
            }
            _ => false,
        };
        if !agrees {
            wrong.push(format!("{}: {}: {:?}", case.rule, case.value, answer.err().map(|error| error.to_string())));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

async fn forbidden_changes(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "frozen", 4).await?;
    let rack = json!({"parameterSchema": {"properties": {"rack": {"type": "object"}}}});
    tenant.template("racks", rack).await?;
    let mut good = tenant.request("request", "frozen", &[1], &[2]);
    good["spec"]["templateName"] = json!("racks");
    good["spec"]["templateVersion"] = json!("v1");
    good["spec"][P]["rack"] = json!({"row": 1});
    // Until hosts are reserved, a mistake can be mended.
    good["spec"][P]["hosts"]["masters"][0]["hostName"] = json!("typo");
    good["spec"][P]["k8sVersion"] = json!("v1.32.0");
    good["spec"][P]["podCidr"] = json!("10.0.0.0/16");
    good["spec"][P]["controlPlaneEndpoint"] = json!({"host": "10.1.0.8"});
    tenant.apply(&good).await?;
    tenant.until("request", State::Pending, "host 1 (typo) is not registered", SOON).await?;
    for mended in ["podCidr", "controlPlaneEndpoint"] {
        good["spec"][P].as_object_mut().context("parameters")?.remove(mended);
    }
    good["spec"][P]["hosts"]["masters"][0]["hostName"] = json!(tenant.host(1));
    good["spec"][P]["k8sVersion"] = json!(kubernetes_version());
    tenant.apply(&good).await?;
    tenant.until("request", State::Progressing, "", SOON).await?;
    let (first, third) = (format!("host 1 ({})", tenant.host(1)), format!("host 3 ({})", tenant.host(3)));
    let from = format!(r#" cannot change from "{}""#, kubernetes_version());
    let changes: [(&str, Value, &str); 14] = [
        ("templateName", json!("other"), r#" cannot change from "racks" to "other""#),
        ("templateVersion", json!("v2"), r#" cannot change from "v1" to "v2""#),
        ("templateParameters/clusterName", json!("other"), r#" cannot change from "frozen" to "other""#),
        ("templateParameters/clusterProvisioner", json!("other"), r#" cannot change from "byoh" to "other""#),
        ("templateParameters/podCidr", json!("10.0.0.0/16"), r#" cannot change from none to "10.0.0.0/16""#),
        ("templateParameters/serviceCidr", json!("10.0.0.0/16"), r#" cannot change from none to "10.0.0.0/16""#),
        (
            "templateParameters/controlPlaneEndpoint",
            json!({"host": "10.0.0.9"}),
            r#" cannot change from none to "10.0.0.9:6443""#,
        ),
        ("templateParameters/k8sVersion", json!("v1.32.0"), &format!(r#"{from} to "v1.32.0""#)),
        ("templateParameters/labels", json!({"site": "a"}), r#"[site] cannot change from none to "a""#),
        ("templateParameters/labels", json!({"site": "a", "rack": "7"}), " cannot change (2 of them differ)"),
        (
            "templateParameters/hosts/masters",
            json!([{"hostId": 3, "hostName": tenant.host(3)}]),
            &format!(" cannot change from {first} to {third}"),
        ),
        ("templateParameters/rack", json!({"row": 2}), " cannot change"),
        ("templateParameters/rack", Value::Null, " cannot be removed"),
        ("templateParameters/podCIDR", json!("10.0.0.0/16"), " cannot be added"),
    ];
    for (path, value, words) in changes {
        let mut changed = good.clone();
        set(path, value)(&mut changed);
        let words = format!("denied request: spec.{}{words}", path.replace('/', "."));
        match tenant.apply(&changed).await {
            // No tool takes 403 for leave to delete the request and make it anew.
            Err(kube::Error::Api(status)) => ensure!(
                status.code == 403
                    && status.message.contains(&words)
                    && [WAY_OUT, TAKE_BACK, NEXT_VERSION, MASTERS_ALONE]
                        .iter()
                        .any(|way| status.message.ends_with(way)),
                "{path}: {} {}",
                status.code,
                status.message
            ),
            Err(error) => bail!("{path}: {error}"),
            Ok(_) => bail!("{path} could be changed"),
        }
    }
    // What the cluster has may be left out, and written out.
    let mut without = good.clone();
    set("templateParameters/k8sVersion", Value::Null)(&mut without);
    tenant.apply(&without).await?;
    tenant.apply(&good).await?;
    // The same host in other words.
    for spelling in
        [json!({"hostId": "1", "hostName": tenant.host(1)}), json!({"host_id": 1, "host_name": tenant.host(1)})]
    {
        let mut same = good.clone();
        same["spec"][P]["hosts"]["masters"] = json!([spelling]);
        tenant.apply(&same).await?;
    }
    tenant.delete("request").await?;
    tenant.until_gone("request", crate::harness::CLUSTER).await?;
    tenant.assert_hosts_free().await
}

/// Templates with misspelt settings, and a quota: no host is held for them. What is mended is carried out.
async fn dry_runs(stack: Shared) -> Outcome {
    let tenant = Tenant::new(&stack, "dry-run", 3).await?;
    let settings = [
        (
            "controlPlane",
            json!({"clusterConfigurration": {"clusterName": "a"}}),
            ".spec.kubeadmConfigSpec.clusterConfigurration",
        ),
        ("controlPlane", json!({"clusterConfiguration": {"imageRepository": 5}}), "spec.kubeadmConfigSpec"),
        ("workers", json!({"preKubeadmComands": ["date"]}), ".spec.template.spec.preKubeadmComands"),
    ];
    for (number, (part, setting, words)) in settings.into_iter().enumerate() {
        let name = format!("misspelt-{number}");
        tenant.template(&name, json!({"kubeadm": {part: setting}})).await?;
        tenant.apply(&tenant.request_for(&name, &name, &[1], &[2])).await?;
        let told = tenant.until(&name, State::Pending, "not claimed, because Kubeadm", SOON).await?;
        let message = told.status.context("no status")?.provisioning_status.provisioning_message;
        for words in [words, &format!("correct spec.kubeadm.{part} of ClusterTemplate {name}-v1")] {
            ensure!(message.contains(words), "{name}: {message:?} has no {words:?}");
        }
        tenant.assert_hosts_free().await?;
        if number < 2 {
            tenant.delete(&name).await?;
            tenant.until_gone(&name, SOON).await?;
        }
    }

    // The template is corrected, and a quota keeps the request from its cluster then.
    forbid(&stack, &tenant, "kubeadmcontrolplanes.controlplane.cluster.x-k8s.io").await?;
    tenant.template("misspelt-2", json!({})).await?;
    tenant.until("misspelt-2", State::Pending, "exceeded quota: none", SOON).await?;
    tenant.assert_hosts_free().await?;
    let quotas = Api::<ResourceQuota>::namespaced(stack.management.admin(), &tenant.namespace);
    quotas.delete("none", &DeleteParams::default()).await?;
    tenant.until("misspelt-2", State::Fulfilled, "", CLUSTER).await?;

    // A running cluster is to get a worker; its host stays free while the quota forbids that.
    forbid(&stack, &tenant, "machinedeployments.cluster.x-k8s.io").await?;
    tenant.apply(&tenant.request_for("misspelt-2", "misspelt-2", &[1], &[2, 3])).await?;
    tenant
        .until("misspelt-2", State::Progressing, "host 3 (dry-run-3): not claimed, because MachineDeployment", SOON)
        .await?;
    ensure!(tenant.byohosts().get(&tenant.host(3)).await?.holder().is_none(), "host 3 is held");
    quotas.delete("none", &DeleteParams::default()).await?;
    tenant.until("misspelt-2", State::Fulfilled, "", CLUSTER).await?;
    Ok(())
}

/// A quota that leaves no object of a kind. No quota controller runs here, so its status is written as that would.
pub async fn forbid(stack: &Shared, tenant: &Tenant, kind: &str) -> Outcome {
    let hard = json!({format!("count/{kind}"): "0"});
    let quotas = Api::<ResourceQuota>::namespaced(stack.management.admin(), &tenant.namespace);
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": hard}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let status = Patch::Merge(json!({"status": {"hard": hard, "used": hard}}));
    quotas.patch_status("none", &PatchParams::default(), &status).await?;
    Ok(())
}
