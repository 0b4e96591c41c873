//! The parameters of a request against its template: defaults are filled in, then the template's JSON Schema is checked, with a limit on
//! what a schema may cost.

mod check;
mod cost;
mod error;
mod overlay;

pub use check::{check, parse};
pub use error::SchemaError;
pub use overlay::{overlay, with_defaults};
