//! `grpcrouter token`: makes, lists and revokes the tokens with which backends register. It changes the file that the
//! gateway reads, and nothing else: a gateway that runs takes the change within a second.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstream::eprintln;
use clap::Subcommand;
use grpcrouter_runtime::{RegistrationFile, RegistrationRule, TokenRecord};
use prost_types::Timestamp;
use serde::Serialize;

use crate::output::{self, Format};

/// What `token` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token and print it, once; the file keeps only its hash
    Create(Create),
    /// List the principals, what each may register, and its tokens
    List(File),
    /// End a token by its id, or all of a principal by its name: within a second its backends are cut off
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct File {
    /// Who may register, as the gateway reads it
    #[arg(long, value_name = "FILE", env = "GRPCROUTER_REGISTRATION", default_value = "registration.toml")]
    file: PathBuf,
    /// How the answer is printed
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Who it is for, such as site-a. One that is in the file already gets a second token, to replace the first
    name: String,
    /// The services that it may register: names or patterns, such as 'shop.*'. Only for a new name
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    services: Vec<String>,
    /// The instance ids that it may have, such as 'site-a-*'; any that nobody else has, if not given. Only for a new name
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    instances: Vec<String>,
    /// The routing keys that it may declare beside its instance id; none if not given. Only for a new name
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    routing_keys: Vec<String>,
    /// How many instances it may have at once; 16 if not given. Only for a new name
    #[arg(long, value_name = "NUMBER")]
    max: Option<usize>,
    /// How long the token holds, such as 90d, 12h or 30m; for good if not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires: Option<Duration>,
    #[command(flatten)]
    file: File,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// A token's id, as `list` shows it, or the name of a principal
    name_or_id: String,
    #[command(flatten)]
    file: File,
}

/// Runs it.
///
/// # Errors
/// The file cannot be read, changed or written, or what is asked for cannot be done.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Create(args) => create(args)?,
        Command::List(args) => list(args)?,
        Command::Revoke(args) => revoke(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn create(args: Create) -> anyhow::Result<()> {
    let Create { name, services, instances, routing_keys, max, expires, file: File { file: path, output } } = args;
    let mut file = RegistrationFile::read_or_new(&path)?;
    let known = file.rules().iter().find(|rule| rule.name == name).cloned();
    let mut wanted = known.clone().unwrap_or_else(|| RegistrationRule::new(&name));
    for (patterns, given) in
        [(&mut wanted.services, services), (&mut wanted.instances, instances), (&mut wanted.routing_keys, routing_keys)]
    {
        if !given.is_empty() {
            *patterns = given;
        }
    }
    wanted.max_instances = max.unwrap_or(wanted.max_instances);
    match &known {
        Some(known) if *known != wanted => anyhow::bail!(
            "{name} is in {} already, with other permissions: leave --services, --instances, --routing-keys and --max out to \
             give it one more token, and change what it may in the file itself",
            path.display()
        ),
        None if wanted.services.is_empty() => anyhow::bail!(
            "{name} is new in {}: say what it may register with --services, such as --services 'shop.*'",
            path.display()
        ),
        _ => {}
    }
    let expires = expires.map(|time| SystemTime::now() + time);
    let token = file.create_token(wanted, expires)?;
    file.write()?;
    eprintln!(
        "token {} of {name}, in {} as a hash; {}",
        token.id(),
        path.display(),
        expires.map_or_else(|| "it does not expire".to_owned(), |at| format!("it expires at {}", shown(at)))
    );
    eprintln!(
        "This is the only time that it is shown. Give it to the backend as a file, readable for its owner alone:"
    );
    match output {
        Format::Table => output::line(token.text())?,
        Format::Json => {
            let expires = expires.map(shown);
            output::json(&Created { name: &name, id: token.id(), token: token.text(), expires })?;
        }
    }
    Ok(())
}

fn list(args: File) -> anyhow::Result<()> {
    let file = RegistrationFile::read(&args.file)?;
    let rules = file.rules();
    match args.output {
        Format::Json => output::json(&rules.iter().map(Principal::from).collect::<Vec<_>>())?,
        Format::Table => {
            let head = ["PRINCIPAL", "MAY REGISTER", "AS INSTANCE", "MOST", "KNOWN BY", "STATE", "CREATED", "EXPIRES"];
            let nothing = "nobody may register: make a token with `grpcrouter token create NAME --services 'shop.*'`";
            output::table(head, rules.iter().flat_map(rows), nothing)?;
        }
    }
    Ok(())
}

fn revoke(args: Revoke) -> anyhow::Result<()> {
    let mut file = RegistrationFile::read(&args.file.file)?;
    let ids = file.revoke(&args.name_or_id)?;
    file.write()?;
    match args.file.output {
        Format::Table => output::line(format!("revoked: {}", ids.join(", ")))?,
        Format::Json => output::json(&Revoked { revoked: &ids })?,
    }
    Ok(())
}

#[derive(Serialize)]
struct Created<'a> {
    name: &'a str,
    id: &'a str,
    token: &'a str,
    expires: Option<String>,
}

#[derive(Serialize)]
struct Revoked<'a> {
    revoked: &'a [String],
}

#[derive(Serialize)]
struct Principal<'a> {
    name: &'a str,
    services: &'a [String],
    instances: &'a [String],
    routing_keys: &'a [String],
    max_instances: usize,
    expires: Option<String>,
    certificates: &'a [String],
    tokens: Vec<Token<'a>>,
}

#[derive(Serialize)]
struct Token<'a> {
    id: &'a str,
    state: &'static str,
    created: Option<String>,
    expires: Option<String>,
    revoked: Option<String>,
}

impl<'a> From<&'a RegistrationRule> for Principal<'a> {
    fn from(rule: &'a RegistrationRule) -> Self {
        Self {
            name: &rule.name,
            services: &rule.services,
            instances: &rule.instances,
            routing_keys: &rule.routing_keys,
            max_instances: rule.max_instances,
            expires: rule.expires.map(shown),
            certificates: &rule.certificates,
            tokens: rule.tokens.iter().map(Token::from).collect(),
        }
    }
}

impl<'a> From<&'a TokenRecord> for Token<'a> {
    fn from(token: &'a TokenRecord) -> Self {
        Self {
            id: &token.id,
            state: state(token),
            created: token.created.map(shown),
            expires: token.expires.map(shown),
            revoked: token.revoked.map(shown),
        }
    }
}

/// One row for each token and certificate; a principal without any has one too.
fn rows(rule: &RegistrationRule) -> Vec<[String; 8]> {
    let row = |known_by: String, state: &str, created: Option<SystemTime>, expires: Option<SystemTime>| {
        let expires = [expires, rule.expires].into_iter().flatten().min();
        [
            rule.name.clone(),
            rule.services.join(", "),
            rule.instances.join(", "),
            rule.max_instances.to_string(),
            known_by,
            state.to_owned(),
            created.map(shown).unwrap_or_default(),
            expires.map_or_else(|| "never".to_owned(), shown),
        ]
    };
    let certificates = rule.certificates.iter().map(|uri| row(uri.clone(), "certificate", None, None));
    let tokens = rule.tokens.iter();
    let tokens = tokens.map(|token| row(token.id.clone(), state(token), token.created, token.expires));
    let mut rows: Vec<_> = certificates.chain(tokens).collect();
    if rows.is_empty() {
        rows.push(row("nothing".to_owned(), "", None, None));
    }
    rows
}

fn state(token: &TokenRecord) -> &'static str {
    if token.revoked.is_some() {
        "revoked"
    } else if token.is_live(SystemTime::now()) {
        "live"
    } else {
        "expired"
    }
}

fn shown(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }.to_string()
}

/// Reads `90d`, `12h`, `30m` or `10s`.
fn time(text: &str) -> Result<Duration, io::Error> {
    let wrong = || io::Error::other("write a number and d, h, m or s, such as 90d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        'd' => 24 * 60 * 60,
        'h' => 60 * 60,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    let time = number.checked_mul(seconds).filter(|time| (1..=LONGEST).contains(time));
    time.map(Duration::from_secs).ok_or_else(|| io::Error::other("it must be between 1s and 36500d"))
}

/// A hundred years, in seconds: with more, dates have five digits.
const LONGEST: u64 = 36_500 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(time("90d").unwrap(), Duration::from_secs(7_776_000));
        assert_eq!(time("12h").unwrap(), Duration::from_secs(43_200));
        assert_eq!(time("30m").unwrap(), Duration::from_secs(1800));
        assert_eq!(time("1s").unwrap(), Duration::from_secs(1));
        for text in ["", "d", "90", "0d", "-1d", "1.5d", "1w", "36501d", "18446744073709551615d", "90 d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
