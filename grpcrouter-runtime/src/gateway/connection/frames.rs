//! Counts what a client's HTTP/2 frames are good for, by their heads alone: who sends pings, settings or resets far beyond
//! what calls need is ended, for each of them costs an answer or a call. The HTTP/2 library sets no limit to them.

use std::time::Duration;

use tokio::time::Instant;

/// One connection's frames, as they are read.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to come that are no frame's head: the rest of a payload, at first the preface.
    skip: usize,
    head: Head,
    now: Window,
    since: Instant,
    /// The highest stream so far, and what it was at the last two looks.
    highest: u32,
    marks: [u32; 2],
    marked: Instant,
}

/// A frame's head, of which so many bytes have come.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEAD],
    have: usize,
}

/// What came and went within one window of time.
#[derive(Debug, Default)]
struct Window {
    /// Frames that ask for something and bring no call further.
    control: u64,
    /// Resets of streams that had just begun.
    early_resets: u64,
    resets: u64,
    opened: u64,
    /// Frames that calls are made of.
    useful: u64,
    written: u64,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    Control,
    Resets,
}

/// Whether to ask [`Frames::judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Seen {
    /// What calls are made of.
    Ordinary,
    /// Something of which there may be too much.
    Doubtful,
}

impl Frames {
    /// Of a connection that begins with the preface of HTTP/2.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: Head::default(),
            now: Window::default(),
            since: now,
            highest: 0,
            marks: [0; 2],
            marked: now,
        }
    }

    /// So many bytes went out.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.now.written = self.now.written.saturating_add(bytes as u64);
    }

    /// These bytes came in.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Seen {
        let before = self.now.control + self.now.resets;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let part = self.skip.min(bytes.len());
                self.skip -= part;
                bytes = bytes.get(part..).unwrap_or_default();
                continue;
            }
            bytes = self.head.take(bytes);
            if self.head.have == HEAD {
                self.head.have = 0;
                self.frame(self.head.bytes);
            }
        }
        if self.now.control + self.now.resets == before { Seen::Ordinary } else { Seen::Doubtful }
    }

    /// RFC 9113, section 4.1.
    fn frame(&mut self, [l0, l1, l2, kind, _, s0, s1, s2, s3]: [u8; HEAD]) {
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        self.skip = length as usize;
        let now = &mut self.now;
        match kind {
            DATA if length > 0 => now.useful += 1,
            HEADERS => {
                now.useful += 1;
                // Trailers of a request have a stream that is there already.
                if stream > self.highest {
                    self.highest = stream;
                    now.opened += 1;
                }
            }
            // Their floods have limits in the HTTP/2 library, or cost it nothing that lasts.
            DATA | CONTINUATION | WINDOW_UPDATE => {}
            RST_STREAM => {
                now.resets += 1;
                let [_, earlier] = self.marks;
                now.early_resets += u64::from(stream > earlier);
            }
            _ => now.control += 1,
        }
    }

    /// Whether it is too much. To be asked when something doubtful came.
    pub(super) fn judge(&mut self, now: Instant) -> Result<(), Flood> {
        if now.saturating_duration_since(self.marked) >= YOUNG {
            let [later, _] = self.marks;
            self.marks = [self.highest, later];
            self.marked = now;
        }
        let window = &self.now;
        // The answers to control frames buy no more of them.
        let answered = window.written.saturating_sub(window.control * ANSWER);
        let may = MAX_CONTROL + window.useful + answered / BYTES_PER_CONTROL;
        if window.control > may {
            return Err(Flood::Control);
        }
        if window.early_resets > MAX_EARLY_RESETS + window.opened.saturating_sub(window.resets) {
            return Err(Flood::Resets);
        }
        if now.saturating_duration_since(self.since) >= WINDOW {
            self.now = Window::default();
            self.since = now;
        }
        Ok(())
    }
}

impl Head {
    /// Takes what is missing, and gives back the rest.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let part = (HEAD - self.have).min(bytes.len());
        if let (Some(to), Some(from)) = (self.bytes.get_mut(self.have..self.have + part), bytes.get(..part)) {
            to.copy_from_slice(from);
        }
        self.have += part;
        bytes.get(part..).unwrap_or_default()
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Bytes of a frame's head.
const HEAD: usize = 9;

/// Bytes of `PRI * HTTP/2.0` and what belongs to it.
const PREFACE: usize = 24;

/// Bytes of the longest answer to a control frame: that to a ping.
const ANSWER: u64 = 17;

/// What is counted is forgotten after so long.
const WINDOW: Duration = Duration::from_secs(10);

/// Pings, settings, priorities and unknown frames within ten seconds that nothing has to justify: a keepalive of ten a
/// second is far below it.
const MAX_CONTROL: u64 = 1_000;

/// A client that measures its way while it reads sends a ping for each message at most: each takes as many bytes of ours.
const BYTES_PER_CONTROL: u64 = 16;

/// Calls within ten seconds that are taken back as soon as they are made, beyond as many as were not. A client that ends
/// may take back all it has, which are at most 256; one that asks two and keeps the faster answer has one for each.
const MAX_EARLY_RESETS: u64 = 500;

/// A call that is this old when it is reset had its time: a deadline, a user who went on. At most twice of it is meant.
const YOUNG: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a failed index is a failed test")]
    use super::*;

    fn frame(kind: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(payload).unwrap_or_default().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(HEAD + payload, 0xee);
        bytes
    }

    fn begun(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        assert_eq!(frames.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Seen::Ordinary);
        frames
    }

    const PING: u8 = 6;

    /// How many times `bytes` may come before it is too much.
    fn times(frames: &mut Frames, now: Instant, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<(u32, Flood)> {
        (0..5_000).find_map(|time| {
            let seen = frames.read(&bytes(time));
            let judged = if seen == Seen::Doubtful { frames.judge(now) } else { Ok(()) };
            judged.err().map(|flood| (time, flood))
        })
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let way =
            [frame(4, 0, 6), frame(HEADERS, 1, 40), frame(DATA, 1, 300), frame(PING, 0, 8), frame(RST_STREAM, 1, 4)];
        let bytes = way.concat();
        for size in [1, 2, 7, 9, 10, 100, bytes.len()] {
            let mut frames = begun(Instant::now());

            let doubtful = bytes.chunks(size).filter(|part| frames.read(part) == Seen::Doubtful).count();

            let now = &frames.now;
            let counted = (now.control, now.useful, now.opened, now.resets, now.early_resets);
            assert_eq!(counted, (2, 2, 1, 1, 1), "in parts of {size}");
            assert!((1..=3).contains(&doubtful));
        }
    }

    #[test]
    fn pings_without_calls_are_too_many_after_a_thousand() {
        let now = Instant::now();

        assert_eq!(times(&mut begun(now), now, |_| frame(PING, 0, 8)), Some((1_000, Flood::Control)));
        assert_eq!(times(&mut begun(now), now, |_| frame(4, 0, 0)), Some((1_000, Flood::Control)));
        assert_eq!(times(&mut begun(now), now, |_| frame(2, 1, 5)), Some((1_000, Flood::Control)));
        assert_eq!(times(&mut begun(now), now, |_| frame(0xbe, 0, 0)), Some((1_000, Flood::Control)));
    }

    #[test]
    fn the_answers_to_pings_justify_no_pings_and_those_to_calls_do() {
        let now = Instant::now();
        let mut flood = begun(now);
        let mut measuring = begun(now);

        let flooded = times(&mut flood, now, |_| frame(PING, 0, 8)).is_some();
        let measured = times(&mut measuring, now, |_| frame(PING, 0, 8));

        assert!(flooded && measured.is_some());
        let answered = |answer: usize| {
            let mut frames = begun(now);
            (0..5_000).any(|_| {
                frames.wrote(answer);
                let _ = frames.read(&frame(PING, 0, 8));
                frames.judge(now).is_err()
            })
        };
        assert!(answered(ANSWER as usize), "only its own answer");
        assert!(!answered(ANSWER as usize + 9 + 7), "and one small DATA frame");
    }

    #[test]
    fn a_keepalive_of_ten_a_second_goes_on_for_good() {
        let start = Instant::now();
        let mut frames = begun(start);

        for tick in 0..36_000 {
            assert_eq!(frames.read(&frame(PING, 0, 8)), Seen::Doubtful);
            assert_eq!(frames.judge(start + Duration::from_millis(100 * tick)), Ok(()));
        }
    }

    #[test]
    fn calls_that_are_taken_back_at_once_are_too_many_after_five_hundred() {
        let now = Instant::now();
        let rapid = |time: u32| [frame(HEADERS, time * 2 + 1, 30), frame(RST_STREAM, time * 2 + 1, 4)].concat();

        assert_eq!(times(&mut begun(now), now, rapid), Some((500, Flood::Resets)));
    }

    #[test]
    fn the_same_at_a_slower_pace_is_too_much_as_well() {
        let start = Instant::now();
        let mut frames = begun(start);

        let ended = (0..5_000).find(|time| {
            let stream = time * 2 + 1;
            let _ = frames.read(&[frame(HEADERS, stream, 30), frame(RST_STREAM, stream, 4)].concat());
            frames.judge(start + Duration::from_millis(2 * u64::from(*time))).is_err()
        });

        assert_eq!(ended, Some(500));
    }

    #[test]
    fn a_client_that_keeps_one_of_two_answers_goes_on_for_good() {
        let now = Instant::now();
        let hedging = |time: u32| {
            let first = time * 4 + 1;
            [frame(HEADERS, first, 30), frame(HEADERS, first + 2, 30), frame(RST_STREAM, first + 2, 4)].concat()
        };

        assert_eq!(times(&mut begun(now), now, hedging), None);
    }

    #[test]
    fn calls_that_had_their_time_are_taken_back_for_good() {
        let start = Instant::now();
        let mut frames = begun(start);

        // 500 calls a second, each reset after 300 ms, and none is ever answered.
        for time in 0..5_000_u32 {
            let _ = frames.read(&frame(HEADERS, time * 2 + 1, 30));
            if let Some(old) = time.checked_sub(150) {
                let _ = frames.read(&frame(RST_STREAM, old * 2 + 1, 4));
            }
            assert_eq!(frames.judge(start + Duration::from_millis(2 * u64::from(time))), Ok(()), "{time}");
        }
    }
}
