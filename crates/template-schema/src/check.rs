//! Parameters against the schema of a template.

use serde_json::Value;

use crate::cost;
use crate::error::SchemaError;

/// Most violations that are listed.
const VIOLATIONS_MAX: usize = 20;

/// Checks `templateParameters` against a template's JSON Schema: violations, each with the path of the field; none when all is
/// well. The SMO and the O-Cloud tell them with the same words.
///
/// Patterns are matched in linear time, so some forms (look-around, back references) are refused.
///
/// # Errors
/// When the schema is no schema, or costs too much.
pub fn check(parameters: &Value, schema: &Value) -> Result<Vec<String>, SchemaError> {
    cost::check(schema)?;
    let validator = jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map_err(|error| SchemaError(error.to_string().chars().take(300).collect()))?;
    Ok(validator
        .iter_errors(parameters)
        .take(VIOLATIONS_MAX)
        .map(|error| {
            let path = error.instance_path().to_string();
            let path = path.trim_start_matches('/').replace('/', ".");
            let message: String = error.to_string().chars().take(300).collect();
            if path.is_empty() { message } else { format!("{path}: {message}") }
        })
        .map(|violation| format!("templateParameters: {violation}"))
        .collect())
}

/// The schema that is written as JSON or YAML.
///
/// # Errors
/// When the text is neither.
pub fn parse(text: &str) -> Result<Value, SchemaError> {
    // JSON is YAML too.
    serde_saphyr::from_str(text)
        .map_err(|error| SchemaError(error.to_string().lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn violations_name_the_field() {
        let schema = json!({"properties": {"site": {"type": "object", "properties": {"rack": {"type": "integer"}}}}});
        let violations = check(&json!({"site": {"rack": "a"}}), &schema).unwrap();
        assert_eq!(violations.len(), 1);
        assert!(violations[0].starts_with("templateParameters: site.rack: "), "{violations:?}");
        assert!(check(&json!({}), &json!({"type": 5})).is_err());
    }

    #[test]
    fn a_schema_that_costs_too_much_is_none() {
        let mut defs = serde_json::Map::new();
        for number in 0..60 {
            let next = json!({"$ref": format!("#/$defs/a{}", number + 1)});
            defs.insert(format!("a{number}"), json!({"allOf": [next.clone(), next]}));
        }
        defs.insert("a60".to_owned(), json!({"type": "object"}));
        let mut deep = json!({});
        for _ in 0..200 {
            deep = json!({"properties": {"a": deep}});
        }
        for (schema, why) in [
            (json!({"$ref": "#/$defs/a0", "$defs": defs}), "too"),
            (json!({"$ref": "#"}), "leads back"),
            (
                json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}),
                "leads back",
            ),
            (json!({"properties": {"a": {"$ref": "#"}}}), "leads back"),
            (json!({"$ref": "https://example.org/schema"}), "leads to nothing"),
            (json!({"$dynamicRef": "#a"}), "dynamic"),
            (deep, "too deep"),
            (json!({"properties": {"a": {"pattern": "(?=a)"}}}), ""),
        ] {
            let told = check(&json!({"a": "a"}), &schema).expect_err("refused").to_string();
            assert!(told.contains(why), "{told}");
        }
        let shared = json!({"properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}}});
        assert_eq!(check(&json!({"a": 1, "b": "x"}), &shared).unwrap().len(), 1);
    }
}
