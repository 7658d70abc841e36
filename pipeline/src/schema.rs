//! The JSON Schema of the pipeline file, for editors.

/// JSON Schema, draft 2020-12, of what [`crate::compile`] accepts.
#[must_use]
pub fn schema() -> serde_json::Value {
    serde_json::json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object" })
}
