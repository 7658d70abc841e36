//! Logs by offset: what agents ship is stored in blobs and shown live. In the making.

use crate::state::Shared;
use utoipa_axum::router::OpenApiRouter;

/// What is known of logs that are still growing, and who reads them.
#[derive(Debug, Default)]
pub struct LogHub {}

/// The routes of logs, by their full paths.
pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
}
