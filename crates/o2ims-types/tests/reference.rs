//! `docs/reference.md` is what the CRDs say. `UPDATE_DOCS=1 cargo test -p o2ims-types --test reference` writes it anew.

#![allow(clippy::unwrap_used, reason = "in a test it is the message")]

use std::fmt::Write as _;
use std::path::Path;

use o2ims_types::rules::{Form, Frozen, admission_policies};
use serde_json::Value;

const HEADER: &str = "\
<!-- Generated from the CRDs. Do not edit: UPDATE_DOCS=1 cargo test -p o2ims-types --test reference -->
# The resources, field by field

What the API server checks stands here; what takes more than one object to know is checked by the operators and told in the
status: [the O2IMS operator](o2ims-operator.md), [the FOCOM operator](focom-operator.md). `*` marks a field that is required;
`[]` an element of a list.

";

#[test]
fn the_reference_is_generated_from_the_crds() {
    let mut text = HEADER.to_owned();
    for crd in o2ims_types::crd::all().unwrap() {
        resource(&crd, &mut text);
    }
    let text = format!("{}\n", text.trim_end());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shipped == text, "docs/reference.md differs: UPDATE_DOCS=1 cargo test -p o2ims-types --test reference");
}

fn resource(crd: &Value, out: &mut String) {
    let (names, version) = (&crd["spec"]["names"], &crd["spec"]["versions"][0]);
    let schema = &version["schema"]["openAPIV3Schema"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let short: Vec<_> =
        names["shortNames"].as_array().into_iter().flatten().map(|name| format!("`{}`", word(name))).collect();
    writeln!(out, "## {}\n", word(&names["kind"])).unwrap();
    write!(
        out,
        "`{}/{}`, {}",
        word(&crd["spec"]["group"]),
        word(&version["name"]),
        word(&crd["spec"]["scope"]).to_lowercase()
    )
    .unwrap();
    if !short.is_empty() {
        write!(out, ", short name {}", short.join(", ")).unwrap();
    }
    writeln!(out, ".\n\n{}\n", line(&schema["description"])).unwrap();
    let mut rules = Vec::new();
    collect_rules("", schema, &mut rules);
    for part in ["spec", "status"] {
        let part_schema = &schema["properties"][part];
        if part_schema.is_null() {
            continue;
        }
        writeln!(out, "| `{part}` | type | |\n|---|---|---|").unwrap();
        fields("", part_schema, out);
        writeln!(out).unwrap();
    }
    if !rules.is_empty() {
        writeln!(out, "Refused by the API server with these words:\n").unwrap();
        for (path, message) in rules {
            let at = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
            writeln!(out, "* {at}{message}").unwrap();
        }
        writeln!(out).unwrap();
    }
    let transitions = admission_policies::transitions(&word(&names["kind"]));
    if !transitions.is_empty() {
        writeln!(out, "What may not change is refused with 403, with the old and the new value:\n").unwrap();
        for transition in transitions {
            let from = match transition.frozen {
                Frozen::Always => "",
                Frozen::OnceHostsAreHeld => ", once hosts are held",
            };
            let others = if transition.form == Form::OtherParameters { ".<any other>" } else { "" };
            writeln!(out, "* `{}{others}`{from}: {}", transition.path, transition.why).unwrap();
        }
        writeln!(out).unwrap();
    }
}

fn fields(path: &str, schema: &Value, out: &mut String) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let star = if required.contains(&name.as_str()) { "*" } else { "" };
        writeln!(out, "| `{path}`{star} | {} | {} |", kind(property), line(&property["description"])).unwrap();
        fields(&path, property, out);
        if !property["items"].is_null() {
            fields(&format!("{path}[]"), &property["items"], out);
        }
        if !property["additionalProperties"].is_null() {
            fields(&format!("{path}.<key>"), &property["additionalProperties"], out);
        }
    }
}

/// The type, with what limits it.
fn kind(schema: &Value) -> String {
    let mut text = match schema["type"].as_str() {
        Some("array") => format!("list of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map of {}", kind(&schema["additionalProperties"]))
        }
        Some(name) => name.to_owned(),
        None if schema["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        None => "any".to_owned(),
    };
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
        text = values.join(", ");
    }
    if !schema["default"].is_null() {
        write!(text, "; default `{}`", schema["default"].to_string().trim_matches('"')).unwrap();
    }
    let limits = [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minItems", "at least"),
        ("maxItems", "at most"),
        ("maxLength", "at most"),
    ];
    for (key, words) in limits {
        if let Some(number) = schema[key].as_f64() {
            let unit = match key {
                "maxLength" => " characters",
                "minItems" | "maxItems" => " elements",
                _ => "",
            };
            write!(text, "; {words} {number}{unit}").unwrap();
        }
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        write!(text, "; `{}`", pattern.replace('|', "\\|")).unwrap();
    }
    text
}

fn collect_rules(path: &str, schema: &Value, out: &mut Vec<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if let Some(message) = rule["message"].as_str() {
            out.push((path.to_owned(), message.to_owned()));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect_rules(&path, property, out);
    }
    if !schema["items"].is_null() {
        collect_rules(&format!("{path}[]"), &schema["items"], out);
    }
}

/// A description as a cell of a table.
fn line(description: &Value) -> String {
    let text = description.as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
