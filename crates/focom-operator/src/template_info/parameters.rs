//! Checks the parameters of a request against a template's schema.

use o2ims_types::TemplateInfoSpec;
use o2ims_types::schema::{self, TemplateError};
use serde_json::{Map, Value};

/// What is wrong with the parameters of a request, one text for each violation.
///
/// # Errors
/// When the template's schema is not a usable JSON Schema.
pub fn violations(template: &TemplateInfoSpec, parameters: &Map<String, Value>) -> Result<Vec<String>, TemplateError> {
    schema::check(&Value::Object(parameters.clone()), &template.schema()?)
}
