//! What the log says of a listener that fails: once when it begins to and once when that is over, however often it was
//! tried meanwhile.

use std::{io, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

/// One listener's failures in a row.
#[derive(Debug, Default)]
pub(crate) struct AcceptLog {
    since: Option<Instant>,
    tries: u32,
}

impl AcceptLog {
    /// No connection could be accepted, because of this process or its system.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        self.tries += 1;
        if self.since.is_none() {
            self.since = Some(Instant::now());
            warn!(%error, "cannot accept connections; trying again until it works");
        }
    }

    /// A connection was accepted.
    pub(crate) fn works(&mut self) {
        if let Some(since) = self.since.take() {
            let took = Duration::from_millis(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
            info!(tries = self.tries, ?took, "connections are accepted again");
            self.tries = 0;
        }
    }
}

// The subscriber comes with `run`.
#[cfg(all(test, feature = "run"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_episode_of_failures_has_two_lines_however_long_it_is() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
        tracing::subscriber::with_default(log.finish(), || {
            let mut log = AcceptLog::default();
            log.works();
            for _ in 0..20 {
                log.failed(&io::Error::other("too many open files"));
            }
            log.works();
            log.works();
        });

        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();

        let told: Vec<_> = text.lines().collect();
        assert_eq!(told.len(), 2, "{text}");
        assert!(told.iter().any(|line| line.contains("cannot accept connections") && line.contains("too many open")));
        assert!(told.iter().any(|line| line.contains("connections are accepted again tries=20")), "{text}");
    }
}
