//! A tunnel over more than one stream: what is lost with a stream, what is said again, and who may have the tunnel.

use super::*;
use crate::frame::{Resume, Resumed};
use crate::id::TunnelId;
use crate::resume::{FreshToken, ResumePoint, TokenHash};
use crate::{CancelReason, ResumeError};

const OLD: TokenHash = TokenHash([1; 32]);
const NEW: TokenHash = TokenHash([2; 32]);
const WRONG: TokenHash = TokenHash([9; 32]);

fn resumable() -> Pair {
    let mut pair = Pair::new();
    pair.gateway = Tunnel::gateway(small(), T0).with_token(OLD);
    pair
}

fn fresh() -> FreshToken {
    FreshToken { token: Bytes::from_static(b"new"), hash: NEW }
}

fn resume(point: ResumePoint) -> Resume {
    let ResumePoint { epoch, rx_next, tx_first, tx_next } = point;
    Resume { tunnel_id: TunnelId::default(), token: Bytes::new(), epoch, rx_next, tx_first, tx_next }
}

impl Pair {
    /// Both ends see that the stream is gone.
    fn cut(&mut self, now: Time) {
        let at = self.gateway.epoch();
        self.gateway.detach(at, now);
        self.instance.detach(at, now);
    }

    fn ask(&mut self, now: Time) -> Resume {
        resume(self.instance.resume_point(now).unwrap())
    }

    /// Both ends have a new stream.
    fn attach(&mut self, now: Time) -> Resumed {
        let asked = self.ask(now);
        let answer = self.gateway.resume(&asked, OLD, fresh(), now).unwrap();
        self.instance.resumed(&answer, now).unwrap();
        answer
    }

    fn carry(&mut self, now: Time) -> (Vec<Event>, Vec<Event>) {
        let (mut down, mut up) = (self.down(now), self.up(now));
        down.extend(self.down(now));
        up.extend(self.up(now));
        (down, up)
    }
}

#[test]
fn what_was_on_its_way_when_the_stream_was_lost_goes_out_again_once() {
    let mut pair = resumable();
    let id = pair.gateway.open(unary("x"), T0).unwrap().id;
    let at = pair.gateway.epoch();
    pair.gateway.poll_transmit(at, T0).unwrap();
    pair.cut(T0);

    assert_eq!(pair.attach(T0).epoch, Epoch::new(1));

    let started = pair.down(T0);
    assert!(matches!(&started[..], [Event::Started { call, half_close: true, .. }] if *call == id), "{started:?}");
    assert_eq!((pair.gateway.unacked_bytes() > 0, pair.up(T0)), (true, vec![]));
    assert_eq!(pair.gateway.unacked_bytes(), 0, "the lone ack that each new stream begins with");
}

#[test]
fn what_was_taken_is_not_sent_again() {
    let mut pair = resumable();
    let id = pair.gateway.open(unary("x"), T0).unwrap().id;
    assert_eq!(pair.down(T0).len(), 1);
    pair.cut(T0);
    pair.instance.respond(id, answer("y"), T0);

    pair.attach(T0);

    let (down, up) = pair.carry(T0);
    assert_eq!(down, []);
    assert!(matches!(&up[..], [Event::Response { trailers: Some(_), .. }]), "{up:?}");
}

#[test]
fn nothing_of_an_old_stream_is_read_or_written() {
    let mut pair = resumable();
    let call = pair.gateway.open(unary("x"), T0).unwrap();
    let at = pair.gateway.epoch();
    let old = pair.gateway.poll_transmit(at, T0).unwrap().slice(PREFIX..);
    // The instance asks on a second stream while the first one still lives.
    pair.attach(T0);

    assert_eq!(pair.instance.handle_batch(at, old, T0), Ok(()));
    pair.gateway.cancel(call.id, CancelReason::ClientGone, T0);
    assert_eq!((events(&mut pair.instance), pair.gateway.poll_transmit(at, T0)), (vec![], None));
    pair.gateway.detach(at, T0);
    assert!(pair.gateway.is_attached(), "late news of the old stream");
}

#[test]
fn limits_and_times_are_said_again_for_every_open_call() {
    let mut pair = resumable();
    let deadline = Some(after(500));
    let id = pair.gateway.open(OpenCall { deadline, half_close: false, ..unary("x") }, T0).unwrap().id;
    pair.down(T0);
    pair.instance.consumed(id, unary("x").data.len(), T0);
    pair.cut(after(100));
    pair.attach(after(200));

    let at = pair.gateway.epoch();
    let down = frames(Side::Gateway, &pair.gateway.poll_transmit(at, after(300)).unwrap());
    let said = |frame: &Frame| matches!(frame, Frame::Call(CallFrame { max_data: Some(_), .. }));
    assert!(down.iter().any(said), "{down:?}");
    let left = Some(Duration::from_millis(200));
    assert!(down.iter().any(|frame| matches!(frame, Frame::Call(frame) if frame.timeout == left)), "{down:?}");
    let up = frames(Side::Instance, &pair.instance.poll_transmit(at, after(300)).unwrap());
    let said = |frame: &Frame| matches!(frame, Frame::Response(ResponseFrame { max_data: Some(_), .. }));
    assert!(up.iter().any(said), "{up:?}");
    assert!(up.iter().any(|frame| matches!(frame, Frame::MaxCalls(4))), "{up:?}");
}

#[test]
fn an_update_that_was_lost_with_the_stream_is_said_again() {
    let mut pair = resumable();
    let update = Update {
        version: 3,
        health: Health::NotServing,
        weight: 1,
        labels: Default::default(),
        load_permille: 0,
        not_serving: Vec::new(),
    };
    pair.instance.update(update.clone(), T0);
    pair.instance.poll_transmit(Epoch::FIRST, T0).unwrap();
    pair.cut(T0);
    pair.attach(T0);
    assert_eq!(pair.up(T0), [Event::Updated(update)]);
}

#[test]
fn without_a_stream_no_call_is_opened_and_those_that_run_keep_their_deadlines() {
    let mut pair = resumable();
    let id = pair.gateway.open(OpenCall { deadline: Some(after(500)), ..unary("x") }, T0).unwrap().id;
    pair.down(T0);
    pair.cut(T0);

    assert_eq!(pair.gateway.open(unary("x"), T0).map_err(|(error, _)| error), Err(OpenCallError::Detached));
    assert_eq!(pair.gateway.poll_timeout(), Some(after(500)));
    pair.gateway.handle_timeout(after(500)).unwrap();
    assert_eq!(events(&mut pair.gateway), [Event::Ended { call: id, reason: EndReason::Deadline }]);

    // The cancel waited for the stream.
    pair.attach(after(600));
    let (down, _) = pair.carry(after(600));
    let cancelled = Event::Ended { call: id, reason: EndReason::Cancelled(CancelReason::Deadline) };
    assert_eq!(down, [cancelled]);
}

#[test]
fn when_the_window_is_over_every_call_has_ended_first_at_the_gateway() {
    let mut pair = resumable();
    let sent = pair.gateway.open(unary("x"), T0).unwrap().id;
    pair.down(T0);
    let unsent = pair.gateway.open(unary("x"), T0).unwrap().id;
    pair.cut(T0);

    pair.gateway.handle_timeout(after(14_999)).unwrap();
    assert_eq!(events(&mut pair.gateway), []);
    pair.gateway.handle_timeout(after(15_000)).unwrap();
    let lost = |call, outcome| Event::Ended { call, reason: EndReason::Lost(outcome) };
    let ended = events(&mut pair.gateway);
    assert!(ended.contains(&lost(sent, Outcome::MaybeExecuted)), "{ended:?}");
    assert!(ended.contains(&lost(unsent, Outcome::NotSent(Box::new(unary("x"))))), "{ended:?}");
    assert!(pair.gateway.is_closed());

    pair.instance.handle_timeout(after(15_999)).unwrap();
    assert_eq!(events(&mut pair.instance), []);
    pair.instance.handle_timeout(after(16_000)).unwrap();
    assert_eq!(events(&mut pair.instance), [lost(sent, Outcome::MaybeExecuted)]);
    assert_eq!(pair.instance.resume_point(after(16_000)), None);
}

#[test]
fn a_resume_that_comes_when_the_window_is_over_is_too_late() {
    let mut pair = resumable();
    pair.cut(T0);
    let asked = pair.ask(after(15_000));
    assert_eq!(pair.gateway.resume(&asked, OLD, fresh(), after(15_000)), Err(ResumeError::Closed));
}

#[test]
fn a_tunnel_without_a_token_or_a_window_ends_with_its_stream() {
    let mut gateway = Tunnel::gateway(small(), T0);
    gateway.detach(Epoch::FIRST, T0);
    let config = Config { resume_window: Duration::ZERO, ..small() };
    let mut instance = Tunnel::instance(config, T0);
    instance.detach(Epoch::FIRST, T0);
    assert!(gateway.is_closed() && instance.is_closed());
}

#[test]
fn a_wrong_token_changes_nothing() {
    let mut pair = resumable();
    let asked = pair.ask(T0);
    assert_eq!(pair.gateway.resume(&asked, WRONG, fresh(), T0), Err(ResumeError::WrongToken));
    pair.instance.thaw(T0);
    pair.gateway.open(unary("x"), T0).unwrap();
    assert_eq!(pair.down(T0).len(), 1, "the old stream goes on on both sides");
}

#[test]
fn an_answer_that_was_lost_costs_nothing_and_an_old_token_is_no_good_once_the_new_one_was_used() {
    let mut pair = resumable();
    let first = pair.ask(T0);
    pair.gateway.resume(&first, OLD, fresh(), T0).unwrap();
    // The answer is lost: the instance has nothing but the old token.
    pair.attach(T0);
    pair.gateway.open(unary("x"), T0).unwrap();
    assert_eq!(pair.down(T0).len(), 1);
    pair.up(T0);

    pair.cut(T0);
    let asked = pair.ask(T0);
    assert_eq!(pair.gateway.resume(&asked, OLD, fresh(), T0), Err(ResumeError::WrongToken));
    assert!(pair.gateway.resume(&asked, NEW, fresh(), T0).is_ok());
}

#[test]
fn an_attempt_that_was_overtaken_does_not_take_the_tunnel_back() {
    let mut pair = resumable();
    let slow = pair.ask(T0);
    pair.attach(T0);
    let error = ResumeError::OldEpoch { asked: Epoch::new(1), current: Epoch::new(2) };
    assert_eq!(pair.gateway.resume(&slow, OLD, fresh(), T0), Err(error));
    assert!(pair.gateway.is_attached());
}

#[test]
fn counters_that_cannot_be_end_the_tunnel() {
    let impossible: [fn(&mut Resume); 4] = [
        |resume| resume.rx_next = Seq::new(3),
        |resume| resume.rx_next = Seq::new(0),
        |resume| resume.tx_first = Seq::new(2),
        |resume| resume.tx_next = Seq::new(0),
    ];
    for wrong in impossible {
        let mut pair = resumable();
        pair.gateway.open(unary("x"), T0).unwrap();
        pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap();
        let mut asked = pair.ask(T0);
        wrong(&mut asked);
        let answer = pair.gateway.resume(&asked, OLD, fresh(), T0);
        assert!(matches!(answer, Err(ResumeError::Impossible(_))), "{asked:?}: {answer:?}");
        // The stream that still had it is told.
        let out = frames(Side::Gateway, &pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap());
        assert!(matches!(&out[..], [Frame::Close(close)] if close.code == CloseCode::ProtocolError), "{out:?}");
    }

    let mut pair = resumable();
    pair.cut(T0);
    let epoch = pair.ask(T0).epoch;
    let answer = Resumed { epoch, rx_next: Seq::new(9), new_token: Bytes::new() };
    assert!(pair.instance.resumed(&answer, T0).is_err() && pair.instance.is_closed());
}

#[test]
fn an_answer_to_another_question_ends_the_tunnel() {
    let mut pair = resumable();
    pair.cut(T0);
    pair.ask(T0);
    let answer = Resumed { epoch: Epoch::new(7), rx_next: Seq::new(1), new_token: Bytes::new() };
    assert!(pair.instance.resumed(&answer, T0).is_err() && pair.instance.is_closed());
}

#[test]
fn a_stream_that_is_frozen_is_not_written_and_one_that_is_read_then_is_given_up() {
    let mut pair = resumable();
    let id = pair.gateway.open(unary("x"), T0).unwrap().id;
    pair.down(T0);
    pair.ask(T0);
    pair.instance.respond(id, answer("y"), T0);
    assert_eq!((pair.instance.wants_transmit(), pair.instance.poll_transmit(Epoch::FIRST, T0)), (false, None));

    pair.gateway.cancel(id, CancelReason::ClientGone, T0);
    let cancel = pair.gateway.poll_transmit(Epoch::FIRST, T0).unwrap().slice(PREFIX..);
    assert_eq!(pair.instance.handle_batch(Epoch::FIRST, cancel, T0), Ok(()));
    pair.instance.thaw(T0);
    assert!(!pair.instance.is_attached(), "what was read of it is lost there");
    pair.cut(T0);
    pair.attach(T0);
    let (down, _) = pair.carry(T0);
    assert_eq!(down, [], "and comes again: the answer was said before, so nobody waits for the cancel");
    assert_eq!((pair.gateway.open_calls(), pair.instance.open_calls()), (0, 0));
}

#[test]
fn a_refusal_that_was_not_heard_finds_its_call_after_the_cut() {
    let mut pair = resumable();
    pair.instance.drain(T0);
    let id = pair.gateway.open(unary("x"), T0).unwrap().id;
    assert_eq!(pair.down(T0), []);
    // The refusal waits to be written, and the batch with the start is taken.
    pair.cut(T0);
    pair.attach(T0);
    let (_, up) = pair.carry(T0);
    let refused = Event::Refused { call: id, request: Box::new(unary("x")) };
    assert_eq!(up, [Event::Draining { gateways: vec![] }, refused]);
    pair.carry(after(100));
    assert_eq!((pair.gateway.unacked_bytes(), pair.gateway.open_calls()), (0, 0));
}

#[test]
fn a_close_that_nobody_can_hear_ends_the_tunnel_at_once() {
    let mut pair = resumable();
    pair.cut(T0);
    pair.gateway.close(Close { code: CloseCode::Shutdown, reason: String::new(), retry_after: Duration::ZERO }, T0);
    assert!(pair.gateway.is_closed() && !pair.gateway.wants_transmit());
}
