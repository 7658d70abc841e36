//! The verbs for people and scripts: arguments in, calls of the public REST interface, text out.
//!
//! [`execute`] runs one verb and answers the exit code that the program documents. Not here: the
//! roles, and anything that REST does not offer; `validate`, `schema`, `init` and `completion`
//! need no server, and `run --local` brings its own.

mod arguments;
mod drain;
mod failure;
mod follow;
mod here;
mod http;
mod joining;
mod local;
mod logs;
mod nodes;
mod output;
mod pipelines;
mod progress;
mod resolve;
mod runs;
mod settings;
mod sse;
mod start;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
mod watch;

pub(crate) use arguments::{ClientCommand, GlobalOptions, OutputForm};
pub(crate) use table::printable;

use api::dto::NodeCertificates;
use arguments::{NodeCommand, PipelineCommand};
use failure::{Exit, Failure};
use http::Api;
use output::Output;
use std::time::Duration;

/// How long an interrupted verb may take to end by itself.
const INTERRUPT_GRACE: Duration = Duration::from_secs(1);

/// Runs one verb; what it has to say is said. Answers the exit code.
pub(crate) async fn execute(command: ClientCommand, global: GlobalOptions) -> u8 {
    let mut output = Output::of_process(global.output);
    let done = if command.ends_by_itself() {
        dispatch(command, &global, &mut output).await
    } else {
        tokio::spawn(end_after_interrupt());
        tokio::select! {
            done = dispatch(command, &global, &mut output) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        }
    };
    let done = done.and_then(|exit| output.flush().map(|()| exit));
    match done {
        Ok(exit) => exit.code(),
        Err(failure) => {
            failure.tell();
            failure.exit().code()
        }
    }
}

/// When the certificates of nodes end, as far as a server knows: what `admin certs` cannot see in files.
pub(crate) async fn node_certificates(global: &GlobalOptions) -> Result<NodeCertificates, crate::error::Failure> {
    let asked = async {
        let api = Api::connect(&settings::Settings::read(global)?)?;
        Ok::<_, Failure>(api.get(&["node-certificates"], &[]).await?.body)
    };
    asked.await.map_err(|failure: Failure| {
        let text = table::printable_lines(&failure.to_string());
        match failure.exit() {
            Exit::NotAllowed => crate::error::Failure::NotAllowed(text),
            Exit::Unreachable => crate::error::Failure::Internal(text),
            _ => crate::error::Failure::Usage(text),
        }
    })
}

/// Whoever reads our output may have stopped reading; then no write returns, and nothing is told.
async fn end_after_interrupt() {
    if tokio::signal::ctrl_c().await.is_ok() {
        tokio::time::sleep(INTERRUPT_GRACE).await;
        std::process::exit(Exit::Interrupted.code().into());
    }
}

async fn node(
    command: NodeCommand,
    api: &impl Fn() -> Result<Api, Failure>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    match command {
        NodeCommand::List => nodes::list(&api()?, output).await,
        NodeCommand::Show { node } => nodes::show(&api()?, &node, output).await,
        NodeCommand::Cordon { nodes } => drain::cordon(&api()?, &nodes, output).await,
        NodeCommand::Uncordon { nodes } => drain::uncordon(&api()?, &nodes, output).await,
        NodeCommand::Drain(arguments) => drain::drain(&api()?, &arguments, output).await,
        NodeCommand::Remove { node, confirm_gone } => drain::remove(&api()?, &node, confirm_gone, output).await,
        NodeCommand::Join(arguments) => joining::join(&arguments, output).await,
        NodeCommand::JoinToken(command) => joining::token(&api()?, command, output).await,
    }
}

async fn dispatch(command: ClientCommand, global: &GlobalOptions, output: &mut Output) -> Result<Exit, Failure> {
    if let Some(verb) = command.not_yet() {
        return Err(Failure::not_supported_yet(&format!("`buildflow {verb}`")));
    }
    let api = || Api::connect(&settings::Settings::read(global)?);
    match command {
        ClientCommand::Run(arguments) => start::run(&api, arguments, output).await,
        ClientCommand::Runs(arguments) => runs::list(&api()?, arguments, output).await,
        ClientCommand::Show { run } => runs::show(&api()?, &run, output).await,
        ClientCommand::Logs(arguments) => logs::logs(&api()?, arguments, output).await,
        ClientCommand::Cancel { run } => runs::cancel(&api()?, &run, output).await,
        ClientCommand::Start { run, step } => runs::start(&api()?, &run, &step, output).await,
        ClientCommand::Explain { run, step } => runs::explain(&api()?, &run, step.as_deref(), output).await,
        ClientCommand::Pipeline(PipelineCommand::Validate { file, event, explain }) => {
            validate::validate(&file, &event, explain, output)
        }
        ClientCommand::Pipeline(command) => pipelines::pipeline(&api()?, command, output).await,
        ClientCommand::Node(command) => node(command, &api, output).await,
        ClientCommand::Init { path, force } => local::init(&path, force, output),
        ClientCommand::Schema { reference } => local::schema(reference, output),
        ClientCommand::Completion { shell } => local::completion(shell, output),
        // `not_yet` has answered for all of these.
        other => Err(Failure::not_supported_yet(&format!("{other:?}"))),
    }
}
