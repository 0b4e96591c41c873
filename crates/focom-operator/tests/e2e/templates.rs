//! Parameters are checked at the SMO as the O-Cloud would check them.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use o2ims_types::{ClusterTemplate, TemplateInfo};
use sandbox::waiting::wait;
use serde_json::{Value, json};

use crate::harness::{Outcome, SOON, Scenario, Tenant, World, beside};

/// All of them.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        beside("the_smo_and_the_o_cloud_say_the_same_of_wrong_parameters", the_same_is_said),
        beside("a_broken_schema_is_the_templates_fault", a_broken_schema),
    ]
}

const SCHEMA: &str = "
type: object
required: [site]
properties:
  site:
    type: object
    required: [name]
    properties:
      rack: {type: integer, minimum: 1}
  zone: {enum: [north, south]}
";

async fn put_template_info(tenant: &Tenant, name: &str, template: &str, schema: &str) -> Outcome {
    let object = json!({
        "apiVersion": "provisioning.oran.org/v1alpha1", "kind": "TemplateInfo", "metadata": {"name": name},
        "spec": {"templateName": template, "templateVersion": "v1", "templateParameterSchema": schema},
    });
    let api = Api::<TemplateInfo>::namespaced(tenant.client(), &tenant.namespace);
    api.patch(name, &PatchParams::apply("user").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

async fn until_template(tenant: &Tenant, name: &str, ready: &str) -> anyhow::Result<String> {
    let api = Api::<TemplateInfo>::namespaced(tenant.client(), &tenant.namespace);
    let condition = |found: &TemplateInfo| {
        let conditions = &found.status.as_ref()?.conditions;
        let current = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == ready)?;
        (current.observed_generation == found.metadata.generation).then(|| current.message.clone())
    };
    let reached = |found: Option<&TemplateInfo>| found.and_then(condition).is_some();
    let found = wait(api, name, &format!("TemplateInfo {name} to be Ready={ready}"), SOON, reached).await?;
    found.as_ref().and_then(condition).context("gone")
}

/// A request for a template with these parameters beside a cluster's.
fn request(tenant: &Tenant, name: &str, template: &str, more: &Value) -> Value {
    let mut request = tenant.request(name, "site-a", &[1], &[]);
    request["spec"]["templateName"] = json!(template);
    request["spec"]["templateVersion"] = json!("v1");
    template_schema::overlay(&mut request["spec"]["templateParameters"], more.clone());
    request
}

async fn the_same_is_said(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "schemas").await?;
    // The O-Cloud's template, and what the SMO knows of it; another name for it lets the same parameters through to the O-Cloud.
    for name in ["known", "unknown"] {
        let mut template: Value = serde_saphyr::from_str(sandbox::installation::TEMPLATE)?;
        template["metadata"] = json!({"name": format!("{name}-v1"), "namespace": tenant.namespace});
        template["spec"]["name"] = json!(name);
        template["spec"]["version"] = json!("v1");
        template["spec"]["parameterSchema"] = serde_saphyr::from_str(SCHEMA)?;
        let api = Api::<ClusterTemplate>::namespaced(tenant.parts.site_a.management.admin(), &tenant.namespace);
        api.patch(&format!("{name}-v1"), &PatchParams::apply("user"), &Patch::Apply(&template)).await?;
    }
    put_template_info(&tenant, "known-v1", "known", SCHEMA).await?;
    until_template(&tenant, "known-v1", "True").await?;
    let wrong = json!({"site": {"rack": 0}, "zone": "east"});
    tenant.apply(&request(&tenant, "at-the-smo", "known", &wrong)).await?;
    tenant.apply(&request(&tenant, "at-the-o-cloud", "unknown", &wrong)).await?;
    let here = tenant.until("at-the-smo", "Failed", "templateParameters", SOON).await?.status.context("a status")?;
    let there =
        tenant.until("at-the-o-cloud", "Failed", "templateParameters", SOON).await?.status.context("a status")?;
    let said = (
        here.message.strip_suffix(" (templateParameterSchema of TemplateInfo schemas/known-v1)"),
        there.message.strip_suffix(" (parameterSchema of ClusterTemplate unknown-v1)"),
    );
    ensure!(said.0.is_some() && said.0 == said.1, "the SMO says {:?}, the O-Cloud {:?}", here.message, there.message);
    for path in ["site: ", "site.rack: ", "zone: "] {
        ensure!(here.message.contains(&format!("templateParameters: {path}")), "{path:?} in {:?}", here.message);
    }
    ensure!(here.remote_name.is_none(), "it was sent all the same");
    ensure!(tenant.remote_names(&tenant.parts.site_a.management).await? == ["at-the-o-cloud-o2ims"]);

    // Put right, it goes on; a schema that changes later is not held against it.
    let right = json!({"site": {"name": "a", "rack": 1}, "zone": "south"});
    tenant.apply(&request(&tenant, "at-the-smo", "known", &right)).await?;
    tenant.until("at-the-smo", "Synced", "", SOON).await?;
    put_template_info(&tenant, "known-v1", "known", "{\"required\": [\"somethingNew\"]}").await?;
    until_template(&tenant, "known-v1", "True").await?;
    // What is new is held against it, so the new schema has come to effect.
    tenant.apply(&request(&tenant, "later", "known", &right)).await?;
    tenant.until("later", "Failed", "somethingNew", SOON).await?;
    tenant.until("at-the-smo", "Synced", "", SOON).await?;
    let mut changed = request(&tenant, "at-the-smo", "known", &right);
    changed["spec"]["description"] = json!("so that it has to be sent anew");
    tenant.apply(&changed).await?;
    tenant.until("at-the-smo", "Failed", "somethingNew", SOON).await?;
    for name in ["at-the-smo", "at-the-o-cloud", "later"] {
        tenant.delete(name).await?;
        tenant.until_gone(name, SOON).await?;
    }
    Ok(())
}

async fn a_broken_schema(world: Arc<World>) -> Outcome {
    let tenant = Tenant::new(&world, "broken-schema").await?;
    // A name by which Nephio's rule would not find it; and a schema, as JSON and as YAML, that is none.
    for (number, schema) in
        ["{\"type\": 5}", "type: [", "", "- a\n- list", "properties: {a: {pattern: \"(\"}}"].iter().enumerate()
    {
        let (name, template) = (format!("any-name-{number}"), format!("t{number}"));
        put_template_info(&tenant, &name, &template, schema).await?;
        let told = until_template(&tenant, &name, "False").await?;
        ensure!(told.contains("templateParameterSchema is not a JSON Schema"), "{schema:?}: {told}");
        let request_name = format!("wants-{number}");
        tenant.apply(&request(&tenant, &request_name, &template, &json!({}))).await?;
        tenant.until(&request_name, "Failed", &format!("TemplateInfo broken-schema/{name}"), SOON).await?;
        put_template_info(&tenant, &name, &template, "{}").await?;
        until_template(&tenant, &name, "True").await?;
        tenant.until(&request_name, "Synced", "", SOON).await?;
        tenant.delete(&request_name).await?;
        tenant.until_gone(&request_name, SOON).await?;
    }
    Ok(())
}
