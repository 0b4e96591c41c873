//! The corpus, as cases. Each test that compares something with it includes this file.

use o2ims_types::rules;
use serde_json::Value;

/// The rules that the corpus is about, with their messages.
pub const RULES: &[(&str, &str)] = &[
    ("CLUSTER_NAME", rules::CLUSTER_NAME.message),
    ("K8S_VERSION", rules::K8S_VERSION.message),
    ("POD_CIDR", rules::POD_CIDR.message),
    ("SERVICE_CIDR", rules::SERVICE_CIDR.message),
    ("CIDR_OVERLAP", rules::CIDR_OVERLAP.message),
    ("REQUIRED", rules::REQUIRED.message),
    ("MASTERS_ODD", rules::MASTERS_ODD.message),
    ("MASTERS_UNIQUE", rules::MASTERS_UNIQUE.message),
    ("WORKERS_UNIQUE", rules::WORKERS_UNIQUE.message),
    ("ROLES_DISJOINT", rules::ROLES_DISJOINT.message),
    ("HOST_ID_PRESENT", rules::HOST_ID_PRESENT.message),
    ("HOST_NAME_PRESENT", rules::HOST_NAME_PRESENT.message),
    ("HOST_NAME", rules::HOST_NAME.message),
    ("HOST_IP", rules::HOST_IP.message),
    ("ENDPOINT_HOST", rules::ENDPOINT_HOST.message),
    ("K8S_RELEASE", rules::K8S_RELEASE.message),
    ("POD_CIDR_RANGE", rules::POD_CIDR_RANGE.message),
    ("SERVICE_CIDR_RANGE", rules::SERVICE_CIDR_RANGE.message),
    ("SERVICE_CIDR_SIZE", rules::SERVICE_CIDR_SIZE.message),
    ("CIDR_FAMILY", rules::CIDR_FAMILY.message),
    ("ENDPOINT_ADDRESS", rules::ENDPOINT_ADDRESS.message),
    ("ENDPOINT_NAME", rules::ENDPOINT_NAME.message),
    ("ENDPOINT_OUTSIDE", rules::ENDPOINT_OUTSIDE.message),
];

/// One value of the corpus.
pub struct Case {
    /// The rule that it is about.
    pub rule: String,
    /// The value.
    pub value: Value,
    /// What a user is told of it; `None` if it is right.
    pub message: Option<&'static str>,
    parameters: Value,
}

impl Case {
    /// The parameters with the value in them.
    pub fn applied_to(&self, mut parameters: Value) -> Value {
        put(&mut parameters, &self.parameters, &self.value);
        parameters
    }
}

/// Every value of the corpus.
pub fn cases() -> Vec<Case> {
    let rules: Vec<Value> = serde_saphyr::from_str(include_str!("corpus.yaml")).expect("YAML");
    let mut cases = Vec::new();
    for entry in rules {
        let rule = entry["rule"].as_str().expect("a rule");
        let (_, message) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule of RULES");
        for (values, message) in [(&entry["right"], None), (&entry["wrong"], Some(*message))] {
            for value in values.as_array().expect("values") {
                let parameters = entry["parameters"].clone();
                cases.push(Case { rule: rule.to_owned(), value: value.clone(), message, parameters });
            }
        }
    }
    cases
}

/// Puts `parameters` over those of the request, with the value for `{}`; a value that is null takes its field away.
pub fn put(request: &mut Value, parameters: &Value, value: &Value) {
    match parameters {
        Value::String(text) if text == "{}" => *request = value.clone(),
        Value::Object(fields) => {
            for (name, field) in fields {
                put(&mut request[name], field, value);
                if request[name].is_null() {
                    request.as_object_mut().expect("an object").remove(name);
                }
            }
        }
        Value::Array(items) => {
            let filled = items.iter().map(|item| {
                let mut filled = Value::Null;
                put(&mut filled, item, value);
                filled
            });
            *request = filled.collect();
        }
        plain => *request = plain.clone(),
    }
}
