//! The standard health service: a server serves while `/readyz` says that it is ready.
//!
//! Not here: what readiness is (`rest::system`).

use crate::rest::system::readiness;
use crate::state::Shared;
use futures::stream::{BoxStream, StreamExt, unfold};
use std::time::Duration;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often somebody who watches is told of a change at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The services that have a health; all have the server's, which is that of the empty name.
const SERVICES: [&str; 3] = ["", "buildflow.v1.RunService", "buildflow.v1.FleetService"];

/// The health of a server.
pub(super) struct HealthOf {
    server: Shared,
}

impl HealthOf {
    pub(super) fn new(server: Shared) -> Self {
        Self { server }
    }
}

#[tonic::async_trait]
impl Health for HealthOf {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !SERVICES.contains(&request.get_ref().service.as_str()) {
            return Err(Status::not_found("there is no such service here"));
        }
        Ok(Response::new(answer(serving(&self.server).await)))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.get_ref().service.as_str());
        let ended = self.server.deps.shutdown.clone().cancelled_owned();
        // One that watches a service that may come later is told so, and waits.
        let statuses = unfold((self.server.clone(), None), move |(server, told)| async move {
            let status = match known {
                true => changed(&server, told).await,
                false if told.is_none() => ServingStatus::ServiceUnknown,
                false => std::future::pending().await,
            };
            Some((Ok(answer(status)), (server, Some(status))))
        });
        Ok(Response::new(statuses.take_until(ended).boxed()))
    }
}

/// The next status that is another one than `told`.
async fn changed(server: &Shared, told: Option<ServingStatus>) -> ServingStatus {
    loop {
        let status = serving(server).await;
        if told != Some(status) {
            return status;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn serving(server: &Shared) -> ServingStatus {
    if !server.deps.shutdown.is_cancelled() && readiness(server).await.ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
