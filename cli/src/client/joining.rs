//! `node join` on the machine that becomes a node, and `node join-token` for whoever lets it.
//!
//! The machine believes nobody but the authority whose fingerprint is in the token, and says
//! nothing before it has seen it. Not here: who may join (the server).

use super::arguments::{JoinArguments, JoinTokenCommand};
use super::failure::{Exit, Failure};
use super::http::Api;
use super::output::Output;
use super::table::{Cell, ago, now_ms, table};
use crate::config::{AgentFile, AgentTlsFile};
use api::dto::{CreateJoinToken, JoinToken, JoinTokenCreated, JoinTokenList};
use pki::{Address, Client, Identity, JoinTokenText, NewRequest, PkiError, Trust};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::v1::{JoinReply, JoinRequest};

/// How long one server may take from the connection to the answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A token has a hundred bytes.
const TOKEN_READ_MAX: u64 = 4_096;

pub(super) async fn join(arguments: &JoinArguments, output: &mut Output) -> Result<Exit, Failure> {
    let token: JoinTokenText = token_text(&arguments.token)?.parse().map_err(of_pki)?;
    let servers = arguments
        .server
        .iter()
        .map(|s| address(s))
        .collect::<Result<Vec<_>, _>>()?;
    let files = Files::in_folder(&arguments.dir);
    files.check_free(arguments.force)?;
    let name = arguments.name.clone().map_or_else(host_name, Ok)?;
    files.make_folder()?;

    let request = pki::new_request(&name).map_err(of_pki)?;
    let (server, reply) = ask_all(&servers, &token, &request, &name, output).await?;
    let joined = write(arguments, &files, &request, &reply, &server)?;
    if output.is_json() {
        let answer = serde_json::json!({
            "node_id": reply.node_id, "config": files.config, "certificate_ends": joined.ends, "servers": joined.servers,
        });
        output.json(&answer)?;
    } else {
        output.text(&format!(
            "this machine is the node {} of the cluster {}\n\
             its certificate goes until {} and is renewed by the agent\n\
             written: {}\n\nstart its agent (as root), and have it started at boot:\n  buildflow agent --config {}\n",
            reply.node_id,
            joined.cluster,
            joined.ends,
            files.all().map(|p| p.display().to_string()).join(", "),
            files.config.display(),
        ))?;
    }
    Ok(Exit::Success)
}

fn of_pki(error: PkiError) -> Failure {
    Failure::Usage(error.to_string())
}

fn address(text: &str) -> Result<Address, Failure> {
    let address: Address = text.parse().map_err(of_pki)?;
    if address.tls {
        return Ok(address);
    }
    Err(Failure::Usage(format!(
        "--server {text}: machines join over https:// only"
    )))
}

/// The token, from standard input for `-`: arguments are seen by every user of the machine.
fn token_text(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    std::io::stdin()
        .take(TOKEN_READ_MAX)
        .read_to_string(&mut text)
        .map_err(|cause| Failure::Usage(format!("the token on standard input: {cause}")))?;
    Ok(text)
}

fn host_name() -> Result<String, Failure> {
    let failed = || Failure::Usage("the host has no usable name; say one with --name".to_owned());
    let name = nix::unistd::gethostname().map_err(|_| failed())?;
    name.into_string().map_err(|_| failed())
}

/// What is written into the folder.
struct Files {
    folder: PathBuf,
    config: PathBuf,
    identity: PathBuf,
    authority: PathBuf,
}

impl Files {
    fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            config: folder.join("agent.yml"),
            identity: folder.join("node.pem"),
            authority: folder.join("authority.pem"),
        }
    }

    fn all(&self) -> [&Path; 3] {
        [&self.config, &self.identity, &self.authority]
    }

    fn check_free(&self, force: bool) -> Result<(), Failure> {
        let taken = self.all().into_iter().find(|path| path.exists());
        match taken {
            Some(path) if !force => Err(Failure::Usage(format!(
                "{} is there already: this machine has joined before; --force joins anew and replaces it",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Before anything is asked for: a token is not used up for a folder that cannot be written.
    fn make_folder(&self) -> Result<(), Failure> {
        let failed = |cause: std::io::Error| Failure::Usage(format!("{}: {cause}", self.folder.display()));
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let probe = self.folder.join(format!(".probe.{}", std::process::id()));
        std::fs::write(&probe, "").map_err(failed)?;
        std::fs::remove_file(&probe).map_err(failed)
    }
}

/// Asks one server after the other until one answers.
async fn ask_all(
    servers: &[Address],
    token: &JoinTokenText,
    request: &NewRequest,
    name: &str,
    output: &Output,
) -> Result<(Address, JoinReply), Failure> {
    let mut last = Failure::Usage("name a server with --server".to_owned());
    for server in servers {
        match ask(server, token, request, name).await {
            Ok(reply) => return Ok((server.clone(), reply)),
            Err(Asked::Refused(failure)) => return Err(failure),
            Err(Asked::Unreachable(failure)) => {
                if servers.len() > 1 {
                    output.talk.say(&failure.to_string());
                }
                last = failure;
            }
        }
    }
    Err(last)
}

enum Asked {
    /// The next server would say the same.
    Refused(Failure),
    Unreachable(Failure),
}

async fn ask(server: &Address, token: &JoinTokenText, request: &NewRequest, name: &str) -> Result<JoinReply, Asked> {
    let client = Client::pinned(token.pin().clone()).map_err(|e| Asked::Refused(of_pki(e)))?;
    let late = || Asked::Unreachable(Failure::Unreachable(format!("{server} does not answer in time")));
    let asked = async {
        let channel = channel(client, server).await?;
        let message = JoinRequest {
            token: token.reveal(),
            csr_pem: request.csr_pem.clone(),
            name: name.to_owned(),
        };
        let mut fleet = wire::v1::fleet_service_client::FleetServiceClient::new(channel);
        fleet.join(message).await.map_err(|status| refused(server, &status))
    };
    let reply = tokio::time::timeout(JOIN_TIMEOUT, asked).await.map_err(|_| late())??;
    Ok(reply.into_inner())
}

/// A channel over a connection that is made here, because only the fingerprint is believed.
async fn channel(client: Client, server: &Address) -> Result<tonic::transport::Channel, Asked> {
    // The scheme is that of what lies above TLS.
    let shown = Address {
        tls: false,
        ..server.clone()
    };
    let endpoint = tonic::transport::Endpoint::from_shared(shown.to_string())
        .map_err(|e| Asked::Refused(Failure::Usage(e.to_string())))?;
    let to = server.clone();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let (client, to) = (client.clone(), to.clone());
        async move { client.connect(&to).await.map(hyper_util::rt::TokioIo::new) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| {
        if let Some(refusal) = pki::reason(&error) {
            return Asked::Refused(Failure::Usage(format!("{server}: {refusal}")));
        }
        let cause = innermost(&error);
        Asked::Unreachable(Failure::Unreachable(format!("cannot reach {server}: {cause}")))
    })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn refused(server: &Address, status: &tonic::Status) -> Asked {
    let text = format!("{server}: {}", status.message());
    match status.code() {
        tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Asked::Refused(Failure::NotAllowed(text)),
        tonic::Code::InvalidArgument => Asked::Refused(Failure::Usage(text)),
        // Another server may have the authority's key.
        _ => Asked::Unreachable(Failure::Unreachable(text)),
    }
}

/// What a person is told of it.
struct Joined {
    cluster: String,
    ends: String,
    servers: Vec<String>,
}

fn write(
    arguments: &JoinArguments,
    files: &Files,
    request: &NewRequest,
    reply: &JoinReply,
    server: &Address,
) -> Result<Joined, Failure> {
    let identity = Identity::from_pems(&reply.certificate_pem, &request.key_pem).map_err(of_pki)?;
    let trust = Trust::from_pem(&reply.authority_pem).map_err(of_pki)?;
    trust
        .verify_own(&identity, pki::Role::Node, pki::now_s())
        .map_err(of_pki)?;
    let servers = if reply.servers.is_empty() {
        vec![server.to_string()]
    } else {
        reply.servers.clone()
    };
    trust.write(&files.authority).map_err(of_pki)?;
    identity.write(&files.identity).map_err(of_pki)?;
    let file = AgentFile::joined(
        std::path::absolute(&arguments.data).unwrap_or_else(|_| arguments.data.clone()),
        servers.clone(),
        AgentTlsFile {
            identity: PathBuf::from("node.pem"),
            authority: PathBuf::from("authority.pem"),
        },
        arguments.name.clone(),
    );
    let text = file.to_text().map_err(Failure::Usage)?;
    pki::write_private(&files.config, &text).map_err(of_pki)?;
    Ok(Joined {
        cluster: trust.cluster().to_string(),
        ends: pki::rfc3339(identity.certificate().not_after_s),
        servers,
    })
}

pub(super) async fn token(api: &Api, command: JoinTokenCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        JoinTokenCommand::Create { name, expires_in, uses } => {
            let wish = CreateJoinToken {
                name,
                expires_in_s: Some(expires_in.0.as_secs()),
                uses,
            };
            create(api, &wish, output).await
        }
        JoinTokenCommand::List => list(api, output).await,
        JoinTokenCommand::Revoke { id } => {
            api.delete(&["join-tokens", &id]).await?;
            if output.is_json() {
                output.json(&serde_json::json!({ "revoked": id }))?;
            } else {
                output.line(&format!("the join token {id} is revoked"))?;
            }
            Ok(Exit::Success)
        }
    }
}

async fn create(api: &Api, wish: &CreateJoinToken, output: &mut Output) -> Result<Exit, Failure> {
    let created = api.post::<JoinTokenCreated>(&["join-tokens"], Some(wish)).await?;
    if output.is_json() {
        output.json(&created.raw)?;
        return Ok(Exit::Success);
    }
    let JoinTokenCreated { token, about } = created.body;
    let until = pki::rfc3339(about.expires_ms / 1_000);
    let uses = about
        .uses_left
        .map_or_else(|| "any number of machines".to_owned(), |n| format!("{n} machines"));
    output.talk.say(&format!(
        "for {uses}, until {until}; it is shown this once. On the new machine, as root:\n\
         buildflow node join --server URL --token TOKEN"
    ));
    output.line(&token)?;
    Ok(Exit::Success)
}

async fn list(api: &Api, output: &mut Output) -> Result<Exit, Failure> {
    let tokens = api.get::<JoinTokenList>(&["join-tokens"], &[]).await?;
    if output.is_json() {
        output.json(&tokens.raw)?;
        return Ok(Exit::Success);
    }
    if tokens.body.join_tokens.is_empty() {
        output.talk.say("there is no join token");
        return Ok(Exit::Success);
    }
    let now = now_ms();
    let rows: Vec<Vec<Cell>> = tokens.body.join_tokens.iter().map(|t| row(t, now)).collect();
    let heading = ["ID", "NAME", "MADE", "ENDS", "USES LEFT"];
    output.text(&table(output.paint, &heading, &rows))?;
    Ok(Exit::Success)
}

fn row(token: &JoinToken, now: u64) -> Vec<Cell> {
    let ends = if token.expires_ms <= now {
        "ended".to_owned()
    } else {
        pki::rfc3339(token.expires_ms / 1_000)
    };
    vec![
        token.id.as_str().into(),
        token.name.as_str().into(),
        ago(token.created_ms, now).into(),
        ends.into(),
        token
            .uses_left
            .map_or_else(|| "any".to_owned(), |n| n.to_string())
            .into(),
    ]
}
