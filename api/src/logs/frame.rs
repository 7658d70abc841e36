//! Log bytes as a stream of events, exactly: how bytes become events and offsets become ids.
//!
//! As server-sent events, which are text:
//!
//! | event | data |
//! |---|---|
//! | `step` | JSON `{"step","attempt","offset"}`: the events that follow are this step's |
//! | `log` | text: its UTF-8 bytes are the log's bytes, newlines included |
//! | `bytes` | base64 of bytes that an event cannot carry as text: carriage returns, invalid UTF-8 |
//! | `end` | JSON `{"step","attempt","total","complete"}`: no more of this step |
//! | `done` | JSON `{}`: no more of this stream; do not connect again |
//!
//! As pieces, which hold any bytes, the same without `log` and `bytes` being two. Not here: where the
//! bytes come from, HTTP, gRPC.

use axum::body::Bytes;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

/// The most bytes of log in one event.
const EVENT_MAX: usize = 64 * 1024;

/// Bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Raw,
}

/// The data of `step`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LogBegin<'a> {
    pub(crate) step: &'a str,
    pub(crate) attempt: u32,
    pub(crate) offset: u64,
}

/// The data of `end`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LogEnd<'a> {
    pub(crate) step: &'a str,
    pub(crate) attempt: u32,
    pub(crate) total: u64,
    pub(crate) complete: bool,
    /// The rest was lost with its node and never comes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) lost: bool,
}

/// What a stream of logs is written as.
pub(crate) trait Form: Default + Send {
    /// True while nothing was written.
    fn is_empty(&self) -> bool;
    /// Whose bytes follow.
    fn begin(&mut self, begin: &LogBegin<'_>);
    /// Bytes of one log, which begin at `offset`; `framer` is that log's. `id` makes the id of the
    /// offset after some of them.
    fn bytes(&mut self, framer: &mut Framer, offset: u64, bytes: &Bytes, id: impl Fn(u64) -> String);
    /// What the framer kept; the log ends at `offset`.
    fn rest(&mut self, framer: &mut Framer, offset: u64, id: impl Fn(u64) -> String);
    /// What was written is followed by `later`.
    fn append(&mut self, later: Self);
    /// No more of an attempt.
    fn end(&mut self, id: &str, end: &LogEnd<'_>);
    /// Nothing follows.
    fn done(&mut self);
    /// A word in between, where the form has one.
    fn still_here(&mut self);
}

/// Server-sent events.
impl Form for Vec<u8> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn begin(&mut self, begin: &LogBegin<'_>) {
        write_json(self, "step", None, begin);
    }

    fn bytes(&mut self, framer: &mut Framer, offset: u64, bytes: &Bytes, id: impl Fn(u64) -> String) {
        framer.push(self, offset, bytes, id);
    }

    fn rest(&mut self, framer: &mut Framer, offset: u64, id: impl Fn(u64) -> String) {
        framer.finish(self, offset, id);
    }

    fn append(&mut self, mut later: Self) {
        Vec::append(self, &mut later);
    }

    fn end(&mut self, id: &str, end: &LogEnd<'_>) {
        write_json(self, "end", Some(id), end);
    }

    fn done(&mut self) {
        write_json(self, "done", None, &serde_json::json!({}));
    }

    fn still_here(&mut self) {
        self.extend_from_slice(KEEP_ALIVE);
    }
}

/// An event of a stream that can hold any bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Whose bytes follow.
    Begin {
        /// The step's name.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// Of the next byte.
        offset: u64,
    },
    /// Bytes, and where to go on after them.
    Data(String, Bytes),
    /// No more of an attempt, and where to go on after it.
    End {
        /// Where to go on.
        id: String,
        /// The step's name.
        step: String,
        /// Its attempt.
        attempt: u32,
        /// How many bytes there were.
        total: u64,
        /// False: the rest is not there.
        complete: bool,
        /// The rest was lost with its node.
        lost: bool,
    },
    /// Nothing follows.
    Done,
}

/// Pieces.
impl Form for Vec<Piece> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn begin(&mut self, begin: &LogBegin<'_>) {
        self.push(Piece::Begin {
            step: begin.step.to_owned(),
            attempt: begin.attempt,
            offset: begin.offset,
        });
    }

    fn bytes(&mut self, _: &mut Framer, offset: u64, bytes: &Bytes, id: impl Fn(u64) -> String) {
        self.push(Piece::Data(id(offset + bytes.len() as u64), bytes.clone()));
    }

    fn rest(&mut self, _: &mut Framer, _: u64, _: impl Fn(u64) -> String) {}

    fn append(&mut self, mut later: Self) {
        Vec::append(self, &mut later);
    }

    fn end(&mut self, id: &str, end: &LogEnd<'_>) {
        self.push(Piece::End {
            id: id.to_owned(),
            step: end.step.to_owned(),
            attempt: end.attempt,
            total: end.total,
            complete: end.complete,
            lost: end.lost,
        });
    }

    fn done(&mut self) {
        self.push(Piece::Done);
    }

    // The protocol below asks its peers itself whether they are there.
    fn still_here(&mut self) {}
}

/// Writes events for the bytes of one log.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    /// The start of a UTF-8 sequence whose rest has not come: at most three bytes.
    carry: Vec<u8>,
}

impl Framer {
    /// Appends events for `bytes`, which begin at `offset` (carried bytes come before it). `id`
    /// makes the id of the offset after an event. Bytes of an unfinished character are kept.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, offset: u64, bytes: &Bytes, id: impl Fn(u64) -> String) {
        let mut at = offset - self.carry.len() as u64;
        let joined;
        let all: &[u8] = if self.carry.is_empty() {
            bytes
        } else {
            joined = [self.carry.as_slice(), bytes.as_ref()].concat();
            &joined
        };
        let (whole, rest) = all.split_at(all.len() - unfinished(all));
        for (kind, part) in parts(whole) {
            at += part.len() as u64;
            write_part(out, kind, part, &id(at));
        }
        self.carry = rest.to_vec();
    }

    /// Nothing follows: what was kept is written.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>, offset: u64, id: impl Fn(u64) -> String) {
        if !self.carry.is_empty() {
            write_part(out, Kind::Raw, &std::mem::take(&mut self.carry), &id(offset));
        }
    }
}

/// How many bytes at the end begin a UTF-8 sequence that is not finished.
fn unfinished(bytes: &[u8]) -> usize {
    let tail = bytes.len().min(3);
    for back in 1..=tail {
        let lead = bytes[bytes.len() - back];
        let needs = match lead {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        let fits = std::str::from_utf8(&bytes[bytes.len() - back..]).is_err_and(|e| e.error_len().is_none());
        return if needs > back && fits { back } else { 0 };
    }
    0
}

/// Splits bytes into stretches of one kind, lines kept whole where they are short enough.
fn parts(bytes: &[u8]) -> Vec<(Kind, &[u8])> {
    let mut parts: Vec<(Kind, &[u8])> = Vec::new();
    let (mut from, mut to) = (0, 0);
    let mut kind = Kind::Text;
    for line in bytes.split_inclusive(|b| *b == b'\n').flat_map(pieces) {
        let this = if is_text(line) { Kind::Text } else { Kind::Raw };
        if to > from && (this != kind || to - from + line.len() > EVENT_MAX) {
            parts.push((kind, &bytes[from..to]));
            from = to;
        }
        kind = this;
        to += line.len();
    }
    if to > from {
        parts.push((kind, &bytes[from..to]));
    }
    parts
}

/// A line in pieces of at most [`EVENT_MAX`] bytes, cut between characters where it is UTF-8.
fn pieces(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut cut = rest.len().min(EVENT_MAX);
        if cut < rest.len() {
            cut -= unfinished(&rest[..cut]);
        }
        let (head, tail) = rest.split_at(cut);
        rest = tail;
        Some(head)
    })
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&b'\r') && std::str::from_utf8(bytes).is_ok()
}

fn write_part(out: &mut Vec<u8>, kind: Kind, bytes: &[u8], id: &str) {
    match kind {
        Kind::Text => write_event(out, "log", Some(id), bytes),
        Kind::Raw => write_event(out, "bytes", Some(id), BASE64_STANDARD.encode(bytes).as_bytes()),
    }
}

/// Appends an event whose data is JSON.
fn write_json(out: &mut Vec<u8>, event: &str, id: Option<&str>, data: &impl Serialize) {
    let text = serde_json::to_vec(data).expect("these events have string keys only");
    write_event(out, event, id, &text);
}

/// Appends an event. `data` holds no carriage return.
fn write_event(out: &mut Vec<u8>, event: &str, id: Option<&str>, data: &[u8]) {
    out.reserve(data.len() + 64);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    if let Some(id) = id {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id.as_bytes());
    }
    for line in data.split(|b| *b == b'\n') {
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\n\n");
}

/// What keeps idle connections open.
const KEEP_ALIVE: &[u8] = b": still here\n\n";

#[cfg(test)]
pub(crate) mod reading {
    //! A reader of the events, as a client would write it.

    use super::*;

    /// One event as a client sees it.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Event {
        /// Its kind.
        pub(crate) event: String,
        /// The newest id.
        pub(crate) id: Option<String>,
        /// Its data.
        pub(crate) data: String,
    }

    impl Event {
        /// The log's bytes in it.
        pub(crate) fn bytes(&self) -> Vec<u8> {
            match self.event.as_str() {
                "log" => self.data.clone().into_bytes(),
                "bytes" => BASE64_STANDARD.decode(&self.data).unwrap(),
                _ => Vec::new(),
            }
        }
    }

    /// The events of a stream so far, by the rules of the HTML standard.
    pub(crate) fn events(stream: &[u8]) -> Vec<Event> {
        let text = std::str::from_utf8(stream).expect("an event stream is UTF-8");
        assert!(!text.contains('\r'));
        let mut events = Vec::new();
        for block in text.split_terminator("\n\n") {
            let mut event = Event::default();
            let mut data = Vec::new();
            for line in block.lines() {
                match line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")) {
                    ("event", v) => event.event = v.to_owned(),
                    ("id", v) => event.id = Some(v.to_owned()),
                    ("data", v) => data.push(v),
                    ("", _) => {}
                    other => panic!("{other:?}"),
                }
            }
            if !data.is_empty() {
                event.data = data.join("\n");
                events.push(event);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::reading::events;
    use super::*;
    use proptest::prelude::*;

    fn frame(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut framer, mut out, mut at) = (Framer::default(), Vec::new(), 0);
        for chunk in chunks {
            framer.push(&mut out, at, &Bytes::copy_from_slice(chunk), |o| o.to_string());
            at += chunk.len() as u64;
        }
        framer.finish(&mut out, at, |o| o.to_string());
        out
    }

    fn check(chunks: &[&[u8]], expect: &[(&str, &str, &str)]) {
        let got: Vec<_> = events(&frame(chunks))
            .into_iter()
            .map(|e| (e.event, e.id.unwrap(), e.data))
            .collect();
        let expect: Vec<_> = expect
            .iter()
            .map(|(e, i, d)| ((*e).to_owned(), (*i).to_owned(), (*d).to_owned()))
            .collect();
        assert_eq!(got, expect, "{chunks:?}");
    }

    #[test]
    fn text_is_itself_and_the_rest_is_base64() {
        check(&[b"a\n"], &[("log", "2", "a\n")]);
        check(&[b"a\nb"], &[("log", "3", "a\nb")]);
        check(&[b"\n\n"], &[("log", "2", "\n\n")]);
        check(&[b" lead: x\n"], &[("log", "9", " lead: x\n")]);
        check(
            &[b"a\nb\rc\nd\n"],
            &[("log", "2", "a\n"), ("bytes", "6", "Yg1jCg=="), ("log", "8", "d\n")],
        );
        check(&[b"\xff\n"], &[("bytes", "2", "/wo=")]);
    }

    #[test]
    fn a_character_that_comes_in_two_messages_is_whole() {
        check(&[b"x\xc3", b"\xa4y"], &[("log", "1", "x"), ("log", "4", "äy")]);
        check(&[b"\xf0\x9f", b"\x98", b"\x80"], &[("log", "4", "😀")]);
        check(&[b"x\xc3"], &[("log", "1", "x"), ("bytes", "2", "ww==")]);
        check(&[b"\xc3", b"x"], &[("bytes", "2", "w3g=")]);
    }

    #[test]
    fn no_event_carries_more_than_its_bound() {
        let line = "ü".repeat(EVENT_MAX);
        let stream = frame(&[line.as_bytes(), &[b'\r'; 3 * EVENT_MAX]]);
        let all = events(&stream);
        assert!(all.len() >= 5);
        assert!(all.iter().all(|e| e.bytes().len() <= EVENT_MAX));
        assert!(all.iter().take(2).all(|e| e.event == "log"), "cut between characters");
    }

    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            "[ -~]{0,20}\n?".prop_map(String::into_bytes),
            "\\PC{0,8}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..12),
            Just(b"\r\n".to_vec()),
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|p| p.concat())
    }

    proptest! {
        #[test]
        fn events_are_the_exact_bytes_and_every_id_is_their_offset(log in noise(), cuts in proptest::collection::vec(0usize..300, 0..10)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(log.len())).chain([0, log.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &log[w[0]..w[1]]).collect();
            let mut got = Vec::new();
            for event in events(&frame(&chunks)) {
                got.extend(event.bytes());
                prop_assert_eq!(event.id.unwrap(), got.len().to_string());
            }
            prop_assert_eq!(got, log);
        }
    }
}
