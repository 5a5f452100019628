//! The log of a test: what is logged on its thread, line by line.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

/// What is logged on this thread.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Listens until what it gives is dropped.
    pub fn listen(&self, level: LevelFilter) -> impl Drop + use<> {
        let log = tracing_subscriber::fmt().with_ansi(false).without_time().with_max_level(level);
        log.with_writer(self.clone()).set_default()
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panicked")).lines().map(str::to_owned).collect()
    }

    /// Those that have all of these.
    pub fn with(&self, parts: &[&str]) -> Vec<String> {
        self.all().into_iter().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
