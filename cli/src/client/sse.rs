//! Server-sent events out of bytes as they come; pure.
//!
//! Not here: connecting again, and what the events mean.

/// The longest event that is read; a log's events are far shorter.
const EVENT_MAX_BYTES: usize = 4 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Event {
    /// `message` when the stream gives no name.
    pub(super) event: String,
    /// Lines joined by newlines.
    pub(super) data: String,
    /// The id to go on from, if this event has set one.
    pub(super) id: Option<String>,
}

/// An event passed the bound: whatever answers there is no BuildFlow server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {EVENT_MAX_BYTES} bytes")]
pub(super) struct TooLong;

/// Reads a stream, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    /// The last byte was a carriage return, which a newline may belong to.
    after_return: bool,
    event: String,
    data: Vec<u8>,
    has_data: bool,
    id: Option<String>,
}

impl Reader {
    /// Takes the next bytes; answers the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let joined = std::mem::replace(&mut self.after_return, *byte == b'\r');
            match byte {
                b'\n' if joined => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    events.extend(self.line(&line));
                }
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.data.len() > EVENT_MAX_BYTES {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn line(&mut self, line: &[u8]) -> Option<Event> {
        if line.is_empty() {
            return self.dispatch();
        }
        let colon = line.iter().position(|b| *b == b':');
        let (field, value) = match colon {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.event = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            b"id" if !value.contains(&0) => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            // Comments keep the connection open; other fields are not ours.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        let id = self.id.take();
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        Some(Event {
            event: if event.is_empty() { "message".to_owned() } else { event },
            data: String::from_utf8_lossy(&data).into_owned(),
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, data, id.
    type Expected = (&'static str, &'static str, Option<&'static str>);

    fn read(stream: &[u8], cut: usize) -> Vec<(String, String, Option<String>)> {
        let mut reader = Reader::default();
        let events = stream.chunks(cut).flat_map(|c| reader.push(c).expect("short"));
        events.map(|e| (e.event, e.data, e.id)).collect()
    }

    #[test]
    fn streams_are_read_however_they_are_cut() {
        let cases: [(&str, &[Expected]); 7] = [
            (
                "event: log\nid: 5\ndata: a\ndata: \ndata: b\n\n",
                &[("log", "a\n\nb", Some("5"))],
            ),
            (
                "data: x\n\ndata: y\n\n",
                &[("message", "x", None), ("message", "y", None)],
            ),
            (": still here\n\ndata:x\r\n\r\n", &[("message", "x", None)]),
            ("data\n\n", &[("message", "", None)]),
            ("event: done\n\n", &[]),
            ("data: not finished\n", &[]),
            (
                "data:  two spaces: and ü\n\n",
                &[("message", " two spaces: and ü", None)],
            ),
        ];
        for (stream, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(e, d, i)| ((*e).to_owned(), (*d).to_owned(), i.map(str::to_owned)))
                .collect();
            for cut in [1, 2, 3, 1_000] {
                assert_eq!(read(stream.as_bytes(), cut), expected, "{stream:?} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = Reader::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1 << 16], b"\n"].concat();
        let refused = (0..100).find_map(|_| reader.push(&line).err());
        assert_eq!(refused, Some(TooLong));
        let mut reader = Reader::default();
        assert_eq!(reader.push(&vec![b'x'; EVENT_MAX_BYTES + 1]), Err(TooLong));
    }
}
