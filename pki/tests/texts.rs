//! Certificates, keys and requests as files and texts: what is read back, and what is refused.

use pki::{Authority, Certificate, ClusterId, Identity, PkiError, Role, Trust};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3_600);

fn authority() -> (Authority, String) {
    Authority::create(&ClusterId::random().expect("random"), pki::now_s(), HOUR).expect("made")
}

#[test]
fn an_authority_is_read_back_and_certifies() {
    let folder = tempfile::tempdir().expect("folder");
    let (made, key) = authority();
    let (cert_path, key_path) = (folder.path().join("authority.pem"), folder.path().join("authority.key"));
    made.trust().expect("trust").write(&cert_path).expect("written");
    made.write_key(&key_path).expect("written");
    assert_eq!(std::fs::read_to_string(&key_path).expect("read"), key);
    let mode = std::fs::metadata(&key_path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the key is its user's alone");

    let read = Authority::read(&cert_path, &key_path).expect("read");
    assert_eq!(read.certificate(), made.certificate());
    let hosts = [
        "10.0.0.1".parse().expect("host"),
        "ci.example.org".parse().expect("host"),
    ];
    let server = read
        .certify_server("s1", &hosts, pki::now_s(), HOUR)
        .expect("certified");
    let path = folder.path().join("server.pem");
    server.write(&path).expect("written");
    let back = Identity::read(&path).expect("read");
    let certificate = back.certificate();
    assert_eq!((certificate.role, certificate.name.as_str()), (Role::Server, "s1"));
    assert_eq!(certificate.names, ["10.0.0.1", "ci.example.org"]);
    assert_eq!(certificate.cluster, made.certificate().cluster);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("listed").collect();
    assert_eq!(left.len(), 3, "nothing is left beside the files: {left:?}");
}

#[test]
fn lives_are_dated_back_a_little_and_renewed_in_time() {
    let (authority, _) = authority();
    let now = 1_800_000_000;
    let request = pki::new_request("x").expect("made");
    for (life, back) in [(86_400, 300), (60, 6)] {
        let pem = authority.certify_node(&request.csr_pem, "n1", now, Duration::from_secs(life));
        let certificate = Certificate::from_pem(&pem.expect("certified")).expect("ours");
        assert_eq!(
            (certificate.not_before_s, certificate.not_after_s),
            (now - back, now + life)
        );
        let renew = certificate.renew_at_s();
        assert!(renew > now && renew < now + life * 2 / 3 + 1, "{renew}");
        assert_eq!(certificate.left_s(now + life + 5), 0);
    }
}

#[test]
fn the_request_says_nothing_but_its_key() {
    let (authority, _) = authority();
    let request = pki::new_request("somebody-else").expect("made");
    let pem = authority
        .certify_node(&request.csr_pem, "n7", pki::now_s(), HOUR)
        .expect("certified");
    let certificate = Certificate::from_pem(&pem).expect("ours");
    assert_eq!((certificate.name.as_str(), certificate.role), ("n7", Role::Node));
    Identity::from_pems(&pem, &request.key_pem).expect("the key fits");
    let other = pki::new_request("x").expect("made");
    let error = Identity::from_pems(&pem, &other.key_pem).expect_err("another key");
    assert!(matches!(error, PkiError::KeyMismatch { .. }), "{error}");
}

#[test]
fn requests_that_are_none_are_refused() {
    let (authority, _) = authority();
    let good = pki::new_request("x").expect("made").csr_pem;
    // Another letter in the middle: the signature does not fit any more.
    let mut spoilt = good.clone().into_bytes();
    let middle = spoilt.len() / 2;
    spoilt[middle] = if spoilt[middle] == b'A' { b'B' } else { b'A' };
    let spoilt = String::from_utf8(spoilt).expect("text");
    let long = format!("{good}{}", "x".repeat(10_000));
    for text in ["", "x", &spoilt, &long, &good[..good.len() / 2]] {
        let error = authority
            .certify_node(text, "n1", pki::now_s(), HOUR)
            .expect_err("no request");
        assert!(error.to_string().starts_with("certificate request: "), "{error}");
    }
    for name in ["", "a b", "../x", &"x".repeat(65)] {
        let error = authority.certify_node(&good, name, pki::now_s(), HOUR).expect_err(name);
        assert!(error.to_string().starts_with("name: "), "{error}");
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("authority.pem");
    let missing = Trust::read(&path).expect_err("not there").to_string();
    assert!(missing.contains("authority.pem: No such file"), "{missing}");

    let (one, _) = authority();
    let (two, two_key) = authority();
    let cases = [
        (String::new(), "there is none in the text"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "certificate: ",
        ),
        (
            format!("{}{}", one.certificate_pem(), two.certificate_pem()),
            "belongs to the cluster",
        ),
        ("x".repeat(300 * 1024), "it has more than"),
    ];
    for (text, expected) in cases {
        std::fs::write(&path, text).expect("written");
        let error = Trust::read(&path).expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("authority.pem"), "{error}");
    }
    let mixed = Authority::from_pems(one.certificate_pem(), &two_key).expect_err("another key");
    assert!(matches!(mixed, PkiError::KeyMismatch { .. }), "{mixed}");
}

#[test]
fn nothing_secret_is_shown_by_debug() {
    let (authority, key) = authority();
    let server = authority
        .certify_server("s1", &[], pki::now_s(), HOUR)
        .expect("certified");
    let secret = key.lines().nth(1).expect("a key").to_owned();
    for shown in [format!("{authority:?}"), format!("{server:?}")] {
        assert!(!shown.contains("PRIVATE") && !shown.contains(&secret), "{shown}");
    }
}
