//! The hand-written codec against prost's, in both directions, and against bytes that nobody meant.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panic")]

use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::frame::{CancelReason, Headers, Metadata, Start, Text, Trailers};
use crate::handshake::{decode_hello, decode_welcome, encode_hello, encode_welcome};
use crate::id::{CallId, Epoch, MaxData, Seq};
use crate::wire::{self, gateway_frame, instance_frame};

const PREFIX: usize = 5;

fn bytes(longest: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..longest).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ -~äöü€]{1,20}"]
}

fn metadata() -> impl Strategy<Value = Vec<wire::Metadata>> {
    vec((bytes(200), bytes(200)).prop_map(|(key, value)| wire::Metadata { key, value }), 0..6)
}

prop_compose! {
    fn start()(
        path in text(), authority in text(), content_subtype in text(), encoding in text(), accept_encoding in text(),
        timeout_micros in option::of(any::<u64>()), max_data in any::<u64>(), metadata in metadata(),
    ) -> wire::Start {
        wire::Start { path, authority, content_subtype, encoding, accept_encoding, timeout_micros, max_data, metadata }
    }
}

prop_compose! {
    fn call()(
        id in any::<u64>(), start in option::of(start()), data in bytes(300), half_close in any::<bool>(),
        max_data in option::of(any::<u64>()), timeout_micros in option::of(any::<u64>()),
        cancel in option::of((1..=4).prop_map(|reason| wire::Cancel { reason })),
    ) -> wire::RpcCall {
        wire::RpcCall { id, start, data, half_close, max_data, timeout_micros, cancel }
    }
}

prop_compose! {
    fn headers()(
        content_subtype in text(), encoding in text(), accept_encoding in text(), metadata in metadata(),
    ) -> wire::Headers {
        wire::Headers { content_subtype, encoding, accept_encoding, metadata }
    }
}

prop_compose! {
    fn trailers()(
        status in any::<u32>(), message in text(), details in bytes(300), metadata in metadata(),
    ) -> wire::Trailers {
        wire::Trailers { status, message, details, metadata }
    }
}

prop_compose! {
    fn response()(
        id in any::<u64>(), headers in option::of(headers()), data in bytes(300), trailers in option::of(trailers()),
        // As a Duration holds it: whole milliseconds of up to 2^64 nanoseconds are enough for a wait.
        refused in option::of((0..1_u64 << 44).prop_map(|retry_after_millis| wire::Refused { retry_after_millis })),
        max_data in option::of(any::<u64>()),
    ) -> wire::RpcResponse {
        wire::RpcResponse { id, headers, data, trailers, refused, max_data }
    }
}

// ---- the same values in both worlds

fn to_metadata(entries: &[wire::Metadata]) -> Metadata {
    let mut builder = Metadata::builder();
    for entry in entries {
        builder.push(&entry.key, &entry.value);
    }
    builder.finish()
}

fn to_call(call: &wire::RpcCall) -> CallFrame {
    let start = call.start.as_ref().map(|start| StartFrame {
        start: Start {
            path: Text::from(start.path.clone()),
            authority: Text::from(start.authority.clone()),
            content_subtype: Text::from(start.content_subtype.clone()),
            encoding: Text::from(start.encoding.clone()),
            accept_encoding: Text::from(start.accept_encoding.clone()),
            metadata: to_metadata(&start.metadata),
        },
        timeout: start.timeout_micros.map(Duration::from_micros),
        max_data: MaxData::new(start.max_data),
    });
    let reason = |cancel: &wire::Cancel| match cancel.reason {
        1 => CancelReason::ClientGone,
        2 => CancelReason::Deadline,
        3 => CancelReason::Violation,
        _ => CancelReason::Shutdown,
    };
    CallFrame {
        id: CallId::from_raw(call.id),
        start,
        data: call.data.clone(),
        half_close: call.half_close,
        max_data: call.max_data.map(MaxData::new),
        timeout: call.timeout_micros.map(Duration::from_micros),
        cancel: call.cancel.as_ref().map(reason),
    }
}

fn to_response(response: &wire::RpcResponse) -> ResponseFrame {
    let headers = response.headers.as_ref().map(|headers| Headers {
        content_subtype: Text::from(headers.content_subtype.clone()),
        encoding: Text::from(headers.encoding.clone()),
        accept_encoding: Text::from(headers.accept_encoding.clone()),
        metadata: to_metadata(&headers.metadata),
    });
    let trailers = response.trailers.as_ref().map(|trailers| Trailers {
        status: trailers.status,
        message: Text::from(trailers.message.clone()),
        details: trailers.details.clone(),
        metadata: to_metadata(&trailers.metadata),
    });
    ResponseFrame {
        id: CallId::from_raw(response.id),
        headers,
        data: response.data.clone(),
        trailers,
        refused: response.refused.as_ref().map(|refused| Duration::from_millis(refused.retry_after_millis)),
        max_data: response.max_data.map(MaxData::new),
    }
}

// ---- by hand

fn write_calls(calls: &[CallFrame], seq: u64, ack: u64) -> Bytes {
    let mut buffer = BytesMut::new();
    let mut batch = BatchWriter::new(&mut buffer, 1 << 20);
    for call in calls {
        let start = call.start.as_ref().map(|start| StartParts {
            start: &start.start,
            timeout: start.timeout,
            max_data: start.max_data,
        });
        let parts = CallParts {
            id: call.id,
            start,
            data_len: call.data.len(),
            half_close: call.half_close,
            max_data: call.max_data,
            timeout: call.timeout,
            cancel: call.cancel,
        };
        batch.call(&parts, |buf| buf.put_slice(&call.data));
    }
    batch.finish(Seq::new(seq), Seq::new(ack))
}

fn write_responses(responses: &[ResponseFrame], seq: u64, ack: u64) -> Bytes {
    let mut buffer = BytesMut::new();
    let mut batch = BatchWriter::new(&mut buffer, 1 << 20);
    for response in responses {
        let parts = ResponseParts {
            id: response.id,
            headers: response.headers.as_ref(),
            data_len: response.data.len(),
            trailers: response.trailers.as_ref(),
            refused: response.refused,
            max_data: response.max_data,
        };
        batch.response(&parts, |buf| buf.put_slice(&response.data));
    }
    batch.finish(Seq::new(seq), Seq::new(ack))
}

fn read_all(from: Side, message: Bytes) -> Result<(u64, u64, Vec<Frame>), ProtocolError> {
    let batch = Batch::read(message)?;
    let frames = batch.frames().map(|frame| read_frame(from, batch.message(), frame)).collect::<Result<_, _>>()?;
    Ok((batch.seq.get(), batch.ack.get(), frames))
}

// ---- by prost

fn gateway_batch(calls: &[wire::RpcCall], seq: u64, ack: u64) -> wire::RegisterResponse {
    let frame = |call: &wire::RpcCall| wire::GatewayFrame { kind: Some(gateway_frame::Kind::Call(call.clone())) };
    wire::RegisterResponse { seq, ack, frames: calls.iter().map(frame).collect() }
}

fn instance_batch(responses: &[wire::RpcResponse], seq: u64, ack: u64) -> wire::RegisterRequest {
    let frame = |response: &wire::RpcResponse| wire::InstanceFrame {
        kind: Some(instance_frame::Kind::Response(response.clone())),
    };
    wire::RegisterRequest { seq, ack, frames: responses.iter().map(frame).collect() }
}

fn prefixed(message: &impl Message) -> Vec<u8> {
    let mut whole = vec![0];
    whole.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    message.encode(&mut whole).unwrap();
    whole
}

/// A field that no message of ours has.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let long = vec(any::<u8>(), 0..20).prop_map(|content| {
        let mut field = vec![0xa2, 0x06, u8::try_from(content.len()).unwrap()];
        field.extend(content);
        field
    });
    // Field 100 as a varint, as eight bytes, as bytes, as four bytes.
    prop_oneof![
        Just(vec![0xa0, 0x06, 0x96, 0x01]),
        any::<[u8; 8]>().prop_map(|fixed| [&[0xa1, 0x06][..], &fixed[..]].concat()),
        long,
        any::<[u8; 4]>().prop_map(|fixed| [&[0xa5, 0x06][..], &fixed[..]].concat()),
    ]
}

/// A message field around some bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut buf = BytesMut::new();
    parts::put_head(&mut buf, number, content.len());
    buf.put_slice(content);
    buf.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_are_written_byte_for_byte_as_prost_writes_them(
        calls in vec(call(), 0..4), seq in any::<u64>(), ack in any::<u64>(),
    ) {
        let by_hand = write_calls(&calls.iter().map(to_call).collect::<Vec<_>>(), seq, ack);
        prop_assert_eq!(&by_hand[..], prefixed(&gateway_batch(&calls, seq, ack)));
    }

    #[test]
    fn responses_are_written_byte_for_byte_as_prost_writes_them(
        responses in vec(response(), 0..4), seq in any::<u64>(), ack in any::<u64>(),
    ) {
        let by_hand = write_responses(&responses.iter().map(to_response).collect::<Vec<_>>(), seq, ack);
        prop_assert_eq!(&by_hand[..], prefixed(&instance_batch(&responses, seq, ack)));
    }

    #[test]
    fn calls_are_read_as_prost_wrote_them(calls in vec(call(), 0..4), seq in any::<u64>(), ack in any::<u64>()) {
        let message = gateway_batch(&calls, seq, ack).encode_to_vec();
        let frames = calls.iter().map(|call| Frame::Call(to_call(call))).collect();
        prop_assert_eq!(read_all(Side::Gateway, message.into()), Ok((seq, ack, frames)));
    }

    #[test]
    fn responses_are_read_as_prost_wrote_them(
        responses in vec(response(), 0..4), seq in any::<u64>(), ack in any::<u64>(),
    ) {
        let message = instance_batch(&responses, seq, ack).encode_to_vec();
        let frames = responses.iter().map(|response| Frame::Response(to_response(response))).collect();
        prop_assert_eq!(read_all(Side::Instance, message.into()), Ok((seq, ack, frames)));
    }

    #[test]
    fn fields_that_this_version_does_not_know_are_skipped(call in call(), unknown in vec(unknown(), 5)) {
        let mut inner = unknown[0].clone();
        inner.extend(wire::RpcCall { start: None, ..call.clone() }.encode_to_vec());
        if let Some(start) = &call.start {
            // Unknown fields stand around the metadata and between its entries.
            let mut message = wire::Start { metadata: Vec::new(), ..start.clone() }.encode_to_vec();
            for entry in &start.metadata {
                message.extend(&unknown[1]);
                message.extend(field(15, &entry.encode_to_vec()));
            }
            message.extend(&unknown[2]);
            inner.extend(field(2, &message));
        }
        inner.extend(&unknown[3]);
        let mut frame = unknown[4].clone();
        frame.extend(field(1, &inner));
        let message = [unknown[0].clone(), field(3, &frame), unknown[1].clone()].concat();
        prop_assert_eq!(read_all(Side::Gateway, message.into()), Ok((0, 0, vec![Frame::Call(to_call(&call))])));
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(bytes in bytes(300)) {
        for side in [Side::Gateway, Side::Instance] {
            let _ = read_all(side, bytes.clone());
            let _ = read_frame(side, &bytes, &bytes);
        }
        let _ = decode_hello(bytes.clone());
        let _ = decode_welcome(bytes.clone());
        if let Ok(metadata) = Metadata::from_block(bytes) {
            prop_assert_eq!(metadata.iter().count(), metadata.len());
        }
    }

    #[test]
    fn a_message_with_a_wrong_byte_is_read_or_refused_without_a_panic(
        call in call(), response in response(), place in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        for (side, mut message) in [
            (Side::Gateway, gateway_batch(&[call], 1, 1).encode_to_vec()),
            (Side::Instance, instance_batch(&[response], 1, 1).encode_to_vec()),
        ] {
            let place = place.index(message.len());
            message[place] = byte;
            if let Ok((_, _, frames)) = read_all(side, message.into()) {
                for frame in frames {
                    if let Frame::Call(CallFrame { start: Some(start), .. }) = frame {
                        let metadata = start.start.metadata;
                        prop_assert_eq!(metadata.iter().count(), metadata.len());
                    }
                }
            }
        }
    }
}

// ---- one by one

#[test]
fn data_and_metadata_are_slices_of_the_message() {
    let entry = wire::Metadata { key: Bytes::from_static(b"key"), value: Bytes::from_static(b"value") };
    let start = wire::Start { metadata: vec![entry], ..Default::default() };
    let call = wire::RpcCall { data: Bytes::from_static(b"data"), start: Some(start), ..Default::default() };
    let message = Bytes::from(gateway_batch(&[call], 1, 0).encode_to_vec());
    let range = message.as_ptr_range();
    let (_, _, frames) = read_all(Side::Gateway, message.clone()).unwrap();
    let [Frame::Call(CallFrame { start: Some(start), data, .. })] = &frames[..] else { panic!("one call: {frames:?}") };
    let (key, value) = start.start.metadata.iter().next().unwrap();
    for slice in [data, &key, &value] {
        assert!(range.contains(&slice.as_ptr()), "{slice:?} was copied");
    }
}

#[test]
fn a_frame_of_no_known_kind_is_refused() {
    assert_eq!(read_frame(Side::Gateway, &Bytes::new(), &[]), Err(ProtocolError::UnknownFrame));
    let update = wire::InstanceFrame { kind: Some(instance_frame::Kind::MaxCalls(wire::MaxCalls { limit: 1 })) };
    let bytes = Bytes::from(update.encode_to_vec());
    assert_eq!(read_frame(Side::Instance, &bytes, &bytes), Ok(Frame::MaxCalls(1)));
    let future = Bytes::from(field(9, &[]));
    assert_eq!(read_frame(Side::Gateway, &future, &future), Err(ProtocolError::UnknownFrame));
}

#[test]
fn a_handshake_inside_a_tunnel_is_refused() {
    let hello = Bytes::from(field(2, &[]));
    for side in [Side::Gateway, Side::Instance] {
        assert_eq!(read_frame(side, &hello, &hello), Err(ProtocolError::Misplaced("a handshake")));
    }
}

#[test]
fn a_frame_of_two_kinds_and_a_call_with_two_starts_are_refused() {
    let two = Bytes::from([field(1, &[]), field(1, &[])].concat());
    assert!(read_frame(Side::Gateway, &two, &two).is_err());
    let starts = Bytes::from(field(1, &[field(2, &[]), field(2, &[])].concat()));
    assert!(read_frame(Side::Gateway, &starts, &starts).is_err());
}

#[test]
fn state_is_read_as_it_was_written() {
    use crate::frame::{Close, CloseCode, Health, Update};
    let update = Update {
        version: 3,
        health: Health::Serving,
        weight: 2,
        labels: [("a".into(), "b".into())].into(),
        load_permille: 500,
        not_serving: vec!["p.S".into()],
    };
    let close = Close { code: CloseCode::Replaced, reason: "newer".into(), retry_after: Duration::from_millis(7) };
    let gateways = vec!["http://a".to_owned()];
    let mut buffer = BytesMut::new();
    let mut batch = BatchWriter::new(&mut buffer, 1 << 16);
    batch.ping(&Bytes::from_static(b"1"));
    batch.pong(&Bytes::from_static(b"2"));
    batch.update(&update);
    batch.max_calls(9);
    assert!(!batch.is_numbered(), "state alone needs no number");
    batch.drain(Side::Instance, &[]);
    assert!(batch.is_numbered());
    batch.close(&close);
    let message = batch.finish(Seq::STATE, Seq::new(300)).slice(PREFIX..);
    let expected = vec![
        Frame::Ping(Bytes::from_static(b"1")),
        Frame::Pong(Bytes::from_static(b"2")),
        Frame::Update(update),
        Frame::MaxCalls(9),
        Frame::Drain(Vec::new()),
        Frame::Close(close),
    ];
    assert_eq!(read_all(Side::Instance, message), Ok((0, 300, expected)));

    let mut batch = BatchWriter::new(&mut buffer, 1 << 16);
    batch.drain(Side::Gateway, &gateways);
    batch.peers_changed(&gateways);
    let message = batch.finish(Seq::new(1), Seq::STATE).slice(PREFIX..);
    let expected = vec![Frame::Drain(gateways.clone()), Frame::PeersChanged(gateways)];
    assert_eq!(read_all(Side::Gateway, message), Ok((1, 0, expected)));
}

#[test]
fn labels_of_an_update_are_checked_as_those_of_a_hello() {
    let problem = |label: &str, value: &str| {
        let update = wire::Update { labels: [(label.to_owned(), value.to_owned())].into(), ..Default::default() };
        let frame = wire::InstanceFrame { kind: Some(instance_frame::Kind::Update(update)) };
        let batch = wire::RegisterRequest { frames: vec![frame], ..Default::default() };
        read_all(Side::Instance, batch.encode_to_vec().into()).unwrap_err().to_string()
    };
    assert_eq!(problem("a\nb", ""), "a label: it has a control character");
    assert_eq!(problem("a", &"x".repeat(257)), "the length of a label's value: 257, at most 256 are taken");
}

#[test]
fn a_ping_that_is_too_long_is_refused() {
    let ping = Bytes::from(field(3, &field(1, &[0; 65])));
    assert!(matches!(read_frame(Side::Gateway, &ping, &ping), Err(ProtocolError::TooLarge { size: 65, .. })));
}

#[test]
fn batches_share_one_allocation() {
    let mut buffer = BytesMut::with_capacity(1 << 16);
    let mut addresses = Vec::new();
    for seq in 1..4 {
        let mut batch = BatchWriter::new(&mut buffer, 1 << 12);
        batch.ping(&Bytes::from_static(b"1"));
        addresses.push(batch.finish(Seq::new(seq), Seq::STATE).as_ptr() as usize);
    }
    assert!(addresses.windows(2).all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 64), "{addresses:?}");
}

mod handshakes {
    use super::*;
    use crate::frame::*;
    use crate::id::{Incarnation, InstanceId, TunnelId};
    use crate::{Config, agree, encode_close};

    pub(super) fn hello() -> Hello {
        Hello {
            versions: 1..=3,
            features: vec!["x".into()],
            instance_id: InstanceId::parse("a").unwrap(),
            incarnation: Incarnation([7; 16]),
            services: vec![ServiceOffer {
                name: "p.S".into(),
                methods: vec!["M".into()],
                descriptor_hash: Bytes::new(),
                not_serving: true,
            }],
            software_version: "1.0".into(),
            weight: 3,
            labels: [("zone".into(), "b".into())].into(),
            routing_keys: vec!["k".into()],
            max_calls: 100,
            health: Health::Serving,
            draining: true,
            resume: Some(Resume {
                tunnel_id: TunnelId([1; 16]),
                token: Bytes::from_static(b"secret"),
                epoch: Epoch::new(2),
                rx_next: Seq::new(3),
                tx_first: Seq::new(4),
                tx_next: Seq::new(5),
            }),
        }
    }

    fn accepted() -> Accepted {
        Accepted {
            version: 1,
            features: Vec::new(),
            tunnel_id: TunnelId([1; 16]),
            resume_token: Bytes::from_static(b"secret"),
            heartbeat: Config::default().heartbeat,
            resume_window: Duration::from_secs(15),
            limits: Config::default().limits(),
            gateways: vec!["http://b".into()],
        }
    }

    fn problem(change: impl FnOnce(&mut wire::Hello)) -> String {
        let request = wire::RegisterRequest::decode(&encode_hello(&hello())[PREFIX..]).unwrap();
        let Some(instance_frame::Kind::Hello(mut hello)) = request.frames[0].kind.clone() else { panic!("a Hello") };
        change(&mut hello);
        let kind = Some(instance_frame::Kind::Hello(hello));
        let batch = wire::RegisterRequest { frames: vec![wire::InstanceFrame { kind }], ..Default::default() };
        decode_hello(batch.encode_to_vec().into()).unwrap_err().to_string()
    }

    #[test]
    fn a_hello_is_read_as_it_was_written() {
        assert_eq!(decode_hello(encode_hello(&hello()).slice(PREFIX..)), Ok(hello()));
    }

    #[test]
    fn a_welcome_is_read_as_it_was_written() {
        let rejected = Rejected {
            reason: RejectReason::Version,
            message: "no".into(),
            retry_after: Duration::from_secs(1),
            gateways: vec!["http://b".into()],
            versions: Some(1..=1),
        };
        let resumed = Resumed { epoch: Epoch::new(2), rx_next: Seq::new(9), new_token: Bytes::from_static(b"secret") };
        for welcome in [Welcome::Accepted(accepted()), Welcome::Resumed(resumed), Welcome::Rejected(rejected)] {
            assert_eq!(decode_welcome(encode_welcome(&welcome).slice(PREFIX..)), Ok(welcome));
        }
    }

    #[test]
    fn what_is_wrong_with_a_hello_is_said_in_words() {
        assert_eq!(problem(|hello| hello.instance_id.clear()), "instance_id: it is empty");
        assert_eq!(problem(|hello| hello.stream_index = 1), "stream_index is reserved and must be 0");
        assert_eq!(problem(|hello| hello.incarnation = Bytes::new()), "incarnation must have 16 bytes, it has 0");
        assert_eq!(problem(|hello| hello.min_version = 4), "versions 4 to 3 are no range from 1 up");
        assert_eq!(problem(|hello| hello.services[0].name.clear()), "a service's name: it is empty");
        assert_eq!(
            problem(|hello| hello.services[0].methods[0] = "a\n".into()),
            "a method's name: it has a control character"
        );
    }

    #[test]
    fn the_first_message_must_be_one_hello_without_a_number() {
        let close = Close { code: CloseCode::NoError, reason: "bye".into(), retry_after: Duration::ZERO };
        let instance_close = encode_close(Side::Instance, &close).slice(PREFIX..);
        assert_eq!(decode_hello(instance_close).unwrap_err().to_string(), "the first message must be a Hello");
        let empty = decode_hello(Bytes::new()).unwrap_err();
        assert_eq!(empty.to_string(), "the first batch must have exactly one frame");
        let gateway_close = encode_close(Side::Gateway, &close).slice(PREFIX..);
        assert_eq!(decode_welcome(gateway_close).unwrap_err().to_string(), "the gateway closed: bye");
    }

    #[test]
    fn a_gateway_agrees_on_the_highest_common_version_and_the_lower_limit_of_calls() {
        let config = Config::default();
        let agreement = agree(&hello(), &config).unwrap();
        assert_eq!((agreement.version, agreement.max_open_calls), (1, 100));
        let newer = Hello { versions: 2..=3, ..hello() };
        let rejected = agree(&newer, &config).unwrap_err();
        assert_eq!((rejected.reason, rejected.versions), (RejectReason::Version, Some(1..=1)));
        let idle = Hello { max_calls: 0, ..hello() };
        assert_eq!(agree(&idle, &config).unwrap_err().reason, RejectReason::Invalid);
    }

    #[test]
    fn tokens_do_not_show_in_debug_output() {
        let resumed = Resumed { epoch: Epoch::new(2), rx_next: Seq::new(9), new_token: Bytes::from_static(b"secret") };
        let shown = format!("{:?} {:?} {:?}", hello(), accepted(), resumed);
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn an_instance_adopts_what_the_gateway_decides_and_nothing_unreasonable() {
        let config = Config { max_open_calls: 10, ..Config::default() };
        let mut accepted = accepted();
        accepted.limits.initial_window = 1_000;
        let adopted = config.clone().adopt(&accepted).unwrap();
        assert_eq!((adopted.initial_window, adopted.max_open_calls), (1_000, 10));
        accepted.limits.initial_window = 1 << 40;
        assert_eq!(config.clone().adopt(&accepted).unwrap_err().field, "initial_window");
        accepted.limits = Config::default().limits();
        accepted.limits.max_metadata = u64::MAX;
        assert_eq!(config.clone().adopt(&accepted).unwrap_err().field, "max_batch");
        accepted.limits = Config::default().limits();
        accepted.version = 2;
        assert_eq!(config.adopt(&accepted).unwrap_err().field, "version");
    }
}
