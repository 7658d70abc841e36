//! Reads tar entry by entry, with a bound on everything that is kept in memory: names, links and
//! extended headers of any length may stand in a layer.
//!
//! Not here: what an entry means for a layer, and whether it is allowed (see `tree`).

use std::io::{self, Read};

/// Blocks of this size are what tar is made of.
const BLOCK: usize = 512;
/// The most that a long name, link or extended header may take: a path is at most 4 KiB, the only
/// attribute that is kept is smaller still.
const EXTENSION_MAX: u64 = 1 << 20;
/// How many extended headers may precede one entry.
const EXTENSIONS_MAX: usize = 16;

/// Why a tarball cannot be read on.
#[derive(Debug)]
pub(crate) enum TarError {
    /// The source failed.
    Io(io::Error),
    /// It is no tar, or a damaged one.
    Broken(String),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
    Other(u8),
}

/// One entry's head; its data is read through [`Tarball::data`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds of the Unix epoch.
    pub(crate) mtime: (i64, i64),
    pub(crate) size: u64,
    /// The attribute `security.capability`.
    pub(crate) capability: Option<Vec<u8>>,
}

/// A tar stream.
#[derive(Debug)]
pub(crate) struct Tarball<R> {
    from: R,
    /// Bytes of the current entry that were not read.
    left: u64,
    /// Zeroes that fill its last block.
    padding: u64,
    /// Bytes read of the stream so far.
    position: u64,
}

/// What extended headers say about the entry that follows.
#[derive(Debug, Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    capability: Option<Vec<u8>>,
}

impl<R: Read> Tarball<R> {
    pub(crate) fn new(from: R) -> Self {
        Self {
            from,
            left: 0,
            padding: 0,
            position: 0,
        }
    }

    /// Where the current entry's data begins, when none of it was read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// For sources that can be sought: the current entry's data was passed over by somebody else.
    pub(crate) fn passed_over(&mut self) -> (&mut R, u64) {
        let rest = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        self.position += rest;
        (&mut self.from, rest)
    }

    /// The next entry, after what is left of the one before; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        for _ in 0..EXTENSIONS_MAX {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header
                .entry_size()
                .map_err(|_| broken("an entry's size is not a number"))?;
            self.expect(size);
            match header.entry_type().as_byte() {
                b'L' => extended.name = Some(trimmed(self.extension(size)?)),
                b'K' => extended.link = Some(trimmed(self.extension(size)?)),
                b'x' => {
                    let records = self.extension(size)?;
                    pax(&records, &mut extended)?;
                }
                b'g' => drop(self.extension(size)?),
                b'S' => return Err(broken("sparse entries are not supported; make the layer without them")),
                _ => return self.entry(&header, size, extended).map(Some),
            }
        }
        Err(broken("an entry has more than 16 extended headers"))
    }

    /// The current entry's data.
    pub(crate) fn data(&mut self) -> Data<'_, R> {
        Data { tarball: self }
    }

    fn entry(&mut self, header: &tar::Header, size: u64, extended: Extended) -> Result<Entry, TarError> {
        let kind = match header.entry_type().as_byte() {
            b'0' | b'\0' | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        // Some programs write the size of what a link points at, without any data.
        let size = match kind {
            Kind::File | Kind::Other(_) => extended.size.unwrap_or(size),
            _ => 0,
        };
        self.expect(size);
        let fields = header.as_old();
        let number = |field: io::Result<u64>, raw: &[u8], what| match field {
            Ok(number) => Ok(number),
            Err(_) if raw.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
            Err(_) => Err(broken(what)),
        };
        Ok(Entry {
            name: extended.name.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extended
                .link
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default(),
            kind,
            mode: header.mode().map_err(|_| broken("an entry's mode is not a number"))?,
            uid: extended.uid.map_or_else(
                || number(header.uid(), &fields.uid, "an entry's uid is not a number"),
                Ok,
            )?,
            gid: extended.gid.map_or_else(
                || number(header.gid(), &fields.gid, "an entry's gid is not a number"),
                Ok,
            )?,
            mtime: extended.mtime.unwrap_or_else(|| {
                let seconds = header.mtime().unwrap_or(0);
                (i64::try_from(seconds).unwrap_or(0), 0)
            }),
            size,
            capability: extended.capability,
        })
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let rest = std::mem::take(&mut self.left).saturating_add(std::mem::take(&mut self.padding));
        let skipped = io::copy(&mut (&mut self.from).take(rest), &mut io::sink())?;
        self.position += skipped;
        if skipped < rest {
            return Err(broken("it ends in the middle of an entry"));
        }
        Ok(())
    }

    /// The next header; `None` at the zeroes or the end that close a tar.
    fn header(&mut self) -> Result<Option<tar::Header>, TarError> {
        let mut block = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.from.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(broken("it ends in the middle of a header")),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.position += BLOCK as u64;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block).clone();
        // The sum is taken with blanks where it stands itself.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(broken(
                "a header's checksum is wrong: it is not a tar, or it is damaged",
            ));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_MAX {
            return Err(broken("a name or extended header is longer than 1 MiB"));
        }
        let mut bytes = Vec::new();
        self.data().read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(broken("it ends in the middle of an extended header"));
        }
        Ok(bytes)
    }
}

/// Reads the current entry's data and no further.
#[derive(Debug)]
pub(crate) struct Data<'a, R> {
    tarball: &'a mut Tarball<R>,
}

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.tarball.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.tarball.from.read(&mut buffer[..most])?;
        self.tarball.left -= n as u64;
        self.tarball.position += n as u64;
        Ok(n)
    }
}

fn broken(why: &str) -> TarError {
    TarError::Broken(why.to_owned())
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Records of the form `<length> <key>=<value>\n`; a value may hold any byte.
fn pax(mut records: &[u8], extended: &mut Extended) -> Result<(), TarError> {
    let wrong = || broken("an extended header is damaged");
    while !records.is_empty() {
        let blank = records.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize = number(&records[..blank]).ok_or_else(wrong)?;
        if length <= blank + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(wrong());
        }
        let record = &records[blank + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extended.name = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => extended.size = Some(number(value).ok_or_else(wrong)?),
            b"uid" => extended.uid = Some(number(value).ok_or_else(wrong)?),
            b"gid" => extended.gid = Some(number(value).ok_or_else(wrong)?),
            b"mtime" => extended.mtime = Some(time(value).ok_or_else(wrong)?),
            b"SCHILY.xattr.security.capability" => extended.capability = Some(value.to_vec()),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(broken("sparse entries are not supported; make the layer without them"));
            }
            _ => {}
        }
        records = &records[length..];
    }
    Ok(())
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `seconds[.fraction]`, which may be negative.
fn time(value: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let cases = [
            ("0", Some((0, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.123456789012", Some((12, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("x", None),
            ("1.é", None),
            ("99999999999999999999", None),
        ];
        for (text, expected) in cases {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn damaged_streams_are_told_and_never_panic() {
        let mut whole = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(600);
        header.set_mode(0o644);
        header.set_cksum();
        whole
            .append_data(&mut header, "a".repeat(300), &[7u8; 600][..])
            .unwrap();
        let whole = whole.into_inner().unwrap();
        let walk = |bytes: &[u8]| {
            let mut tarball = Tarball::new(bytes);
            let mut names = Vec::new();
            loop {
                match tarball.next() {
                    Ok(Some(entry)) => names.push(entry.name.len()),
                    Ok(None) => return Ok(names),
                    Err(error) => return Err(error),
                }
            }
        };
        assert_eq!(walk(&whole).unwrap(), [300]);
        let mut failures = 0;
        for cut in (1..whole.len() - 1024).step_by(97) {
            failures += usize::from(walk(&whole[..cut]).is_err());
        }
        assert!(failures > 10, "{failures}");
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0x55;
            let _ = walk(&bent);
        }
    }

    #[test]
    fn extended_headers_are_bounded_and_checked() {
        let cases: [(&[u8], bool); 7] = [
            (b"12 path=abc\n", true),
            (b"13 path=a\nbc\n", true),
            (b"99 path=abc\n", false),
            (b"2 \n", false),
            (b"path=abc\n", false),
            (b"13 size=-100\n", false),
            (b"22 GNU.sparse.major=1\n", false),
        ];
        for (records, legal) in cases {
            assert_eq!(
                pax(records, &mut Extended::default()).is_ok(),
                legal,
                "{}",
                String::from_utf8_lossy(records)
            );
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(EXTENSION_MAX + 1);
        header.set_cksum();
        let stream = header.as_bytes().chain(io::repeat(b'x'));
        assert!(matches!(Tarball::new(stream).next(), Err(TarError::Broken(why)) if why.contains("1 MiB")));
    }
}
