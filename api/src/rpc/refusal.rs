//! A problem as a gRPC status: its code, the same text, and what programs need of it as details.
//!
//! Not here: problems of gRPC's own, e.g. a message that cannot be decoded.

use crate::problem::Problem;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Whose words the reasons are.
const DOMAIN: &str = "buildflow";

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let code = code(problem.status().as_u16());
        let mut details = ErrorDetails::new();
        details.set_error_info(
            problem.word(),
            DOMAIN,
            std::iter::empty::<(String, String)>().collect::<std::collections::HashMap<_, _>>(),
        );
        if let Some(seconds) = problem.retry_after() {
            details.set_retry_info(Some(Duration::from_secs(seconds)));
        }
        for place in problem.places() {
            let field = place.field.clone().unwrap_or_default();
            details.add_bad_request_violation(field, place.message.clone());
        }
        Status::with_error_details(code, problem.detail(), details)
    }
}

fn code(http: u16) -> Code {
    match http {
        400 | 415 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        409 | 412 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        416 => Code::OutOfRange,
        503 => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_code_and_keeps_its_text() {
        for (problem, code, reason, retry) in [
            (Problem::bad_request("b"), Code::InvalidArgument, "bad-request", None),
            (Problem::unauthorized("b"), Code::Unauthenticated, "unauthorized", None),
            (Problem::forbidden("b"), Code::PermissionDenied, "forbidden", None),
            (Problem::not_found("b"), Code::NotFound, "not-found", None),
            (Problem::conflict("b"), Code::FailedPrecondition, "conflict", None),
            (
                Problem::precondition_failed("b"),
                Code::FailedPrecondition,
                "precondition-failed",
                None,
            ),
            (Problem::unavailable("b"), Code::Unavailable, "unavailable", Some(2)),
        ] {
            let status = Status::from(problem);
            assert_eq!((status.code(), status.message()), (code, "b"));
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, DOMAIN));
            let told = details.retry_info().and_then(|r| r.retry_delay).map(|d| d.as_secs());
            assert_eq!(told, retry);
        }
        let later = Problem::too_many_requests("much", Duration::from_millis(1_500));
        let status = Status::from(later);
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "much; ask again in 2 s");
        assert_eq!(Status::from(Problem::internal()).code(), Code::Internal);
        assert_eq!(
            Status::from(Problem::not_supported_yet("x")).code(),
            Code::Unimplemented
        );
    }

    #[test]
    fn a_faulty_field_is_named() {
        let status = Status::from(Problem::bad_field("tag", "not both"));
        let violations = status
            .get_error_details()
            .bad_request()
            .unwrap()
            .field_violations
            .clone();
        assert_eq!(violations[0].field, "tag");
        assert_eq!(violations[0].description, "not both");
    }
}
