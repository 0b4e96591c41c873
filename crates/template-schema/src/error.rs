//! The error of a schema.

use std::fmt;

/// What a template has as the schema of its parameters is no schema. The text follows the name of the field.
#[derive(Debug)]
pub struct SchemaError(pub String);

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is not a JSON Schema: {}", self.0)
    }
}

impl std::error::Error for SchemaError {}
