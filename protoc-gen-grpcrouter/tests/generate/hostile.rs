//! Requests that no compiler would send: each is answered, with files that are Rust or with an error; none panics.

use prost::Message;

use crate::property::{Request, answer, request};

/// Knuth's MMIX generator: the same changes in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Changes up to four bytes: some go, some come, most stay close to what they were, so that lengths and tags survive.
fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        match dice.below(8) {
            0 => drop(bytes.remove(at)),
            1 => bytes.insert(at, b"./\"\x00a_\r"[dice.below(7)]),
            2 => bytes[at] = b"./\"\x00a_\r"[dice.below(7)],
            _ => bytes[at] ^= 1 << dice.below(3),
        }
    }
}

#[test]
fn changed_bytes_in_a_proto_file_give_rust_or_an_error() {
    let mut dice = Dice(7);
    for (case, parameter) in [
        ("options", "gateway"),
        ("names", "paths=source_relative"),
        ("bare", "insert_include,use_arc_self,generate_default_stubs"),
    ] {
        let original = Request { parameter: Some(parameter.to_owned()), ..request(case) };
        assert_eq!(answer(&original.encode_to_vec()).unwrap().error, None);
        let mut answered_with_files = 0;
        for _ in 0..ROUNDS {
            let mut request = original.clone();
            change(request.proto_file.last_mut().unwrap(), &mut dice);
            let response = answer(&request.encode_to_vec()).expect("still a request");
            answered_with_files += usize::from(response.error.is_none() && !response.file.is_empty());
        }
        // Most bytes are in names, comments and positions, so the test is worth something only if many pass.
        assert!(answered_with_files > ROUNDS / 20, "{case}: {answered_with_files}");
    }
}

#[test]
fn changed_bytes_in_parameters_give_rust_or_an_error() {
    let parameter = r#"route=demo.v1.Plain={routing_key: "id"},router_attribute=.=#[doc = "a\\b\, c"],extern_path=.demo=::x::Y,runtime_path=::a,gateway"#;
    let original = request("kinds");
    let mut dice = Dice(11);
    for _ in 0..ROUNDS {
        let mut text = parameter.as_bytes().to_vec();
        change(&mut text, &mut dice);
        let parameter = Some(String::from_utf8_lossy(&text).into_owned());
        answer(&Request { parameter, ..original.clone() }.encode_to_vec()).expect("still a request");
    }
}

#[test]
fn changed_bytes_anywhere_give_rust_an_error_or_no_request() {
    let original = request("bare").encode_to_vec();
    let mut dice = Dice(13);
    for _ in 0..ROUNDS {
        let mut bytes = original.clone();
        change(&mut bytes, &mut dice);
        answer(&bytes);
    }
}

const ROUNDS: usize = 200;
