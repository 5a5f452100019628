//! The text of a router: names, paths and one line for each method; what it does is in the runtime, behind one door.
//! Every path begins with `::`, so nothing that the user's module holds can stand in its way.

mod attributes;
mod docs;
mod spec;

pub(crate) use attributes::Attributes;
use proc_macro2::{Literal, TokenStream};
use quote::{ToTokens, format_ident, quote};

use crate::{
    error::{Error, Problem},
    model::{CallKind, Method, Service, router_module},
    names,
    options::{Settings, Strategy},
};

/// How the code is written; the same for all services of a run.
#[derive(Clone)]
pub(crate) struct Style {
    /// Also emits `gateway()` and `run_gateway()`.
    pub(crate) gateway: bool,
    /// Whether tonic's client and server are there to build upon.
    pub(crate) client: bool,
    pub(crate) server: bool,
    pub(crate) server_trait: ServerTrait,
    pub(crate) runtime_path: syn::Path,
    pub(crate) codec_path: syn::Path,
    pub(crate) proto_path: syn::Path,
    pub(crate) module_attributes: Attributes,
    pub(crate) router_attributes: Attributes,
}

/// How tonic was told to write the trait of a service, which the router implements.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ServerTrait {
    /// Methods take `Arc<Self>`: tonic's `use_arc_self`.
    pub(crate) arc_self: bool,
    /// Streams are boxed, without a type of their own: tonic's `generate_default_stubs`.
    pub(crate) boxed_streams: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            gateway: false,
            client: true,
            server: true,
            server_trait: ServerTrait::default(),
            runtime_path: syn::parse_quote!(::grpcrouter_runtime),
            codec_path: syn::parse_quote!(::tonic_prost::ProstCodec),
            proto_path: syn::parse_quote!(super),
            module_attributes: Attributes::default(),
            router_attributes: Attributes::default(),
        }
    }
}

/// The routers of `services` and, if asked for, the gateway that holds them.
pub(crate) fn file<'a>(services: impl Iterator<Item = &'a Service> + Clone, style: &Style) -> Result<String, Error> {
    let mut tokens = TokenStream::new();
    for service in services.clone() {
        tokens.extend(Router::new(service, style)?.tokens()?);
    }
    if style.gateway {
        tokens.extend(gateway_tokens(services, style));
    }
    print(tokens)
}

/// The router of one service alone.
pub(crate) fn router(service: &Service, style: &Style) -> Result<String, Error> {
    print(Router::new(service, style)?.tokens()?)
}

/// `gateway()` and `run_gateway()` over these services.
pub(crate) fn gateway<'a>(services: impl Iterator<Item = &'a Service>, style: &Style) -> Result<String, Error> {
    print(gateway_tokens(services, style))
}

fn print(tokens: TokenStream) -> Result<String, Error> {
    let file = syn::parse2(tokens).map_err(Problem::Internal)?;
    Ok(prettyplease::unparse(&file))
}

fn gateway_tokens<'a>(services: impl Iterator<Item = &'a Service>, style: &Style) -> TokenStream {
    let runtime = &style.runtime_path;
    let routers: Vec<_> = services.map(|service| Added::new(service, style)).collect();
    let builder = quote!(#runtime::Gateway::builder());
    let body = if routers.iter().all(|router| router.conditions.is_empty()) {
        let chain = routers.iter().map(|Added { path, .. }| quote!(.add_router::<#path>()));
        quote!(#builder #(#chain)*)
    } else {
        // A router whose module is there only under a condition is added under the same.
        let steps = routers
            .iter()
            .map(|Added { path, conditions }| quote!(#(#conditions)* let gateway = gateway.add_router::<#path>();));
        quote!(let gateway = #builder; #(#steps)* gateway)
    };
    quote! {
        /// A gateway with every router of this file; what else it needs is yours to set, then `build()` it.
        #[allow(dead_code, deprecated, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
        pub fn gateway() -> #runtime::GatewayBuilder {
            #body
        }

        /// A whole gateway program: reads the command line and `GRPCROUTER_*`, serves until it is told to stop, and gives the exit code.
        #[allow(dead_code, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]
        pub fn run_gateway() -> ::std::process::ExitCode {
            #runtime::run(gateway())
        }
    }
}

/// A router as the gateway adds it.
struct Added<'a> {
    path: TokenStream,
    /// `#[cfg(…)]` of its module.
    conditions: Vec<&'a syn::Attribute>,
}

impl<'a> Added<'a> {
    fn new(service: &Service, style: &'a Style) -> Self {
        let module = format_ident!("{}", router_module(&service.rust_name));
        let router = format_ident!("{}Router", service.rust_name);
        let mut conditions = style.module_attributes.of(&service.full_name);
        conditions.retain(|attribute| attribute.path().is_ident("cfg"));
        Self { path: quote!(#module::#router), conditions }
    }
}

/// One router in the making: the names that all of its parts use.
struct Router<'a> {
    service: &'a Service,
    style: &'a Style,
    /// `::grpcrouter_runtime::codegen`.
    door: TokenStream,
    name: proc_macro2::Ident,
    client: TokenStream,
    server: TokenStream,
}

impl<'a> Router<'a> {
    fn new(service: &'a Service, style: &'a Style) -> Result<Self, Error> {
        let (runtime, proto) = (&style.runtime_path, &style.proto_path);
        let stem = names::module_stem(&service.rust_name);
        let (client_mod, server_mod) = (format_ident!("{stem}_client"), format_ident!("{stem}_server"));
        let client_type = format_ident!("{}Client", service.rust_name);
        let server_trait = format_ident!("{}", service.rust_name);
        Ok(Self {
            service,
            style,
            door: quote!(#runtime::codegen),
            name: format_ident!("{}Router", service.rust_name),
            client: quote!(#proto::#client_mod::#client_type),
            server: quote!(#proto::#server_mod::#server_trait),
        })
    }

    fn tokens(&self) -> Result<TokenStream, Error> {
        let door = &self.door;
        let module = format_ident!("{}", router_module(&self.service.rust_name));
        let full_name = &self.service.full_name;
        let attributes = self.style.module_attributes.of(full_name);
        let spec = spec::service(self.service, door);
        let methods = self.service.methods.iter().map(|method| spec::method(self.service, method, door));
        let parts = [
            Some(self.router()),
            self.typed_client(),
            self.broadcast()?,
            self.typed_server()?,
            Some(self.tower_service()),
            Some(self.names()),
        ];
        let parts = parts.iter().flatten();
        let descriptors = Literal::byte_string(&self.service.descriptors);
        Ok(quote! {
            /// Generated router implementations.
            #(#attributes)*
            pub mod #module {
                #![allow(unused_variables, dead_code, missing_docs, deprecated, non_camel_case_types, clippy::all, clippy::pedantic, clippy::nursery, clippy::restriction)]

                const _: () = #door::assert_abi(1);

                /// The protobuf name of the service.
                pub const SERVICE_NAME: &str = #full_name;

                /// What the proto file says about how calls of this service are routed.
                pub static SPEC: #door::ServiceSpec = #spec;

                static METHODS: &[#door::MethodSpec] = &[#(#methods),*];

                #(#parts)*

                /// The proto file of the service with all that it imports, but for Google's own files: an encoded
                /// `FileDescriptorSet`, also for `BackendBuilder::descriptors`.
                pub static FILE_DESCRIPTOR_SET: &[u8] = #descriptors;
            }
        })
    }

    /// The struct, and how it is made.
    fn router(&self) -> TokenStream {
        let (door, name) = (&self.door, &self.name);
        let runtime = &self.style.runtime_path;
        let head = format!(" Generated router for the `{}` service.", self.service.full_name);
        let uses = format!(
            " What it can be used as, and with which limits: see [`codegen::Router`]({}::codegen::Router).",
            runtime.to_token_stream().to_string().replace(' ', "")
        );
        let docs = docs::attributes(&self.service.docs);
        let attributes = self.style.router_attributes.of(&self.service.full_name);
        let deprecated = self.service.deprecated.then(|| quote!(#[deprecated]));
        quote! {
            #[doc = #head]
            #docs
            #[doc = ""]
            #[doc = #uses]
            #deprecated
            #(#attributes)*
            #[derive(Debug, Clone)]
            pub struct #name<C = #door::Channel> { channel: C }

            impl #name {
                /// A router to the instances that `gateway` knows.
                pub fn new(gateway: &#runtime::Gateway) -> Self {
                    Self { channel: gateway.channel(&SPEC) }
                }
            }

            impl #door::Router for #name {
                const SPEC: &'static #door::ServiceSpec = &SPEC;
            }

            impl<C> #name<C> {
                /// A router that sends its calls through `channel`.
                pub fn with_channel(channel: C) -> Self {
                    Self { channel }
                }
            }
        }
    }

    /// The way to call a backend from inside of the gateway.
    fn typed_client(&self) -> Option<TokenStream> {
        if !self.style.client {
            return None;
        }
        let (door, name, client) = (&self.door, &self.name, &self.client);
        let settings = &self.service.settings;
        let keyed = Keyed::of(settings, door).map(|Keyed { wrapper, argument, make, what }| {
            let docs = format!(" The same, with {what} in every call.");
            quote! {
                #[doc = #docs]
                pub fn typed_client_for(&self, key: #argument) -> #client<#door::#wrapper<Self>> {
                    #client::new(#door::#wrapper::#make).max_decoding_message_size(usize::MAX)
                }
            }
        });
        Some(quote! {
            impl<C: #door::RouterChannel> #name<C> {
                /// tonic's own client, calling through this router.
                pub fn typed_client(&self) -> #client<Self> {
                    #client::new(::core::clone::Clone::clone(self)).max_decoding_message_size(usize::MAX)
                }

                #keyed
            }
        })
    }

    /// One call to every instance, where a request is one message.
    fn broadcast(&self) -> Result<Option<TokenStream>, Error> {
        let (door, name, codec) = (&self.door, &self.name, &self.style.codec_path);
        let broadcast = format_ident!("{}Broadcast", self.service.rust_name);
        let mut methods = Vec::new();
        for (index, method) in self.service.methods.iter().enumerate() {
            let (send, output) = match method.kind {
                CallKind::Unary => (quote!(unary), self.message(&method.output)?),
                CallKind::ServerStreaming => {
                    let output = self.message(&method.output)?;
                    (quote!(server_streaming), quote!(#door::ResponseStream<#output>))
                }
                CallKind::ClientStreaming | CallKind::Bidi => continue,
            };
            let function: syn::Ident = syn::parse_str(&method.rust_name).map_err(Problem::Internal)?;
            let input = self.message(&method.input)?;
            let docs = format!(" `{}` at every instance.", method.proto_name);
            methods.push(quote! {
                #[doc = #docs]
                pub fn #function(&self, request: impl ::tonic::IntoRequest<#input>)
                    -> #door::BroadcastAnswers<::tonic::Response<#output>>
                {
                    self.calls.#send(&METHODS[#index], #codec::default, request)
                }
            });
        }
        if !self.style.client || methods.is_empty() {
            return Ok(None);
        }
        let docs = format!(" Calls every instance of the service; from [`broadcast`]({name}::broadcast).");
        Ok(Some(quote! {
            impl #name {
                /// The same call to every instance that takes calls now, whatever its routing key.
                pub fn broadcast(&self) -> #broadcast {
                    self.broadcast_with(#door::BroadcastOptions::new())
                }

                /// The same, with a limit and a deadline of its own.
                pub fn broadcast_with(&self, options: #door::BroadcastOptions) -> #broadcast {
                    #broadcast { calls: #door::Broadcast::new(&self.channel, options) }
                }
            }

            #[doc = #docs]
            #[derive(Debug, Clone)]
            pub struct #broadcast { calls: #door::Broadcast }

            impl #broadcast {
                #(#methods)*
            }
        }))
    }

    /// The proof that the router keeps the service's API: tonic's own trait.
    fn typed_server(&self) -> Result<Option<TokenStream>, Error> {
        if !self.style.server {
            return Ok(None);
        }
        let (door, name, server) = (&self.door, &self.name, &self.server);
        let methods = self.service.methods.iter().enumerate();
        let methods = methods.map(|(index, method)| self.typed_method(index, method)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(quote! {
            #[::tonic::async_trait]
            impl<C: #door::RouterChannel> #server for #name<C> {
                #(#methods)*
            }
        }))
    }

    fn typed_method(&self, index: usize, method: &Method) -> Result<TokenStream, Error> {
        let (door, codec) = (&self.door, &self.style.codec_path);
        let function: syn::Ident = syn::parse_str(&method.rust_name).map_err(Problem::Internal)?;
        let (input, output) = (self.message(&method.input)?, self.message(&method.output)?);
        let (send, request) = match method.kind {
            CallKind::Unary => (quote!(unary), input),
            CallKind::ServerStreaming => (quote!(server_streaming), input),
            CallKind::ClientStreaming => (quote!(client_streaming), quote!(::tonic::Streaming<#input>)),
            CallKind::Bidi => (quote!(streaming), quote!(::tonic::Streaming<#input>)),
        };
        let ServerTrait { arc_self, boxed_streams } = self.style.server_trait;
        let receiver = if arc_self { quote!(self: ::std::sync::Arc<Self>) } else { quote!(&self) };
        let (stream, response, convert) = match method.kind {
            CallKind::Unary | CallKind::ClientStreaming => (None, output, None),
            CallKind::ServerStreaming | CallKind::Bidi if boxed_streams => {
                let boxed = quote!(::tonic::codegen::BoxStream<#output>);
                let convert = quote! {
                    .map(|response| response.map(|stream| ::std::boxed::Box::pin(stream) as #boxed))
                };
                (None, boxed, Some(convert))
            }
            CallKind::ServerStreaming | CallKind::Bidi => {
                // tonic takes the method's name as the proto file spells it.
                let stream = format_ident!("{}Stream", method.proto_name);
                (Some(quote!(type #stream = #door::ResponseStream<#output>;)), quote!(Self::#stream), None)
            }
        };
        Ok(quote! {
            #stream

            async fn #function(#receiver, request: ::tonic::Request<#request>)
                -> ::core::result::Result<::tonic::Response<#response>, ::tonic::Status>
            {
                #door::#send(&self.channel, &METHODS[#index], #codec::default(), request).await #convert
            }
        })
    }

    /// A message's type: prost's name for it, seen from inside of the router's module.
    fn message(&self, rust_type: &str) -> Result<TokenStream, Error> {
        let whole = rust_type.starts_with("::") || rust_type.starts_with("crate::") || BUILT_IN.contains(&rust_type);
        let text = if whole {
            rust_type.to_owned()
        } else {
            format!("{}::{rust_type}", self.style.proto_path.to_token_stream())
        };
        let parsed: syn::Type = syn::parse_str(&text).map_err(Problem::Internal)?;
        Ok(parsed.into_token_stream())
    }

    /// The raw path: frames are forwarded as they are.
    fn tower_service(&self) -> TokenStream {
        let (door, name) = (&self.door, &self.name);
        quote! {
            impl<C, B> #door::Service<#door::http::Request<B>> for #name<C>
            where
                C: #door::RouterChannel,
                B: #door::HttpBody<Data = #door::Bytes> + ::core::marker::Send + 'static,
                B::Error: ::core::convert::Into<#door::StdError>,
            {
                type Response = #door::http::Response<::tonic::body::Body>;
                type Error = ::core::convert::Infallible;
                type Future = #door::RawFuture<C::Future>;

                fn poll_ready(&mut self, cx: &mut ::core::task::Context<'_>)
                    -> ::core::task::Poll<::core::result::Result<(), Self::Error>>
                {
                    #door::Service::poll_ready(&mut self.channel, cx)
                }

                fn call(&mut self, request: #door::http::Request<B>) -> Self::Future {
                    #door::raw_call(&mut self.channel, &SPEC, request)
                }
            }
        }
    }

    /// What tonic's own server mounts it by.
    fn names(&self) -> TokenStream {
        let (door, name) = (&self.door, &self.name);
        let prefixed = self.service.settings.path_prefix.as_ref().map(|prefix| {
            let prefixed_name = format!("{}/{}", prefix.trim_start_matches('/'), self.service.full_name);
            quote! {
                impl<C> #door::PrefixedName for #name<C> {
                    const PREFIX: &'static str = #prefix;
                    const PREFIXED_NAME: &'static str = #prefixed_name;
                }
            }
        });
        quote! {
            impl<C> ::tonic::server::NamedService for #name<C> {
                const NAME: &'static str = SERVICE_NAME;
            }

            #prefixed
        }
    }
}

/// How a typed client sets the routing key of all of its calls.
struct Keyed {
    wrapper: TokenStream,
    argument: TokenStream,
    make: TokenStream,
    what: String,
}

impl Keyed {
    /// `None` where no client can: without a key, or with one that is the host, a cookie or in a message.
    fn of(settings: &Settings, door: &TokenStream) -> Option<Self> {
        let this = quote!(::core::clone::Clone::clone(self));
        if settings.strategy() == Strategy::PathBased {
            let prefix = settings.path_prefix.as_deref().unwrap_or_default();
            return Some(Self {
                wrapper: quote!(KeyedPath),
                argument: quote!(impl ::core::convert::AsRef<str>),
                make: quote!(new(#this, #prefix, key)),
                what: "`key` in the path".to_owned(),
            });
        }
        let key = settings.routing_key.as_ref()?;
        let is_header = match settings.strategy() {
            Strategy::MetadataBased => true,
            Strategy::HeaderBased => !key.contains(':'),
            Strategy::PathBased | Strategy::FieldBased => false,
        };
        // The value of a `-bin` entry is bytes, and base64 only on its way.
        let is_binary = settings.strategy() == Strategy::MetadataBased && key.ends_with("-bin");
        let (argument, make, value) = if is_binary {
            (quote!(impl ::core::convert::AsRef<[u8]>), quote!(binary), "these bytes")
        } else {
            (quote!(#door::http::HeaderValue), quote!(new), "`key`")
        };
        let make = quote!(#make(#this, #key, key));
        is_header.then(|| Self { wrapper: quote!(Keyed), argument, make, what: format!("`{key}` set to {value}") })
    }
}

/// Types that stand for well-known messages and are in no module.
const BUILT_IN: &[&str] = &["()", "bool", "f32", "f64", "i32", "i64", "u32", "u64"];
