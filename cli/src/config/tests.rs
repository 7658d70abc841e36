use super::*;

fn read_text<T: DeserializeOwned + Checked>(text: &str) -> Result<T, Failure> {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), text).expect("written");
    read(file.path())
}

#[test]
fn a_server_needs_only_its_folder() {
    let file: ServerFile = read_text("data: /var/lib/buildflow\n").expect("valid");
    let listen = file.listen;
    assert_eq!(listen.to_string(), "127.0.0.1:7420");
    let alone = ServerFile::alone("/var/lib/buildflow".into(), listen, "server-1");
    assert_eq!(file, alone, "the defaults of the file and of the program are the same");
    assert_eq!(file.advertised(listen), "http://127.0.0.1:7420");
    assert_eq!(file.all_servers(listen), ["http://127.0.0.1:7420"]);
}

const ETCD: &str = "data: /x\nstore: { etcd: { endpoints: ['http://e1:2379'] } }\n";
const TWO: &str = "servers: ['http://a:1', 'http://b:1']\n";
const S3: &str = "blobs: { s3: { bucket: b } }\n";

#[test]
fn a_refusal_names_key_and_line() {
    let with = |parts: &[&str]| parts.concat();
    let cases = [
        (with(&["data: /x\nlisten: here\n"]), "listen"),
        (with(&["data: /x\nport: 1\n"]), "unknown field `port`"),
        (with(&["listen: 127.0.0.1:1\n"]), "missing field `data`"),
        (with(&["data: [\n"]), "line 1"),
        (with(&["data: /x\nname: a b\n"]), "name: \"a b\""),
        (
            with(&["data: /x\nurl: ci.example.org\n"]),
            "url: \"ci.example.org\" must look like",
        ),
        (
            with(&["data: /x\nnode_lease: 20\n"]),
            "no length of time; write it as 20s",
        ),
        (with(&["data: /x\nnode_lease: 1s\n"]), "node_lease: 1s must be 2s to 1d"),
        (with(&["data: /x\nkeep: { run: 1d }\n"]), "unknown field `run`"),
        (
            with(&["data: /x\nper_token: { burst: 0 }\n"]),
            "per_token.burst: 0 must be 1 to 1000000",
        ),
        (
            with(&["data: /x\nkeep: { runs: 1m }\n"]),
            "keep.runs: 1m must be 1h to 36500d",
        ),
        (with(&["data: /x\nkeep: { runs: 20d }\n"]), "make `runs` the longest"),
        (with(&["data: /x\nstore: mysql\n"]), "unknown variant `mysql`"),
        (
            with(&["data: /x\nstore: { etcd: { endpoints: [] } }\n"]),
            "store.etcd.endpoints: name at least one",
        ),
        (
            with(&["data: /x\nstore: { etcd: { endpoint: x } }\n"]),
            "unknown field `endpoint`",
        ),
        (
            with(&["data: /x\nblobs: { s3: { buckets: x } }\n"]),
            "unknown field `buckets`",
        ),
        (
            with(&["data: /x\nblobs: { s3: { bucket: x, access_key_file: y } }\n"]),
            "go together",
        ),
        (
            with(&["data: /x\nhistory: { postgres: {} }\n"]),
            "say either `url` or `url_file`",
        ),
        (
            with(&["data: /x\nhistory: { postgres: { url: 'postgres://u:hunter2@h/d' } }\n"]),
            "holds a password",
        ),
        (with(&["data: /x\nadvertise: https://a:1\n"]), "needs `tls`"),
        (
            with(&["data: /x\nadvertise: http://a:1\ntls: { certificate: c, authority: a }\n"]),
            "must begin with https://",
        ),
        (with(&["data: /x\n", TWO]), "store: embedded is for one server"),
        (
            with(&[ETCD]),
            "blobs: with `store: { etcd: … }` every server must see the same blobs",
        ),
        (
            with(&[ETCD, "blobs: folder\n"]),
            "say `blobs: { folder: { path: …, shared: true } }`",
        ),
        (with(&[ETCD, TWO, S3]), "history: embedded is for one server"),
    ];
    expect_refused(&cases);
}

fn expect_refused(cases: &[(String, &str)]) {
    for (text, expected) in cases {
        let failure = read_text::<ServerFile>(text).expect_err(text);
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains(expected), "{text:?}: {failure}");
        assert!(!failure.to_string().contains("hunter2"), "{failure}");
    }
}

#[test]
fn what_nobody_could_reach_is_refused() {
    let with = |parts: &[&str]| parts.concat();
    expect_refused(&[
        (
            with(&["data: /x\nblobs: { s3: { bucket: x, endpoint: 'http://m:1', ca: /c } }\n"]),
            "blobs.s3: `ca` goes with an endpoint that begins with https://",
        ),
        (
            with(&["data: /x\nstore: { etcd: { endpoints: ['http://e:1'], quota_backend_bytes: 0 } }\n"]),
            "store.etcd.quota_backend_bytes: is 0",
        ),
        (
            with(&["data: /x\nlisten: 0.0.0.0:7420\n"]),
            "advertise: `listen` is 0.0.0.0:7420, which nobody can connect to",
        ),
        (
            with(&["data: /x\nlisten: '[::]:7420'\n"]),
            "e.g. advertise: http://10.0.0.1:7420",
        ),
        (
            with(&["data: /x\nadvertise: http://0.0.0.0:7420\n"]),
            "advertise: \"http://0.0.0.0:7420\" is no address",
        ),
        (
            with(&["data: /x\nservers: ['http://[::]:1']\n"]),
            "servers: \"http://[::]:1\" is no address",
        ),
    ]);
}

#[test]
fn what_several_servers_can_share_is_taken() {
    let postgres = "history: { postgres: { url: 'postgres://u@h/d' } }\n";
    for text in [
        "data: /x\nlisten: 0.0.0.0:7420\nadvertise: http://a:7420\n".to_owned(),
        "data: /x\nkeep: { runs: 20d, logs: 10d, branch_logs: 1d, branches: [main, stable] }\n".to_owned(),
        format!("{ETCD}{S3}"),
        format!("{ETCD}{S3}{TWO}{postgres}"),
        format!("{ETCD}{TWO}{postgres}blobs: {{ folder: {{ path: /nfs/blobs, shared: true }} }}\n"),
    ] {
        read_text::<ServerFile>(&text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
    }
}

#[test]
fn relative_paths_are_the_files_neighbours() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("server.yml");
    let text = "data: data\ntls: { certificate: server.pem, authority: /etc/authority.pem }\nadvertise: https://a:1\n";
    std::fs::write(&path, text).expect("written");
    let file: ServerFile = read(&path).expect("valid");
    assert_eq!(file.data, folder.path().join("data"));
    let tls = file.tls.clone().expect("set");
    assert_eq!(tls.certificate, folder.path().join("server.pem"));
    assert_eq!(tls.authority, Path::new("/etc/authority.pem"));
    let missing = file.check_files().expect_err("no such file");
    assert!(
        missing.starts_with("tls: ") && missing.contains("server.pem: No such file"),
        "{missing}"
    );
}

#[test]
fn an_agent_that_no_server_would_take_is_refused_before_it_starts() {
    let cases = [
        ("servers: []", "servers: name at least one"),
        ("servers: ['10.0.0.1:7420']", "must look like http://"),
        ("servers: ['http:///x']", "must look like http://"),
        ("servers: ['https://a:1']", "`tls` goes with https://"),
        ("tls: { identity: i, authority: a }", "exclude each other"),
        ("name: ''", "name: \"\""),
        ("labels: { 'a b': x }", "labels: \"a b\""),
        ("labels: { a: \"x\\ty\" }", "labels: \"x\\ty\""),
        ("capacity: { slots: 0 }", "capacity: no value may be 0"),
    ];
    for (line, expected) in cases {
        let servers = if line.starts_with("servers") {
            ""
        } else {
            "servers: ['http://127.0.0.1:7420']\n"
        };
        let text = format!("data: /d\ntoken_file: /t\n{servers}{line}\n");
        let failure = read_text::<AgentFile>(&text).expect_err(line);
        assert_eq!(failure.exit_code(), 2);
        assert!(failure.to_string().contains(expected), "{line}: {failure}");
    }
    let none = read_text::<AgentFile>("data: /d\nservers: ['https://a:1']\n").expect_err("no proof");
    assert!(none.to_string().contains("`buildflow node join` writes it"), "{none}");
}

#[test]
fn what_is_printed_is_read_back() {
    let file: AgentFile =
        read_text("data: /d\nservers: ['http://127.0.0.1:7420']\ntoken_file: /t\ncapacity: {cpu_millis: 4000}\n")
            .expect("valid");
    let printed = serde_yaml::to_string(&file).expect("prints");
    assert_eq!(read_text::<AgentFile>(&printed).expect("valid"), file);
    let servers = [
        "data: /x\n".to_owned(),
        format!("{ETCD}{S3}{TWO}history: {{ postgres: {{ url_file: u, ca: /c }} }}\nnode_lease: 10m\n"),
        "data: /x\nblobs: { folder: { path: /p, shared: true } }\nstore: embedded\nhistory: embedded\nkeep: { branches: [] }\n"
            .to_owned(),
    ];
    for text in servers {
        let file: ServerFile = read_text(&text).expect("valid");
        let printed = serde_yaml::to_string(&file).expect("prints");
        assert_eq!(read_text::<ServerFile>(&printed).expect(&printed), file, "{printed}");
    }
}
