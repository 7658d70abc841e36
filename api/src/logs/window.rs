//! The newest bytes of a log that a node sends to another server, as they come from there.
//!
//! A plain stretch of bytes under their offsets, bounded: a reader that is behind it reads blobs,
//! where the other server has stored what fell out of it. Not here: the way from there (`relay`).

use axum::body::Bytes;
use std::collections::VecDeque;

/// Most bytes that are kept of one log.
pub(super) const WINDOW_MAX: u64 = 256 * 1024;

/// The stretch.
#[derive(Debug, Default)]
pub(super) struct Window {
    pieces: VecDeque<(u64, Bytes)>,
    to: u64,
}

impl Window {
    /// An empty stretch that begins here.
    pub(super) fn new(from: u64) -> Self {
        Self {
            pieces: VecDeque::new(),
            to: from,
        }
    }

    /// The offset after the newest byte.
    pub(super) fn to(&self) -> u64 {
        self.to
    }

    /// Adds bytes; what is there already is passed over, after a gap the stretch begins anew.
    pub(super) fn push(&mut self, offset: u64, mut bytes: Bytes) {
        if offset > self.to {
            *self = Self::new(offset);
        }
        let known = self.to - offset;
        if known >= bytes.len() as u64 {
            return;
        }
        let fresh = bytes.split_off(usize::try_from(known).unwrap_or(bytes.len()));
        let at = self.to;
        self.to += fresh.len() as u64;
        self.pieces.push_back((at, fresh));
        while let Some((at, piece)) = self.pieces.front()
            && self.to - (at + piece.len() as u64) >= WINDOW_MAX
        {
            self.pieces.pop_front();
        }
    }

    /// Bytes from `offset` on, at most `max`; `None` when they are not here.
    pub(super) fn piece(&self, offset: u64, max: u64) -> Option<Bytes> {
        let index = self.pieces.partition_point(|(at, _)| *at <= offset).checked_sub(1)?;
        let (at, piece) = self.pieces.get(index)?;
        let skip = usize::try_from(offset - at).ok().filter(|s| *s < piece.len())?;
        let most = usize::try_from(max).unwrap_or(usize::MAX);
        Some(piece.slice(skip..piece.len().min(skip.saturating_add(most))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_by_their_offset_whatever_repeats_or_is_missing() {
        let mut window = Window::new(3);
        window.push(3, Bytes::from_static(b"defg"));
        window.push(1, Bytes::from_static(b"bcdefghi"));
        window.push(5, Bytes::from_static(b"fg"));
        assert_eq!(window.to(), 9);
        for (offset, found) in [
            (2, None),
            (3, Some("defg")),
            (6, Some("g")),
            (7, Some("hi")),
            (9, None),
            (99, None),
        ] {
            let piece = window.piece(offset, 100);
            assert_eq!(piece.as_deref(), found.map(str::as_bytes), "{offset}");
        }
        assert_eq!(window.piece(4, 2).as_deref(), Some(&b"ef"[..]));
        window.push(20, Bytes::from_static(b"u"));
        assert_eq!(
            (window.piece(7, 9), window.piece(20, 9).as_deref()),
            (None, Some(&b"u"[..]))
        );
    }

    #[test]
    fn only_the_newest_bytes_are_kept() {
        let mut window = Window::new(0);
        let piece = Bytes::from(vec![7; 64 * 1024]);
        for n in 0..100_u64 {
            window.push(n * 64 * 1024, piece.clone());
        }
        let held: u64 = window.pieces.iter().map(|(_, p)| p.len() as u64).sum();
        assert!(held <= WINDOW_MAX + 64 * 1024, "{held}");
        assert!(window.piece(window.to() - WINDOW_MAX, 1).is_some());
    }
}
