//! Every number that bounds a request, with its reason.

use std::time::Duration;

/// The largest body of a request, bytes: a thousand variables of a kilobyte.
pub const BODY_MAX: usize = 1024 * 1024;

/// The largest body of `POST /pipelines/validate`, bytes: a pipeline file of 1 MiB whose every
/// second character is escaped in JSON, and then some, so that the file's own limit is what is named.
pub const VALIDATE_BODY_MAX: usize = 4 * 1024 * 1024;

/// The longest that a request may take until its answer begins; a fetch of a large repository for
/// the first time is answered with 202 long before.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may take to send the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest head of a request, bytes.
pub const HEAD_MAX: usize = 64 * 1024;

/// Most connections at once: below the usual limit of 65,536 open files, with room for the rest.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Most event and log streams at once on one server; each holds a buffer.
pub const STREAMS_MAX: usize = 4_096;

/// The page of a list unless the request says another.
pub const PAGE_DEFAULT: usize = 50;

/// The longest page of a list.
pub const PAGE_MAX: usize = 500;

/// The most runs that one request for a list looks at; a filter that matches nothing must not walk
/// over a million. The page then ends early and its cursor goes on.
pub const SCAN_MAX: usize = 50_000;

/// The longest branch, tag, ref, repository address or file name, bytes.
pub const TEXT_MAX: usize = 1_024;

/// The most `variables` of one run.
pub const VARIABLES_MAX: usize = 256;

/// The longest value of a variable, bytes.
pub const VARIABLE_VALUE_MAX: usize = 32 * 1024;

/// All names and values of a run's variables together, bytes: they are in the run's header, which
/// must fit a transaction.
pub const VARIABLES_BYTES_MAX: usize = 256 * 1024;

/// The most `inputs` of one run: what a pipeline file may define.
pub const INPUTS_MAX: usize = pipeline::limits::INPUTS_MAX;

/// All names and values of a run's inputs together, bytes: as for its variables.
pub const INPUTS_BYTES_MAX: usize = 256 * 1024;

/// The longest `Idempotency-Key` and `X-Request-Id`.
pub const KEY_MAX: usize = 128;

/// How long the same trigger leads to the run that is there.
pub const SAME_TRIGGER: Duration = Duration::from_secs(60);

/// How long an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// How long a POST waits until its own write can be read back.
pub const READ_BACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a push event waits for its runs before it answers 202: a hook that waits holds up `git push`.
pub const PUSH_WAIT: Duration = Duration::from_secs(2);

/// How long `POST …/runs` waits for its run before it answers 202.
pub const RUN_WAIT: Duration = Duration::from_secs(20);

/// What a client is told to wait before it tries again, seconds.
pub const RETRY_AFTER_SECONDS: u64 = 2;

/// Most accepted triggers that wait to become runs; half a minute of the largest burst. Beyond it
/// callers are told to come back, instead of filling the store.
pub const INBOX_MAX: usize = 10_000;

/// How long a wish for a node waits for the leader to act on it before it is answered with 202.
pub const NODE_WAIT: Duration = Duration::from_secs(2);

/// Most wishes for one node that wait for a leader.
pub const NODE_REQUESTS_MAX: usize = 16;

/// The largest message that a call is answered with, bytes: a run of a thousand steps, each with the most
/// outputs and a summary, is refused rather than cut.
pub const RPC_MESSAGE_MAX: usize = 32 * 1024 * 1024;

/// Most calls of those who showed no token (health, reflection) that go on at once.
pub const STRANGER_STREAMS_MAX: usize = 256;

/// How long such a call may go on: somebody who watches a server's health opens another one then.
pub const STRANGER_TIME: Duration = Duration::from_secs(600);
