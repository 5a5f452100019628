//! The rules as they are now: those of a file are read again when it changes, and who is here is asked again.

use std::{
    convert::Infallible,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::rules::Rules;
use crate::gateway::registration::{RegistrationPolicy, RegistrationRule, parse, read};

/// The policy of one gateway.
#[derive(Debug)]
pub(super) struct Policy {
    written: RegistrationPolicy,
    rules: watch::Sender<Arc<Rules>>,
    looked: Mutex<Looked>,
    /// Held by the one stream that looks for all.
    looking: Mutex<()>,
}

/// The last look at the file.
#[derive(Debug)]
struct Looked {
    at: Instant,
    /// Of the text that holds.
    hash: [u8; 32],
    /// What was wrong the last time: told once.
    problem: Option<String>,
}

impl Policy {
    /// Reads the file for the first time.
    pub(super) fn new(written: RegistrationPolicy) -> Result<Self, String> {
        let (rules, hash) = match written.path() {
            Some(path) => look(path, &written.rules)?,
            None => (Rules::new(&written.rules, SystemTime::now())?, [0; 32]),
        };
        let looked = Looked { at: Instant::now(), hash, problem: None };
        Ok(Self {
            written,
            rules: watch::Sender::new(Arc::new(rules)),
            looked: Mutex::new(looked),
            looking: Mutex::default(),
        })
    }

    /// The rules that hold now, and from now on.
    pub(super) fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// Looks at the file, if nobody has for so long and nobody does now: a slow disk keeps nobody waiting but the one who
    /// looks.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing; the next one looks.
    pub(super) async fn refresh(&self, after: Duration) {
        let Some(path) = self.written.path() else { return };
        let Ok(mut looked) = self.looked.try_lock() else { return };
        if looked.at.elapsed() < after {
            return;
        }
        let mut found = self.look(path).await;
        if found.as_ref().is_ok_and(|(_, hash)| *hash != looked.hash) {
            // Who writes it in place empties it first, and an empty file knows nobody. A change counts when it stands.
            sleep(STANDS_AFTER).await;
            let again = self.look(path).await;
            if again.as_ref().ok().map(|(_, hash)| hash) != found.as_ref().ok().map(|(_, hash)| hash) {
                return;
            }
            found = again;
        }
        looked.at = Instant::now();
        match found {
            Ok((rules, hash)) => {
                let was_broken = looked.problem.take().is_some();
                if looked.hash != hash || was_broken {
                    info!(principals = rules.len(), "the file of who may register was read again");
                    looked.hash = hash;
                    self.rules.send_replace(Arc::new(rules));
                }
            }
            Err(problem) if looked.problem.as_ref() != Some(&problem) => {
                warn!("the file of who may register cannot be used, the rules before it still hold: {problem}");
                looked.problem = Some(problem);
            }
            Err(_) => {}
        }
    }

    async fn look(&self, path: &Path) -> Result<(Rules, [u8; 32]), String> {
        let (path, rules) = (path.to_owned(), self.written.rules.clone());
        let found = tokio::task::spawn_blocking(move || look(&path, &rules)).await;
        found.unwrap_or_else(|_| Err("reading it failed".to_owned()))
    }

    /// Looks at the file again and again. Of all who wait here one does it at a time; the next goes on when it is gone, so
    /// that no task is needed that would outlive them.
    pub(super) async fn keep_fresh(&self) -> Infallible {
        let _the_one = self.looking.lock().await;
        loop {
            sleep(LOOK_EVERY).await;
            self.refresh(LOOK_EVERY).await;
        }
    }
}

/// The rules of the file and of code, and by what to know the same text again.
fn look(path: &Path, more: &[RegistrationRule]) -> Result<(Rules, [u8; 32]), String> {
    let text = read(path).map_err(|error| error.to_string())?;
    let listed = parse(path, &text).map_err(|error| error.to_string())?;
    let rules = Rules::new(listed.iter().chain(more), SystemTime::now())?;
    Ok((rules, Sha256::digest(&text).into()))
}

/// So long a change of the file must have been there to count.
const STANDS_AFTER: Duration = Duration::from_millis(50);

/// What is revoked ends within a second; reading a small file twice in one costs nothing.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// For one who is not known: a token that was just made may be in a file that nobody has looked at since. Whoever tries
/// wrong ones cannot have it read all the time.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);
