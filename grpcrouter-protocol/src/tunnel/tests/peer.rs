//! A peer that breaks the protocol: what ends the call, what ends the tunnel, and with which words.

use super::*;

fn instance() -> Tunnel {
    Tunnel::instance(small(), T0)
}

/// A gateway with three calls that were written.
fn gateway() -> (Tunnel, [CallId; 3]) {
    let mut gateway = Tunnel::gateway(small(), T0);
    let calls = [(); 3].map(|()| gateway.open(request(), T0).unwrap().id);
    gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    (gateway, calls)
}

const A: CallId = CallId::new(1, 0);
const B: CallId = CallId::new(2, 1);

#[test]
fn a_batch_that_is_not_the_next_one_is_refused() {
    let mut instance = instance();
    let error = ProtocolError::UnexpectedSeq { expected: Seq::new(1), received: Seq::new(2) };
    assert_eq!(instance.handle_batch(Epoch::FIRST, from_gateway(2, vec![]), T0), Err(error));
    instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(A)]), T0).unwrap();
    let again = instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(B)]), T0);
    assert_eq!(again, Err(ProtocolError::UnexpectedSeq { expected: Seq::new(2), received: Seq::new(1) }));
}

#[test]
fn a_part_of_a_call_needs_a_number() {
    let error = ProtocolError::Misplaced("a part of a call in a batch without a number");
    assert_eq!(instance().handle_batch(Epoch::FIRST, from_gateway(0, vec![wire_start(A)]), T0), Err(error));
}

#[test]
fn an_ack_of_a_batch_never_sent_is_refused() {
    let (mut gateway, _) = gateway();
    let ack = wire::RegisterRequest { ack: 2, ..Default::default() };
    let error = ProtocolError::AckOfUnsent { acked: Seq::new(2), sent: Seq::new(1) };
    assert_eq!(gateway.handle_batch(Epoch::FIRST, ack.encode_to_vec().into(), T0), Err(error));
}

#[test]
fn a_batch_or_a_part_beyond_the_limit_is_refused() {
    let batch = Bytes::from(vec![0; (64 << 10) + 1]);
    let error = instance().handle_batch(Epoch::FIRST, batch, T0).unwrap_err();
    assert_eq!(error.to_string(), "a batch is 65537, the limit is 65536");
    let mut instance = instance();
    let error =
        instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(A), wire_data(A, 201)]), T0).unwrap_err();
    assert_eq!(error.to_string(), "a data part is 201, the limit is 200");
}

#[test]
fn a_frame_for_a_call_never_opened_is_refused_on_both_ends() {
    assert_eq!(
        instance().handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_data(A, 1)]), T0),
        Err(ProtocolError::UnknownCall(A))
    );
    let (mut gateway, calls) = gateway();
    let unknown = CallId::new(4, 3);
    let response =
        |id: CallId| wire::RpcResponse { id: id.get(), data: Bytes::from_static(b"x"), ..Default::default() };
    assert!(calls.iter().all(|&id| id < unknown));
    assert_eq!(
        gateway.handle_batch(Epoch::FIRST, from_instance(1, vec![response(unknown)]), T0),
        Err(ProtocolError::UnknownCall(unknown))
    );
}

#[test]
fn an_answer_to_a_start_that_was_not_written_is_refused() {
    let (mut gateway, _) = gateway();
    let unsent = gateway.open(request(), T0).unwrap().id;
    let response = wire::RpcResponse { id: unsent.get(), trailers: Some(Default::default()), ..Default::default() };
    assert_eq!(
        gateway.handle_batch(Epoch::FIRST, from_instance(1, vec![response]), T0),
        Err(ProtocolError::UnknownCall(unsent))
    );
}

#[test]
fn a_start_needs_a_new_id_a_free_slot_and_room() {
    let refused = |second: CallId| {
        let mut instance = instance();
        instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(B), wire_start(second)]), T0).unwrap_err()
    };
    assert_eq!(refused(B), ProtocolError::IdNotNew(B), "the same");
    assert_eq!(refused(A), ProtocolError::IdNotNew(A), "a lower one");
    let taken = CallId::new(3, 1);
    assert_eq!(refused(taken), ProtocolError::IdNotNew(taken), "the slot of an open call");
    let mut after_its_end = instance();
    let ended = wire::RpcCall { cancel: Some(Default::default()), ..wire_start(A) };
    let error = after_its_end.handle_batch(Epoch::FIRST, from_gateway(1, vec![ended, wire_start(A)]), T0);
    assert_eq!(error, Err(ProtocolError::IdNotNew(A)), "the same, after its call has ended");
    let beyond = CallId::new(3, 4);
    assert_eq!(refused(beyond), ProtocolError::UnknownCall(beyond), "a slot beyond the agreed limit");
}

#[test]
fn a_start_beyond_the_limit_of_calls_in_all_is_refused() {
    let mut instance = instance();
    // Each is opened and ended in one frame, so that slots are free but the limit was not raised.
    let ended = |counter| wire::RpcCall { cancel: Some(Default::default()), ..wire_start(CallId::new(counter, 0)) };
    let batch = (1..=4).map(ended).chain([wire_start(CallId::new(5, 0))]).collect();
    let error = ProtocolError::TooManyCalls(CallId::new(5, 0), 4);
    assert_eq!(instance.handle_batch(Epoch::FIRST, from_gateway(1, batch), T0), Err(error));
}

#[test]
fn data_beyond_the_window_ends_that_call_at_the_gateway_and_no_other() {
    let (mut gateway, [broken, fine, _]) = gateway();
    let data = |id: CallId| wire::RpcResponse {
        id: id.get(),
        headers: Some(Default::default()),
        data: vec![7; 200].into(),
        ..Default::default()
    };
    let more = |id: CallId| wire::RpcResponse { headers: None, ..data(id) };
    let batch = vec![data(broken), more(broken), more(broken), more(broken), more(broken), data(fine)];
    gateway.handle_batch(Epoch::FIRST, from_instance(1, batch), T0).unwrap();
    let events = events(&mut gateway);
    assert_eq!(events.len(), 6);
    let reason = EndReason::Violation(ProtocolError::Overrun { call: broken, over: 160 });
    assert_eq!(events[4], Event::Ended { call: broken, reason });
    assert!(matches!(events[5], Event::Response { call, .. } if call == fine));
    let out = gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    assert!(matches!(
        frames(Side::Gateway, &out)[..],
        [Frame::Call(CallFrame { id, cancel: Some(CancelReason::Violation), .. })] if id == broken
    ));
}

#[test]
fn the_third_call_that_breaks_the_protocol_ends_the_tunnel() {
    let (mut gateway, calls) = gateway();
    let headless =
        |id: CallId| wire::RpcResponse { id: id.get(), data: Bytes::from_static(b"x"), ..Default::default() };
    let error = gateway.handle_batch(Epoch::FIRST, from_instance(1, calls.map(headless).to_vec()), T0).unwrap_err();
    assert_eq!(error.to_string(), "3 calls broke the protocol; the last: call 3/2: data is not allowed before headers");
}

#[test]
fn data_beyond_the_window_is_answered_with_internal_at_the_instance() {
    let mut instance = instance();
    let mut batch = vec![wire_start(A)];
    batch.extend((0..5).map(|_| wire_data(A, 200)));
    instance.handle_batch(Epoch::FIRST, from_gateway(1, batch), T0).unwrap();
    let reason = EndReason::Violation(ProtocolError::Overrun { call: A, over: 160 });
    assert_eq!(events(&mut instance).pop(), Some(Event::Ended { call: A, reason }));
    let out = instance.poll_transmit(Epoch::FIRST, T0).unwrap();
    let [Frame::Response(ResponseFrame { trailers: Some(trailers), .. }), Frame::MaxCalls(5)] =
        &frames(Side::Instance, &out)[..]
    else {
        panic!("trailers")
    };
    assert_eq!((trailers.status, instance.open_calls()), (13, 0));
}

#[test]
fn data_after_half_close_ends_the_call() {
    let mut instance = instance();
    let closed = wire::RpcCall { half_close: true, ..wire_data(A, 1) };
    instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(A), closed, wire_data(A, 1)]), T0).unwrap();
    let error = ProtocolError::UnexpectedStep { call: A, step: "data", state: "after the end" };
    let last = events(&mut instance).pop();
    assert_eq!(last, Some(Event::Ended { call: A, reason: EndReason::Violation(error) }));
}

#[test]
fn a_refusal_after_headers_ends_the_call_as_broken() {
    let (mut gateway, [id, ..]) = gateway();
    let headers = wire::RpcResponse { id: id.get(), headers: Some(Default::default()), ..Default::default() };
    let refused = wire::RpcResponse { id: id.get(), refused: Some(Default::default()), ..Default::default() };
    gateway.handle_batch(Epoch::FIRST, from_instance(1, vec![headers, refused]), T0).unwrap();
    assert!(matches!(
        events(&mut gateway)[..],
        [Event::Response { .. }, Event::Ended { reason: EndReason::Violation(_), .. }]
    ));
}

#[test]
fn a_refusal_of_a_start_that_was_acked_ends_the_call_as_broken() {
    let (mut gateway, [id, ..]) = gateway();
    let ack = wire::RegisterRequest { ack: 1, ..Default::default() };
    gateway.handle_batch(Epoch::FIRST, ack.encode_to_vec().into(), T0).unwrap();
    let refused = wire::RpcResponse { id: id.get(), refused: Some(Default::default()), ..Default::default() };
    gateway.handle_batch(Epoch::FIRST, from_instance(1, vec![refused]), T0).unwrap();
    let [Event::Ended { reason: EndReason::Violation(error), .. }] = &events(&mut gateway)[..] else {
        panic!("an end")
    };
    assert_eq!(error.to_string(), "call 1/0: a refusal is not allowed after its start was acked");
}

#[test]
fn response_metadata_beyond_the_limit_ends_that_call() {
    let (mut gateway, [id, ..]) = gateway();
    let entry = wire::Metadata { key: Bytes::from_static(b"k"), value: Bytes::new() };
    let headers = wire::Headers { metadata: vec![entry; 129], ..Default::default() };
    let response = wire::RpcResponse { id: id.get(), headers: Some(headers), ..Default::default() };
    gateway.handle_batch(Epoch::FIRST, from_instance(1, vec![response]), T0).unwrap();
    assert!(matches!(events(&mut gateway)[..], [Event::Ended { reason: EndReason::Violation(_), .. }]));
}

#[test]
fn a_limit_without_measure_makes_no_side_keep_more_than_a_window() {
    let (mut gateway, [id, ..]) = gateway();
    let grant = wire::RpcResponse { id: id.get(), max_data: Some(u64::MAX), ..Default::default() };
    gateway.handle_batch(Epoch::FIRST, from_instance(0, vec![grant]), T0).unwrap();
    assert_eq!(gateway.send(id, Bytes::from(vec![7; 900]), false, T0), 0, "the overhead of its parts counts too");
    assert_eq!(gateway.queued_bytes(), 900);
    let out = gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    assert_eq!(frames(Side::Gateway, &out).len(), 5, "but all of it may go");
    assert_eq!(events(&mut gateway), [Event::Writable { call: id, capacity: 1_000 }], "and then as much again");

    let mut instance = instance();
    let mut start = wire_start(A);
    start.start.as_mut().unwrap().max_data = u64::MAX;
    instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![start]), T0).unwrap();
    assert_eq!(instance.respond(A, part(100), T0), 900);
}

#[test]
fn a_deadline_said_again_and_again_costs_no_memory_and_ends_the_call_once() {
    let mut instance = instance();
    instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(A)]), T0).unwrap();
    let again = |micros| wire::RpcCall { id: A.get(), timeout_micros: Some(micros), ..Default::default() };
    for _ in 0..100 {
        instance
            .handle_batch(Epoch::FIRST, from_gateway(0, vec![again(5_000), again(u64::MAX), again(9_000)]), T0)
            .unwrap();
    }
    assert!(instance.deadlines.len() < 100, "{}", instance.deadlines.len());
    events(&mut instance);
    instance.handle_timeout(after(9)).unwrap();
    assert_eq!(events(&mut instance), [Event::Ended { call: A, reason: EndReason::Deadline }]);
}

#[test]
fn a_small_part_that_waits_behind_another_does_not_keep_its_batch() {
    let is_within = |data: &Bytes, batch: &Bytes| batch.as_ptr_range().contains(&data.as_ptr());
    let mut instance = instance();
    let batch = from_gateway(1, vec![wire_start(A), wire_data(A, 10), wire_data(A, 10)]);
    instance.handle_batch(Epoch::FIRST, batch.clone(), T0).unwrap();
    let [Event::Started { .. }, Event::Request { data: first, .. }, Event::Request { data: second, .. }] =
        &events(&mut instance)[..]
    else {
        panic!("a start and two parts")
    };
    assert_eq!((is_within(first, &batch), is_within(second, &batch)), (true, false));
    assert_eq!(first, second);
    for _ in 0..2 {
        instance.consumed(A, 10, T0);
    }
    let batch = from_gateway(2, vec![wire_data(A, 10)]);
    instance.handle_batch(Epoch::FIRST, batch.clone(), T0).unwrap();
    let [Event::Request { data, .. }] = &events(&mut instance)[..] else { panic!("a part") };
    assert!(is_within(data, &batch), "a consumer that keeps up costs no copy");
}

#[test]
fn a_peer_that_goes_on_with_a_broken_call_for_a_mebibyte_ends_the_tunnel() {
    let (mut gateway, [id, ..]) = gateway();
    let data = wire::RpcResponse { id: id.get(), data: vec![7; 200].into(), ..Default::default() };
    let mut on_and_on = |seq| gateway.handle_batch(Epoch::FIRST, from_instance(seq, vec![data.clone(); 100]), T0);
    let refused = (1..100).find_map(|seq| on_and_on(seq).err());
    // The first frame breaks the call, for it has no headers; of 232 each, 4520 more are a mebibyte.
    assert_eq!(refused, Some(ProtocolError::Overrun { call: id, over: 4_520 * 232 }));

    let mut instance = instance();
    instance.handle_batch(Epoch::FIRST, from_gateway(1, vec![wire_start(A)]), T0).unwrap();
    let mut on_and_on = |seq| instance.handle_batch(Epoch::FIRST, from_gateway(seq, vec![wire_data(A, 200); 100]), T0);
    let refused = (2..100).find_map(|seq| on_and_on(seq).err());
    // Four parts fit, the fifth is 160 beyond.
    assert_eq!(refused, Some(ProtocolError::Overrun { call: A, over: 160 + 4_520 * 232 }));
}

#[test]
fn a_drain_said_again_and_many_updates_at_once_are_told_once() {
    let (mut gateway, _) = gateway();
    let frame = |kind| wire::InstanceFrame { kind: Some(kind) };
    let update = |version| frame(instance_frame::Kind::Update(wire::Update { version, ..Default::default() }));
    let drain = || frame(instance_frame::Kind::Drain(wire::Drain::default()));
    let frames = [drain(), drain()].into_iter().chain((1..100).map(update)).collect();
    let batch = wire::RegisterRequest { frames, ..Default::default() };
    gateway.handle_batch(Epoch::FIRST, batch.encode_to_vec().into(), T0).unwrap();
    let [Event::Draining { .. }, Event::Updated(update)] = &events(&mut gateway)[..] else { panic!("one of each") };
    assert_eq!(update.version, 99);
}

#[test]
fn a_flood_of_pings_is_answered_within_bounds() {
    let mut instance = instance();
    let ping = wire::GatewayFrame { kind: Some(gateway_frame::Kind::Ping(Default::default())) };
    let batch = wire::RegisterResponse { frames: vec![ping; 1_000], ..Default::default() };
    instance.handle_batch(Epoch::FIRST, batch.encode_to_vec().into(), T0).unwrap();
    assert_eq!(frames(Side::Instance, &instance.poll_transmit(Epoch::FIRST, T0).unwrap()).len(), 4);
}

#[test]
fn nothing_is_read_after_the_end() {
    let mut instance = instance();
    instance.lost(T0);
    assert_eq!(instance.handle_batch(Epoch::FIRST, Bytes::from_static(b"\xff"), T0), Ok(()));
    assert_eq!(events(&mut instance), []);
}
