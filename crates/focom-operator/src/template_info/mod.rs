//! A TemplateInfo: the schema that requests of a template are checked against.

pub mod parameters;
pub mod reconcile;
