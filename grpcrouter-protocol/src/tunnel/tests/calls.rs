//! Calls that go well: frames, order, windows, turns, acks.

use super::*;

#[test]
fn a_small_unary_call_is_one_frame_out_and_one_frame_back() {
    let mut pair = Pair::new();
    let id = pair.gateway.open(unary("ping"), T0).unwrap().id;

    let out = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    let [Frame::Call(CallFrame { start: Some(_), data, half_close: true, .. })] = &frames(Side::Gateway, &out)[..]
    else {
        panic!("one frame with all of it")
    };
    assert_eq!((head(&out), &data[..]), ((1, 0), &b"ping"[..]));
    assert_eq!(pair.gateway.poll_transmit(Epoch::FIRST, T0), None);
    pair.instance.handle_batch(Epoch::FIRST, out.slice(PREFIX..), T0).unwrap();
    let started =
        Event::Started { call: id, start: request().start, deadline: None, data: "ping".into(), half_close: true };
    assert_eq!(events(&mut pair.instance), [started]);

    pair.instance.respond(id, answer("pong"), T0);
    let back = pair.instance.poll_transmit(Epoch::FIRST, T0).unwrap();
    let [Frame::Response(ResponseFrame { headers: Some(_), trailers: Some(_), .. }), Frame::MaxCalls(5)] =
        &frames(Side::Instance, &back)[..]
    else {
        panic!("one frame with all of it, and the new limit of calls")
    };
    assert_eq!(head(&back), (1, 1), "the ack rides on it");
    pair.gateway.handle_batch(Epoch::FIRST, back.slice(PREFIX..), T0).unwrap();
    let response =
        Event::Response { call: id, headers: Some(Headers::default()), data: "pong".into(), trailers: Some(ok()) };
    assert_eq!(events(&mut pair.gateway), [response]);
    assert_eq!((pair.gateway.open_calls(), pair.instance.open_calls(), pair.gateway.unacked_bytes()), (0, 0, 0));
}

#[test]
fn a_batch_is_a_whole_grpc_message() {
    let mut pair = Pair::new();
    pair.gateway.open(unary("ping"), T0).unwrap();
    let out = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    assert_eq!(out[0], 0, "not compressed");
    assert_eq!(u32::from_be_bytes(out[1..PREFIX].try_into().unwrap()) as usize, out.len() - PREFIX);
}

#[test]
fn headers_go_out_before_the_first_message() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, ResponsePart { headers: Some(Headers::default()), ..ResponsePart::default() }, T0);
    let headers = Some(Headers::default());
    assert_eq!(pair.up(T0), [Event::Response { call: id, headers, data: Bytes::new(), trailers: None }]);
}

#[test]
fn a_response_of_trailers_alone_stays_one() {
    let mut pair = Pair::new();
    let id = pair.open();
    let trailers = Trailers { status: 5, message: "not here".into(), ..Trailers::default() };
    pair.instance.respond(id, ResponsePart { trailers: Some(trailers.clone()), ..ResponsePart::default() }, T0);
    let trailers = Some(trailers);
    assert_eq!(pair.up(T0), [Event::Response { call: id, headers: None, data: Bytes::new(), trailers }]);
}

#[test]
fn metadata_crosses_untouched() {
    let mut pair = Pair::new();
    let mut builder = Metadata::builder();
    builder.push(b"a", b"1");
    builder.push(b"b-bin", &[0, 255]);
    builder.push(b"a", b"2");
    let metadata = builder.finish();
    let start = Start { metadata: metadata.clone(), ..request().start };
    pair.gateway.open(OpenCall { start, ..OpenCall::default() }, T0).unwrap();
    let [Event::Started { start, .. }] = &pair.down(T0)[..] else { panic!("one start") };
    assert_eq!(start.metadata, metadata);
}

#[test]
fn a_sender_stops_at_its_window_and_goes_on_when_half_of_it_is_consumed() {
    let mut pair = Pair::new();
    let id = pair.open();
    let capacity = pair.gateway.send(id, Bytes::from(vec![7; 1_500]), false, T0);
    assert_eq!(capacity, 0, "more than the window");
    let arrived = pair.down(T0);
    // Four parts of 200 and one of 40: 1000 with the overhead of 32 for each.
    assert_eq!(data_of(&arrived), 840);
    assert_eq!((arrived.len(), pair.gateway.queued_bytes()), (5, 660));

    pair.instance.consumed(id, 200, T0);
    assert!(!pair.instance.wants_transmit(), "232 is not half a window");
    pair.instance.consumed(id, 200, T0);
    assert_eq!(pair.up(T0), [], "464 is, nearly; still less than what is queued");
    assert_eq!(data_of(&pair.down(T0)), 400);
    for len in [200, 200, 40, 200] {
        pair.instance.consumed(id, len, T0);
    }
    let writable = pair.up(T0);
    assert!(matches!(writable[..], [Event::Writable { call, capacity: 1.. }] if call == id), "{writable:?}");
    assert_eq!(data_of(&pair.down(T0)), 260);
}

#[test]
fn a_limit_that_waits_to_be_said_is_forgotten_with_its_call() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, ResponsePart { headers: Some(Headers::default()), ..part(600) }, T0);
    pair.up(T0);
    for len in [200, 200, 200] {
        pair.gateway.consumed(id, len, T0);
    }
    assert!(pair.gateway.wants_transmit(), "696 is more than half a window");
    pair.instance.respond(id, ResponsePart { trailers: Some(ok()), ..ResponsePart::default() }, T0);
    pair.up(T0);
    assert!(!pair.gateway.wants_transmit());
}

#[test]
fn trailers_wait_for_the_data_before_them() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, ResponsePart { trailers: Some(ok()), ..part(1_500) }, T0);
    let arrived = pair.up(T0);
    assert_eq!(data_of(&arrived), 840);
    assert!(arrived.iter().all(|event| matches!(event, Event::Response { trailers: None, .. })));
    for len in [200, 200, 200, 200, 40] {
        pair.gateway.consumed(id, len, T0);
    }
    pair.down(T0);
    let more = pair.up(T0);
    assert_eq!((data_of(&more), more.len()), (660, 4), "928 are granted");
    assert!(matches!(more.last(), Some(Event::Response { trailers: Some(_), .. })));
    assert_eq!((pair.gateway.open_calls(), pair.instance.open_calls(), pair.instance.queued_bytes()), (0, 0, 0));
}

#[test]
fn a_stalled_call_stops_no_other() {
    let mut pair = Pair::new();
    let stalled = pair.open();
    pair.gateway.send(stalled, Bytes::from(vec![7; 5_000]), false, T0);
    pair.down(T0);
    let other = pair.gateway.open(unary("ping"), T0).unwrap().id;
    assert!(matches!(pair.down(T0)[..], [Event::Started { call, .. }] if call == other));
}

#[test]
fn a_small_call_does_not_wait_behind_a_large_upload() {
    let mut pair = Pair::with(Config { initial_window: 1 << 20, ..Config::default() });
    let large = pair.open();
    pair.gateway.send(large, Bytes::from(vec![7; 1 << 20]), false, T0);
    pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    let small = pair.gateway.open(unary("ping"), T0).unwrap().id;
    let next = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    let Frame::Call(CallFrame { id, start: Some(_), .. }) = frames(Side::Gateway, &next).remove(0) else {
        panic!("the new call goes first")
    };
    assert_eq!(id, small);
    assert!(next.len() <= (64 << 10) + PREFIX && next.len() > 60 << 10, "the rest is the upload: {}", next.len());
}

#[test]
fn a_call_waits_for_all_that_goes_before_it() {
    let mut pair = Pair::new();
    let gateways = vec!["x".repeat(40 << 10)];
    pair.gateway.open(unary("ping"), T0).unwrap();
    pair.gateway.peers_changed(gateways.clone(), T0);
    pair.gateway.drain_to(gateways, T0);
    let batches: Vec<Vec<Frame>> = std::iter::from_fn(|| pair.gateway.poll_transmit(Epoch::FIRST, T0))
        .map(|batch| frames(Side::Gateway, &batch))
        .collect();
    let kinds = |frames: &Vec<Frame>| matches!(frames[..], [Frame::PeersChanged(_), Frame::Call(_)]);
    assert!(matches!(batches[0][..], [Frame::Drain(_)]) && kinds(&batches[1]), "{batches:?}");
}

#[test]
fn two_uploads_take_turns() {
    let mut pair = Pair::with(Config { initial_window: 1 << 20, ..Config::default() });
    let calls = [pair.open(), pair.open()];
    for id in calls {
        pair.gateway.send(id, Bytes::from(vec![7; 1 << 20]), false, T0);
    }
    let mut sent = [0, 0];
    for _ in 0..8 {
        for frame in frames(Side::Gateway, &pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap()) {
            let Frame::Call(frame) = frame else { continue };
            sent[calls.iter().position(|&id| id == frame.id).unwrap()] += frame.data.len();
        }
    }
    assert!(sent[0].abs_diff(sent[1]) <= 32 << 10, "{sent:?}");
}

#[test]
fn a_burst_of_small_calls_shares_one_batch_in_order() {
    let mut pair = Pair::with(Config::default());
    let opened: Vec<CallId> = (0..100).map(|_| pair.gateway.open(unary("ping"), T0).unwrap().id).collect();
    let out = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    let id = |frame: &Frame| if let Frame::Call(frame) = frame { frame.id } else { panic!("a call") };
    assert_eq!(frames(Side::Gateway, &out).iter().map(id).collect::<Vec<_>>(), opened);
    assert_eq!(pair.gateway.poll_transmit(Epoch::FIRST, T0), None);
}

#[test]
fn small_chunks_are_packed_into_one_part() {
    let mut pair = Pair::new();
    let id = pair.open();
    for chunk in ["a", "b", "c"] {
        pair.gateway.send(id, chunk.into(), false, T0);
    }
    assert_eq!(pair.down(T0), [Event::Request { call: id, data: "abc".into(), half_close: false }]);
}

#[test]
fn an_ack_goes_alone_when_nothing_else_does() {
    let mut pair = Pair::new();
    pair.open();
    assert!(!pair.instance.wants_transmit());
    assert_eq!(pair.instance.poll_timeout(), Some(after(25)));
    pair.instance.handle_timeout(after(25)).unwrap();
    let ack = pair.instance.poll_transmit(Epoch::FIRST, after(25)).unwrap();
    assert_eq!((head(&ack), frames(Side::Instance, &ack)), ((0, 1), vec![]));
    pair.gateway.handle_batch(Epoch::FIRST, ack.slice(PREFIX..), after(25)).unwrap();
    assert_eq!(pair.gateway.unacked_bytes(), 0);
    assert!(!pair.gateway.wants_transmit(), "an ack is not acked");
}

#[test]
fn at_the_replay_limit_no_data_and_no_call_goes_out_until_an_ack() {
    let config = Config { replay_limit: 140 << 10, initial_window: 1 << 20, ..Config::default() }.checked().unwrap();
    let mut pair = Pair::with(config);
    let id = pair.gateway.open(request(), T0).unwrap().id;
    pair.gateway.send(id, Bytes::from(vec![7; 200 << 10]), false, T0);
    let batches: Vec<Bytes> = std::iter::from_fn(|| pair.gateway.poll_transmit(Epoch::FIRST, T0)).collect();
    assert_eq!((batches.len(), pair.gateway.wants_transmit()), (2, false));
    assert_eq!(pair.gateway.open(request(), T0).unwrap_err().0, OpenCallError::ReplayFull);
    assert_eq!(pair.gateway.send(id, Bytes::from_static(b"x"), false, T0), 0);

    pair.gateway.drain(T0);
    assert!(pair.gateway.wants_transmit(), "control still goes");
    pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();

    let ack = wire::RegisterRequest { ack: 1, ..Default::default() };
    pair.gateway.handle_batch(Epoch::FIRST, ack.encode_to_vec().into(), T0).unwrap();
    assert!(matches!(events(&mut pair.gateway)[..], [Event::Writable { call, capacity: 1.. }] if call == id));
    assert!(pair.gateway.wants_transmit());
}

#[test]
fn calls_are_limited_and_an_end_makes_room_for_the_next() {
    let mut pair = Pair::new();
    let first = pair.open();
    for _ in 0..3 {
        pair.open();
    }
    assert!(!pair.gateway.can_open());
    assert_eq!(pair.gateway.open(request(), T0).unwrap_err(), (OpenCallError::NoMoreCalls, request()));
    pair.instance.respond(first, answer(""), T0);
    pair.up(T0);
    let next = pair.open();
    assert_eq!((next.slot(), next.counter()), (first.slot(), 5), "the same slot under a new id");
}

#[test]
fn request_headers_beyond_the_limit_open_no_call() {
    let mut pair = Pair::new();
    let start = Start { path: "x".repeat(20 << 10).into(), ..Start::default() };
    let (error, call) = pair.gateway.open(OpenCall { start: start.clone(), ..OpenCall::default() }, T0).unwrap_err();
    assert_eq!((error, call.start), (OpenCallError::TooLarge, start));
}

#[test]
fn trailers_beyond_the_limit_become_a_status_that_says_so() {
    let mut pair = Pair::new();
    let id = pair.open();
    let trailers = Trailers { details: vec![0; 40 << 10].into(), ..ok() };
    pair.instance.respond(id, ResponsePart { trailers: Some(trailers), ..ResponsePart::default() }, T0);
    let [Event::Response { trailers: Some(trailers), .. }] = &pair.up(T0)[..] else { panic!("trailers") };
    assert_eq!(trailers.status, 8);
    assert_eq!(trailers.message.as_str(), "trailers have 40960 bytes in 0 entries, the limits are 32768 and 128");
}

#[test]
fn the_largest_headers_data_and_trailers_cross() {
    let mut pair = Pair::with(Config::default());
    let mut builder = Metadata::builder();
    for _ in 0..128 {
        builder.push(b"key", &[7; 120]);
    }
    let metadata = builder.finish();
    let start = Start { metadata: metadata.clone(), path: "/p.S/M".into(), ..Start::default() };
    let data = Bytes::from(vec![7; 60 << 10]);
    let id = pair.gateway.open(OpenCall { start, data, half_close: true, deadline: None }, T0).unwrap().id;
    assert_eq!(data_of(&pair.down(T0)), 60 << 10);
    let trailers = Trailers { details: vec![7; 16 << 10].into(), metadata: metadata.clone(), ..ok() };
    let headers = Headers { metadata, ..Headers::default() };
    let data = Bytes::from(vec![7; 60 << 10]);
    let whole = ResponsePart { headers: Some(headers.clone()), data, trailers: Some(trailers.clone()) };
    pair.instance.respond(id, whole, T0);
    let arrived = pair.up(T0);
    assert_eq!(data_of(&arrived), 60 << 10);
    assert!(matches!(arrived.first(), Some(Event::Response { headers: Some(came), .. }) if *came == headers));
    assert!(matches!(arrived.last(), Some(Event::Response { trailers: Some(came), .. }) if *came == trailers));
}

#[test]
fn the_time_that_a_start_waits_is_taken_off_its_timeout() {
    let mut pair = Pair::new();
    let deadline = Some(after(100));
    pair.gateway.open(OpenCall { deadline, ..request() }, T0).unwrap();
    let out = pair.gateway.poll_transmit(Epoch::FIRST, after(30)).unwrap();
    let [Frame::Call(CallFrame { start: Some(start), .. })] = &frames(Side::Gateway, &out)[..] else { panic!("start") };
    assert_eq!(start.timeout, Some(Duration::from_millis(70)));
    pair.instance.handle_batch(Epoch::FIRST, out.slice(PREFIX..), after(40)).unwrap();
    assert!(
        matches!(events(&mut pair.instance)[..], [Event::Started { deadline, .. }] if deadline == Some(after(110)))
    );
}
