//! Prints where the protoc is that comes with this crate's tests, for scripts on machines that have none.

use std::process::ExitCode;

fn main() -> ExitCode {
    match protoc_bin_vendored::protoc_bin_path() {
        Ok(path) => {
            println!("{}", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("no protoc comes with protoc-bin-vendored for this platform: {error}");
            ExitCode::FAILURE
        }
    }
}
