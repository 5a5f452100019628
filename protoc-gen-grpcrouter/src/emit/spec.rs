//! The constants that tell the runtime what the proto file says. A setter is written only where something is set, so
//! that options which come later change no generated code.

use proc_macro2::{Literal, TokenStream};
use quote::{format_ident, quote};

use crate::{
    model::{CallKind, Field, Idempotency, Method, Service},
    options::{LoadBalancing, OnMissingKey, Settings, Strategy},
};

/// `ServiceSpec::new(…)` with the setters of what differs from the default.
pub(super) fn service(service: &Service, door: &TokenStream) -> TokenStream {
    let target = &service.target;
    let set = Settings {
        // The target is an argument, and a default that is written out is still the default.
        service: None,
        strategy: service.settings.strategy.filter(|strategy| *strategy != Strategy::MetadataBased),
        load_balancing: service.settings.load_balancing.filter(|balancing| *balancing != LoadBalancing::RoundRobin),
        on_missing_key: service.settings.on_missing_key.filter(|action| *action != OnMissingKey::Balance),
        wait_for_instance: service.settings.wait_for_instance.filter(|wait| *wait),
        ..service.settings.clone()
    };
    let setters = setters(&set, door);
    quote!(#door::ServiceSpec::new(SERVICE_NAME, #target) #setters .methods(METHODS).descriptors(FILE_DESCRIPTOR_SET))
}

/// `MethodSpec::new(…)`, with `.routes(…)` of all that the method's own option sets.
pub(super) fn method(service: &Service, method: &Method, door: &TokenStream) -> TokenStream {
    let name = &method.proto_name;
    let path = format!("/{}/{name}", service.full_name);
    let kind = match method.kind {
        CallKind::Unary => quote!(Unary),
        CallKind::ServerStreaming => quote!(ServerStreaming),
        CallKind::ClientStreaming => quote!(ClientStreaming),
        CallKind::Bidi => quote!(Bidi),
    };
    let own = method.own.clone().unwrap_or_default();
    let field = method.field.as_ref().map(|found| field(found, door));
    let routes = (own != Settings::default() || field.is_some()).then(|| {
        let target = own.service.as_ref().map(|target| quote!(.target(#target)));
        let setters = setters(&own, door);
        quote!(.routes(#door::MethodRoutes::new() #target #setters #field))
    });
    let level = match method.idempotency {
        Idempotency::Unknown => None,
        Idempotency::NoSideEffects => Some(quote!(NoSideEffects)),
        Idempotency::Idempotent => Some(quote!(Idempotent)),
    };
    let level = level.map(|level| quote!(.idempotency_level(#door::IdempotencyLevel::#level)));
    quote!(#door::MethodSpec::new(SERVICE_NAME, #name, #path, #door::Kind::#kind) #routes #level)
}

/// `.field(…)`: where the key is in a request of this method.
fn field(field: &Field, door: &TokenStream) -> TokenStream {
    let numbers = field.numbers.iter().map(|number| Literal::u32_unsuffixed(*number));
    let kind = format_ident!("{}", field.kind);
    let presence = field.presence.then(|| quote!(.presence()));
    let rivals = field.rivals.iter().any(|rivals| !rivals.is_empty()).then(|| {
        let lists = field.rivals.iter().map(|rivals| {
            let numbers = rivals.iter().map(|number| Literal::u32_unsuffixed(*number));
            quote!(&[#(#numbers),*])
        });
        quote!(.rivals(&[#(#lists),*]))
    });
    quote!(.field(#door::FieldPath::new(&[#(#numbers),*], #door::FieldType::#kind) #presence #rivals))
}

/// All but the target.
fn setters(settings: &Settings, door: &TokenStream) -> TokenStream {
    let routing_key = settings.routing_key.as_ref().map(|key| quote!(.routing_key(#key)));
    let strategy = settings.strategy.map(|strategy| {
        let name = match strategy {
            Strategy::MetadataBased => quote!(MetadataBased),
            Strategy::PathBased => quote!(PathBased),
            Strategy::HeaderBased => quote!(HeaderBased),
            Strategy::FieldBased => quote!(FieldBased),
        };
        quote!(.strategy(#door::Strategy::#name))
    });
    let path_prefix = settings.path_prefix.as_ref().map(|prefix| quote!(.path_prefix(#prefix)));
    let load_balancing = settings.load_balancing.map(|balancing| {
        let name = match balancing {
            LoadBalancing::RoundRobin => quote!(RoundRobin),
            LoadBalancing::WeightedRoundRobin => quote!(WeightedRoundRobin),
            LoadBalancing::LeastRequest => quote!(LeastRequest),
            LoadBalancing::PeakEwma => quote!(PeakEwma),
            LoadBalancing::ConsistentHash => quote!(ConsistentHash),
            LoadBalancing::Random => quote!(Random),
        };
        quote!(.load_balancing(#door::LoadBalancing::#name))
    });
    let on_missing_key = settings.on_missing_key.map(|action| {
        let name = match action {
            OnMissingKey::Balance => quote!(Balance),
            OnMissingKey::Reject => quote!(Reject),
        };
        quote!(.on_missing_key(#door::OnMissingKey::#name))
    });
    let wait_for_instance = settings.wait_for_instance.map(|wait| quote!(.wait_for_instance(#wait)));
    quote!(#routing_key #strategy #path_prefix #load_balancing #on_missing_key #wait_for_instance)
}
