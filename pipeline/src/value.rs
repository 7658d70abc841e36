//! Single values of a pipeline file: durations, sizes, cores, images, users, and the same values
//! written back for people.
//!
//! Not here: where they stand. Each function takes the text and says what is wrong with it.

use crate::limits::IMAGE_MAX;
use crate::report::Problem;
use crate::syntax::shown;

/// Milliseconds of `1h30m`, `30m`, `90s`: whole hours, minutes and seconds in this order.
pub(crate) fn duration_ms(text: &str) -> Result<u64, Problem> {
    let wrong = || {
        let help = if is_number(text) {
            format!("it has no unit: write `{text}s` or `{text}m`")
        } else {
            "write it like `30m`, `1h30m` or `90s`".to_owned()
        };
        Problem::new(format!("`{}` is not a duration", shown(text))).help(help)
    };
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, seconds) in [('h', 3_600), ('m', 60), ('s', 1)] {
        if let Some((amount, after)) = rest.split_once(unit)
            && is_number(amount)
        {
            let amount: u64 = amount.parse().map_err(|_| wrong())?;
            total = amount
                .checked_mul(seconds * 1_000)
                .and_then(|ms| total.checked_add(ms))
                .ok_or_else(wrong)?;
            rest = after;
        }
    }
    if text.is_empty() || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(total)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `1h30m` for milliseconds; parts of a second are left out.
pub(crate) fn duration_text(ms: u64) -> String {
    let seconds = ms / 1_000;
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts
        .iter()
        .filter(|(amount, _)| *amount > 0)
        .map(|(amount, unit)| format!("{amount}{unit}"))
        .collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Units of sizes, largest first within each family.
const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// Bytes of `2Gi`, `512Mi`, `1.5G`.
pub(crate) fn size_bytes(text: &str) -> Result<u64, Problem> {
    let wrong = |help: String| Problem::new(format!("`{}` is not a size", shown(text))).help(help);
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (amount, unit) = text.split_at(split);
    let usual = || wrong("write it like `512Mi`, `2Gi` or `1.5G`; units are Ki, Mi, Gi, Ti and k, M, G, T".to_owned());
    let thousandths = thousandths(amount).ok_or_else(usual)?;
    if unit.is_empty() {
        return Err(wrong(format!("it has no unit: write `{amount}Mi` or `{amount}Gi`")));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(match near_unit(unit) {
            Some(name) => wrong(format!("write `{amount}{name}`")),
            None => usual(),
        });
    };
    let bytes = u128::from(thousandths) * u128::from(*factor) / 1_000;
    u64::try_from(bytes).map_err(|_| usual())
}

/// The unit that was meant by `GB`, `gib`, `g`, `K`.
fn near_unit(unit: &str) -> Option<&'static str> {
    let bare = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
    UNITS
        .iter()
        .map(|(name, _)| *name)
        .find(|name| name.eq_ignore_ascii_case(bare))
}

/// `2Gi` for bytes, in the unit that says it in the fewest digits and without a fraction.
pub(crate) fn size_text(bytes: u64) -> String {
    UNITS
        .iter()
        .filter(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .min_by_key(|(_, factor)| bytes / factor)
        .map_or_else(
            || format!("{bytes}B"),
            |(name, factor)| format!("{}{name}", bytes / factor),
        )
}

/// Thousandths of a core of `2`, `0.5`, `500m`.
pub(crate) fn cpu_millis(text: &str) -> Result<u64, Problem> {
    let wrong = || {
        Problem::new(format!("`{}` is not a number of cores", shown(text))).help("write it like `2`, `0.5` or `500m`")
    };
    match text.strip_suffix('m') {
        Some(millis) if is_number(millis) => millis.parse().map_err(|_| wrong()),
        Some(_) => Err(wrong()),
        None => thousandths(text).ok_or_else(wrong),
    }
}

/// `2`, `0.5`, `500m` for thousandths of a core.
pub(crate) fn cpu_text(millis: u64) -> String {
    match (millis / 1_000, millis % 1_000) {
        (whole, 0) => whole.to_string(),
        (whole, part) => format!("{whole}.{part:03}").trim_end_matches('0').to_owned(),
    }
}

/// Thousandths of a decimal with at most three places, exactly.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 3 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(fraction)
}

/// Checks an image reference: `[host[:port]/]path[:tag][@digest]` or `oci:PATH`.
pub(crate) fn check_image(text: &str) -> Result<(), Problem> {
    let wrong = |help: &str| Err(Problem::new(format!("`{}` is not an image", shown(text))).help(help));
    if text.is_empty() || text.len() > IMAGE_MAX {
        return wrong("write it like `docker.io/library/debian:13`, at most 512 characters");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong("remove the white space");
    }
    if text.contains('$') {
        return wrong("variables are not replaced in `image`: write the whole reference");
    }
    if text.contains("://") {
        return wrong("leave out the scheme: write it like `docker.io/library/debian:13`");
    }
    if let Some(path) = text.strip_prefix("oci:") {
        return if path.is_empty() {
            wrong("write the path of the layout behind `oci:`")
        } else {
            Ok(())
        };
    }
    let (rest, digest) = text
        .split_once('@')
        .map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return wrong("a digest is `@sha256:` and 64 hexadecimal digits");
    }
    let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_start..].find(':') {
        Some(colon) => (&rest[..path_start + colon], Some(&rest[path_start + colon + 1..])),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return wrong("a tag is 1 to 128 letters, digits, `_`, `.` and `-`");
    }
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
            if !is_host(host) {
                return wrong("the part before the first `/` is not a host");
            }
            path
        }
        _ => name,
    };
    if path.split('/').all(is_path_part) {
        Ok(())
    } else if path.split('/').all(|part| is_path_part(&part.to_ascii_lowercase())) {
        wrong("the name of an image has no capital letters")
    } else {
        wrong("write it like `docker.io/library/debian:13`")
    }
}

fn is_digest(text: &str) -> bool {
    let hex =
        |digits: &str, length| digits.len() == length && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match text.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_ok = match address {
        Some(v6) => !v6.is_empty() && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(label),
    };
    host_ok && port.parse::<u16>().is_ok()
}

/// Lower-case letters and digits, with `.`, `_`, `__` or hyphens between them.
fn is_path_part(text: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(word)
        && bytes.last().is_some_and(word)
        && bytes
            .split(word)
            .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|b| *b == b'-'))
}

/// Checks `user`, `uid`, `user:group`, `uid:gid`.
pub(crate) fn check_user(text: &str) -> Result<(), Problem> {
    let part_ok = |part: &str| {
        let word = part.len() <= 64
            && part
                .bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        // The last id means "leave unchanged" to the kernel.
        word && (!is_number(part) || part.parse::<u32>().is_ok_and(|id| id != u32::MAX))
    };
    let (user, group) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    if part_ok(user) && group.is_none_or(part_ok) {
        return Ok(());
    }
    Err(Problem::new(format!("`{}` is not a user", shown(text)))
        .help("write a name or number of the image, like `builder`, `1000` or `1000:1000`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value, or message and help of the refusal.
    fn words<T>(result: Result<T, Problem>) -> Result<T, String> {
        result.map_err(|p| format!("{} ({})", p.message, p.help.unwrap_or_default()))
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in [
            ("90s", 90_000),
            ("30m", 1_800_000),
            ("1h30m", 5_400_000),
            ("1h1m1s", 3_661_000),
            ("1h1s", 3_601_000),
            ("0s", 0),
        ] {
            assert_eq!(words(duration_ms(text)), Ok(ms), "{text}");
        }
        for (text, expect) in [
            ("", "`` is not a duration (write it like `30m`, `1h30m` or `90s`)"),
            ("30", "`30` is not a duration (it has no unit: write `30s` or `30m`)"),
            (
                "30 m",
                "`30 m` is not a duration (write it like `30m`, `1h30m` or `90s`)",
            ),
            ("m", "`m` is not a duration (write it like `30m`, `1h30m` or `90s`)"),
            (
                "30m1h",
                "`30m1h` is not a duration (write it like `30m`, `1h30m` or `90s`)",
            ),
            (
                "1m1m",
                "`1m1m` is not a duration (write it like `30m`, `1h30m` or `90s`)",
            ),
            ("-5m", "`-5m` is not a duration (write it like `30m`, `1h30m` or `90s`)"),
            (
                "1.5h",
                "`1.5h` is not a duration (write it like `30m`, `1h30m` or `90s`)",
            ),
            (
                "99999999999999999999h",
                "`99999999999999999999h` is not a duration (write it like `30m`, `1h30m` or `90s`)",
            ),
            (
                "9999999999999999h",
                "`9999999999999999h` is not a duration (write it like `30m`, `1h30m` or `90s`)",
            ),
        ] {
            assert_eq!(words(duration_ms(text)), Err(expect.to_owned()), "{text}");
        }
        for (ms, text) in [
            (0, "0s"),
            (90_000, "1m30s"),
            (1_800_000, "30m"),
            (5_400_000, "1h30m"),
            (3_601_999, "1h1s"),
        ] {
            assert_eq!(duration_text(ms), text);
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("512Mi", 512 << 20),
            ("2Gi", 2 << 30),
            ("1.5Gi", 3 << 29),
            ("10G", 10_000_000_000),
            ("0.001k", 1),
            ("1Ti", 1 << 40),
        ] {
            assert_eq!(words(size_bytes(text)), Ok(bytes), "{text}");
        }
        let usual = "write it like `512Mi`, `2Gi` or `1.5G`; units are Ki, Mi, Gi, Ti and k, M, G, T";
        for (text, help) in [
            ("2GB", "write `2G`"),
            ("2gib", "write `2Gi`"),
            ("2g", "write `2G`"),
            ("2K", "write `2k`"),
            ("512", "it has no unit: write `512Mi` or `512Gi`"),
            ("2 Gi", usual),
            ("Gi", usual),
            ("-2Gi", usual),
            ("1.2345Gi", usual),
            ("1e3", usual),
            ("99999999999999999Ti", usual),
            ("99999999999999999999Gi", usual),
            ("", usual),
        ] {
            assert_eq!(
                words(size_bytes(text)),
                Err(format!("`{text}` is not a size ({help})")),
                "{text}"
            );
        }
        for (bytes, text) in [
            (2 << 30, "2Gi"),
            (10_000_000_000, "10G"),
            (1_536 << 20, "1536Mi"),
            (7, "7B"),
            (0, "0B"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn cores_are_read_and_written() {
        for (text, millis) in [
            ("2", 2_000),
            ("0.5", 500),
            ("500m", 500),
            ("1.125", 1_125),
            ("2000m", 2_000),
        ] {
            assert_eq!(words(cpu_millis(text)), Ok(millis), "{text}");
        }
        for text in [
            "",
            "m",
            "1.5m",
            "-1",
            "2 cores",
            ".5",
            "1.",
            "1e3",
            "99999999999999999999",
            "0.0001",
        ] {
            let expect = format!("`{text}` is not a number of cores (write it like `2`, `0.5` or `500m`)");
            assert_eq!(words(cpu_millis(text)), Err(expect), "{text}");
        }
        for (millis, text) in [(2_000, "2"), (500, "0.5"), (1_125, "1.125"), (10, "0.01")] {
            assert_eq!(cpu_text(millis), text);
        }
    }

    #[test]
    fn images_follow_the_distribution_grammar() {
        let digest = format!("debian@sha256:{}", "a".repeat(64));
        let long = format!("debian@sha512:{}", "0".repeat(128));
        for text in [
            "debian",
            "debian:13",
            "library/debian:13-slim",
            "docker.io/library/rust:1.95",
            "localhost/x",
            "localhost:5000/x/y:z",
            "127.0.0.1:5000/x",
            "[::1]:5000/x",
            "a__b/c-d/e.f---g",
            "UPPER.example.com/x",
            "oci:/var/lib/images/base",
            "oci:base.tar",
            &digest,
            &long,
        ] {
            assert_eq!(words(check_image(text)), Ok(()), "{text}");
        }
        let like = "write it like `docker.io/library/debian:13`";
        for (text, help) in [
            (
                "",
                "write it like `docker.io/library/debian:13`, at most 512 characters",
            ),
            ("debian 13", "remove the white space"),
            (
                "rust:$VERSION",
                "variables are not replaced in `image`: write the whole reference",
            ),
            (
                "docker://debian",
                "leave out the scheme: write it like `docker.io/library/debian:13`",
            ),
            ("oci:", "write the path of the layout behind `oci:`"),
            ("debian@sha256:abc", "a digest is `@sha256:` and 64 hexadecimal digits"),
            ("debian@md5:abc", "a digest is `@sha256:` and 64 hexadecimal digits"),
            ("debian:", "a tag is 1 to 128 letters, digits, `_`, `.` and `-`"),
            ("debian:-x", "a tag is 1 to 128 letters, digits, `_`, `.` and `-`"),
            ("Debian", "the name of an image has no capital letters"),
            ("a..b", like),
            ("a//b", like),
            ("/a", like),
            ("a/", like),
            ("-a", like),
            ("../a", "the part before the first `/` is not a host"),
            ("a.b:x/c", "the part before the first `/` is not a host"),
            ("-a.b/c", "the part before the first `/` is not a host"),
        ] {
            assert_eq!(
                words(check_image(text)),
                Err(format!("`{text}` is not an image ({help})")),
                "{text}"
            );
        }
        assert!(check_image(&"a".repeat(IMAGE_MAX)).is_ok());
        assert!(check_image(&"a".repeat(IMAGE_MAX + 1)).is_err());
    }

    #[test]
    fn users_are_names_and_numbers() {
        for text in [
            "root",
            "1000",
            "1000:1000",
            "builder:users",
            "_apt",
            "a.b-c",
            "0:0",
            "4294967294",
        ] {
            assert_eq!(words(check_user(text)), Ok(()), "{text}");
        }
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "a:b:c",
            "-a",
            "a b",
            "4294967295",
            "99999999999",
            "a/b",
        ] {
            let expect = format!(
                "`{text}` is not a user (write a name or number of the image, like `builder`, `1000` or `1000:1000`)"
            );
            assert_eq!(words(check_user(text)), Err(expect), "{text}");
        }
    }
}
