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

/// Most violations that are listed.
const VIOLATIONS_MAX: usize = 20;

/// Checks `templateParameters` against a template's JSON Schema: violations, each with the path of the field; none when all is
/// well. The SMO and the O-Cloud use the same words.
///
/// Patterns are matched in linear time, so some forms (look-around, back references) are none.
///
/// # Errors
/// When the schema itself is not one.
pub fn check(parameters: &Value, schema: &Value) -> Result<Vec<String>, TemplateError> {
    cost::check(schema)?;
    let validator = jsonschema::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map_err(|error| TemplateError(error.to_string().chars().take(300).collect()))?;
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

mod cost {
    //! What a schema may cost. Whoever may write a template is not whoever runs the operator, and a few references that double each
    //! other, or lead back to themselves, would keep it busy for ever.

    use std::collections::HashMap;

    use serde_json::Value;

    use super::TemplateError;

    /// Parts of a schema, each counted as often as it is referred to.
    const PARTS_MAX: u64 = 20_000;
    /// How deep a schema may be, references followed.
    const DEPTH_MAX: usize = 64;

    /// # Errors
    /// When the schema is too large or too deep, or refers to itself or to anything but its own parts.
    pub fn check(schema: &Value) -> Result<(), TemplateError> {
        let parts = Counter { root: schema, known: HashMap::new(), open: Vec::new() }.parts(schema, 0)?;
        if parts > PARTS_MAX {
            Err(refused("it is too large, references counted as often as they are used"))
        } else {
            Ok(())
        }
    }

    fn refused(why: &str) -> TemplateError {
        TemplateError(why.to_owned())
    }

    struct Counter<'a> {
        root: &'a Value,
        /// What each reference leads to.
        known: HashMap<&'a str, u64>,
        /// References that are being followed.
        open: Vec<&'a str>,
    }

    impl<'a> Counter<'a> {
        fn parts(&mut self, part: &'a Value, depth: usize) -> Result<u64, TemplateError> {
            if depth > DEPTH_MAX {
                return Err(refused("it is too deep"));
            }
            let mut sum = 1_u64;
            match part {
                Value::Object(fields) => {
                    for (key, value) in fields {
                        let parts = match (key.as_str(), value) {
                            ("$ref", Value::String(to)) => self.referred(to, depth)?,
                            ("$dynamicRef" | "$recursiveRef", _) => return Err(refused("it has a dynamic reference")),
                            _ => self.parts(value, depth + 1)?,
                        };
                        sum = sum.saturating_add(parts);
                    }
                }
                Value::Array(items) => {
                    for item in items {
                        sum = sum.saturating_add(self.parts(item, depth + 1)?);
                    }
                }
                _ => {}
            }
            Ok(sum)
        }

        fn referred(&mut self, to: &'a str, depth: usize) -> Result<u64, TemplateError> {
            if let Some(parts) = self.known.get(to) {
                return Ok(*parts);
            }
            if self.open.contains(&to) {
                return Err(refused("a $ref leads back to itself"));
            }
            let target = to.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            let target = target.ok_or_else(|| refused("a $ref leads to nothing in it, such as #/$defs/name"))?;
            if std::ptr::eq(target, self.root) {
                return Err(refused("a $ref leads back to itself"));
            }
            self.open.push(to);
            let parts = self.parts(target, depth + 1)?;
            self.open.pop();
            self.known.insert(to, parts);
            Ok(parts)
        }
    }
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
