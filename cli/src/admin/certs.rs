//! `admin certs`: every certificate of a folder shown, a server's or the authority itself rotated.
//!
//! The authority is rotated in three steps, each with time between them for every member to learn
//! of it: the new one is believed, then it signs, then the old one is not believed any more.
//!
//! The certificates of nodes lie on the nodes, which renew them by themselves; when they end is asked of
//! a server. Not here: renewing them.

use crate::client::{self, GlobalOptions, OutputForm};
use crate::error::Failure;
use api::dto::{NodeCertificate, NodeCertificates};
use clap::{Args, Subcommand, ValueEnum};
use pki::{AUTHORITY_LIFE, Authority, Certificate, Identity, PkiError, SERVER_LIFE, Trust};
use std::path::{Path, PathBuf};

/// From then on a certificate is marked as ending soon.
const SOON_S: u64 = 14 * 86_400;

/// How deep certificates are looked for below a folder: the cluster's, and one for each server.
const DEPTH_MAX: usize = 2;

/// More files than any folder of certificates has.
const FILES_MAX: usize = 10_000;

/// Where servers and nodes have their certificates.
const DIR_DEFAULT: &str = "/etc/buildflow";

/// Most nodes that are named of those whose certificates have ended.
const ENDED_NAMED_MAX: usize = 10;

/// `buildflow admin certs`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Show every certificate below a folder: whose it is, and how long it still goes
    Show(ShowArguments),
    /// Make certificates of servers anew, or take one step of rotating the authority
    Rotate(RotateArguments),
}

/// `buildflow admin certs show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The folder of `admin init`, or of a server or node [default: /etc/buildflow, where it is there]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Ask a server too (--addr) when the certificates of nodes end
    #[arg(long)]
    nodes: bool,
}

/// `buildflow admin certs rotate`.
#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// The folder of `admin init`
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Only this server's certificate; may be repeated [default: all servers']
    #[arg(long = "server", value_name = "NAME", conflicts_with = "authority")]
    servers: Vec<String>,
    /// A step of rotating the authority
    #[arg(long, value_enum, value_name = "STEP")]
    authority: Option<Step>,
}

/// A step of rotating the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// A new authority is made; both are believed, the old one signs
    Begin,
    /// The new one signs, and servers get certificates of it
    Switch,
    /// The old one is not believed any more
    Finish,
}

pub(super) async fn certs(command: &CertsCommand, global: &GlobalOptions) -> Result<(), Failure> {
    match command {
        CertsCommand::Show(arguments) => show(arguments, global).await,
        CertsCommand::Rotate(arguments) => rotate(arguments),
    }
}

fn of_pki(error: PkiError) -> Failure {
    Failure::Usage(error.to_string())
}

/// A certificate and the file that it stands in.
struct Found {
    path: PathBuf,
    certificate: Certificate,
}

async fn show(arguments: &ShowArguments, global: &GlobalOptions) -> Result<(), Failure> {
    let found = below(arguments)?;
    let now_s = pki::now_s();
    let json = global.output == OutputForm::Json;
    if !json {
        table(&found, now_s);
    }
    if !arguments.nodes {
        return if json {
            print_json(&all_as_json(&found, now_s))
        } else {
            Ok(())
        };
    }
    // What is in the files has been shown, also if no server answers.
    let nodes = client::node_certificates(global).await?;
    if json {
        return print_json(&serde_json::json!({ "certificates": all_as_json(&found, now_s), "nodes": nodes }));
    }
    for line in sentences(&nodes, now_s) {
        println!("{line}");
    }
    Ok(())
}

/// The certificates of the folder; whoever asks for nodes need not be on a machine with certificates.
fn below(arguments: &ShowArguments) -> Result<Vec<Found>, Failure> {
    let dir = arguments.dir.as_deref().unwrap_or(Path::new(DIR_DEFAULT));
    let mut found = Vec::new();
    if arguments.dir.is_none() && arguments.nodes && !dir.exists() {
        return Ok(found);
    }
    look(dir, DEPTH_MAX, &mut found)?;
    if found.is_empty() && (arguments.dir.is_some() || !arguments.nodes) {
        return Err(Failure::Usage(format!(
            "there is no certificate of a cluster below {}; name its folder with --dir",
            dir.display()
        )));
    }
    Ok(found)
}

fn all_as_json(found: &[Found], now_s: u64) -> Vec<serde_json::Value> {
    found.iter().map(|f| as_json(f, now_s)).collect()
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Internal(e.to_string()))?;
    println!("{text}");
    Ok(())
}

fn table(found: &[Found], now_s: u64) {
    if found.is_empty() {
        return;
    }
    let heading = ["SUBJECT", "ROLE", "CLUSTER", "ENDS", "DAYS LEFT", "FILE"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(heading)
        .chain(found.iter().map(|f| row(f, now_s)))
        .collect();
    let widths: Vec<usize> = (0..6)
        .map(|i| rows.iter().map(|r| r[i].len()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// What a server knows of its nodes' certificates, in one line for each thing that matters.
fn sentences(nodes: &NodeCertificates, now_s: u64) -> Vec<String> {
    let whose = |c: &NodeCertificate| format!("{} ({})", client::printable(&c.name), client::printable(&c.node_id));
    let mut lines = Vec::new();
    match nodes.nearest.iter().find(|c| c.ends_ms / 1_000 > now_s) {
        Some(first) => {
            let hours = (first.ends_ms / 1_000 - now_s) as f64 / 3_600.0;
            let ends = pki::rfc3339(first.ends_ms / 1_000);
            lines.push(format!(
                "nodes: {} joined; the first certificate ends {ends}, in {hours:.1} hours: {}; agents renew them by themselves",
                nodes.members,
                whose(first)
            ));
        }
        None => lines.push(format!("nodes: {} joined", nodes.members)),
    }
    if nodes.unknown > 0 {
        lines.push(format!(
            "nodes: of {} the end is not known before they renew it",
            nodes.unknown
        ));
    }
    if nodes.ended > 0 {
        let ended = nodes.nearest.iter().filter(|c| c.ends_ms / 1_000 <= now_s);
        let named: Vec<String> = ended.take(ENDED_NAMED_MAX).map(whose).collect();
        let more = if nodes.ended > named.len() { ", …" } else { "" };
        lines.push(format!(
            "nodes: ENDED are {} certificates: {}{more}; join those machines again: buildflow node join --force",
            nodes.ended,
            named.join(", ")
        ));
    }
    lines
}

/// All certificates of the files of a folder, in order of their names.
fn look(folder: &Path, depth: usize, found: &mut Vec<Found>) -> Result<(), Failure> {
    let failed = |cause: std::io::Error| Failure::Usage(format!("{}: {cause}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.take(FILES_MAX).filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if depth > 1 {
                look(&path, depth - 1, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "pem")
            && let Ok(text) = pki::read_text(&path)
        {
            let certificates = certificates(&text);
            found.extend(certificates.into_iter().map(|certificate| Found {
                path: path.clone(),
                certificate,
            }));
        }
    }
    Ok(())
}

/// The authorities of a bundle, or the one member whose file it is.
fn certificates(text: &str) -> Vec<Certificate> {
    if let Ok(trust) = Trust::from_pem(text) {
        return trust.authorities().cloned().collect();
    }
    Certificate::from_pem(text).into_iter().collect()
}

fn state(certificate: &Certificate, now_s: u64) -> &'static str {
    match certificate.check_time(now_s) {
        Err(PkiError::NotYetValid { .. }) => "not yet valid",
        Err(_) => "ENDED",
        Ok(()) if certificate.role != pki::Role::Node && certificate.left_s(now_s) < SOON_S => "ends soon",
        Ok(()) => "",
    }
}

fn row(found: &Found, now_s: u64) -> [String; 6] {
    let certificate = &found.certificate;
    let days = format!("{:.1}", certificate.left_s(now_s) as f64 / 86_400.0);
    [
        certificate.name.clone(),
        certificate.role.to_string(),
        certificate.cluster.to_string(),
        pki::rfc3339(certificate.not_after_s),
        format!("{days} {}", state(certificate, now_s)).trim_end().to_owned(),
        found.path.display().to_string(),
    ]
}

fn as_json(found: &Found, now_s: u64) -> serde_json::Value {
    let certificate = &found.certificate;
    serde_json::json!({
        "file": found.path,
        "subject": certificate.name,
        "role": certificate.role.as_str(),
        "cluster": certificate.cluster.as_str(),
        "names": certificate.names,
        "begins": pki::rfc3339(certificate.not_before_s),
        "ends": pki::rfc3339(certificate.not_after_s),
        "seconds_left": certificate.left_s(now_s),
        "state": state(certificate, now_s),
        "fingerprint": certificate.fingerprint,
    })
}

/// The folder of `admin init`.
struct ClusterFolder {
    dir: PathBuf,
    trust: Trust,
    authority: Authority,
    servers: Vec<ServerFolder>,
}

struct ServerFolder {
    path: PathBuf,
    certificate: Certificate,
}

impl ClusterFolder {
    fn open(dir: &Path) -> Result<Self, Failure> {
        let trust = Trust::read(&dir.join("authority.pem")).map_err(of_pki)?;
        let authority = Authority::read(&dir.join("authority.pem"), &dir.join("authority.key")).map_err(of_pki)?;
        let failed = |cause: std::io::Error| Failure::Usage(format!("{}: {cause}", dir.display()));
        let entries = std::fs::read_dir(dir).map_err(failed)?;
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|path| path.join("server.pem").exists())
            .collect();
        paths.sort();
        let mut servers = Vec::new();
        for path in paths {
            let identity = Identity::read(&path.join("server.pem")).map_err(of_pki)?;
            servers.push(ServerFolder {
                certificate: identity.certificate().clone(),
                path,
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
            trust,
            authority,
            servers,
        })
    }

    /// A new certificate for a server, under the names of the one that it has.
    fn reissue(&self, server: &ServerFolder) -> Result<(), Failure> {
        let names = server.certificate.names.iter().map(|name| name.parse());
        let hosts = names.collect::<Result<Vec<_>, _>>().map_err(of_pki)?;
        let name = &server.certificate.name;
        let identity = self.authority.certify_server(name, &hosts, pki::now_s(), SERVER_LIFE);
        let identity = identity.map_err(of_pki)?;
        identity.write(&server.path.join("server.pem")).map_err(of_pki)?;
        println!(
            "{}: a new certificate until {}",
            server.path.display(),
            pki::rfc3339(identity.certificate().not_after_s)
        );
        Ok(())
    }

    /// Everywhere whom to believe, and the key that signs.
    fn spread(&self, trust: &Trust) -> Result<(), Failure> {
        for folder in std::iter::once(&self.dir).chain(self.servers.iter().map(|s| &s.path)) {
            trust.write(&folder.join("authority.pem")).map_err(of_pki)?;
            let key = folder.join("authority.key");
            if key.exists() {
                self.authority.write_key(&key).map_err(of_pki)?;
            }
        }
        Ok(())
    }

    fn next_key(&self) -> PathBuf {
        self.dir.join("authority-next.key")
    }
}

fn rotate(arguments: &RotateArguments) -> Result<(), Failure> {
    let cluster = ClusterFolder::open(&arguments.dir)?;
    match arguments.authority {
        None => rotate_servers(&cluster, &arguments.servers),
        Some(Step::Begin) => begin(&cluster),
        Some(Step::Switch) => switch(cluster),
        Some(Step::Finish) => finish(&cluster),
    }
}

fn rotate_servers(cluster: &ClusterFolder, wanted: &[String]) -> Result<(), Failure> {
    let missing = wanted
        .iter()
        .find(|name| !cluster.servers.iter().any(|s| s.certificate.name == **name));
    if let Some(name) = missing {
        return Err(Failure::Usage(format!(
            "{} has no folder of a server `{name}`",
            cluster.dir.display()
        )));
    }
    let meant = |server: &&ServerFolder| wanted.is_empty() || wanted.contains(&server.certificate.name);
    cluster
        .servers
        .iter()
        .filter(meant)
        .try_for_each(|server| cluster.reissue(server))?;
    println!("copy each server.pem to its server; it is taken over within seconds, without a restart");
    Ok(())
}

fn begin(cluster: &ClusterFolder) -> Result<(), Failure> {
    if cluster.next_key().exists() || cluster.trust.authorities().count() > 1 {
        return Err(Failure::Usage(
            "a rotation has begun already; go on with --authority switch, then finish".to_owned(),
        ));
    }
    let (next, key) = Authority::create(cluster.trust.cluster(), pki::now_s(), AUTHORITY_LIFE).map_err(of_pki)?;
    pki::write_private(&cluster.next_key(), &key).map_err(of_pki)?;
    let both = cluster.trust.and(&next.trust().map_err(of_pki)?).map_err(of_pki)?;
    cluster.spread(&both)?;
    println!("a new authority is made and both are believed; the old one still signs");
    println!("copy each authority.pem to its server, and to whoever uses BUILDFLOW_CA");
    println!(
        "wait until every node has renewed its certificate (24 h, or `node_certificate`), then: --authority switch"
    );
    Ok(())
}

fn switch(mut cluster: ClusterFolder) -> Result<(), Failure> {
    let next = cluster.next_key();
    if !next.exists() {
        return Err(Failure::Usage(
            "no rotation has begun; start with --authority begin".to_owned(),
        ));
    }
    cluster.authority = Authority::read(&cluster.dir.join("authority.pem"), &next).map_err(of_pki)?;
    cluster.spread(&cluster.trust)?;
    for server in &cluster.servers {
        cluster.reissue(server)?;
    }
    std::fs::remove_file(&next).map_err(|cause| Failure::Internal(format!("{}: {cause}", next.display())))?;
    println!("the new authority signs; join tokens that were made before are not good any more");
    println!("copy each server.pem and authority.key to its server");
    println!("wait until every node has renewed its certificate once more, then: --authority finish");
    Ok(())
}

fn finish(cluster: &ClusterFolder) -> Result<(), Failure> {
    if cluster.next_key().exists() {
        return Err(Failure::Usage(
            "the new authority does not sign yet; first: --authority switch".to_owned(),
        ));
    }
    if cluster.trust.authorities().count() < 2 {
        return Err(Failure::Usage(
            "only one authority is believed; there is nothing to finish".to_owned(),
        ));
    }
    let alone = cluster.authority.trust().map_err(of_pki)?;
    cluster.spread(&alone)?;
    println!("the old authority is not believed any more");
    println!("copy each authority.pem to its server, and to whoever uses BUILDFLOW_CA");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ends_ms: u64) -> NodeCertificate {
        NodeCertificate {
            node_id: format!("id-{name}"),
            name: name.to_owned(),
            ends_ms,
        }
    }

    #[test]
    fn the_nearest_end_of_nodes_is_told_and_who_has_to_join_again() {
        let cases = [
            (0, 0, vec![], vec!["nodes: 0 joined"]),
            (
                0,
                0,
                vec![node("a", 7_200_000), node("b", 9_000_000)],
                vec!["2 joined; the first certificate ends 1970-01-01T02:00:00Z, in 1.0 hours: a (id-a)"],
            ),
            (
                1,
                1,
                vec![node("old", 3_600_000), node("evil\u{1b}[2J", 7_200_000)],
                vec![
                    "in 1.0 hours: evil",
                    "of 1 the end is not known",
                    "ENDED are 1 certificates: old (id-old); join",
                ],
            ),
            (
                0,
                12,
                vec![node("x", 1); 12],
                vec!["nodes: 12 joined", "x (id-x), …; join"],
            ),
        ];
        for (unknown, ended, nearest, expect) in cases {
            let members = nearest.len() + unknown;
            let told = sentences(
                &NodeCertificates {
                    members,
                    ended,
                    unknown,
                    nearest,
                },
                3_600,
            );
            assert_eq!(told.len(), expect.len(), "{told:?}");
            for (line, words) in told.iter().zip(expect) {
                assert!(line.contains(words) && !line.contains('\u{1b}'), "{line}: {words}");
            }
        }
    }
}
