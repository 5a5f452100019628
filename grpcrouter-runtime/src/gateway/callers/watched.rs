//! A file that may change while the gateway runs: read again at most so often, and taken over only if it is good.
//!
//! It is looked at by the first call after each interval, so that nobody is let in by a list that is older: reading what
//! the system has in memory takes some microseconds, and a task of its own would have to outlive the calls.

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use crate::clock;

/// What a file says, as long as it says something.
pub(super) struct Watched<T> {
    path: PathBuf,
    read: Box<Parse<T>>,
    now: ArcSwap<T>,
    /// Of the content that was looked at last, good or not; None if there was no file.
    last: Mutex<Option<[u8; 32]>>,
    /// When to look again, on the process's clock.
    next: AtomicU64,
    every: Duration,
}

type Parse<T> = dyn Fn(&[u8]) -> Result<T, String> + Send + Sync;

impl<T> Watched<T> {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// It cannot be read, or does not say what it should: with the file's name, and what to do.
    pub(super) fn open(
        path: &Path,
        every: Duration,
        parse: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let content = content(path)?;
        let first = parse(&content).map_err(|why| format!("{}: {why}", path.display()))?;
        let watched = Self {
            path: path.to_owned(),
            read: Box::new(parse),
            now: ArcSwap::from_pointee(first),
            last: Mutex::new(Some(Sha256::digest(&content).into())),
            next: AtomicU64::new(0),
            every,
        };
        watched.is_due();
        Ok(watched)
    }

    /// What it says now.
    pub(super) fn current(&self) -> arc_swap::Guard<Arc<T>> {
        if self.is_due() {
            self.look();
        }
        self.now.load()
    }

    /// Whether this is the one who looks; until the next time nobody else is.
    fn is_due(&self) -> bool {
        let (now, next) = (clock::now().as_nanos(), self.next.load(Ordering::Relaxed));
        let after = now.saturating_add(u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX));
        now >= next && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn look(&self) {
        // Who finds it taken finds somebody who is reading.
        let Ok(mut last) = self.last.try_lock() else { return };
        let read = content(&self.path);
        let hash: Option<[u8; 32]> = read.as_ref().ok().map(|content| Sha256::digest(content).into());
        if *last == hash {
            return;
        }
        *last = hash;
        match read.and_then(|content| (self.read)(&content)) {
            Ok(new) => {
                self.now.store(Arc::new(new));
                info!(file = %self.path.display(), "read again");
            }
            Err(why) => warn!(file = %self.path.display(), why, "the file is no good: what it said before still holds"),
        }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content));
    match read {
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        Ok(size) if size as u64 > LARGEST => Err(format!("{} is larger than {LARGEST} bytes", path.display())),
        Ok(_) => Ok(content),
    }
}

/// Bytes of a file: ten thousand keys.
const LARGEST: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn number(content: &[u8]) -> Result<u32, String> {
        std::str::from_utf8(content).ok().and_then(|text| text.trim().parse().ok()).ok_or("no number".to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_after_its_interval_and_kept_if_it_turns_bad() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let watched = Watched::open(&path, Duration::from_secs(1), number).unwrap();
        let mut said = Vec::new();

        for content in [Some("2"), Some("x"), None, Some("3"), Some("")] {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let early = **watched.current();
            tokio::time::advance(Duration::from_secs(1)).await;
            said.push((early, **watched.current()));
        }

        assert_eq!(said, [(1, 2), (2, 2), (2, 2), (2, 3), (3, 3)]);
    }

    #[test]
    fn a_file_that_is_not_there_or_no_good_is_named_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");

        let missing = Watched::open(&path, Duration::ZERO, number).unwrap_err();
        std::fs::write(&path, "x").unwrap();
        let bad = Watched::open(&path, Duration::ZERO, number).unwrap_err();

        assert!(missing.contains("number cannot be read: No such file"), "{missing}");
        assert!(bad.ends_with("number: no number"), "{bad}");
    }
}
