//! `buildflow.v1.RunService`: each call is translated, handed to the function behind the same route of
//! REST, and its answer translated back.
//!
//! Streams are read as fast as their readers read: nothing waits for a slow one but its own place.
//! Not here: what any call does.

use super::{asked, shown};
use crate::auth::Caller;
use crate::logs::{After, Piece, StepLogs, logs_of_run, open_tail, scope_of_run};
use crate::problem::{Answer, Problem};
use crate::rest::events::{self, Moment, Told};
use crate::rest::query::Asking;
use crate::rest::{runs, trigger};
use crate::state::Shared;
use crate::view::EventId;
use axum::http::HeaderMap;
use futures::stream::{BoxStream, Stream, StreamExt, iter, once};
use tonic::{Extensions, Request, Response, Status};
use wire::v1::run_service_server::RunService;
use wire::v1::{
    CancelRunReply, CancelRunRequest, GetRunRequest, ListRunsReply, ListRunsRequest, LogEvent, RetryRunReply,
    RetryRunRequest, Run, RunEvent, SubmitRunReply, SubmitRunRequest, TailLogsRequest, WatchRunRequest,
};

/// The service.
pub(super) struct Runs {
    server: Shared,
}

impl Runs {
    pub(super) fn new(server: Shared) -> Self {
        Self { server }
    }
}

type Events<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl RunService for Runs {
    async fn submit_run(&self, request: Request<SubmitRunRequest>) -> Result<Response<SubmitRunReply>, Status> {
        let (head, wish) = parts(request);
        let pipeline = asked::pipeline(&wish.team, &wish.pipeline)?;
        let (_, run) = trigger::submit(&self.server, pipeline, asked::create_run(wish)?, head.asking()?).await?;
        Ok(Response::new(shown::submitted(run)))
    }

    async fn get_run(&self, request: Request<GetRunRequest>) -> Result<Response<Run>, Status> {
        let run = asked::run_id(&request.get_ref().run_id)?;
        let detail = runs::one(&self.server, &run).await?;
        Ok(Response::new(shown::run(detail)))
    }

    async fn list_runs(&self, request: Request<ListRunsRequest>) -> Result<Response<ListRunsReply>, Status> {
        let wish = request.get_ref();
        let parameters = asked::parameters(wish)?;
        let list = match (wish.team.as_str(), wish.pipeline.as_str()) {
            ("", "") => runs::page(&self.server, parameters).await?,
            (team, name) if !team.is_empty() && !name.is_empty() => {
                runs::page_of_pipeline(&self.server, asked::pipeline(team, name)?, parameters).await?
            }
            _ => return Err(Problem::bad_field("pipeline", "name a team and a pipeline, or neither").into()),
        };
        Ok(Response::new(shown::list(list)))
    }

    type WatchRunStream = Events<RunEvent>;

    async fn watch_run(&self, request: Request<WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        let (head, wish) = parts(request);
        let run = asked::run_id(&wish.run_id)?;
        let after = match wish.after.as_str() {
            "" => None,
            id => Some(EventId::parse(id).ok_or_else(|| Problem::bad_field("after", "is not an id of this stream"))?),
        };
        Ok(Response::new(
            match events::follow(&self.server, &run, after, head.caller()?).await? {
                None => futures::stream::empty().boxed(),
                Some(moments) => until_the_end(moments).boxed(),
            },
        ))
    }

    type TailLogsStream = Events<LogEvent>;

    async fn tail_logs(&self, request: Request<TailLogsRequest>) -> Result<Response<Self::TailLogsStream>, Status> {
        let (head, wish) = parts(request);
        Ok(Response::new(tail(&self.server, &head, &wish).await?))
    }

    async fn cancel_run(&self, request: Request<CancelRunRequest>) -> Result<Response<CancelRunReply>, Status> {
        let (head, wish) = parts(request);
        let run = asked::run_id(&wish.run_id)?;
        let (_, accepted) = runs::end_run(&self.server, run, head.asking()?).await?;
        Ok(Response::new(shown::cancelled(accepted)))
    }

    async fn retry_run(&self, _: Request<RetryRunRequest>) -> Result<Response<RetryRunReply>, Status> {
        Err(Problem::not_supported_yet("retrying a run").into())
    }
}

/// What stands around a message.
struct Head {
    headers: HeaderMap,
    extensions: Extensions,
}

fn parts<T>(request: Request<T>) -> (Head, T) {
    let (metadata, extensions, message) = request.into_parts();
    let headers = metadata.into_headers();
    (Head { headers, extensions }, message)
}

impl Head {
    fn asking(&self) -> Answer<Asking> {
        Asking::of(&self.extensions, &self.headers)
    }

    fn caller(&self) -> Answer<&Caller> {
        self.extensions.get::<Caller>().ok_or_else(Problem::internal)
    }
}

/// What somebody hears whose stream the server breaks off.
fn broken_off() -> Status {
    Status::unavailable("the stream was broken off; go on with `after`, here or with another server")
}

/// The moments as messages; a stream that breaks off before the run's end says so.
fn until_the_end(moments: impl Stream<Item = Moment> + Send + 'static) -> impl Stream<Item = Result<RunEvent, Status>> {
    let moments = moments.map(Some).chain(once(async { None }));
    moments.scan(false, |ended, moment| {
        let next = match moment {
            Some(moment) => {
                *ended = matches!(moment.what, Told::End(_));
                Some(Ok(shown::moment(moment)))
            }
            None if *ended => None,
            None => Some(Err(broken_off())),
        };
        std::future::ready(next)
    })
}

async fn tail(server: &Shared, head: &Head, wish: &TailLogsRequest) -> Answer<Events<LogEvent>> {
    let after = (!wish.after.is_empty()).then_some(After {
        named: "after",
        id: &wish.after,
    });
    let attempt = (wish.attempt > 0).then_some(wish.attempt);
    let (run, scope) = if wish.step.is_empty() {
        if attempt.is_some() || wish.offset > 0 {
            let field = if attempt.is_some() { "attempt" } else { "offset" };
            return Err(Problem::bad_field(field, "is for the log of one step: name the `step`"));
        }
        let picture = logs_of_run(server, &wish.run_id).await?;
        (picture.definition.header.id.clone(), scope_of_run(&picture, after)?)
    } else {
        let of = StepLogs::find(server, &wish.run_id, &wish.step, attempt).await?;
        (of.run().clone(), of.scope(Some(wish.offset), after)?)
    };
    let place = server.place_for_stream(Some(head.caller()?))?;
    let tail = open_tail(server, &run, scope, wish.follow, &head.headers).await?;
    let pieces = tail.into_pieces().flat_map(move |pieces| {
        let _held_as_long_as_the_stream = &place;
        iter(match pieces {
            Ok(pieces) => pieces.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => {
                tracing::warn!(run_id = %run, %error, "log stream ended early");
                vec![Err(broken_off())]
            }
        })
    });
    Ok(until_done(pieces).boxed())
}

/// The pieces as messages; a stream that breaks off before `done` says so.
fn until_done(
    pieces: impl Stream<Item = Result<Piece, Status>> + Send + 'static,
) -> impl Stream<Item = Result<LogEvent, Status>> {
    let pieces = pieces.map(Some).chain(once(async { None }));
    pieces.scan(false, |over, piece| {
        let next = match piece {
            Some(Ok(piece)) => {
                *over = piece == Piece::Done;
                Some(Ok(shown::piece(piece)))
            }
            Some(Err(status)) => {
                *over = true;
                Some(Err(status))
            }
            None if *over => None,
            None => Some(Err(broken_off())),
        };
        std::future::ready(next)
    })
}
