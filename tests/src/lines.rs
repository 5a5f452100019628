//! The log of a test: what is logged on its thread, line by line.

use std::{
    io,
    sync::{Arc, Mutex, Once},
};

use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::world::eventually;

/// What is logged on this thread.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Listens until what it gives is dropped.
    pub fn listen(&self, level: LevelFilter) -> impl Drop + use<> {
        self.listen_to(&level.to_string())
    }

    /// Listens to this much, said as in `RUST_LOG`, until what it gives is dropped.
    pub fn listen_to(&self, filter: &str) -> impl Drop + use<> {
        ask_all_listeners();
        let log = tracing_subscriber::fmt().with_ansi(false).without_time().with_env_filter(EnvFilter::new(filter));
        log.with_writer(self.clone()).set_default()
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().expect("no writer panicked")).lines().map(str::to_owned).collect()
    }

    /// Returns when a line has `text`.
    ///
    /// # Panics
    /// After [`PATIENCE`](crate::world::PATIENCE) without it.
    pub async fn has(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), || !self.with(&[text]).is_empty()).await;
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

/// While there is one listener alone, `tracing` asks only the thread that comes to a line first whether anybody wants it,
/// and remembers the answer: the line is lost to a test on another thread. So there is one more, which wants nothing.
fn ask_all_listeners() {
    static ONE_MORE: Once = Once::new();
    ONE_MORE.call_once(|| tracing_subscriber::registry().with(LevelFilter::OFF).init());
}
