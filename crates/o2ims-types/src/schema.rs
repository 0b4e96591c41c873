//! Parameters against a template: defaults are filled in, then the template's schema is checked.

use serde_json::Value;

/// `parameters` over `defaults`: objects are merged, everything else is replaced whole.
pub fn with_defaults(parameters: Value, defaults: Option<&Value>) -> Value {
    let Some(defaults) = defaults else { return parameters };
    let mut merged = defaults.clone();
    overlay(&mut merged, parameters);
    merged
}

/// Lays `over` onto `base`: objects are merged, everything else is replaced whole.
pub fn overlay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(slot) => overlay(slot, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// Checks `parameters` against a template's JSON Schema.
///
/// # Errors
/// `Err(TemplateError)` when the schema itself is not one; otherwise a list of violations, each with the path of the field,
/// empty when all is well.
pub fn check(parameters: &Value, schema: &Value) -> Result<Vec<String>, TemplateError> {
    let validator = jsonschema::validator_for(schema).map_err(|error| TemplateError(error.to_string()))?;
    Ok(validator
        .iter_errors(parameters)
        .map(|error| {
            let path = error.instance_path().to_string();
            let path = path.trim_start_matches('/').replace('/', ".");
            let message: String = error.to_string().chars().take(300).collect();
            if path.is_empty() { message } else { format!("{path}: {message}") }
        })
        .collect())
}

/// A template's `parameterSchema` is not a JSON Schema.
#[derive(Debug)]
pub struct TemplateError(pub String);

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "parameterSchema is not a JSON Schema: {}", self.0)
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_wins_over_defaults_and_lists_are_replaced() {
        let defaults = json!({"podCidr": "10.0.0.0/16", "labels": {"a": "1", "b": "1"}, "list": [1, 2]});
        let merged = with_defaults(json!({"labels": {"b": "2"}, "list": [3]}), Some(&defaults));
        assert_eq!(merged, json!({"podCidr": "10.0.0.0/16", "labels": {"a": "1", "b": "2"}, "list": [3]}));
    }

    #[test]
    fn violations_name_the_field() {
        let schema = json!({"properties": {"site": {"type": "object", "properties": {"rack": {"type": "integer"}}}}});
        let violations = check(&json!({"site": {"rack": "a"}}), &schema).unwrap();
        assert_eq!(violations.len(), 1);
        assert!(violations[0].starts_with("site.rack: "), "{violations:?}");
        assert!(check(&json!({}), &json!({"type": 5})).is_err());
    }
}
