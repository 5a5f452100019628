//! Which method is meant: `package.Service/Method`, `Service/Method`, or `Method` where only one service has it.

use anyhow::{anyhow, bail};
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

/// A method as it was written: the service may be short, or missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written<'a> {
    service: Option<&'a str>,
    method: &'a str,
}

impl<'a> Written<'a> {
    /// # Errors
    /// It is none, and what to write.
    pub(super) fn read(text: &'a str) -> anyhow::Result<Self> {
        let text = text.strip_prefix('/').unwrap_or(text);
        let (service, method) = match text.split_once('/') {
            Some((service, method)) => (Some(service), method),
            // grpcurl takes a dot as well.
            None => text.rsplit_once('.').map_or((None, text), |(service, method)| (Some(service), method)),
        };
        if method.is_empty() || method.contains('/') || service == Some("") {
            bail!("{text:?} is no method; write package.Service/Method, Service/Method or Method");
        }
        Ok(Self { service, method })
    }

    /// Whether `service` was written, by its full name.
    pub(super) fn is_of(&self, service: &str) -> bool {
        self.service == Some(service)
    }

    /// Those of `services` in which the method may be: one, or all if no service was written.
    ///
    /// # Errors
    /// None of that name, or several.
    pub(super) fn services(&self, services: &[String]) -> anyhow::Result<Vec<String>> {
        let Some(written) = self.service else {
            // Nobody means those without their names.
            return Ok(services.iter().filter(|name| !name.starts_with("grpc.")).cloned().collect());
        };
        if services.iter().any(|name| name == written) {
            return Ok(vec![written.to_owned()]);
        }
        let short = format!(".{written}");
        let matching: Vec<&String> = services.iter().filter(|name| name.ends_with(&short)).collect();
        match matching.as_slice() {
            [one] => Ok(vec![(*one).clone()]),
            [] => {
                let near = nearest(written, services.iter().map(String::as_str));
                Err(anyhow!("the gateway has no service {written}; {}", or_all(near, services)))
            }
            several => bail!("{written} is one of several services: {}; write its full name", joined(several)),
        }
    }

    /// The method in the `services` of `pool`.
    ///
    /// # Errors
    /// None of that name, or several.
    pub(super) fn method(&self, pool: &DescriptorPool, services: &[String]) -> anyhow::Result<MethodDescriptor> {
        let known: Vec<ServiceDescriptor> = services.iter().filter_map(|name| pool.get_service_by_name(name)).collect();
        if known.is_empty() {
            bail!(
                "the gateway has no descriptors of {}: its instances offer none; {}",
                if services.is_empty() { "any service".to_owned() } else { services.join(", ") },
                super::reflect::DESCRIPTOR_SET
            );
        }
        let methods: Vec<MethodDescriptor> =
            known.iter().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
        let matching: Vec<&MethodDescriptor> = methods.iter().filter(|method| method.name() == self.method).collect();
        match matching.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let full: Vec<String> = methods.iter().map(path).collect();
                let near = nearest(self.method, methods.iter().map(|method| method.name()));
                let whose = if let [service] = known.as_slice() { service.full_name() } else { "the gateway" };
                Err(anyhow!("{whose} has no method {}; {}", self.method, or_all(near, &full)))
            }
            several => {
                let several: Vec<String> = several.iter().map(|method| path(method)).collect();
                bail!("several services have a method {}: {}; write one of these", self.method, several.join(", "))
            }
        }
    }
}

/// `package.Service/Method`.
pub(super) fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    let likeness = |known: &'a str| strsim::jaro_winkler(name, known).max(strsim::jaro_winkler(name, last(known)));
    let likely = known.map(|known| (likeness(known), known)).filter(|(likeness, _)| *likeness > 0.8);
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

fn or_all(nearest: Option<&str>, all: &[String]) -> String {
    // Every gateway has health and reflection.
    let all: Vec<&String> = all.iter().filter(|name| !name.starts_with("grpc.")).take(SHOWN).collect();
    match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None if all.is_empty() => "it has none but its own: is a backend registered?".to_owned(),
        None => format!("it has {}", joined(&all)),
    }
}

fn joined(names: &[&String]) -> String {
    names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Names that an error lists.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn services(written: &str, known: &[&str]) -> Result<Vec<String>, String> {
        let known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
        Written::read(written).unwrap().services(&known).map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_may_be_short_where_only_one_is_meant() {
        let known = ["bank.Orders", "grpc.health.v1.Health", "shop.Carts", "shop.Orders"];
        let one = |name: &str| Ok(vec![name.to_owned()]);

        assert_eq!(services("shop.Orders/Buy", &known), one("shop.Orders"));
        assert_eq!(services("/shop.Orders/Buy", &known), one("shop.Orders"));
        assert_eq!(services("shop.Orders.Buy", &known), one("shop.Orders"));
        assert_eq!(services("Carts/Add", &known), one("shop.Carts"));
        assert_eq!(services("Health/Check", &known), one("grpc.health.v1.Health"));
        assert_eq!(services("Add", &known).unwrap(), ["bank.Orders", "shop.Carts", "shop.Orders"]);
        let several = services("Orders/Buy", &known).unwrap_err();
        assert_eq!(several, "Orders is one of several services: bank.Orders, shop.Orders; write its full name");
    }

    #[test]
    fn a_service_that_is_not_there_has_a_nearest_name() {
        let known = ["shop.Carts", "shop.Orders"];

        assert_eq!(
            services("shop.Order/Buy", &known).unwrap_err(),
            "the gateway has no service shop.Order; did you mean shop.Orders?"
        );
        assert_eq!(
            services("Ordres/Buy", &known).unwrap_err(),
            "the gateway has no service Ordres; did you mean shop.Orders?"
        );
        assert_eq!(
            services("x.Y/Z", &known).unwrap_err(),
            "the gateway has no service x.Y; it has shop.Carts, shop.Orders"
        );
        assert_eq!(
            services("x.Y/Z", &[]).unwrap_err(),
            "the gateway has no service x.Y; it has none but its own: is a backend registered?"
        );
    }

    #[test]
    fn what_is_no_method_says_what_to_write() {
        for text in ["", "/", "a/", "/b/", "a/b/c", ".b"] {
            assert!(Written::read(text).unwrap_err().to_string().contains("write package.Service/Method"), "{text}");
        }
    }
}
