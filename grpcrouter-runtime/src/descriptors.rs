//! Descriptors of proto files as the bytes that they came in, so that no custom option is lost: what a set of them holds,
//! told by its names alone. And the service of every instance that hands its own to a gateway which does not know them.

mod scan;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

pub(crate) use self::wire::{Broken, Fields, Value};

/// The method by which a gateway asks an instance for the descriptors of a hash.
pub(crate) const DESCRIPTORS_PATH: &str = "/grpcrouter.Instance/Descriptors";

/// Bytes of one set: a hundred times what most services need.
pub(crate) const MAX_SET: usize = 4 << 20;

/// Tells one set, or one file, from another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// As it came: `None` if it has another length.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The first eight bytes: enough for people to tell two apart.
impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A `FileDescriptorSet`, read as far as names go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Set {
    pub(crate) files: Vec<Arc<File>>,
}

/// One proto file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: Arc<str>,
    pub(crate) package: String,
    /// An encoded `FileDescriptorProto`, without source info.
    pub(crate) bytes: Bytes,
    /// Of these bytes.
    pub(crate) hash: Hash,
    pub(crate) imports: Vec<String>,
    /// The full name of all that it defines.
    pub(crate) symbols: Vec<Arc<str>>,
    /// Those of them that are services.
    pub(crate) services: Vec<Arc<str>>,
    /// Which message each extension extends, and its number there.
    pub(crate) extensions: Vec<(String, i32)>,
}

/// Why descriptors are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSet {
    #[error("{0} bytes of descriptors: at most {MAX_SET} are taken")]
    TooLong(usize),
    #[error("more than {MAX_FILES} files")]
    TooManyFiles,
    #[error("more than {MAX_SYMBOLS} names, or more than {MAX_NAMES} bytes of them")]
    TooManySymbols,
    #[error("a file without a name, or with one that is none")]
    FileName,
    #[error("the file {0} twice")]
    Twice(String),
    #[error("files import each other: {0}")]
    Circle(String),
    #[error("{0}")]
    Broken(#[from] wire::Broken),
}

impl Set {
    /// # Errors
    /// It is none, or larger than anybody needs, or its files import each other in a circle. That one imports a file
    /// which is not there is fine: another set may have it.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, BadSet> {
        if bytes.len() > MAX_SET {
            return Err(BadSet::TooLong(bytes.len()));
        }
        let mut files = Vec::new();
        let mut left = scan::Budget { symbols: MAX_SYMBOLS, bytes: MAX_NAMES };
        for field in Fields::of(bytes) {
            let field = field?;
            if field.number == FILE
                && let Value::Bytes(file) = field.value
            {
                if files.len() == MAX_FILES {
                    return Err(BadSet::TooManyFiles);
                }
                files.push(Arc::new(scan::file(bytes.slice_ref(file), &mut left)?));
            }
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = files.iter().find(|file| !names.insert(&file.name)) {
            return Err(BadSet::Twice(twice.name.to_string()));
        }
        circle(&files).map_or(Ok(Self { files }), |circle| Err(BadSet::Circle(circle)))
    }

    /// The full names of the services that it defines.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.iter().flat_map(|file| &file.services)
    }
}

/// Files that import each other, the first once more at the end.
fn circle(files: &[Arc<File>]) -> Option<String> {
    let index = files.iter().enumerate().map(|(at, file)| (&*file.name, at)).collect();
    let mut search = Search { files, index, fine: vec![false; files.len()], way: Vec::new() };
    (0..files.len()).find_map(|at| search.visit(at))
}

/// Looks at each import once, however the files hang together.
struct Search<'a> {
    files: &'a [Arc<File>],
    index: HashMap<&'a str, usize>,
    /// In no circle.
    fine: Vec<bool>,
    /// From where the search began to where it is.
    way: Vec<usize>,
}

impl Search<'_> {
    fn visit(&mut self, at: usize) -> Option<String> {
        if self.fine.get(at).is_none_or(|fine| *fine) {
            return None;
        }
        if let Some(start) = self.way.iter().position(|before| *before == at) {
            return Some(self.told(start));
        }
        self.way.push(at);
        let file = self.files.get(at)?;
        for import in &file.imports {
            let Some(next) = self.index.get(import.as_str()).copied() else { continue };
            if let Some(circle) = self.visit(next) {
                return Some(circle);
            }
        }
        self.way.pop();
        *self.fine.get_mut(at)? = true;
        None
    }

    fn told(&self, start: usize) -> String {
        let circle = self.way.get(start..).unwrap_or_default();
        let mut names: Vec<&str> =
            circle.iter().chain(circle.first()).filter_map(|at| self.files.get(*at)).map(|file| &*file.name).collect();
        if names.len() > MAX_TOLD {
            names.splice(MAX_TOLD / 2..names.len() - MAX_TOLD / 2, ["…"]);
        }
        names.join(" -> ")
    }
}

/// `FileDescriptorSet.file`.
const FILE: u32 = 1;

/// Files of one set: more than the largest known services have.
const MAX_FILES: usize = 2_000;

/// All that is defined in one set, and the bytes of their full names: a name can be long, and stands in each name below.
const MAX_SYMBOLS: usize = 100_000;
const MAX_NAMES: usize = 8 << 20;

/// Files of a circle that are named.
const MAX_TOLD: usize = 8;

#[cfg(test)]
mod tests;
