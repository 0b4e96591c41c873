//! The CustomResourceDefinitions as they are shipped in `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use crate::conditions::NOT_OBSERVED;
use crate::{ClusterTemplate, FocomProvisioningRequest, OCloud, ProvisioningRequest, TemplateInfo};

/// Every CRD, as JSON: the O-Cloud's two, then the SMO's three.
///
/// # Errors
/// When a definition cannot be serialised, which is a defect.
pub fn all() -> Result<Vec<Value>, serde_json::Error> {
    [
        ProvisioningRequest::crd(),
        ClusterTemplate::crd(),
        FocomProvisioningRequest::crd(),
        OCloud::crd(),
        TemplateInfo::crd(),
    ]
    .iter()
    .map(shipped)
    .collect()
}

fn shipped(crd: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut crd = serde_json::to_value(crd)?;
    drop_nullable(&mut crd);
    let is_template = crd["spec"]["names"]["kind"] == "ClusterTemplate";
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"];
        // Nobody waits for a ClusterTemplate: an older operator, after a roll-back, would leave the default for ever.
        if status["properties"]["observedGeneration"].is_object() && !is_template {
            status["default"] = json!({"observedGeneration": NOT_OBSERVED});
        }
    }
    Ok(crd)
}

/// An optional field is left out, never `null`: with `nullable` every CEL rule would have to distinguish the two.
fn drop_nullable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            map.values_mut().for_each(drop_nullable);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nullable),
        _ => {}
    }
}
