//! Routes that are given beside the proto files, for services whose proto file cannot be edited.
//! Each is the text format of the option, and is checked as the option is.

use std::collections::BTreeMap;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::{
    builder::compile,
    error::{Error, Problem},
    names,
    options::{self, Settings},
};

/// What was given, by the full name of the service.
#[derive(Debug, Default)]
pub(crate) struct Routes(BTreeMap<String, Settings>);

impl Routes {
    /// Takes the route of one service: `routing_key: "id" strategy: HEADER_BASED`, with or without braces around it.
    pub(crate) fn add(&mut self, service: &str, text: &str) -> Result<(), Error> {
        let name = service.strip_prefix('.').unwrap_or(service);
        if !names::is_full_ident(name) {
            let expected = "the full name of a service, '=' and an option such as {routing_key: \"id\"}";
            return Err(Problem::Parameter { name: "route".to_owned(), expected, found: service.to_owned() }.into());
        }
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        let message = DynamicMessage::parse_text_format(option()?, inner)
            .map_err(|source| Problem::RouteText { service: name.to_owned(), source: Box::new(source) })?;
        let settings = options::settings(&message)?;
        match self.0.insert(name.to_owned(), settings) {
            None => Ok(()),
            Some(_) => Err(Problem::ParameterTwice { name: format!("route={name}") }.into()),
        }
    }

    pub(crate) fn of(&self, service: &str) -> Option<&Settings> {
        self.0.get(service)
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The option's message as this plugin knows it: the user's files may hold none.
fn option() -> Result<MessageDescriptor, Error> {
    let compiled = compile::protos::<&str, &str>(&[compile::OPTIONS_IMPORT], &[])?;
    let pool = DescriptorPool::decode(compiled.descriptors.as_slice())
        .map_err(|error| Problem::Descriptors(Box::new(error)))?;
    let name = "grpcrouter.RoutingOptions";
    pool.get_message_by_name(name).ok_or_else(|| Problem::MissingFile { name: name.to_owned() }.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a test that cannot go on fails")]
    use super::*;
    use crate::options::Strategy;

    fn refused(service: &str, text: &str) -> String {
        Routes::default().add(service, text).expect_err("refused").to_string()
    }

    #[test]
    fn a_route_is_read_with_and_without_braces() {
        let mut routes = Routes::default();
        routes.add("a.S", r#"{routing_key: "id" strategy: HEADER_BASED}"#).expect("fine");
        routes.add(".a.T", r#"routing_key: "id", strategy: HEADER_BASED"#).expect("fine");

        let one = routes.of("a.S").expect("given");
        assert_eq!((one.routing_key.as_deref(), one.strategy), (Some("id"), Some(Strategy::HeaderBased)));
        assert_eq!(routes.of("a.T"), Some(one));
        assert_eq!(routes.services().collect::<Vec<_>>(), ["a.S", "a.T"]);
    }

    #[test]
    fn an_empty_route_is_plain_balancing() {
        let mut routes = Routes::default();
        routes.add("S", "{}").expect("fine");
        assert_eq!(routes.of("S"), Some(&Settings::default()));
    }

    #[test]
    fn what_cannot_be_read_names_the_service() {
        assert_eq!(
            refused("a/b", "{}"),
            "parameter route: expected the full name of a service, '=' and an option such as {routing_key: \"id\"}, \
             found \"a/b\""
        );
        let text = refused("a.S", "{wish: 1}");
        assert!(text.starts_with("parameter route=a.S: ") && text.contains("wish"), "{text}");
        let text = refused("a.S", "{strategy: WISH_BASED}");
        assert!(text.starts_with("parameter route=a.S: ") && text.contains("WISH_BASED"), "{text}");
    }

    #[test]
    fn a_service_has_one_route() {
        let mut routes = Routes::default();
        routes.add("a.S", "{}").expect("the first");
        assert_eq!(routes.add("a.S", "").expect_err("twice").to_string(), "parameter route=a.S is given twice");
    }
}
