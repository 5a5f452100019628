//! One state of all descriptors: which version of each file is served, and where each name is. Never changes; a new one
//! takes its place.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use super::{DescriptorConflict, DescriptorVersion};
use crate::descriptors::{File, Hash, Set};

/// What the program itself brings.
#[derive(Debug)]
pub(super) struct Own {
    /// Files that are the same everywhere, whatever version of them somebody sends along.
    known: Set,
    generated: Vec<Arc<File>>,
}

impl Own {
    pub(super) fn new(known: Set) -> Self {
        Self { known, generated: Vec::new() }
    }

    /// The files of one router more. Of two versions of one file the first is taken.
    pub(super) fn add(&mut self, set: Set) {
        for file in set.files {
            if !self.generated.iter().any(|other| other.name == file.name) {
                self.generated.push(file);
            }
        }
    }
}

/// What some instances offer.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) set: Arc<Set>,
    /// How many of them take new calls.
    pub(super) healthy: usize,
    /// Their ids.
    pub(super) who: Vec<String>,
}

/// What questions are answered from.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    files: Vec<Arc<File>>,
    names: HashMap<Arc<str>, usize>,
    symbols: HashMap<Arc<str>, usize>,
    /// By the message that is extended, then by number.
    extensions: HashMap<String, BTreeMap<i32, usize>>,
    pub(super) conflicts: Vec<DescriptorConflict>,
}

/// One set's word for a version of a file.
struct Version<'a> {
    file: &'a Arc<File>,
    is_own: bool,
    healthy: usize,
    who: &'a [String],
}

/// All words for each version of each file.
type Versions<'a> = BTreeMap<&'a str, BTreeMap<Hash, Vec<Version<'a>>>>;

/// A version of a file, and all who are for it.
struct Voted<'a> {
    file: &'a Arc<File>,
    is_own: bool,
    healthy: usize,
    who: BTreeSet<&'a str>,
}

impl Catalog {
    pub(super) fn new(own: &Own, offers: &[Offer]) -> Self {
        let mut catalog = Self::default();
        own.known.files.iter().for_each(|file| catalog.add(file));

        let mut versions = Versions::new();
        let own_files = own.generated.iter().map(|file| Version { file, is_own: true, healthy: 0, who: &[] });
        let offered = offers.iter().flat_map(|Offer { set, healthy, who }| {
            set.files.iter().map(|file| Version { file, is_own: false, healthy: *healthy, who })
        });
        for version in own_files.chain(offered) {
            let file = version.file;
            // What everybody has is the same for all.
            let is_known = |known: &Arc<File>| known.name == file.name && known.package == file.package;
            if !catalog.file(&file.name).is_some_and(is_known) {
                versions.entry(&file.name).or_default().entry(file.hash).or_default().push(version);
            }
        }
        let mut chosen = Vec::new();
        for (name, versions) in versions {
            let mut versions: Vec<Voted<'_>> = versions.values().filter_map(|votes| Voted::count(votes)).collect();
            // Of as many it is the gateway's own, then any, but always the same.
            versions.sort_by_key(|version| Reverse((version.healthy, version.is_own, version.file.hash)));
            if versions.len() > 1 {
                let versions = versions.iter().map(Voted::shown).collect();
                catalog.conflicts.push(DescriptorConflict { file: name.to_owned(), versions });
            }
            chosen.extend(versions.into_iter().next());
        }
        // Of two files that define one name, what this program was built with counts, then what more instances offer.
        chosen.sort_by_key(|version| Reverse((version.is_own, version.healthy)));
        chosen.iter().for_each(|version| catalog.add(version.file));
        catalog
    }

    fn add(&mut self, file: &Arc<File>) {
        let at = self.files.len();
        self.names.entry(file.name.clone()).or_insert(at);
        for symbol in &file.symbols {
            self.symbols.entry(symbol.clone()).or_insert(at);
        }
        for (extended, number) in &file.extensions {
            self.extensions.entry(extended.clone()).or_default().entry(*number).or_insert(at);
        }
        self.files.push(file.clone());
    }

    pub(super) fn file(&self, name: &str) -> Option<&Arc<File>> {
        self.names.get(name).and_then(|at| self.files.get(*at))
    }

    /// The file that defines `symbol`, a full name without a dot before it.
    pub(super) fn defining(&self, symbol: &str) -> Option<&Arc<File>> {
        self.symbols.get(symbol).and_then(|at| self.files.get(*at))
    }

    pub(super) fn extending(&self, message: &str, number: i32) -> Option<&Arc<File>> {
        self.extensions.get(message)?.get(&number).and_then(|at| self.files.get(*at))
    }

    /// The numbers of all extensions of `message`; `None` if there is no such message.
    pub(super) fn extensions(&self, message: &str) -> Option<Vec<i32>> {
        match self.extensions.get(message) {
            Some(numbers) => Some(numbers.keys().copied().collect()),
            None => self.symbols.contains_key(message).then(Vec::new),
        }
    }

    /// `file` and after it all that it imports, as far as it is there and `wanted`. Some import in a circle when their
    /// versions are from different sets; each comes once.
    pub(super) fn with_imports<'a>(
        &'a self,
        file: &'a Arc<File>,
        wanted: impl Fn(&File) -> bool,
    ) -> Vec<&'a Arc<File>> {
        let mut found = vec![file];
        let mut seen: HashSet<&str> = HashSet::from([&*file.name]);
        let mut next = 0;
        while let Some(file) = found.get(next).copied() {
            next += 1;
            let imports = file.imports.iter().filter_map(|import| self.file(import));
            found.extend(imports.filter(|import| wanted(import) && seen.insert(&import.name)));
        }
        found
    }
}

impl<'a> Voted<'a> {
    fn count(votes: &[Version<'a>]) -> Option<Self> {
        Some(Self {
            file: votes.first()?.file,
            is_own: votes.iter().any(|vote| vote.is_own),
            healthy: votes.iter().map(|vote| vote.healthy).sum(),
            who: votes.iter().flat_map(|vote| vote.who).map(String::as_str).collect(),
        })
    }

    fn shown(&self) -> DescriptorVersion {
        DescriptorVersion {
            hash: self.file.hash.to_string(),
            instances: self.who.iter().map(|id| (*id).to_owned()).collect(),
            healthy: self.healthy,
            is_own: self.is_own,
        }
    }
}
