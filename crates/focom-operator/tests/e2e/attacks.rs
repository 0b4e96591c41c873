//! What a requester tries in order to get at what is somebody else's, along the whole way: OCloud, Secret, namespace, name on
//! the O-Cloud, host. Nothing of it is asked for, nothing of it is told, and the same goes through once its owner allows it.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use o2ims_types::names::focom as names;
use o2ims_types::{FocomProvisioningRequest, OCloud, ProvisioningRequest};
use sandbox::focom;
use serde_json::{Value, json};
use testenv::ManagementCluster;

use crate::harness::{OPERATOR_USER, Outcome, Parts, SMO_USER, SOON, Scenario, Tenant, World, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("nothing_of_others_is_used_without_their_word", nothing_of_others_is_used),
        beside("a_grant_that_is_taken_back_stops_every_write", a_grant_that_is_taken_back),
        beside("what_has_the_name_is_never_taken_over", what_has_the_name_is_never_taken_over),
        beside("names_that_are_paths_do_not_get_in", names_that_are_paths_do_not_get_in),
        beside("hosts_of_other_namespaces_are_out_of_reach", hosts_of_other_namespaces),
    ]
}

/// Who tries.
const REQUESTER: &str = "mallory";

/// What is reached for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// An OCloud of another namespace.
    OCloud,
    /// A Secret of another namespace, by an OCloud of one's own.
    Secret,
    /// Another namespace of the very cluster.
    Namespace,
}

/// What its owner wrote, which is no grant.
#[derive(Clone, Debug)]
enum Word {
    /// `spec.allowedNamespaces`.
    Allowed(Vec<&'static str>),
    /// An annotation of the owner's Namespace.
    OnNamespace(&'static str, &'static str),
    /// An annotation of the requester's own Namespace.
    OnOwnNamespace(&'static str),
    /// An annotation of the request.
    OnRequest(&'static str),
    /// An annotation of the OCloud.
    OnOCloud(&'static str),
    /// An annotation of the Secret.
    OnSecret(&'static str),
    /// The thing that is reached for does not even exist.
    Absent,
}

fn attempts() -> Vec<(Reach, Word)> {
    let mut all = Vec::new();
    for list in [
        vec![],
        vec!["other"],
        vec!["mallor"],
        vec!["mallory2"],
        vec!["Mallory"],
        vec!["mallory "],
        vec!["mal*"],
        vec!["**"],
        vec!["mallory,other"],
    ] {
        all.push((Reach::OCloud, Word::Allowed(list)));
    }
    for (reach, right, wrong) in [
        (Reach::Secret, names::SECRETS_FOR_ANNOTATION, names::REQUESTS_FROM_ANNOTATION),
        (Reach::Namespace, names::REQUESTS_FROM_ANNOTATION, names::SECRETS_FOR_ANNOTATION),
    ] {
        for value in
            ["", "other", "mallor", "mallory2", "Mallory", "mal*", "**", "mallory other", "mallory;other", "!mallory"]
        {
            all.push((reach, Word::OnNamespace(right, value)));
        }
        all.push((reach, Word::OnNamespace(wrong, REQUESTER)));
        all.push((reach, Word::OnOwnNamespace(right)));
        all.push((reach, Word::OnRequest(right)));
    }
    all.push((Reach::Secret, Word::OnOCloud(names::SECRETS_FOR_ANNOTATION)));
    all.push((Reach::Secret, Word::OnSecret(names::SECRETS_FOR_ANNOTATION)));
    for reach in [Reach::OCloud, Reach::Secret, Reach::Namespace] {
        all.push((reach, Word::Absent));
    }
    all
}

/// One try, in a namespace that is its victim's alone.
struct Attempt {
    reach: Reach,
    word: Word,
    victim: String,
    name: String,
}

impl Attempt {
    /// What the owner has, and what the requester makes.
    async fn set_up(&self, parts: &Parts) -> Outcome {
        let (smo, victim) = (&parts.smo, self.victim.as_str());
        let absent = matches!(self.word, Word::Absent);
        make_namespace(&parts.site_b.management, victim).await?;
        if !(absent && self.reach == Reach::Namespace) {
            make_namespace(smo, victim).await?;
        }
        match self.reach {
            Reach::OCloud if !absent => focom::introduce(smo, victim, "site", &parts.kubeconfig_b).await?,
            Reach::Secret if !absent => {
                // The operator may read it as far as the API server is concerned.
                focom::allow_secrets(smo, victim).await?;
                put(
                    smo.admin(),
                    victim,
                    "v1",
                    "Secret",
                    "site",
                    json!({"stringData": {"kubeconfig": parts.kubeconfig_b}}),
                )
                .await?;
            }
            Reach::Namespace | Reach::OCloud | Reach::Secret => {}
        }
        if self.reach == Reach::Secret {
            let mut o_cloud = focom::o_cloud(REQUESTER, &self.name);
            o_cloud["spec"]["o2imsSecret"]["secretRef"] = json!({"name": "site", "namespace": victim});
            let api = Api::<OCloud>::namespaced(smo.admin(), REQUESTER);
            api.patch(&self.name, &PatchParams::apply("user"), &Patch::Apply(&o_cloud)).await?;
        }
        let client = smo.admin();
        match &self.word {
            Word::Allowed(list) => self.allow(&client, list).await?,
            Word::OnNamespace(key, value) => annotate::<Namespace>(Api::all(client), victim, key, value).await?,
            Word::OnOwnNamespace(key) => annotate::<Namespace>(Api::all(client), REQUESTER, key, REQUESTER).await?,
            Word::OnOCloud(key) => {
                annotate::<OCloud>(Api::namespaced(client, REQUESTER), &self.name, key, REQUESTER).await?;
            }
            Word::OnSecret(key) => annotate::<Secret>(Api::namespaced(client, victim), "site", key, REQUESTER).await?,
            Word::OnRequest(_) | Word::Absent => {}
        }
        let mut request = self.request();
        if let Word::OnRequest(key) = &self.word {
            request["metadata"]["annotations"] = json!({ *key: REQUESTER });
        }
        let api = Api::<FocomProvisioningRequest>::namespaced(smo.admin(), REQUESTER);
        api.patch(&self.name, &PatchParams::apply("user"), &Patch::Apply(&request)).await?;
        Ok(())
    }

    fn request(&self) -> Value {
        let (o_cloud, namespace) = match self.reach {
            Reach::OCloud => ("site", self.victim.as_str()),
            Reach::Secret => (self.name.as_str(), REQUESTER),
            Reach::Namespace => (names::LOCAL_O_CLOUD, self.victim.as_str()),
        };
        json!({
            "apiVersion": "focom.nephio.org/v1alpha1", "kind": "FocomProvisioningRequest",
            "metadata": {"name": self.name, "namespace": REQUESTER},
            "spec": {
                "oCloudId": o_cloud, "oCloudNamespace": namespace, "templateName": "t", "templateVersion": "v1",
                "templateParameters": {"clusterName": "c", "k8sVersion": "v1.33.1", "hosts": {"masters": [{"hostId": 1, "hostName": "h"}]}},
            },
        })
    }

    async fn allow(&self, client: &Client, list: &[&str]) -> Outcome {
        let api = Api::<OCloud>::namespaced(client.clone(), &self.victim);
        let change = json!({"spec": {"allowedNamespaces": list}});
        api.patch("site", &PatchParams::default(), &Patch::Merge(&change)).await?;
        Ok(())
    }

    /// What the requester is told, with what tells one try from another taken out.
    async fn refused(&self, mallory: &Tenant) -> anyhow::Result<String> {
        let (phase, words) = match self.reach {
            Reach::OCloud => ("Failed", "may use no OCloud"),
            Reach::Secret => ("Pending", "are not for OClouds of namespace"),
            Reach::Namespace => ("Failed", "is not for requests of namespace"),
        };
        let told = mallory.until(&self.name, phase, words, SOON).await?.status.context("a status")?;
        ensure!(told.remote_name.is_none() && told.provisioning_status.is_none(), "{self:?} got through: {told:?}");
        Ok(told.message.replace(&self.victim, "VICTIM").replace(&self.name, "NAME"))
    }

    /// The owner's word.
    async fn grant(&self, parts: &Parts) -> Outcome {
        let client = parts.smo.admin();
        match self.reach {
            Reach::OCloud => self.allow(&client, &["other", REQUESTER]).await,
            Reach::Secret => {
                let grant = format!("other, {REQUESTER}");
                annotate::<Namespace>(Api::all(client), &self.victim, names::SECRETS_FOR_ANNOTATION, &grant).await
            }
            Reach::Namespace => {
                let grant = format!("{REQUESTER},other");
                annotate::<Namespace>(Api::all(client), &self.victim, names::REQUESTS_FROM_ANNOTATION, &grant).await
            }
        }
    }
}

impl std::fmt::Debug for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?}, {:?})", self.name, self.reach, self.word)
    }
}

async fn make_namespace(management: &ManagementCluster, name: &str) -> Outcome {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    Api::<Namespace>::all(management.admin()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

async fn put(client: Client, namespace: &str, version: &str, kind: &str, name: &str, mut object: Value) -> Outcome {
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    object["metadata"] = json!({"name": name, "namespace": namespace});
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, kind));
    let api = Api::<kube::core::DynamicObject>::namespaced_with(client, namespace, &resource);
    api.patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

async fn annotate<K>(api: Api<K>, name: &str, key: &str, value: &str) -> Outcome
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let change = json!({"metadata": {"annotations": {key: value}}});
    api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    Ok(())
}

/// What the operator asked of a namespace, beside what it does there for its owner: the link to the owner's own OCloud.
fn asked_of(parts: &Parts, attempt: &Attempt) -> anyhow::Result<Vec<String>> {
    let mut asked = Vec::new();
    let for_the_owner =
        |resource: &str| attempt.reach == Reach::OCloud && ["secrets", "oclouds", "events"].contains(&resource);
    for (management, user) in
        [(&parts.smo, OPERATOR_USER), (&parts.site_a.management, SMO_USER), (&parts.site_b.management, SMO_USER)]
    {
        for entry in management.audit_log().entries()? {
            if entry.user == user && entry.namespace == attempt.victim && !for_the_owner(&entry.resource) {
                asked.push(format!("{} {}", entry.verb, entry.uri));
            }
        }
    }
    Ok(asked)
}

async fn nothing_of_others_is_used(world: Arc<World>) -> Outcome {
    let mallory = Tenant::bare(&world, REQUESTER).await?;
    let parts = Arc::clone(&mallory.parts);
    let attempts: Vec<_> = attempts()
        .into_iter()
        .enumerate()
        .map(|(number, (reach, word))| Attempt {
            reach,
            word,
            victim: format!("victim-{number}"),
            name: format!("try-{number}"),
        })
        .collect();
    for attempt in &attempts {
        attempt.set_up(&parts).await.with_context(|| format!("{attempt:?}"))?;
    }
    let mut told = Vec::new();
    for attempt in &attempts {
        told.push((attempt.reach, attempt.refused(&mallory).await?));
    }
    for attempt in &attempts {
        let asked = asked_of(&parts, attempt)?;
        ensure!(asked.is_empty(), "{attempt:?}: {asked:?}");
    }
    // Whatever the owner has or wrote, the requester reads the same.
    for (reach, message) in &told {
        let first = told.iter().find(|(other, _)| other == reach).map(|(_, first)| first);
        ensure!(Some(message) == first, "{reach:?} tells more: {message:?} and {first:?}");
    }
    for attempt in attempts.iter().filter(|attempt| !matches!(attempt.word, Word::Absent)) {
        attempt.grant(&parts).await.with_context(|| format!("{attempt:?}"))?;
    }
    for attempt in attempts.iter().filter(|attempt| !matches!(attempt.word, Word::Absent)) {
        mallory.until(&attempt.name, "Synced", "", SOON).await.with_context(|| format!("granted {attempt:?}"))?;
    }
    mallory.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for attempt in &attempts {
        mallory.until_gone(&attempt.name, SOON).await?;
    }
    Ok(())
}

async fn a_grant_that_is_taken_back(world: Arc<World>) -> Outcome {
    let (owner, user) = (Tenant::new(&world, "owner").await?, Tenant::bare(&world, "guest").await?);
    let allow = async |list: &[&str]| -> Outcome {
        let change = json!({"spec": {"allowedNamespaces": list}});
        owner.o_clouds().patch("site-b", &PatchParams::default(), &Patch::Merge(&change)).await?;
        Ok(())
    };
    let mut request = user.request("visit", "site-b", &[1], &[]);
    request["spec"]["oCloudNamespace"] = json!("owner");
    allow(&["guest"]).await?;
    user.apply(&request).await?;
    user.until("visit", "Synced", "", SOON).await?;
    allow(&[]).await?;
    user.until("visit", "Failed", "may use no OCloud", SOON).await?;
    let (site_b, mark) = (&owner.parts.site_b.management, owner.parts.site_b.management.audit_log().mark()?);
    request["spec"]["description"] = json!("changed after the grant was taken back");
    let changed = user.apply(&request).await?;
    // The status speaks of the changed request, so it was looked at.
    let looked_at = |found: Option<&FocomProvisioningRequest>| {
        found.and_then(|found| found.status.as_ref()?.observed_generation) == changed.metadata.generation
    };
    sandbox::waiting::wait(user.requests(), "visit", "a look at the change", SOON, looked_at).await?;
    user.delete("visit").await?;
    user.until("visit", "Deleting", "may use no OCloud", SOON).await?;
    let written: Vec<_> = site_b
        .audit_log()
        .since(&mark)?
        .into_iter()
        .filter(|entry| entry.user == SMO_USER && entry.namespace == "owner")
        .collect();
    ensure!(written.is_empty(), "asked of the O-Cloud without the grant: {written:?}");
    allow(&["guest"]).await?;
    user.until_gone("visit", SOON).await?;
    ensure!(owner.remote_names(site_b).await?.is_empty());
    Ok(())
}

async fn what_has_the_name_is_never_taken_over(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "names").await?;
    let site_b = &tenant.parts.site_b.management;
    // What this SMO marks its own with.
    tenant.apply(&tenant.request("own", "site-b", &[1], &[])).await?;
    tenant.until("own", "Synced", "", SOON).await?;
    let smo =
        tenant.remote(site_b).get("own-o2ims").await?.labels().get(names::SMO_LABEL).cloned().context("a mark")?;
    let cases = [
        ("by-hand", json!({})),
        ("other-smo", json!({names::SMO_LABEL: "another", names::SOURCE_UID_LABEL: "u"})),
        ("other-request", json!({names::SMO_LABEL: smo, names::SOURCE_UID_LABEL: "u"})),
        (
            "no-uid",
            json!({names::SMO_LABEL: smo, names::SOURCE_LABEL: "no-uid", names::SOURCE_NAMESPACE_LABEL: "names"}),
        ),
        ("empty-uid", json!({names::SMO_LABEL: smo, names::SOURCE_UID_LABEL: ""})),
        (
            "same-source",
            json!({names::SMO_LABEL: smo, names::SOURCE_LABEL: "same-source", names::SOURCE_NAMESPACE_LABEL: "names", names::SOURCE_UID_LABEL: "u"}),
        ),
    ];
    let remote = tenant.remote(site_b);
    let mut versions = Vec::new();
    for (name, labels) in &cases {
        let object: ProvisioningRequest = serde_json::from_value(json!({
            "apiVersion": "o2ims.provisioning.oran.org/v1alpha1", "kind": "ProvisioningRequest",
            "metadata": {"name": format!("{name}-o2ims"), "labels": labels},
            "spec": {"templateName": "theirs", "templateVersion": "v1", "templateParameters": {
                "clusterName": name, "k8sVersion": "v1.33.1", "hosts": {"masters": [{"hostId": 1, "hostName": "h"}]},
            }},
        }))?;
        versions.push(remote.create(&PostParams::default(), &object).await?.metadata.generation);
    }
    for (name, _) in &cases {
        tenant.apply(&tenant.request(name, "site-b", &[1], &[])).await?;
    }
    for (name, _) in &cases {
        let told =
            tenant.until(name, "Failed", "choose another metadata.name", SOON).await?.status.context("a status")?;
        ensure!(told.remote_name.is_none() && told.provisioning_status.is_none(), "{name}: {told:?}");
        tenant.delete(name).await?;
        tenant.until_gone(name, SOON).await?;
    }
    for ((name, labels), generation) in cases.iter().zip(versions) {
        let found = remote.get(&format!("{name}-o2ims")).await?;
        ensure!(
            found.metadata.deletion_timestamp.is_none() && found.metadata.generation == generation,
            "{name} was touched"
        );
        ensure!(found.spec.template_name == "theirs" && json!(found.labels()) == *labels, "{name} was changed");
        remote.delete(&format!("{name}-o2ims"), &DeleteParams::default()).await?;
        tenant.until_remote(site_b, &format!("{name}-o2ims"), false).await?;
    }
    // The same way is open when the name is free.
    for (name, _) in &cases {
        tenant.apply(&tenant.request(name, "site-b", &[1], &[])).await?;
        tenant.until(name, "Synced", "", SOON).await?;
    }

    // Who waits for a name goes on when it is free.
    let taken: ProvisioningRequest = serde_json::from_value(json!({
        "metadata": {"name": "waits-o2ims", "labels": {names::SMO_LABEL: smo, names::SOURCE_UID_LABEL: "u"}},
        "spec": {"templateName": "theirs", "templateVersion": "v1", "templateParameters": {
            "clusterName": "waits", "k8sVersion": "v1.33.1", "hosts": {"masters": [{"hostId": 1, "hostName": "h"}]},
        }},
    }))?;
    remote.create(&PostParams::default(), &taken).await?;
    tenant.apply(&tenant.request("waits", "site-b", &[1], &[])).await?;
    tenant.until("waits", "Failed", "choose another metadata.name", SOON).await?;
    remote.delete("waits-o2ims", &DeleteParams::default()).await?;
    tenant.until("waits", "Synced", "", SOON).await?;

    // Two tenants, one name, one namespace on the O-Cloud.
    let other = Tenant::bare(&world, "namesake").await?;
    let change = json!({"spec": {"allowedNamespaces": ["namesake"]}});
    tenant.o_clouds().patch("site-b", &PatchParams::default(), &Patch::Merge(&change)).await?;
    let mut second = other.request("own", "site-b", &[2], &[]);
    second["spec"]["oCloudNamespace"] = json!("names");
    other.apply(&second).await?;
    let told = other
        .until("own", "Failed", "exists on O-Cloud names/site-b and is not this request's", SOON)
        .await?
        .status
        .context("a status")?;
    ensure!(told.provisioning_status.is_none(), "the state is the other tenant's: {told:?}");
    other.delete("own").await?;
    other.until_gone("own", SOON).await?;
    tenant.until("own", "Synced", "", SOON).await?;
    ensure!(
        remote.get("own-o2ims").await?.metadata.deletion_timestamp.is_none(),
        "the other tenant's deletion went through"
    );

    tenant.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for (name, _) in &cases {
        tenant.until_gone(name, SOON).await?;
    }
    tenant.until_gone("waits", SOON).await?;
    tenant.until_gone("own", SOON).await
}

async fn names_that_are_paths_do_not_get_in(world: Arc<World>) -> Outcome {
    let tenant = Tenant::bare(&world, "paths").await?;
    let tricks = [
        "",
        "..",
        "../kube-system",
        "../../api/v1/namespaces/kube-system/secrets",
        "kube-system/secrets",
        "a/b",
        "a?b",
        "a#b",
        "a%2fb",
        "%2e%2e",
        "a b",
        "a\nb",
        "A",
        "ü",
        "-a",
        "a-",
        "a..b",
        "*",
    ];
    let wrong = |field: &str, answer: kube::Result<()>, trick: &str| -> Outcome {
        let told = answer.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(told.contains(field), "{field} {trick:?}: {told:?}");
        Ok(())
    };
    for trick in tricks {
        for field in ["oCloudId", "oCloudNamespace"] {
            let mut request = tenant.request("trick", "site", &[1], &[]);
            request["spec"][field] = json!(trick);
            wrong(field, tenant.apply(&request).await.map(drop), trick)?;
        }
        for field in ["name", "namespace"] {
            let mut o_cloud = focom::o_cloud(&tenant.namespace, "trick");
            o_cloud["spec"]["o2imsSecret"]["secretRef"][field] = json!(trick);
            let params = PatchParams::apply("user");
            let answer = tenant.o_clouds().patch("trick", &params, &Patch::Apply(&o_cloud)).await.map(drop);
            wrong(&format!("secretRef.{field}"), answer, trick)?;
        }
    }
    let mut request = tenant.request(&"a".repeat(64), "site", &[1], &[]);
    request["metadata"]["name"] = json!("a".repeat(64));
    wrong("metadata.name", tenant.apply(&request).await.map(drop), "64 characters")
}

async fn hosts_of_other_namespaces(world: Arc<World>) -> Outcome {
    let owner = Tenant::bare(&world, "host-owner").await?;
    owner.equip(2).await?;
    let thief = Tenant::new(&world, "host-thief").await?;
    thief.equip(0).await?;
    for (name, id, host) in
        [("by-name", 99, "host-owner-1"), ("by-id", 1, "host-thief-1"), ("by-both", 1, "host-owner-1")]
    {
        let mut request = thief.request(name, "site-a", &[], &[]);
        request["spec"]["templateParameters"]["hosts"] = json!({"masters": [{"hostId": id, "hostName": host}]});
        thief.apply(&request).await?;
        thief.until(name, "Synced", "is not registered", SOON).await?;
    }
    hosts_untouched(&owner).await?;
    thief.requests().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    for name in ["by-name", "by-id", "by-both"] {
        thief.until_gone(name, SOON).await?;
    }
    Ok(())
}

/// Fails if a host of the namespace carries a mark of the O2IMS operator.
async fn hosts_untouched(owner: &Tenant) -> Outcome {
    let hosts = sandbox::inventory::hosts(owner.parts.site_a.management.admin(), &owner.namespace);
    for host in hosts.list(&ListParams::default()).await? {
        let mut marks = host.labels().keys().chain(host.annotations().keys());
        ensure!(!marks.any(|mark| mark.contains("o2ims")), "{} is marked", host.name_any());
    }
    Ok(())
}
