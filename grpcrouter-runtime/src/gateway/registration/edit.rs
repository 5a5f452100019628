//! Changes to the file of who may register: the text around a change stays as it is, and what is written is read again
//! before it counts.

use std::{
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    time::{Duration, SystemTime},
};

use super::{
    MAX_INSTANCES, MAX_LIVE_TOKENS, RegistrationFile, RegistrationFileError, RegistrationRule, RegistrationToken,
    TokenRecord,
    file::{parse, places},
    shown_time,
};

impl RegistrationFile {
    /// Makes a token for the principal that `rule` names. One that is in the file already keeps its rule, and has two
    /// tokens then: give the new one to its backends, and revoke the old one when they have it. Nothing is written before
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// Two of its tokens hold already; something in `rule` cannot be meant.
    pub fn create_token(
        &mut self,
        rule: RegistrationRule,
        expires: Option<SystemTime>,
    ) -> Result<RegistrationToken, RegistrationFileError> {
        let now = SystemTime::now();
        let token = RegistrationToken::generate();
        let record = TokenRecord { expires: expires.map(whole), ..TokenRecord::of(&token) };
        let record = TokenRecord { created: record.created.map(whole), ..record };
        let mut rules = self.rules.clone();
        let text = match rules.iter_mut().enumerate().find(|(_, known)| known.name == rule.name) {
            Some((index, known)) => {
                let live: Vec<&str> = known.live_tokens(now).map(|token| token.id.as_str()).collect();
                if live.len() >= MAX_LIVE_TOKENS {
                    return Err(refused(format!(
                        "{} has {} tokens that hold already, {}: revoke the one that nobody uses any more with \
                         `grpcrouter token revoke ID`",
                        known.name,
                        live.len(),
                        live.join(" and ")
                    )));
                }
                // What has not held for long is of no use to anybody who reads the file.
                known.tokens.retain(|token| !is_old(token, now));
                known.tokens.push(record);
                self.with_tokens(index, &known.tokens)?
            }
            None => {
                let rule = RegistrationRule { expires: rule.expires.map(whole), ..rule.token(record) };
                let text = appended(&self.text, &rule);
                rules.push(rule);
                text
            }
        };
        self.change(text, rules)?;
        Ok(token)
    }

    /// Takes back the token with this id, or all tokens of the principal with this name, and tells their ids. Nothing is
    /// written before [`write`](Self::write).
    ///
    /// # Errors
    /// There is no such token that holds.
    pub fn revoke(&mut self, name_or_id: &str) -> Result<Vec<String>, RegistrationFileError> {
        let now = SystemTime::now();
        let mut rules = self.rules.clone();
        let mut ids = Vec::new();
        for rule in &mut rules {
            let is_all = rule.name == name_or_id;
            for token in rule.tokens.iter_mut().filter(|token| is_all || token.id == name_or_id) {
                if token.is_live(now) {
                    token.revoked = Some(whole(now));
                    ids.push(token.id.clone());
                }
            }
        }
        if ids.is_empty() {
            let principals: Vec<&str> = self.rules.iter().map(|rule| rule.name.as_str()).collect();
            return Err(refused(format!(
                "no token of {} that holds has the name or id {name_or_id:?}; its principals are {}; `grpcrouter token \
                 list` shows the ids",
                self.path.display(),
                if principals.is_empty() { "none".to_owned() } else { principals.join(", ") }
            )));
        }
        let mut text = self.text.clone();
        // From the end, so that the places before stay where they are.
        for (index, rule) in rules.iter().enumerate().rev() {
            if self.rules.get(index) != Some(rule) {
                text = Self { text, ..self.clone() }.with_tokens(index, &rule.tokens)?;
            }
        }
        self.change(text, rules)?;
        Ok(ids)
    }

    /// Writes the file: whole or not at all, and readable for its owner alone if it is new.
    ///
    /// # Errors
    /// It cannot be written, or another process changed it since it was read.
    pub fn write(&mut self) -> Result<(), RegistrationFileError> {
        let path = self.path.clone();
        let unwritable = |error| RegistrationFileError::Unwritable { path: path.clone(), error };
        let now = match fs::read_to_string(&self.path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unwritable(error)),
        };
        if now != self.before {
            let why =
                format!("{} was changed by another process meanwhile: run the command again", self.path.display());
            return Err(refused(why));
        }
        self.replace().map_err(unwritable)?;
        self.before = Some(self.text.clone());
        Ok(())
    }

    /// Writes beside the file and moves that to its place.
    fn replace(&self) -> io::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{:08x}.new", rand::random::<u32>()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&beside)?;
        let written = (|| {
            file.write_all(self.text.as_bytes())?;
            if let Ok(old) = fs::metadata(&self.path) {
                // The gateway may run as another user, and must go on reading it.
                file.set_permissions(old.permissions())?;
                #[cfg(unix)]
                keep_owner(&file, &old)?;
            }
            file.sync_all()?;
            fs::rename(&beside, &self.path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
        written
    }

    /// The text with these tokens of a principal.
    fn with_tokens(&self, index: usize, tokens: &[TokenRecord]) -> Result<String, RegistrationFileError> {
        let mut text = self.text.clone();
        match places(&self.text).into_iter().nth(index) {
            Some((Some(tokens_place), _)) => {
                let written = text.get(tokens_place.clone()).unwrap_or_default();
                // Tables of their own, [[principal.tokens]], are not one text.
                if written.starts_with("[[") || !written.starts_with('[') || !written.ends_with(']') {
                    return Err(self.unusual());
                }
                text.replace_range(tokens_place, &rendered(tokens));
            }
            Some((None, name_place)) => {
                let end = text.get(name_place.end..).and_then(|rest| rest.find('\n'));
                let at = end.map_or(text.len(), |end| name_place.end + end);
                text.insert_str(at, &format!("\ntokens = {}", rendered(tokens)));
            }
            None => {}
        }
        Ok(text)
    }

    fn unusual(&self) -> RegistrationFileError {
        refused(format!(
            "{} is laid out in a way that cannot be changed here: write the tokens of each principal as one list, tokens = \
             [ .. ]",
            self.path.display()
        ))
    }

    /// Takes the new text if it says just that.
    fn change(&mut self, text: String, rules: Vec<RegistrationRule>) -> Result<(), RegistrationFileError> {
        if parse(&self.path, &text)? != rules {
            return Err(self.unusual());
        }
        (self.text, self.rules) = (text, rules);
        Ok(())
    }
}

#[cfg(unix)]
fn keep_owner(file: &fs::File, old: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(file, Some(old.uid()), Some(old.gid()))?;
    }
    Ok(())
}

fn refused(why: String) -> RegistrationFileError {
    RegistrationFileError::Refused { why }
}

/// The file tells seconds.
fn whole(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn is_old(token: &TokenRecord, now: SystemTime) -> bool {
    let ended = [token.expires, token.revoked].into_iter().flatten().min();
    ended.is_some_and(|at| at + KEPT_FOR < now)
}

/// The text with one principal more at its end.
fn appended(text: &str, rule: &RegistrationRule) -> String {
    let mut text = if text.is_empty() { HEAD.to_owned() } else { text.to_owned() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let list = |patterns: &[String]| {
        let quoted: Vec<String> =
            patterns.iter().map(|pattern| toml::Value::from(pattern.as_str()).to_string()).collect();
        format!("[{}]", quoted.join(", "))
    };
    let name = toml::Value::from(rule.name.as_str());
    let _ = write!(text, "\n[[principal]]\nname = {name}\nservices = {}\n", list(&rule.services));
    let any: &[String] = &["*".to_owned()];
    for (key, patterns, default) in [
        ("instances", &rule.instances, any),
        ("routing_keys", &rule.routing_keys, &[]),
        ("certificates", &rule.certificates, &[]),
    ] {
        if patterns != default {
            let _ = writeln!(text, "{key} = {}", list(patterns));
        }
    }
    if rule.max_instances != MAX_INSTANCES {
        let _ = writeln!(text, "max_instances = {}", rule.max_instances);
    }
    if let Some(at) = rule.expires {
        let _ = writeln!(text, "expires = {}", shown_time(at));
    }
    let _ = writeln!(text, "tokens = {}", rendered(&rule.tokens));
    text
}

/// A list of tokens, one in a line.
fn rendered(tokens: &[TokenRecord]) -> String {
    let mut text = "[\n".to_owned();
    for token in tokens {
        let _ = write!(text, "  {{ id = \"{}\", hash = \"{}\"", token.id, token.hash);
        for (key, time) in [("created", token.created), ("expires", token.expires), ("revoked", token.revoked)] {
            if let Some(time) = time {
                let _ = write!(text, ", {key} = {}", shown_time(time));
            }
        }
        text.push_str(" },\n");
    }
    text.push(']');
    text
}

/// What a new file begins with.
const HEAD: &str = "# Who may register at the gateway; nobody else may. The gateway reads this file when it changes.\n\
                    # Tokens stand here as hashes: `grpcrouter token create` makes them, `grpcrouter token revoke` ends them.\n";

/// How long the file shows a token that does not hold any more.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]
    use super::*;

    const HAND_WRITTEN: &str = "# who is who\n[[principal]] # first\nname = \"site-a\"   # the big one\n\
                                services = [\"shop.*\"]\n\n# second\n[[principal]]\nname = \"site-b\"\n\
                                services = [\"bank.*\"]\ncertificates = [\"spiffe://x.example/b\"] # no token yet";

    fn file(text: &str) -> (tempfile::TempDir, RegistrationFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registration.toml");
        fs::write(&path, text).unwrap();
        (folder, RegistrationFile::read(path).unwrap())
    }

    fn error<T: std::fmt::Debug>(result: Result<T, RegistrationFileError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_new_file_says_what_it_is_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registration.toml");
        let mut file = RegistrationFile::read_or_new(&path).unwrap();
        let rule = RegistrationRule::new("site-a").services(["shop.*"]).instances(["a-*"]).max_instances(3);

        let token = file.create_token(rule.clone().routing_keys(["k\"*"]).expires(SystemTime::now()), None).unwrap();
        file.write().unwrap();

        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Who may register at the gateway"), "{text}");
        assert!(!text.contains(token.text().rsplit_once('_').unwrap().1), "{text}");
        let read = RegistrationFile::read(&path).unwrap();
        assert_eq!(read.rules(), file.rules());
        assert_eq!(read.rules()[0].tokens[0].id, token.id());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            // What its owner made of it stays.
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            file.revoke("site-a").unwrap();
            file.write().unwrap();
            assert_eq!(mode(&path), 0o640);
        }
    }

    #[test]
    fn a_change_leaves_all_else_as_it_was_written() {
        let (_folder, mut file) = file(HAND_WRITTEN);

        file.create_token(RegistrationRule::new("site-b"), None).unwrap();
        file.create_token(RegistrationRule::new("site-a"), None).unwrap();
        let second = file.create_token(RegistrationRule::new("site-a"), Some(SystemTime::now() + KEPT_FOR)).unwrap();
        file.revoke(second.id()).unwrap();

        let kept: String = file
            .text
            .lines()
            .filter(|line| !line.contains("tokens =") && !line.starts_with("  {") && *line != "]")
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(kept.trim_end(), HAND_WRITTEN);
        let [a, b] = file.rules() else { panic!("{:?}", file.rules()) };
        assert_eq!((a.tokens.len(), b.tokens.len()), (2, 1));
        assert_eq!(a.live_tokens(SystemTime::now()).count(), 1);
    }

    #[test]
    fn two_tokens_hold_at_a_time_and_a_third_says_which_to_revoke() {
        let (_folder, mut file) = file(HAND_WRITTEN);
        let rule = || RegistrationRule::new("site-a");
        let first = file.create_token(rule(), None).unwrap();
        let second = file.create_token(rule(), None).unwrap();

        let third = error(file.create_token(rule(), None));

        assert!(third.contains(first.id()) && third.contains(second.id()), "{third}");
        assert_eq!(file.revoke(first.id()).unwrap(), [first.id()]);
        assert!(file.create_token(rule(), None).is_ok());
        assert_eq!(file.revoke("site-a").unwrap().len(), 2);
        let nothing = error(file.revoke("site-a"));
        assert!(nothing.contains("its principals are site-a, site-b; "), "{nothing}");
    }

    #[test]
    fn tokens_that_ended_long_ago_make_room() {
        let (_folder, mut file) = file(HAND_WRITTEN);
        let long_ago = SystemTime::now() - KEPT_FOR - Duration::from_secs(60);
        let lately = SystemTime::now() - Duration::from_secs(60);
        for expires in [long_ago, lately] {
            file.create_token(RegistrationRule::new("site-a"), Some(expires)).unwrap();
        }

        file.create_token(RegistrationRule::new("site-a"), None).unwrap();

        assert_eq!(file.rules()[0].tokens.len(), 2);
    }

    #[test]
    fn a_file_that_another_process_changed_is_not_written_over() {
        let (_folder, mut file) = file(HAND_WRITTEN);
        file.create_token(RegistrationRule::new("site-a"), None).unwrap();
        fs::write(&file.path, "# mine").unwrap();

        let why = error(file.write());

        assert!(why.contains("was changed by another process meanwhile"), "{why}");
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "# mine");
    }

    #[test]
    fn a_rule_that_cannot_be_meant_changes_nothing() {
        let (_folder, mut file) = file(HAND_WRITTEN);

        let why = error(file.create_token(RegistrationRule::new("site c").services(["x"]), None));

        assert!(why.contains("the name \"site c\" cannot be used"), "{why}");
        assert_eq!(file.text, HAND_WRITTEN);
    }

    #[test]
    fn tokens_in_tables_of_their_own_are_read_and_not_changed() {
        let token = TokenRecord::of(&RegistrationToken::generate());
        let table = format!("\n[[principal.tokens]]\nid = \"{}\"\nhash = \"{}\"\n", token.id, token.hash);
        let (_folder, mut file) = file(&format!("{HAND_WRITTEN}\n{table}"));
        assert_eq!(file.rules()[1].tokens[0].id, token.id);
        let before = file.text.clone();

        let why = error(file.create_token(RegistrationRule::new("site-b"), None));

        assert!(why.contains("write the tokens of each principal as one list"), "{why}");
        assert_eq!(file.text, before);
    }
}
