//! The files in `crds/` are what the types say. `UPDATE_CRDS=1 cargo test -p o2ims-types --test crds` writes them anew.

use std::path::Path;

const HEADER: &str =
    "# Generated from crates/o2ims-types. Do not edit: UPDATE_CRDS=1 cargo test -p o2ims-types --test crds\n";

#[test]
fn the_shipped_crds_are_generated_from_the_types() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    for crd in o2ims_types::crd::all().unwrap() {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let text = format!("{HEADER}{}", serde_saphyr::to_string(&crd).unwrap());
        let path = directory.join(format!("{name}.yaml"));
        if std::env::var_os("UPDATE_CRDS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let shipped = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(shipped == text, "{} differs from the types; run: {}", path.display(), HEADER.trim());
    }
}

/// How server-side apply merges each list is said, not left to a default.
#[test]
fn every_list_has_a_list_type() {
    fn without_type(path: &str, schema: &serde_json::Value, out: &mut Vec<String>) {
        if schema["type"] == "array" && schema["x-kubernetes-list-type"].is_null() {
            out.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            without_type(&format!("{path}.{name}"), property, out);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                without_type(&format!("{path}[]"), &schema[inner], out);
            }
        }
    }
    let mut out = Vec::new();
    for crd in o2ims_types::crd::all().unwrap() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        without_type(kind, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut out);
    }
    assert_eq!(out, Vec::<String>::new());
}

#[test]
fn every_field_is_described() {
    fn undescribed(path: &str, schema: &serde_json::Value, out: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            for (name, property) in properties {
                let path = format!("{path}.{name}");
                if property["description"].as_str().is_none_or(str::is_empty) {
                    out.push(path.clone());
                }
                undescribed(&path, property, out);
            }
        }
        if !schema["items"].is_null() {
            undescribed(&format!("{path}[]"), &schema["items"], out);
        }
    }
    let mut out = Vec::new();
    for crd in o2ims_types::crd::all().unwrap() {
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for part in ["spec", "status"] {
            undescribed(part, &root[part], &mut out);
        }
    }
    assert_eq!(out, Vec::<String>::new());
}
