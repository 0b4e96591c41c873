//! Parameters over the defaults of a template.

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_wins_over_defaults_and_lists_are_replaced() {
        let defaults = json!({"podCidr": "10.0.0.0/16", "labels": {"a": "1", "b": "1"}, "list": [1, 2]});
        let merged = with_defaults(json!({"labels": {"b": "2"}, "list": [3]}), Some(&defaults));
        assert_eq!(merged, json!({"podCidr": "10.0.0.0/16", "labels": {"a": "1", "b": "2"}, "list": [3]}));
    }
}
