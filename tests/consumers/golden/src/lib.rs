//! The routers of the golden files, for `cargo doc`: their pages have no warning, whatever the comments in the proto files are.
include!(concat!(env!("OUT_DIR"), "/routers.rs"));
