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

/// Checks `templateParameters` against a template's JSON Schema: every violation, each with the path of the field; none
/// when all is well. The SMO and the O-Cloud use the same words.
///
/// # Errors
/// When the schema itself is not one.
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
        .map(|violation| format!("templateParameters: {violation}"))
        .collect())
}

/// What a template gives as the schema of its parameters is none; the text goes behind the field's name.
#[derive(Debug)]
pub struct TemplateError(pub String);

impl std::fmt::Display for TemplateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "is not a JSON Schema: {}", self.0)
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
        assert!(violations[0].starts_with("templateParameters: site.rack: "), "{violations:?}");
        assert!(check(&json!({}), &json!({"type": 5})).is_err());
    }
}
