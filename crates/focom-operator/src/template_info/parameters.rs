//! Checks the parameters of a request against a template's schema.

use o2ims_types::TemplateInfoSpec;
use serde_json::{Map, Value};
use template_schema::SchemaError;

/// What is wrong with the parameters of a request, one text for each violation.
///
/// # Errors
/// When the template's schema is not a usable JSON Schema.
pub fn violations(template: &TemplateInfoSpec, parameters: &Map<String, Value>) -> Result<Vec<String>, SchemaError> {
    template_schema::check(
        &Value::Object(parameters.clone()),
        &template_schema::parse(&template.template_parameter_schema)?,
    )
}
