//! The front end for `build.rs`: protox reads the proto files, prost and tonic write theirs, the routers stand behind.
//! No protoc is needed, and `import "proto/options.proto"` resolves with nothing on disk.

mod chain;
pub(crate) mod compile;

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use prost::Message;

use crate::{
    descriptors::Descriptors,
    emit::{Attributes, Style},
    error::{Error, Faults, Problem},
    model::{Model, Wanted},
    pool::{self, RawSet},
    resolve::Resolver,
    routes::Routes,
};

/// Starts a builder for a build script.
///
/// ```no_run
/// // build.rs
/// fn main() -> Result<(), protoc_gen_grpcrouter::Error> {
///     protoc_gen_grpcrouter::configure().compile_protos(&["proto/service.proto"], &["."])
/// }
/// ```
///
/// In the crate, `pub mod myservice { tonic::include_proto!("myservice"); }` then brings the messages of the package
/// `myservice`, tonic's clients and servers, and a router for each service with the option `(grpcrouter.routes_to)`.
pub fn configure() -> Builder {
    Builder {
        client: true,
        server: true,
        gateway: false,
        out_dir: None,
        descriptor_set: None,
        paths: PathTexts::default(),
        routes: Vec::new(),
        module_attributes: Vec::new(),
        router_attributes: Vec::new(),
        emit_rerun_if_changed: env::var_os("CARGO").is_some(),
        tonic: None,
    }
}

/// Compiles proto files in a build script: messages, tonic's clients and servers, and routers. See [`configure`].
///
/// Nothing is checked before [`compile_protos`](Self::compile_protos), which then tells all that is wrong at once.
#[must_use = "nothing is generated before compile_protos()"]
pub struct Builder {
    client: bool,
    server: bool,
    gateway: bool,
    out_dir: Option<PathBuf>,
    descriptor_set: Option<PathBuf>,
    paths: PathTexts,
    routes: Vec<(String, String)>,
    module_attributes: Vec<(String, String)>,
    router_attributes: Vec<(String, String)>,
    emit_rerun_if_changed: bool,
    tonic: Option<ConfigureTonic>,
}

type ConfigureTonic = Box<dyn FnOnce(tonic_prost_build::Builder) -> tonic_prost_build::Builder>;

/// Paths as they were set; parsed once all is known.
#[derive(Debug, Default)]
struct PathTexts {
    runtime: Option<String>,
    codec: Option<String>,
    proto: Option<String>,
}

impl Builder {
    /// Whether clients are generated. Default: yes. Without, routers have no `typed_client()`.
    pub fn build_client(mut self, enable: bool) -> Self {
        self.client = enable;
        self
    }

    /// Whether servers are generated. Default: yes. Without, routers do not implement the service's trait.
    pub fn build_server(mut self, enable: bool) -> Self {
        self.server = enable;
        self
    }

    /// Whether each package with routers also gets `gateway()`, a builder that holds them all, and `run_gateway()`, a
    /// whole program. Default: no.
    pub fn gateway(mut self, enable: bool) -> Self {
        self.gateway = enable;
        self
    }

    /// Where the files go; the directory is made if it is not there. Default: Cargo's `OUT_DIR`.
    pub fn out_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(directory.into());
        self
    }

    /// Also writes the encoded descriptors, as gRPC reflection serves them.
    pub fn file_descriptor_set_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.descriptor_set = Some(path.into());
        self
    }

    /// The path of the runtime crate, if it is renamed or exported by another. Default: `::grpcrouter_runtime`.
    pub fn runtime_path(mut self, path: impl Into<String>) -> Self {
        self.paths.runtime = Some(path.into());
        self
    }

    /// The codec, for clients, servers and routers. Default: `::tonic_prost::ProstCodec`.
    pub fn codec_path(mut self, path: impl Into<String>) -> Self {
        self.paths.codec = Some(path.into());
        self
    }

    /// Where the messages are, seen from the modules of clients, servers and routers. Default: `super`.
    pub fn proto_path(mut self, path: impl Into<String>) -> Self {
        self.paths.proto = Some(path.into());
        self
    }

    /// Routes a service whose proto file cannot be edited: `options` is what the option would hold, as text.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), protoc_gen_grpcrouter::Error> {
    /// protoc_gen_grpcrouter::configure()
    ///     .route("google.longrunning.Operations", r#"routing_key: "x-project""#)
    ///     .compile_protos(&["google/longrunning/operations.proto"], &["googleapis"])
    /// # }
    /// ```
    pub fn route(mut self, service: impl Into<String>, options: impl Into<String>) -> Self {
        self.routes.push((service.into(), options.into()));
        self
    }

    /// Adds an attribute, such as `#[cfg(feature = "router")]`, to the router modules of the services that `pattern`
    /// matches: `.` all, `.my.pkg` those below it, `Service` or `my.pkg.Service` that one.
    ///
    /// A `cfg` is also put where [`gateway`](Self::gateway) adds the router.
    pub fn router_mod_attribute(mut self, pattern: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.module_attributes.push((pattern.into(), attribute.into()));
        self
    }

    /// Adds an attribute to the routers of the services that `pattern` matches, as
    /// [`router_mod_attribute`](Self::router_mod_attribute) does to their modules.
    pub fn router_attribute(mut self, pattern: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.router_attributes.push((pattern.into(), attribute.into()));
        self
    }

    /// Whether Cargo is told which files were read. Default: yes, in a build script.
    pub fn emit_rerun_if_changed(mut self, enable: bool) -> Self {
        self.emit_rerun_if_changed = enable;
        self
    }

    /// Sets what tonic's own builder can do, such as `type_attribute` or `extern_path`.
    ///
    /// Routers follow it, but for what this builder sets too: set `codec_path`, `proto_path` and
    /// `file_descriptor_set_path` here.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), protoc_gen_grpcrouter::Error> {
    /// protoc_gen_grpcrouter::configure()
    ///     .tonic(|tonic| tonic.type_attribute("shop.Order", "#[derive(Eq)]"))
    ///     .compile_protos(&["proto/shop.proto"], &["."])
    /// # }
    /// ```
    pub fn tonic(
        mut self,
        configure: impl FnOnce(tonic_prost_build::Builder) -> tonic_prost_build::Builder + 'static,
    ) -> Self {
        self.tonic = Some(Box::new(configure));
        self
    }

    /// Compiles `protos` and all that they import, looked up in the directories `includes`.
    ///
    /// `proto/options.proto` and the files of `google/protobuf/` need not be on disk.
    ///
    /// # Errors
    ///
    /// With everything that is wrong: `file:line:col: what`, one a line.
    pub fn compile_protos(self, protos: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
        let (style, routes) = self.checked()?;
        if self.out_dir.is_none() && self.tonic.is_none() && env::var_os("OUT_DIR").is_none() {
            return Err(Problem::OutDir.into());
        }
        let compiled = compile::protos(protos, includes)?;
        if self.emit_rerun_if_changed {
            for path in &compiled.read {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
        let set = RawSet::decode(compiled.descriptors.as_slice()).map_err(Problem::FileDescriptor)?;
        let descriptors = Descriptors::new(&set.file);
        let mut model = Model::check(&pool::build(set.file)?, &Wanted::All, &Resolver::default(), &routes)?;
        descriptors.give(&mut model);
        for warning in &model.warnings {
            println!("cargo:warning={warning}");
        }
        self.write(&compiled.descriptors, model, style)
    }

    /// The settings, all that are wrong told at once.
    fn checked(&self) -> Result<(Style, Routes), Error> {
        let mut style = Style { gateway: self.gateway, client: self.client, server: self.server, ..Style::default() };
        let mut faults = Faults::default();
        let mut set = |setting: &'static str, example: &'static str, text: &Option<String>, path: &mut syn::Path| {
            if let Some(text) = text {
                match syn::parse_str(text) {
                    Ok(parsed) => *path = parsed,
                    Err(_) => faults.push(Problem::RustPath { setting, example, found: text.clone() }),
                }
            }
        };
        set("runtime_path", "::grpcrouter_runtime", &self.paths.runtime, &mut style.runtime_path);
        set("codec_path", "::tonic_prost::ProstCodec", &self.paths.codec, &mut style.codec_path);
        set("proto_path", "super", &self.paths.proto, &mut style.proto_path);
        let mut attributes = |name: &'static str, texts: &[(String, String)], to: &mut Attributes| {
            for (pattern, text) in texts {
                faults.take(to.add(name, pattern, text).map_err(Error::from));
            }
        };
        attributes("router_mod_attribute", &self.module_attributes, &mut style.module_attributes);
        attributes("router_attribute", &self.router_attributes, &mut style.router_attributes);
        let mut routes = Routes::default();
        for (service, text) in &self.routes {
            faults.take(routes.add(service, text));
        }
        faults.or((style, routes))
    }

    fn write(self, descriptors: &[u8], model: Model, style: Style) -> Result<(), Error> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Problem::Io { what, path, source }
        };
        let mut tonic = tonic_prost_build::configure().build_client(self.client).build_server(self.server);
        if let Some(directory) = &self.out_dir {
            fs::create_dir_all(directory).map_err(io("create the directory", directory))?;
            tonic = tonic.out_dir(directory);
        }
        if let Some(codec) = &self.paths.codec {
            tonic = tonic.codec_path(codec);
        }
        if let Some(proto) = &self.paths.proto {
            tonic = tonic.proto_path(proto);
        }
        if let Some(configure) = self.tonic {
            tonic = configure(tonic);
        }
        if let Some(path) = &self.descriptor_set {
            fs::write(path, descriptors).map_err(io("write", path))?;
        }
        chain::compile(tonic, descriptors, model, style)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("client", &self.client)
            .field("server", &self.server)
            .field("gateway", &self.gateway)
            .field("out_dir", &self.out_dir)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}
