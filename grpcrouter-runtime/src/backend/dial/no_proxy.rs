//! The list of `NO_PROXY`: which hosts are dialled directly though there is a proxy. The rules are curl's.

use std::net::IpAddr;

use ipnet::IpNet;

/// Whether the list names this host and port.
///
/// Its entries stand between commas or spaces: `*` is everything; an IP address or a network (`10.0.0.0/8`) is what is
/// in it, if the host is written as an address; a name is that host and all below it, with or without a dot before it.
/// Each may end with a port, which then must be the same.
pub(super) fn names(list: &str, host: &str, port: u16) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| {
        let (name, only) = split_port(entry);
        only.is_none_or(|only| only == port) && is_named(name, host)
    })
}

fn is_named(name: &str, host: &str) -> bool {
    if name == "*" {
        return true;
    }
    let Ok(address) = host.parse::<IpAddr>() else { return is_below(name, host) };
    match (name.parse::<IpNet>(), name.parse::<IpAddr>()) {
        (Ok(network), _) => network.contains(&address),
        (_, Ok(same)) => same == address,
        _ => false,
    }
}

/// Whether `host` is `name` or ends with `.name`.
fn is_below(name: &str, host: &str) -> bool {
    let name = name.strip_prefix("*.").or_else(|| name.strip_prefix('.')).unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return false;
    }
    let Some(start) = host.len().checked_sub(name.len()) else { return false };
    host.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(name))
        && host.get(..start).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `host:port` and `[v6]:port`; an IPv6 address without brackets has none.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').unwrap_or((rest, ""));
        return (address, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_networks_and_ports_are_named_as_curl_reads_them() {
        for (list, host, expected) in [
            ("", "gateway.example", false),
            ("*", "gateway.example", true),
            ("*", "10.0.0.1", true),
            ("example", "gateway.example", true),
            (".example", "gateway.example", true),
            ("*.example", "gateway.example", true),
            ("gateway.EXAMPLE", "Gateway.example.", true),
            ("way.example", "gateway.example", false),
            ("a.gateway.example", "gateway.example", false),
            ("localhost, .corp\tother", "gateway.example", false),
            ("localhost, .example", "gateway.example", true),
            ("gateway.example:443", "gateway.example", true),
            ("gateway.example:8080", "gateway.example", false),
            (".example:443", "gateway.example", true),
            ("10.0.0.0/8", "10.20.30.40", true),
            ("10.0.0.0/8", "11.20.30.40", false),
            ("10.0.0.0/8", "10.example", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1:443", "10.0.0.1", true),
            ("10.0.0.1:80", "10.0.0.1", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("[2001:db8::1]:443", "2001:db8::1", true),
            ("[2001:db8::1]:80", "2001:db8::1", false),
            ("2001:db8::1", "2001:db8::1", true),
            (".", "gateway.example", false),
            ("0.0.1", "10.0.0.1", false),
        ] {
            assert_eq!(names(list, host, 443), expected, "{list:?} {host}");
        }
    }
}
