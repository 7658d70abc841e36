//! `admin init`: everything that a cluster's servers need, in one folder for each.
//!
//! Not here: making certificates (`pki`), starting anything.

use crate::config::{Checked, DEFAULT_PORT, ServerFile, has_password, read};
use crate::error::Failure;
use clap::Args;
use pki::{AUTHORITY_LIFE, Address, Authority, ClusterId, Host, SERVER_LIFE};
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most servers of one cluster: etcd and the fold of reports gain nothing from more.
const SERVERS_MAX: usize = 32;

/// `buildflow admin init`.
#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// Where the authority and the servers' folders are written; must not hold another cluster
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// A server: its name and where agents and other servers reach it; further names with commas
    /// between them stand in its certificate too; may be repeated
    #[arg(long = "server", value_name = "NAME=HOST[:PORT][,HOST…]", required = true)]
    servers: Vec<ServerWish>,
    /// A member of the etcd cluster, e.g. http://10.0.0.11:2379; may be repeated
    #[arg(long = "etcd", value_name = "URL")]
    etcd: Vec<String>,
    /// The authority of etcd's certificates (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd")]
    etcd_ca: Option<PathBuf>,
    /// What is shown to etcd (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_key")]
    etcd_certificate: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_certificate")]
    etcd_key: Option<PathBuf>,
    /// What every key in etcd begins with
    #[arg(long, value_name = "PREFIX", requires = "etcd")]
    etcd_prefix: Option<String>,
    /// The bucket for logs and finished runs
    #[arg(long, value_name = "NAME")]
    s3_bucket: Option<String>,
    /// Where the object store is, unless it is AWS
    #[arg(long, value_name = "URL", requires = "s3_bucket")]
    s3_endpoint: Option<String>,
    /// The bucket's region
    #[arg(long, value_name = "REGION", requires = "s3_bucket")]
    s3_region: Option<String>,
    /// What every object's name begins with
    #[arg(long, value_name = "PREFIX", requires = "s3_bucket")]
    s3_prefix: Option<String>,
    /// endpoint/bucket/key; most object stores that are not AWS want it
    #[arg(long, requires = "s3_bucket")]
    s3_path_style: bool,
    /// A file with the key's public part [default: AWS_ACCESS_KEY_ID of each server]
    #[arg(long, value_name = "FILE", requires = "s3_secret_key_file")]
    s3_access_key_file: Option<PathBuf>,
    /// A file with the key's secret part [default: AWS_SECRET_ACCESS_KEY of each server]
    #[arg(long, value_name = "FILE", requires = "s3_access_key_file")]
    s3_secret_key_file: Option<PathBuf>,
    /// The authority of the object store's certificate (PEM), unless it is one of those that every machine believes
    #[arg(long, value_name = "FILE", requires = "s3_bucket")]
    s3_ca: Option<PathBuf>,
    /// The database for finished runs: postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// The authority of the database's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "postgres")]
    postgres_ca: Option<PathBuf>,
}

/// `NAME=HOST[:PORT][,HOST…]`.
#[derive(Debug, Clone)]
struct ServerWish {
    name: String,
    address: Address,
    /// All names of its certificate.
    hosts: Vec<Host>,
}

impl FromStr for ServerWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} must look like server-1=10.0.0.1:{DEFAULT_PORT}");
        let (name, rest) = text.split_once('=').ok_or_else(refused)?;
        model::id::check_name(name).map_err(|e| e.to_string())?;
        let mut parts = rest.split(',');
        let first = parts.next().ok_or_else(refused)?;
        let with_port = |t: &str| {
            t.rsplit_once(':')
                .is_some_and(|(_, p)| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        };
        let bare_v6 = first.parse::<std::net::Ipv6Addr>().is_ok();
        let url = match (bare_v6, with_port(first)) {
            (true, _) => format!("https://[{first}]:{DEFAULT_PORT}"),
            (false, true) => format!("https://{first}"),
            (false, false) => format!("https://{first}:{DEFAULT_PORT}"),
        };
        let address: Address = url.parse().map_err(|_| refused())?;
        let mut hosts = vec![address.host.clone()];
        for more in parts {
            let host = more.parse().map_err(|e: pki::PkiError| e.to_string())?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(Self {
            name: name.to_owned(),
            address,
            hosts,
        })
    }
}

fn of_pki(error: pki::PkiError) -> Failure {
    Failure::Usage(error.to_string())
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |cause| Failure::Usage(format!("{path}: {cause}"))
}

pub(super) fn init(arguments: &InitArguments) -> Result<(), Failure> {
    check(arguments)?;
    let now_s = pki::now_s();
    let cluster = ClusterId::random().map_err(of_pki)?;
    let (authority, _) = Authority::create(&cluster, now_s, AUTHORITY_LIFE).map_err(of_pki)?;
    private_folder(&arguments.dir)?;
    let trust = authority.trust().map_err(of_pki)?;
    trust.write(&arguments.dir.join("authority.pem")).map_err(of_pki)?;
    authority
        .write_key(&arguments.dir.join("authority.key"))
        .map_err(of_pki)?;
    let admin_token = api::tokens::random();
    for server in &arguments.servers {
        write_server(arguments, server, &authority, &admin_token)?;
    }
    tell(arguments, &cluster);
    Ok(())
}

/// Everything that can be known before anything is written.
fn check(arguments: &InitArguments) -> Result<(), Failure> {
    let usage = |text: String| Err(Failure::Usage(text));
    let servers = &arguments.servers;
    if servers.len() > SERVERS_MAX {
        return usage(format!("a cluster has {SERVERS_MAX} servers at most"));
    }
    for (index, server) in servers.iter().enumerate() {
        let others = &servers[..index];
        if others
            .iter()
            .any(|o| o.name == server.name || o.address == server.address)
        {
            return usage(format!("--server {}: its name or address is given twice", server.name));
        }
    }
    if servers.len() > 1 && arguments.etcd.is_empty() {
        return usage("several servers need etcd: name its members with --etcd URL".to_owned());
    }
    if !arguments.etcd.is_empty() && arguments.s3_bucket.is_none() {
        return usage("with --etcd the servers' blobs must be in one place: name a bucket with --s3-bucket".to_owned());
    }
    if servers.len() > 1 && arguments.postgres.is_none() {
        return usage("several servers need one history: name a database with --postgres URL".to_owned());
    }
    let names = servers.iter().map(|s| s.name.as_str());
    for name in ["authority.pem", "authority.key"].into_iter().chain(names) {
        let path = arguments.dir.join(name);
        if path.exists() {
            return usage(format!(
                "{} is there already: nothing is overwritten; choose another folder, or remove what is there",
                path.display()
            ));
        }
    }
    Ok(())
}

fn private_folder(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io(path))
}

fn write_server(
    arguments: &InitArguments,
    server: &ServerWish,
    authority: &Authority,
    admin_token: &str,
) -> Result<(), Failure> {
    let folder = arguments.dir.join(&server.name);
    private_folder(&folder)?;
    let secret = |name: &str, text: &str| pki::write_private(&folder.join(name), text).map_err(of_pki);
    authority
        .certify_server(&server.name, &server.hosts, pki::now_s(), SERVER_LIFE)
        .and_then(|identity| identity.write(&folder.join("server.pem")))
        .map_err(of_pki)?;
    let trust = authority.trust().map_err(of_pki)?;
    trust.write(&folder.join("authority.pem")).map_err(of_pki)?;
    authority.write_key(&folder.join("authority.key")).map_err(of_pki)?;
    secret("admin-token", &format!("{admin_token}\n"))?;
    for (from, to) in copies(arguments) {
        secret(to, &pki::read_text(from).map_err(of_pki)?)?;
    }
    if let Some(url) = arguments.postgres.as_ref().filter(|url| has_password(url)) {
        secret("postgres-url", &format!("{url}\n"))?;
    }
    let config = folder.join("server.yml");
    secret("server.yml", &text(arguments, server)?)?;
    // What is written must be what a server takes.
    let file: ServerFile = read(&config)?;
    file.check_files()
        .map_err(|cause| Failure::Internal(format!("{}: {cause}", config.display())))
}

/// Files of the arguments that go along into each server's folder, and their names there.
fn copies(arguments: &InitArguments) -> Vec<(&PathBuf, &'static str)> {
    let all = [
        (&arguments.etcd_ca, "etcd-ca.pem"),
        (&arguments.etcd_certificate, "etcd.pem"),
        (&arguments.etcd_key, "etcd.key"),
        (&arguments.s3_access_key_file, "s3-access-key"),
        (&arguments.s3_secret_key_file, "s3-secret-key"),
        (&arguments.s3_ca, "s3-ca.pem"),
        (&arguments.postgres_ca, "postgres-ca.pem"),
    ];
    all.into_iter()
        .filter_map(|(from, to)| Some((from.as_ref()?, to)))
        .collect()
}

/// The configuration of one server.
fn text(arguments: &InitArguments, server: &ServerWish) -> Result<String, Failure> {
    let listen = match &server.address.host {
        Host::Ip(std::net::IpAddr::V6(_)) => format!("[::]:{}", server.address.port),
        _ => format!("0.0.0.0:{}", server.address.port),
    };
    let all: Vec<String> = arguments.servers.iter().map(|s| s.address.to_string()).collect();
    let mut file = Map::new();
    let mut set = |key: &str, value: Value| file.insert(key.to_owned(), value);
    set("data", json!("/var/lib/buildflow/server"));
    set("listen", json!(listen));
    set("name", json!(server.name));
    set("advertise", json!(server.address.to_string()));
    set("servers", json!(all));
    if !arguments.etcd.is_empty() {
        set("store", json!({ "etcd": etcd(arguments) }));
    }
    if let Some(bucket) = &arguments.s3_bucket {
        set("blobs", json!({ "s3": s3(arguments, bucket) }));
    }
    if let Some(url) = &arguments.postgres {
        set("history", json!({ "postgres": postgres(arguments, url) }));
    }
    set(
        "tls",
        json!({ "certificate": "server.pem", "authority": "authority.pem", "authority_key": "authority.key" }),
    );
    set("admin_token_file", json!("admin-token"));
    let text = serde_yaml::to_string(&Value::Object(file)).map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(format!(
        "# Written by `buildflow admin init`. Relative paths are relative to this file.\n{text}"
    ))
}

fn etcd(arguments: &InitArguments) -> Value {
    let mut section = json!({ "endpoints": arguments.etcd });
    if let Some(prefix) = &arguments.etcd_prefix {
        section["prefix"] = json!(prefix);
    }
    if arguments.etcd_ca.is_some() {
        section["ca"] = json!("etcd-ca.pem");
    }
    if arguments.etcd_certificate.is_some() {
        section["certificate"] = json!("etcd.pem");
        section["key"] = json!("etcd.key");
    }
    section
}

fn s3(arguments: &InitArguments, bucket: &str) -> Value {
    let mut section = json!({ "bucket": bucket, "path_style": arguments.s3_path_style });
    let optional = [
        ("endpoint", &arguments.s3_endpoint),
        ("region", &arguments.s3_region),
        ("prefix", &arguments.s3_prefix),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            section[key] = json!(value);
        }
    }
    if arguments.s3_access_key_file.is_some() {
        section["access_key_file"] = json!("s3-access-key");
        section["secret_key_file"] = json!("s3-secret-key");
    }
    if arguments.s3_ca.is_some() {
        section["ca"] = json!("s3-ca.pem");
    }
    section
}

fn postgres(arguments: &InitArguments, url: &str) -> Value {
    let mut section = if has_password(url) {
        json!({ "url_file": "postgres-url" })
    } else {
        json!({ "url": url })
    };
    if arguments.postgres_ca.is_some() {
        section["ca"] = json!("postgres-ca.pem");
    }
    section
}

fn tell(arguments: &InitArguments, cluster: &ClusterId) {
    let dir = arguments.dir.display();
    let first = &arguments.servers[0];
    let names: Vec<String> = arguments.servers.iter().map(|s| format!("{dir}/{}", s.name)).collect();
    println!(
        "the cluster {cluster} is made; its servers' folders:\n  {}\n",
        names.join("\n  ")
    );
    println!("next:");
    println!("1. copy each folder to its server as /etc/buildflow, readable by root alone, and start there:");
    println!("     buildflow admin check --config /etc/buildflow/server.yml");
    println!("     buildflow server --config /etc/buildflow/server.yml");
    println!("2. on your own machine:");
    println!(
        "     export BUILDFLOW_ADDR={} BUILDFLOW_CA={dir}/authority.pem",
        first.address
    );
    println!("     export BUILDFLOW_TOKEN=$(cat {dir}/{}/admin-token)", first.name);
    println!("3. for nodes:");
    println!("     buildflow node join-token create");
    println!(
        "     buildflow node join --server {} --token TOKEN      on each new machine",
        first.address
    );
    println!(
        "4. keep {dir} in a safe place, offline: `admin certs rotate` needs it, and whoever has it is the cluster"
    );
}
