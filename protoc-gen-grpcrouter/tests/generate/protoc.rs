//! Runs a real protoc with the plugin of this build.
//! protoc comes with a development dependency, so the machine need have none.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The directory of this crate and the root of the repository.
pub(crate) fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn golden_dir() -> PathBuf {
    crate_dir().join("tests/golden")
}

/// A run of protoc: what it wrote, or what it said.
pub(crate) struct Protoc {
    pub(crate) out: TempDir,
    program: PathBuf,
    directory: PathBuf,
    arguments: Vec<String>,
}

impl Protoc {
    /// Works in `directory`, where imports are looked up first.
    pub(crate) fn new(directory: &Path) -> Self {
        let (out, arguments) = (tempfile::tempdir().unwrap(), vec!["-I.".to_owned()]);
        Self { out, program: Self::vendored(), directory: directory.to_owned(), arguments }
    }

    /// The protoc that comes with a development dependency.
    pub(crate) fn vendored() -> PathBuf {
        protoc_bin_vendored::protoc_bin_path().expect("a protoc for this platform")
    }

    /// An old protoc, as Debian 12 has it, if the machine has one. `PROTOC_DEBIAN` says that it must be there.
    pub(crate) fn of_debian() -> Option<PathBuf> {
        let usual = PathBuf::from("/usr/bin/protoc");
        let is_old = |program: &PathBuf| {
            let version = Command::new(program).arg("--version").output();
            version.is_ok_and(|version| version.stdout.starts_with(b"libprotoc 3.21."))
        };
        std::env::var_os("PROTOC_DEBIAN").map(PathBuf::from).or_else(|| Some(usual).filter(is_old))
    }

    /// Another protoc.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Also looks imports up in the crate's directory, which holds proto/options.proto.
    pub(crate) fn with_options_proto(mut self) -> Self {
        self.arguments.push(format!("-I{}", crate_dir().display()));
        self
    }

    pub(crate) fn opt(mut self, parameter: &str) -> Self {
        self.arguments.push(format!("--grpcrouter_opt={parameter}"));
        self
    }

    /// Exactly these arguments, with `OUT` for the output directory.
    pub(crate) fn arguments(mut self, arguments: &str) -> Self {
        let out = self.out.path().display().to_string();
        self.arguments = arguments.split(' ').map(|argument| argument.replace("OUT", &out)).collect();
        self
    }

    pub(crate) fn run(self, files: &[&str]) -> Result<Written, String> {
        let mut command = self.command();
        if !self.arguments.iter().any(|argument| argument.starts_with("--grpcrouter_out")) {
            command.arg(format!("--grpcrouter_out={}", self.out.path().display()));
        }
        let output = command.args(files).output().expect("protoc starts");
        let stderr = String::from_utf8(output.stderr).unwrap();
        if output.status.success() { Ok(Written { out: self.out, stderr }) } else { Err(stderr) }
    }

    fn command(&self) -> Command {
        let plugin = Path::new(env!("CARGO_BIN_EXE_protoc-gen-grpcrouter"));
        let path = std::env::join_paths([plugin.parent().unwrap(), self.program.parent().unwrap()]).unwrap();
        let mut command = Command::new(&self.program);
        command.current_dir(&self.directory).env("PATH", path).args(&self.arguments);
        command
    }
}

/// What a run wrote.
pub(crate) struct Written {
    out: TempDir,
    pub(crate) stderr: String,
}

impl Written {
    pub(crate) fn text(&self, file: &str) -> String {
        fs::read_to_string(self.out.path().join(file))
            .unwrap_or_else(|error| panic!("{file}: {error}; there: {:?}", self.files()))
    }

    /// Every file, by its path in the output directory, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut directories = vec![self.out.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else {
                    files.push(path.strip_prefix(self.out.path()).unwrap().to_str().unwrap().replace('\\', "/"));
                }
            }
        }
        files.sort();
        files
    }
}

/// A directory with these files.
pub(crate) fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}
