//! Keys in the head of a call: metadata, other headers, the host, a cookie. A key that comes twice with two values is
//! refused, because whoever guards the service may look at the other one.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header::COOKIE};

use super::Malformed;
use crate::metadata;

/// A metadata entry of text: printable ASCII, by gRPC's own rule.
pub(super) fn text(headers: &HeaderMap, entry: &HeaderName) -> Result<Option<Bytes>, Malformed> {
    let Some(value) = one(headers.get_all(entry).iter().map(|value| value.as_bytes()))? else { return Ok(None) };
    if value.iter().any(|byte| !(b' '..=b'~').contains(byte)) {
        return Err("it is not printable ASCII; a key of other bytes goes into an entry whose name ends in -bin".into());
    }
    Ok(Some(Bytes::copy_from_slice(value)))
}

/// A metadata entry of bytes, in base64 on its way.
pub(super) fn binary(headers: &HeaderMap, entry: &HeaderName) -> Result<Option<Bytes>, Malformed> {
    // Libraries may join several values of one name.
    let values = headers.get_all(entry).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let Some(value) = one(values.map(<[u8]>::trim_ascii))? else { return Ok(None) };
    let raw = metadata::decode_bin(value).ok_or("its value is not base64")?;
    Ok(Some(raw.into()))
}

/// Any header.
pub(super) fn header(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Bytes>, Malformed> {
    one(headers.get_all(name).iter().map(|value| value.as_bytes()))?.map(utf8).transpose()
}

/// The host that is called: without the port, in lower case, as names of hosts are compared.
pub(super) fn host(authority: &str) -> Option<Bytes> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase().into())
}

/// The cookie of this name. HTTP/2 may send each cookie in a header of its own.
pub(super) fn cookie(headers: &HeaderMap, name: &str) -> Result<Option<Bytes>, Malformed> {
    let cookies = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let values = cookies.filter_map(|cookie| {
        let at = cookie.iter().position(|byte| *byte == b'=')?;
        let (found, value) = (cookie.get(..at)?, cookie.get(at + 1..)?.trim_ascii());
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        (found.trim_ascii() == name.as_bytes()).then_some(bare)
    });
    one(values)?.map(utf8).transpose()
}

/// The one value, however often it comes.
fn one<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, Malformed> {
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|other| other != first) {
        return Err("it comes several times, with different values".into());
    }
    Ok(Some(first))
}

fn utf8(value: &[u8]) -> Result<Bytes, Malformed> {
    match std::str::from_utf8(value) {
        Ok(_) => Ok(Bytes::copy_from_slice(value)),
        Err(_) => Err("it is not UTF-8".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(entries: &[(&'static str, &[u8])]) -> HeaderMap {
        let entry = |(name, value): &(&'static str, &[u8])| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn a_host_is_compared_without_its_port_and_in_lower_case() {
        for (authority, key) in [
            ("Acme.example.com:8080", "acme.example.com"),
            ("acme", "acme"),
            ("10.0.0.1:1", "10.0.0.1"),
            ("[::1]:50051", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host(authority).unwrap(), key, "{authority}");
        }
        assert_eq!((host(""), host(":80")), (None, None));
    }

    #[test]
    fn a_cookie_is_found_in_one_header_or_in_many() {
        let together = headers(&[("cookie", b"a=1; SID=x y; b=2")]);
        let apart = headers(&[("cookie", b"a=1"), ("cookie", b"SID=\"x y\"")]);
        for headers in [together, apart] {
            assert_eq!(cookie(&headers, "SID").unwrap().unwrap(), "x y");
            assert_eq!(cookie(&headers, "sid").unwrap(), None);
        }
        assert_eq!(cookie(&HeaderMap::new(), "SID").unwrap(), None);
        assert_eq!(cookie(&headers(&[("cookie", b"SID=")]), "SID").unwrap().unwrap(), "");
        assert!(cookie(&headers(&[("cookie", b"SID=1; SID=2")]), "SID").unwrap_err().contains("different values"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_cookie_is_found_among_any_others(
            before in "([a-z]=[ -:<-~]*;){0,3}",
            value in "[!#-+\\--:<-~]{0,9}",
            after in "(;[a-z]=[ -:<-~]*){0,3}",
        ) {
            let all = HeaderValue::from_str(&format!("{before}SID={value}{after}")).unwrap();
            let headers = HeaderMap::from_iter([(COOKIE, all)]);
            prop_assert_eq!(cookie(&headers, "SID").unwrap().unwrap(), value);
        }

        #[test]
        fn any_bytes_are_a_key_or_told(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            let headers = HeaderMap::from_iter([(COOKIE, value.clone()), (HeaderName::from_static("k-bin"), value)]);
            for found in [cookie(&headers, "SID"), header(&headers, &COOKIE), text(&headers, &COOKIE)] {
                prop_assert!(found.is_err() || found.is_ok_and(|key| key.is_none_or(|key| std::str::from_utf8(&key).is_ok())));
            }
            let _ = binary(&headers, &HeaderName::from_static("k-bin"));
        }
    }

    #[test]
    fn a_key_may_come_twice_if_it_is_the_same() {
        let name = HeaderName::from_static("x-tenant");
        let same = headers(&[("x-tenant", b"a"), ("x-tenant", b"a")]);
        let other = headers(&[("x-tenant", b"a"), ("x-tenant", b"b")]);
        for read in [text, header] {
            assert_eq!(read(&same, &name).unwrap().unwrap(), "a");
            assert!(read(&other, &name).unwrap_err().contains("several times"));
        }
    }

    #[test]
    fn bytes_that_an_entry_of_text_cannot_have_are_refused() {
        let name = HeaderName::from_static("x-tenant");
        let umlaut = headers(&[("x-tenant", "ü".as_bytes())]);
        assert!(text(&umlaut, &name).unwrap_err().contains("printable ASCII"));
        assert_eq!(header(&umlaut, &name).unwrap().unwrap(), "ü");
        assert_eq!(header(&headers(&[("x-tenant", b"\xff")]), &name), Err("it is not UTF-8".into()));
    }

    #[test]
    fn the_values_of_a_binary_entry_may_be_joined() {
        let name = HeaderName::from_static("shard-bin");
        assert_eq!(binary(&headers(&[("shard-bin", b"AP8=, AP8=")]), &name).unwrap().unwrap(), &b"\x00\xff"[..]);
        assert!(binary(&headers(&[("shard-bin", b"AP8=,AA==")]), &name).is_err());
        assert_eq!(binary(&headers(&[("shard-bin", b"!")]), &name), Err("its value is not base64".into()));
    }
}
