//! Calls and tunnels that end early: cancels, deadlines, refusals, drain, close, silence.

use super::*;

#[test]
fn a_call_cancelled_before_its_start_was_written_leaves_no_trace() {
    let mut pair = Pair::new();
    for _ in 0..10 {
        let id = pair.gateway.open(unary("ping"), T0).unwrap().id;
        pair.gateway.cancel(id, CancelReason::ClientGone, T0);
    }
    assert_eq!((pair.gateway.open_calls(), pair.gateway.queued_bytes()), (0, 0));
    assert!(!pair.gateway.wants_transmit() && pair.gateway.can_open());
    assert_eq!(pair.gateway.poll_transmit(Epoch::FIRST, T0), None);
}

#[test]
fn a_cancel_drops_what_its_call_had_queued_and_frees_the_slot_on_both_ends() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.gateway.send(id, Bytes::from(vec![7; 500]), false, T0);
    pair.gateway.cancel(id, CancelReason::ClientGone, T0);
    let reason = EndReason::Cancelled(CancelReason::ClientGone);
    assert_eq!(pair.down(T0), [Event::Ended { call: id, reason }]);
    assert_eq!((pair.gateway.open_calls(), pair.instance.open_calls(), pair.gateway.queued_bytes()), (0, 0, 0));
    assert_eq!(pair.open().slot(), id.slot());
}

#[test]
fn a_cancel_goes_before_the_call_that_takes_its_slot() {
    let mut pair = Pair::new();
    let first = pair.open();
    pair.gateway.cancel(first, CancelReason::ClientGone, T0);
    let second = pair.gateway.open(request(), T0).unwrap().id;
    let [Event::Ended { call: ended, .. }, Event::Started { call: started, .. }] = pair.down(T0)[..] else {
        panic!("the end, then the start")
    };
    assert_eq!((ended, started, first.slot()), (first, second, second.slot()));
}

#[test]
fn an_answer_that_crosses_a_cancel_is_dropped_and_counted() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, answer("pong"), T0);
    pair.gateway.cancel(id, CancelReason::ClientGone, T0);
    assert_eq!((pair.up(T0), pair.down(T0)), (vec![], vec![]));
    assert_eq!((pair.gateway.late_frames(), pair.instance.late_frames()), (1, 1));
}

#[test]
fn a_request_that_goes_on_after_the_answer_is_dropped_and_counted() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, answer("enough"), T0);
    pair.gateway.send(id, "more".into(), true, T0);
    assert_eq!(pair.down(T0), []);
    assert_eq!(pair.instance.late_frames(), 1);
    assert!(matches!(pair.up(T0)[..], [Event::Response { trailers: Some(_), .. }]));
}

#[test]
fn a_deadline_ends_the_call_on_both_ends_by_their_own_timers() {
    let mut pair = Pair::new();
    let id = pair.gateway.open(OpenCall { deadline: Some(after(10)), ..request() }, T0).unwrap().id;
    pair.down(T0);
    let ended = [Event::Ended { call: id, reason: EndReason::Deadline }];
    assert_eq!((pair.gateway.poll_timeout(), pair.instance.poll_timeout()), (Some(after(10)), Some(after(10))));

    pair.gateway.handle_timeout(after(10)).unwrap();
    pair.instance.handle_timeout(after(10)).unwrap();
    assert_eq!((events(&mut pair.gateway), events(&mut pair.instance)), (ended.to_vec(), ended.to_vec()));
    assert_eq!((pair.gateway.open_calls(), pair.instance.open_calls()), (0, 1), "the instance still answers");

    let trailers = Some(Trailers { status: 4, ..ok() });
    pair.instance.respond(id, ResponsePart { trailers, ..ResponsePart::default() }, after(10));
    assert_eq!(pair.settle(after(10)), (vec![], vec![]));
    assert_eq!(pair.instance.open_calls(), 0);
}

#[test]
fn a_handler_that_answered_hears_of_no_deadline_but_a_part_of_its_answer_is_not_taken_for_the_whole() {
    let mut pair = Pair::new();
    let id = pair.gateway.open(OpenCall { deadline: Some(after(10)), ..request() }, T0).unwrap().id;
    pair.down(T0);
    pair.instance.respond(id, ResponsePart { trailers: Some(ok()), ..part(1_500) }, T0);
    pair.up(T0);
    pair.instance.handle_timeout(after(10)).unwrap();
    assert_eq!((events(&mut pair.instance), pair.instance.queued_bytes()), (vec![], 0));
    assert!(matches!(&pair.up(after(10))[..], [Event::Response { trailers: Some(end), .. }] if end.status == 4));
}

#[test]
fn a_draining_instance_refuses_and_the_whole_request_comes_back() {
    let mut pair = Pair::new();
    let id = pair.gateway.open(OpenCall { deadline: Some(after(900)), ..request() }, T0).unwrap().id;
    let start = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    pair.gateway.send(id, Bytes::from(vec![1; 600]), false, T0);
    let data = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
    // More than the window: this stays in the queue.
    pair.gateway.send(id, Bytes::from(vec![2; 600]), true, T0);

    pair.instance.drain(T0);
    for message in [start, data] {
        pair.instance.handle_batch(Epoch::FIRST, message.slice(PREFIX..), T0).unwrap();
    }
    assert_eq!(events(&mut pair.instance), []);
    let [Event::Draining { .. }, Event::Refused { call, request: back }] = &pair.up(T0)[..] else {
        panic!("the drain and the refusal")
    };
    assert_eq!((*call, back.half_close, back.deadline), (id, true, Some(after(900))));
    assert_eq!((&back.start, back.data.len()), (&request().start, 1_200));
    assert!(back.data[..600].iter().all(|&byte| byte == 1) && back.data[600..].iter().all(|&byte| byte == 2));
    assert_eq!((pair.gateway.open_calls(), pair.instance.open_calls(), pair.gateway.queued_bytes()), (0, 0, 0));
}

#[test]
fn no_ack_passes_a_refusal_that_waits() {
    let config = Config { max_open_calls: 4_096, max_batch: 36 << 10, ..Config::default() }.checked().unwrap();
    let mut pair = Pair::with(config);
    let count = 3_500;
    for _ in 0..count {
        pair.gateway.open(unary("x"), T0).unwrap();
    }
    pair.instance.drain(T0);
    while let Some(message) = pair.gateway.poll_transmit(Epoch::FIRST, T0) {
        pair.instance.handle_batch(Epoch::FIRST, message.slice(PREFIX..), T0).unwrap();
    }
    let first = pair.instance.poll_transmit(Epoch::FIRST, T0).unwrap();
    assert_eq!(head(&first), (1, 0), "not all refusals fit");
    pair.gateway.handle_batch(Epoch::FIRST, first.slice(PREFIX..), T0).unwrap();
    let rest = pair.up(T0);
    let refused = rest.iter().filter(|event| matches!(event, Event::Refused { .. })).count();
    assert_eq!((refused, pair.gateway.open_calls()), (count, 0));
}

#[test]
fn starts_that_were_not_written_come_back_when_the_instance_drains() {
    let mut pair = Pair::new();
    let running = pair.open();
    let waiting = pair.gateway.open(unary("ping"), T0).unwrap().id;
    pair.instance.drain(T0);
    let back = Event::Refused { call: waiting, request: Box::new(unary("ping")) };
    assert_eq!(pair.up(T0), [Event::Draining { gateways: vec![] }, back]);
    assert_eq!((pair.down(T0), pair.gateway.is_draining(), pair.gateway.can_open()), (vec![], true, false));
    assert_eq!(pair.gateway.open(request(), T0).unwrap_err().0, OpenCallError::Draining);
    pair.instance.respond(running, answer("done"), T0);
    assert!(matches!(pair.up(T0)[..], [Event::Response { trailers: Some(_), .. }]), "what runs finishes");
}

#[test]
fn a_draining_gateway_names_where_to_go_and_still_carries_what_its_clients_sent_before_they_knew() {
    let mut pair = Pair::new();
    pair.gateway.drain_to(vec!["http://b".into()], T0);
    assert_eq!(pair.down(T0), [Event::Draining { gateways: vec!["http://b".into()] }]);
    pair.gateway.open(request(), T0).unwrap();
    assert!(matches!(pair.down(T0)[..], [Event::Started { .. }]));
}

#[test]
fn a_lost_stream_ends_each_call_with_how_far_it_may_have_come() {
    let mut pair = Pair::new();
    let sent = pair.open();
    let unsent = pair.gateway.open(unary("ping"), T0).unwrap().id;
    pair.gateway.lost(T0);
    let lost = |call, outcome| Event::Ended { call, reason: EndReason::Lost(outcome) };
    let expected = [lost(sent, Outcome::MaybeExecuted), lost(unsent, Outcome::NotSent(Box::new(unary("ping"))))];
    assert_eq!(events(&mut pair.gateway), expected);
    assert!(pair.gateway.is_closed() && pair.gateway.poll_timeout().is_none());
    assert_eq!((pair.gateway.open_calls(), pair.gateway.queued_bytes(), pair.gateway.unacked_bytes()), (0, 0, 0));
    assert_eq!(pair.gateway.open(request(), T0).unwrap_err().0, OpenCallError::Closed);
    pair.instance.lost(T0);
    assert_eq!(events(&mut pair.instance), [lost(sent, Outcome::MaybeExecuted)]);
}

#[test]
fn a_handler_that_heard_of_its_deadline_hears_of_no_second_end() {
    for is_lost in [true, false] {
        let mut pair = Pair::new();
        let id = pair.gateway.open(OpenCall { deadline: Some(after(10)), ..request() }, T0).unwrap().id;
        pair.down(T0);
        pair.instance.handle_timeout(after(10)).unwrap();
        assert_eq!(events(&mut pair.instance), [Event::Ended { call: id, reason: EndReason::Deadline }]);
        if is_lost {
            pair.instance.lost(after(10));
        } else {
            pair.gateway.handle_timeout(after(10)).unwrap();
            pair.down(after(10));
        }
        assert_eq!((events(&mut pair.instance), pair.instance.open_calls()), (vec![], 0));
    }
}

#[test]
fn a_close_is_the_last_frame_and_ends_every_call_on_both_ends() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, part(100), T0);
    let close = Close { code: CloseCode::Shutdown, reason: "bye".into(), retry_after: Duration::from_secs(1) };
    pair.instance.close(close.clone(), T0);
    let lost = Event::Ended { call: id, reason: EndReason::Lost(Outcome::MaybeExecuted) };
    assert_eq!(events(&mut pair.instance), std::slice::from_ref(&lost));
    assert!(!pair.instance.is_closed());
    let last = pair.instance.poll_transmit(Epoch::FIRST, T0).unwrap();
    assert_eq!(frames(Side::Instance, &last), [Frame::Close(close.clone())]);
    assert!(pair.instance.is_closed() && pair.instance.poll_transmit(Epoch::FIRST, T0).is_none());
    pair.gateway.handle_batch(Epoch::FIRST, last.slice(PREFIX..), T0).unwrap();
    assert_eq!(events(&mut pair.gateway), [lost, Event::Closed(close)]);
    assert!(pair.gateway.is_closed());
}

#[test]
fn a_command_for_a_call_that_is_over_does_nothing() {
    let mut pair = Pair::new();
    let id = pair.open();
    pair.instance.respond(id, answer("pong"), T0);
    pair.instance.respond(id, answer("again"), T0);
    assert_eq!(data_of(&pair.up(T0)), 4);
    assert_eq!(pair.gateway.send(id, "x".into(), true, T0), 0);
    pair.gateway.consumed(id, 10, T0);
    pair.gateway.cancel(id, CancelReason::ClientGone, T0);
    assert!(!pair.gateway.wants_transmit());
}

#[test]
fn a_ping_comes_back_as_a_round_trip() {
    let mut pair = Pair::new();
    pair.gateway.handle_timeout(after(10_000)).unwrap();
    let ping = pair.gateway.poll_transmit(Epoch::FIRST, after(10_000)).unwrap();
    pair.instance.handle_batch(Epoch::FIRST, ping.slice(PREFIX..), after(10_003)).unwrap();
    assert_eq!(pair.up(after(10_007)), [Event::RoundTrip(Duration::from_millis(7))]);
}

#[test]
fn a_peer_that_answers_no_ping_is_silent() {
    let mut pair = Pair::new();
    pair.gateway.open(request(), T0).unwrap();
    let mut pings = 0;
    let silent = loop {
        let now = pair.gateway.poll_timeout().unwrap();
        match pair.gateway.handle_timeout(now) {
            Ok(()) => pings += usize::from(pair.gateway.poll_transmit(Epoch::FIRST, now).is_some()),
            Err(silent) => break silent,
        }
    };
    assert_eq!((pings, silent.silent_for), (3, Duration::from_secs(12)));
}

#[test]
fn the_newest_update_wins() {
    let mut pair = Pair::new();
    let update = |version| Update {
        version,
        health: Health::Serving,
        weight: 1,
        labels: Default::default(),
        load_permille: 0,
        not_serving: Vec::new(),
    };
    pair.instance.update(update(2), T0);
    assert_eq!(pair.up(T0), [Event::Updated(update(2))]);
    pair.instance.update(update(1), T0);
    assert_eq!(pair.up(T0), []);
}

#[test]
fn state_that_does_not_fit_one_batch_goes_in_the_next() {
    let mut pair = Pair::new();
    let gateways = vec!["x".repeat(40 << 10)];
    pair.gateway.drain_to(gateways.clone(), T0);
    pair.gateway.peers_changed(gateways.clone(), T0);
    let sizes: Vec<usize> =
        std::iter::from_fn(|| pair.gateway.poll_transmit(Epoch::FIRST, T0)).map(|batch| batch.len()).collect();
    assert_eq!(sizes.len(), 2);
    assert!(sizes.iter().all(|&size| size < 64 << 10), "{sizes:?}");
}

#[test]
fn a_batch_that_comes_slowly_is_not_silence() {
    let mut pair = Pair::new();
    pair.gateway.open(request(), T0).unwrap();
    for second in 1..60 {
        pair.gateway.handle_bytes(Epoch::FIRST, after(second * 1_000));
        pair.gateway.handle_timeout(after(second * 1_000)).unwrap();
    }
    assert_eq!(pair.gateway.poll_timeout(), Some(after(62_000)));
}

#[test]
fn an_answer_given_after_the_deadline_passed_here_is_never_half_of_it_with_ok() {
    let mut pair = Pair::new();
    let id = pair.gateway.open(OpenCall { deadline: Some(after(10)), ..request() }, T0).unwrap().id;
    pair.down(T0);
    pair.instance.respond(id, ResponsePart { headers: Some(Headers::default()), ..part(5) }, T0);
    pair.up(T0);
    pair.instance.handle_timeout(after(10)).unwrap();
    // The handler runs on another thread and has not heard of it yet.
    pair.instance.respond(id, ResponsePart { trailers: Some(ok()), ..part(5) }, after(10));
    let got = pair.up(after(10));
    assert!(!matches!(&got[..], [Event::Response { trailers: Some(Trailers { status: 0, .. }), .. }]), "{got:?}");
}
