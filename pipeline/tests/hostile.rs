//! Files that are made to hurt: each is answered, in less than a second of processor time, without
//! a crash and with few findings.

use std::time::Duration;

/// What contract and targets allow for one file; a debug build keeps it.
const ANSWER: Duration = Duration::from_secs(1);

/// The stack of the thread that compiles: small, so that recursion by input would show.
const STACK: usize = 256 * 1024;

const MIB: usize = 1024 * 1024;

/// Processor time of this thread. The clock on the wall would measure the neighbours as well.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    Duration::from_nanos(nanos)
}

fn repeated(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect()
}

fn steps(count: usize, keys: impl Fn(usize) -> String) -> String {
    let steps = repeated(count, |n| format!("  - {{name: s{n}, image: x, {}}}\n", keys(n)));
    format!("stages:\n- name: s\n  steps:\n{steps}")
}

/// Name, file, and how the first finding begins (empty: it compiles).
type Case = (&'static str, String, &'static str);

fn deep() -> Vec<Case> {
    let stairs = repeated(1_000, |n| format!("{}a:\n", " ".repeat(n)));
    vec![
        ("brackets", "[".repeat(MIB), "1:33: lists and mappings are nested"),
        ("braces", "{".repeat(MIB), "1:33: lists and mappings are nested"),
        (
            "mappings",
            "{a: ".repeat(MIB / 4),
            "1:129: lists and mappings are nested",
        ),
        ("dashes", "- ".repeat(MIB / 2), "1:65: lists and mappings are nested"),
        ("questions", "? ".repeat(MIB / 2), "1:65: lists and mappings are nested"),
        ("stairs", stairs, "33:33: lists and mappings are nested"),
    ]
}

fn wide() -> Vec<Case> {
    vec![
        ("a list", "- a\n".repeat(MIB / 4), "100000:3: the file holds more than"),
        (
            "an empty list",
            "-\n".repeat(MIB / 2),
            "100000:2: the file holds more than",
        ),
        (
            "a flow list",
            format!("[{}]", "a,".repeat(MIB / 2 - 1)),
            "1:200000: the file holds more than",
        ),
        ("one line", "x".repeat(MIB), "1:1: the file must be a mapping"),
        ("one word", "ü".repeat(MIB / 2), "1:1: the file must be a mapping"),
        (
            "one quote",
            format!("a: \"{}", "x".repeat(MIB - 4)),
            "1:4: a quoted text is not closed",
        ),
        (
            "escapes",
            format!("a: \"{}\"", "\\u00e9".repeat(MIB / 7)),
            "1:1: `a` is not a key",
        ),
        (
            "one key",
            format!("? {}\n: b", "x".repeat(MIB - 6)),
            "1:1: the file has no `stages`",
        ),
        ("NUL", "\0".repeat(MIB), "1:1: the control character NUL"),
        ("returns", "\r".repeat(MIB), "1:1: the file is empty"),
        ("comments", "#\n".repeat(MIB / 2), "1:1: the file is empty"),
        ("tabs", "\t".repeat(MIB), "1:1: the file is empty"),
        ("documents", "---\n".repeat(MIB / 4), "2:1: a second YAML document"),
        ("colons", ": ".repeat(MIB / 2), "1:1: a key is empty"),
        ("directives", "%a b\n".repeat(MIB / 5), "1:1: directives"),
        ("too large", "x".repeat(64 * MIB), "1:1: the file has 67108864 bytes"),
    ]
}

fn full_of_errors() -> Vec<Case> {
    // As many as the limit of keys and values lets through.
    let keys = |word: &str| repeated(49_000, |n| format!("{word}{n}: v\n"));
    let nobody = steps(900, |_| {
        format!("run: y, needs: [{}]", repeated(90, |n| format!("t{n},")))
    });
    let everybody = steps(900, |n| {
        let needs = repeated(90, |k| format!("s{},", (n + k + 1) % 900));
        format!("run: y, needs: [{needs}]")
    });
    let numbers = format!("env:\n{}", repeated(900, |n| format!("  A{n}: 1.5\n")));
    let templates = repeated(1_000, |n| format!("  t{n}: {{extends: t{}}}\n", (n + 1) % 1_000));
    let empty_steps = format!("stages:\n- name: s\n  steps:\n{}", "  - {}\n".repeat(90_000));
    let expressions = steps(1_000, |_| format!("run: '{}'", "${{".repeat(300)));
    let circle = steps(1_000, |n| format!("run: y, needs: [s{}]", (n + 1) % 1_000));
    vec![
        ("unknown keys", keys("k"), "1:1: `k0` is not a key"),
        ("almost keys", keys("stags"), "1:1: `stags0` is not a key"),
        ("the same key", "a: v\n".repeat(MIB / 5), "2:1: duplicate key `a`"),
        ("steps of nothing", empty_steps, "4:5: the step has no `image`"),
        (
            "entries",
            steps(1, |_| format!("run: [{}]", "1.5,".repeat(99_000))),
            "4:31: `run` holds",
        ),
        ("numbers as variables", numbers, "1:1: the file has no `stages`"),
        ("needs of nobody", nobody, "4:42: step `s0` needs `t0`"),
        ("a circle of all", circle, "4:42: steps need each other in a circle"),
        (
            "everybody needs everybody",
            everybody,
            "4:389: steps need each other in a circle",
        ),
        ("expressions", expressions, "4:32: an expression is never"),
        (
            "templates in a circle",
            format!("templates:\n{templates}"),
            "1:1: the file has no `stages`",
        ),
    ]
}

fn multiplied() -> Vec<Case> {
    let laughs = repeated(40, |n| {
        let item = if n == 0 {
            "lol".to_owned()
        } else {
            format!("*a{}", n - 1)
        };
        format!("x-{n}: &a{n} [{}]\n", vec![item; 9].join(", "))
    });
    let chain = repeated(2_000, |n| {
        let merge = if n == 0 {
            String::new()
        } else {
            format!("<<: *a{}, ", n - 1)
        };
        format!("x-{n}: &a{n} {{{merge}k{n}: 1}}\n")
    });
    let long_keys = format!("x-a: &a {}\nenv: {{{}}}\n", "z".repeat(MIB / 2), "*a,".repeat(9_000));
    let wide_templates = repeated(950, |n| {
        let (extends, count) = match n {
            0 => (String::new(), 1_000),
            1..15 => (format!("extends: t{}, ", n - 1), 1_000),
            _ => ("extends: t14, ".to_owned(), 1),
        };
        format!(
            "  t{n}: {{{extends}env: {{{}}}}}\n",
            repeated(count, |k| format!("A{n}_{k}: y,"))
        )
    });
    let wide_steps = steps(950, |n| format!("run: y, extends: t{n}"));
    let text = format!("x-b: &b '{}'\n", "y".repeat(MIB / 2));
    let one_text = text + &steps(1_000, |_| "run: *b, after: *b".to_owned());
    let variables = repeated(1_000, |n| format!("  A{n}: y\n"));
    let one_env = format!("env:\n{variables}{}", steps(1_000, |_| "run: y".to_owned()));
    let right = steps(1_000, |n| {
        format!("run: [{}], env: {{A: b}}", repeated(30, |k| format!("make t-{n}-{k},")))
    });
    vec![
        ("laughs", laughs, "6:46: aliases make the file larger than 500000"),
        (
            "aliases",
            format!("x-a: &a b\nx-b: [{}]", "*a,".repeat(MIB / 4)),
            "2:30007: the file holds more than 10000 aliases",
        ),
        ("long keys", long_keys, "1:1: the file has no `stages`"),
        (
            "a chain of merges",
            chain,
            "500:14: aliases make the file larger than 500000",
        ),
        ("one text for all", one_text, "5:5: the commands of step `s0`"),
        (
            "one environment for all",
            one_env,
            "1405:5: with this step the pipeline is larger than 8Mi",
        ),
        (
            "wide templates",
            format!("templates:\n{wide_templates}{wide_steps}"),
            "3:3: with those that it takes over",
        ),
        (
            "anchors",
            repeated(MIB / 14, |n| format!("- &a{n} x\n")),
            "1:1: the file must be a mapping",
        ),
        ("a thousand right steps", right, ""),
    ]
}

/// What is wrong with the answer to one file.
fn complaint(text: String, expect: &str) -> Option<String> {
    let compile = move || {
        let before = processor_time();
        let result = pipeline::compile(&text);
        (result, processor_time().saturating_sub(before))
    };
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(compile);
    let Ok((result, spent)) = thread.expect("a thread").join() else {
        return Some("it panicked".to_owned());
    };
    if spent >= ANSWER {
        return Some(format!("it took {spent:?}"));
    }
    let lines = match result {
        Ok(_) => Vec::new(),
        Err(findings) => findings.lines(),
    };
    let right = match lines.first() {
        None => expect.is_empty(),
        Some(first) => !expect.is_empty() && first.starts_with(expect),
    };
    let short = lines.len() <= pipeline::FINDINGS_MAX + 1 && lines.iter().all(|line| line.len() < 1_000);
    (!right || !short).then(|| format!("{lines:?}"))
}

#[test]
fn every_file_is_answered_within_a_second_on_a_small_stack() {
    let complaints: Vec<String> = [deep(), wide(), full_of_errors(), multiplied()]
        .into_iter()
        .flatten()
        .filter_map(|(name, text, expect)| complaint(text, expect).map(|found| format!("{name}: {found:.300}")))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
