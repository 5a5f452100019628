//! Which methods a rule is for: `*`, `package.*`, `package.Service/*` or `package.Service/Method`.

use std::fmt;

/// A set of methods. Of two that hold the same method, the narrower one orders first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Methods {
    /// `package.Service/Method`.
    One(String),
    /// Begins with this: `package.Service/`, or `package.`
    Under(String),
    All,
}

impl Methods {
    /// # Errors
    /// Why `text` names no methods, and what would.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        let parsed = match bare.split_once('/') {
            _ if bare == "*" => return Ok(Self::All),
            Some((service, "*")) if is_name(service) => Self::Under(format!("{service}/")),
            Some((service, method)) if is_name(service) && is_name(method) && !method.contains('.') => {
                Self::One(bare.to_owned())
            }
            None => match bare.strip_suffix(".*") {
                Some(package) if is_name(package) => Self::Under(format!("{package}.")),
                None if is_name(bare) => Self::Under(format!("{bare}/")),
                _ => return Err(no_methods(text)),
            },
            Some(_) => return Err(no_methods(text)),
        };
        Ok(parsed)
    }

    /// Whether `method`, `package.Service/Method`, is one of them.
    pub(super) fn hold(&self, method: &str) -> bool {
        match self {
            Self::One(one) => one == method,
            Self::Under(prefix) => method.starts_with(prefix),
            Self::All => true,
        }
    }

    /// How much it says: rules that say more come first.
    pub(super) fn weight(&self) -> (u8, usize) {
        match self {
            Self::One(one) => (2, one.len()),
            Self::Under(prefix) => (1, prefix.len()),
            Self::All => (0, 0),
        }
    }
}

/// As it is written in a setting.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(one) => f.write_str(one),
            Self::Under(prefix) => write!(f, "{prefix}*"),
            Self::All => f.write_str("*"),
        }
    }
}

/// The method that `path` calls, `package.Service/Method`: whatever prefix and key stand before it, as routes read it.
pub(super) fn called(path: &str) -> &str {
    match path.rmatch_indices('/').nth(1) {
        Some((at, _)) => path.get(at + 1..).unwrap_or_default(),
        None => path.trim_start_matches('/'),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
}

fn no_methods(text: &str) -> String {
    format!(
        "{text:?} names no methods: write package.Service/Method, package.Service/*, package.* or * \
         (a star stands for a whole name, at the end)"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn hold(glob: &str, method: &str) -> bool {
        Methods::parse(glob).unwrap().hold(method)
    }

    #[test]
    fn a_pattern_holds_its_methods_and_no_others() {
        for (glob, inside, outside) in [
            ("*", &["a.B/C", "x/y"][..], &[][..]),
            ("shop.*", &["shop.Orders/Buy", "shop.v1.Orders/Buy"], &["shopping.Orders/Buy", "shop/Buy", "my.shop.A/B"]),
            ("shop.Orders/*", &["shop.Orders/Buy"], &["shop.Orders2/Buy", "shop.OrdersX/Buy", "shop.Order/Buy"]),
            ("shop.Orders", &["shop.Orders/Buy"], &["shop.Orders2/Buy"]),
            ("/shop.Orders/Buy", &["shop.Orders/Buy"], &["shop.Orders/Buyer", "shop.Orders/buy"]),
        ] {
            assert!(inside.iter().all(|method| hold(glob, method)), "{glob}");
            assert!(!outside.iter().any(|method| hold(glob, method)), "{glob}");
        }
    }

    #[test]
    fn what_names_no_methods_is_refused_with_what_would() {
        for text in
            ["", "/", "shop*", "*.Orders", "shop.Orders/B*", "a/b/c", "shop.**", "shop Orders/Buy", "*/Buy", ".*"]
        {
            let why = Methods::parse(text).unwrap_err();
            assert!(why.contains("write package.Service/Method"), "{why}");
        }
    }

    #[test]
    fn the_method_is_the_end_of_the_path() {
        for (path, method) in [
            ("/shop.Orders/Buy", "shop.Orders/Buy"),
            ("/api/v1/eu/shop.Orders/Buy", "shop.Orders/Buy"),
            ("/grpc.health.v1.Health/Check/x.Y/Z", "x.Y/Z"),
            ("/lonely", "lonely"),
            ("", ""),
        ] {
            assert_eq!(called(path), method, "{path}");
        }
    }
}
