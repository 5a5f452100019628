//! The messages of a call, as JSON: in the command line, in a file, or from standard input as they are typed.

use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

/// Where the messages of a call come from.
pub(super) enum Input {
    /// They are all here.
    Known(Vec<DynamicMessage>),
    /// They come while the call runs.
    Typed(mpsc::Receiver<DynamicMessage>, oneshot::Receiver<anyhow::Error>),
}

impl Input {
    /// Reads `data`: JSON, `-` for standard input, `@FILE`; nothing is one empty message, or none where many may be.
    ///
    /// # Errors
    /// It is no JSON, or not of this message, or more or fewer than one where one is asked for.
    pub(super) fn read(data: Option<&str>, message: &MessageDescriptor, takes_many: bool) -> anyhow::Result<Self> {
        let known = match data {
            None if takes_many => Vec::new(),
            None => vec![DynamicMessage::new(message.clone())],
            Some("-") if takes_many => return Ok(Self::typed(message.clone())),
            Some("-") => all(std::io::stdin().lock(), message)?,
            Some(data) => match data.strip_prefix('@') {
                Some(path) => {
                    let file =
                        std::fs::File::open(Path::new(path)).with_context(|| format!("{path} cannot be read"))?;
                    all(file, message)?
                }
                None => all(data.as_bytes(), message)?,
            },
        };
        if !takes_many && known.len() != 1 {
            bail!("the method takes one message ({}) and {} were given", message.full_name(), known.len());
        }
        Ok(Self::Known(known))
    }

    fn typed(message: MessageDescriptor) -> Self {
        let (sender, messages) = mpsc::channel(1);
        let (failed, failure) = oneshot::channel();
        // A thread of its own: reading cannot be interrupted, and must not keep the program from ending.
        std::thread::spawn(move || {
            for read in values(BufReader::new(std::io::stdin()), &message) {
                match read {
                    Ok(message) => {
                        if sender.blocking_send(message).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let _ = failed.send(error);
                        // The call is not ended by what was wrong: a part must not be taken for the whole.
                        loop {
                            std::thread::park();
                        }
                    }
                }
            }
        });
        Self::Typed(messages, failure)
    }
}

fn all(reader: impl Read, message: &MessageDescriptor) -> anyhow::Result<Vec<DynamicMessage>> {
    values(BufReader::new(reader), message).collect()
}

/// One message after the other, each as soon as it is whole.
fn values(reader: impl Read, message: &MessageDescriptor) -> impl Iterator<Item = anyhow::Result<DynamicMessage>> {
    let message = message.clone();
    let values = serde_json::Deserializer::from_reader(reader).into_iter::<Value>();
    values.enumerate().map(move |(index, value)| {
        let number = index + 1;
        let value = value.map_err(|error| anyhow!("message {number} is no JSON: {error}"))?;
        DynamicMessage::deserialize(message.clone(), value)
            .map_err(|error| anyhow!("message {number} is no {}: {error}", message.full_name()))
    })
}
