//! Proto files to descriptors with protox. The options' file and Google's own come from memory.
//! The result is bytes: decoded with prost-types the options would be lost.

use std::path::{Path, PathBuf};

use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver},
};

use crate::{
    OPTIONS_PROTO,
    error::{Error, Faults, Problem},
};

/// What protox made of the files.
pub(crate) struct Compiled {
    /// An encoded `FileDescriptorSet`, imports and source info included.
    pub(crate) descriptors: Vec<u8>,
    /// Every file that was read from disk.
    pub(crate) read: Vec<PathBuf>,
}

pub(crate) fn protos<P: AsRef<Path>, I: AsRef<Path>>(protos: &[P], includes: &[I]) -> Result<Compiled, Error> {
    let mut resolver = ChainFileResolver::new();
    // First, because protox 0.10 cannot parse the descriptor.proto of newer protobuf releases.
    resolver.add(GoogleFileResolver::new());
    for include in includes {
        resolver.add(IncludeFileResolver::new(include.as_ref().to_owned()));
    }
    resolver.add(OptionsResolver);
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);

    let mut faults = Faults::default();
    for proto in protos {
        if let Err(error) = compiler.open_file(proto) {
            faults.push(with_advice(error));
        }
    }
    let read = compiler.files().filter_map(|file| file.path().map(Path::to_owned)).collect();
    let descriptors = compiler.encode_file_descriptor_set();
    faults.or(Compiled { descriptors, read })
}

/// Serves the options' file, wherever no include directory has one.
struct OptionsResolver;

impl FileResolver for OptionsResolver {
    fn resolve_path(&self, path: &Path) -> Option<String> {
        (path == Path::new(OPTIONS_IMPORT)).then(|| OPTIONS_IMPORT.to_owned())
    }

    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == OPTIONS_IMPORT {
            File::from_source(name, OPTIONS_PROTO)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// What may stand in the option, for one that holds something else.
const OPTION_VALUE: &str = "it is written { routing_key: \"id\" strategy: METADATA_BASED }, each field at most once: \
     service, routing_key, path_prefix (texts in quotes), strategy (METADATA_BASED, PATH_BASED, HEADER_BASED, FIELD_BASED), \
     load_balancing (ROUND_ROBIN, WEIGHTED_ROUND_ROBIN, LEAST_REQUEST, PEAK_EWMA, CONSISTENT_HASH, RANDOM), \
     on_missing_key (BALANCE, REJECT), wait_for_instance (true, false)";

/// protox's error, with what to do where that is known.
fn with_advice(error: protox::Error) -> Problem {
    let text = format!("{error:?} {error}");
    let advice = if text.contains("not in any include path") {
        Some("it must be there and lie under one of the include directories given to compile_protos".to_owned())
    } else if error.is_file_not_found() && text.contains("options.proto") {
        Some(format!("write import \"{OPTIONS_IMPORT}\": the builder has that file inside, so nothing need be on disk"))
    } else if text.contains("'grpcrouter.routes_to' is not") || text.contains("'grpcrouter.method_routes_to' is not") {
        Some(format!("add import \"{OPTIONS_IMPORT}\" to the proto file"))
    } else if text.contains("grpcrouter.") && text.contains("is not defined") {
        Some("there are (grpcrouter.routes_to) for services and (grpcrouter.method_routes_to) for methods".to_owned())
    } else if text.contains("'grpcrouter' is not defined") {
        Some("write it in parentheses: (grpcrouter.routes_to)".to_owned())
    } else if text.contains("value of type 'grpcrouter.RoutingOptions'") {
        // protox knows what is wrong with the value and does not hand it out.
        Some(OPTION_VALUE.to_owned())
    } else {
        None
    };
    let error = Box::new(error);
    match advice {
        Some(advice) => Problem::CompileWith { error, advice },
        None => Problem::Compile(error),
    }
}

/// How proto files import the options.
pub(crate) const OPTIONS_IMPORT: &str = "proto/options.proto";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn every_file_from_disk_is_known_and_none_from_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let head = "syntax = \"proto3\"; import \"proto/options.proto\"; import \"google/protobuf/empty.proto\";";
        std::fs::write(path("a.proto"), format!("{head} import \"b.proto\";")).unwrap();
        std::fs::write(path("b.proto"), "syntax = \"proto3\";").unwrap();

        let compiled = protos(&["a.proto"], &[directory.path()]).unwrap();

        assert_eq!(compiled.read, [path("b.proto"), path("a.proto")]);
    }
}
