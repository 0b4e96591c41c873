//! The policies in `deploy/` are those of [`o2ims_types::rules::admission_policies`].
//! `UPDATE_CRDS=1 cargo test -p o2ims-types --test policies` writes them again.

use std::path::Path;

use serde_json::Value;

const HEADER: &str = "\
# What may not change on a request, what may not be deleted, how new objects may be called, and, on an O-Cloud, which values a new cluster
# may have. Refused with 403: after that no tool deletes an object and creates it again.
# Generated from crates/o2ims-types. Do not edit: UPDATE_CRDS=1 cargo test -p o2ims-types --test policies
";

#[test]
fn the_shipped_policies_are_generated_from_the_rules() {
    for (operator, policies) in [
        ("o2ims-operator", o2ims_types::rules::admission_policies::o_cloud()),
        ("focom-operator", o2ims_types::rules::admission_policies::smo()),
    ] {
        let documents: Vec<_> = policies.iter().map(|policy| serde_saphyr::to_string(policy).unwrap()).collect();
        let text = format!("{HEADER}{}", documents.join("---\n"));
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(operator).join("request-policy.yaml");
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let shipped = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(shipped == text, "{} differs from the rules; its header says what to run", path.display());
        let read: Vec<Value> = serde_saphyr::from_multiple(&shipped).unwrap();
        assert_eq!(read, policies);
    }
}

/// Flux deletes and makes anew where an answer has such words, whatever its code (`fluxcd/pkg`, `ssa/errors`).
#[test]
fn no_message_reads_like_a_field_that_can_only_change_with_a_new_object() {
    let policies =
        [o2ims_types::rules::admission_policies::o_cloud(), o2ims_types::rules::admission_policies::smo()].concat();
    let mut messages = 0;
    for validation in policies.iter().filter_map(|policy| policy["spec"]["validations"].as_array()).flatten() {
        for message in ["message", "messageExpression"].iter().filter_map(|key| validation[key].as_str()) {
            messages += 1;
            assert!(!message.contains("immutable") && !message.contains('\n'), "{message}");
        }
        let update = validation["reason"] == "Forbidden";
        assert!(update || validation["reason"] == "Invalid", "no reason: {validation}");
    }
    assert!(messages > 20);
}

/// Every other parameter is one that the operator does not know.
#[test]
fn the_known_parameters_are_those_of_the_crd() {
    let crds = o2ims_types::crd::all().unwrap();
    let request = crds.iter().find(|crd| crd["spec"]["names"]["kind"] == "ProvisioningRequest").unwrap();
    let parameters = &request["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["templateParameters"];
    let properties = parameters["properties"].as_object().unwrap();
    let mut known = o2ims_types::rules::PARAMETERS;
    known.sort_unstable();
    let mut described: Vec<_> = properties.keys().map(String::as_str).collect();
    described.sort_unstable();
    assert_eq!(described, known);
    assert_eq!(parameters["x-kubernetes-preserve-unknown-fields"], true);
}
