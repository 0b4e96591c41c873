//! What a schema may cost. Whoever may write a template is not whoever runs the operator, and a few references that double each
//! other, or lead back to themselves, would keep it busy for ever.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::SchemaError;

/// Parts of a schema, each counted as often as it is referred to.
const PARTS_MAX: u64 = 20_000;
/// How deep a schema may be, references followed.
const DEPTH_MAX: usize = 64;

/// # Errors
/// When the schema is too large or too deep, or refers to itself or to anything but its own parts.
pub fn check(schema: &Value) -> Result<(), SchemaError> {
    let parts = Counter { root: schema, known: HashMap::new(), open: Vec::new() }.parts(schema, 0)?;
    if parts > PARTS_MAX {
        Err(refused("it is too large, references counted as often as they are used"))
    } else {
        Ok(())
    }
}

fn refused(why: &str) -> SchemaError {
    SchemaError(why.to_owned())
}

struct Counter<'a> {
    root: &'a Value,
    /// What each reference leads to.
    known: HashMap<&'a str, u64>,
    /// References that are being followed.
    open: Vec<&'a str>,
}

impl<'a> Counter<'a> {
    fn parts(&mut self, part: &'a Value, depth: usize) -> Result<u64, SchemaError> {
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

    fn referred(&mut self, to: &'a str, depth: usize) -> Result<u64, SchemaError> {
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
