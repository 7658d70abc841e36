//! Who does not belong to a cluster: peers that say nothing, a store of another one.

use crate::joining::{Secure, buildflow, init, said, until};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// More than a server lets into its hall at once.
const SILENT: usize = 4_500;

/// How long somebody who does belong may wait meanwhile, on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// What so many peers may cost the server, bytes: 40 KiB each for those that have a place.
const GROWTH_MAX: u64 = 100 << 20;

#[test]
fn thousands_of_peers_that_say_nothing_shut_nobody_out() {
    let secure = Secure::start();
    let before = secure.server_memory_bytes();
    let mut silent = Vec::with_capacity(SILENT);
    let mut slowest = Duration::ZERO;
    // Nothing; the first byte of a handshake; the head of a record that never comes.
    let said_so_far: [&[u8]; 3] = [b"", &[0x16], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]];
    for n in 0..SILENT {
        let mut stream = TcpStream::connect(("127.0.0.1", secure.port)).expect("the port takes connections");
        let _ = stream.write_all(said_so_far[n % said_so_far.len()]);
        silent.push(stream);
        if n % 500 == 499 {
            let begun = Instant::now();
            let listed = secure.client(&["node", "list"]);
            assert!(listed.status.success(), "after {n}: {}", said(&listed));
            slowest = slowest.max(begun.elapsed());
        }
    }
    let grown = secure.server_memory_bytes().saturating_sub(before);
    println!(
        "{SILENT} silent peers: the server grew by {} KiB, the slowest client took {slowest:?}",
        grown >> 10
    );
    assert!(slowest < WAIT_MAX, "{slowest:?}");
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    // None of them is kept.
    until("all have been sent away", || {
        silent.retain_mut(|stream| {
            stream.set_nonblocking(true).expect("set");
            let answer = std::io::Read::read(stream, &mut [0; 16]);
            matches!(answer, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        silent.is_empty().then_some(())
    });
    assert!(secure.client(&["node", "list"]).status.success());
}

#[test]
fn a_store_of_another_cluster_is_refused() {
    let mut secure = Secure::start();
    let data = secure.path("server-data");
    let other = secure.path("other");
    init(&other, 1);
    secure.stop_server();
    let config = other.join("s1/server.yml");
    let text = fs::read_to_string(&config).expect("written by init");
    let text = text
        .replace("data: /var/lib/buildflow/server", &format!("data: {}", data.display()))
        .replace("0.0.0.0:1", &format!("127.0.0.1:{}", crate::cluster::free_port()));
    fs::write(&config, text).expect("written");
    let refused = buildflow()
        .args(["server", "--config"])
        .arg(&config)
        .output()
        .expect("ran");
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("store: it holds the state of the cluster") && said(&refused).contains("`prefix`"),
        "{}",
        said(&refused)
    );
}
