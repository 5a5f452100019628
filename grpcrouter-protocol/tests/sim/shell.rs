//! The thin shells around the tunnels: an instance that dials and dials again, a gateway that answers. All that they say
//! goes through the real codec of Hello and Welcome; what they know beside it is who is at the other end.

use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{
    Accepted, Close, CloseCode, Epoch, FreshToken, Health, Hello, Incarnation, InstanceId, RejectReason, Rejected,
    Resume, ResumeError, Resumed, Seq, Side, Tunnel, TunnelId, Welcome, decode_hello, decode_welcome, encode_close,
    encode_hello, encode_welcome,
};

use super::invariants::tokens_hold;
use super::life::Life;
use super::road::{Ask, Road, Seat};
use super::world::World;

/// An instance waits so long for the answer to its Hello.
const PATIENCE: Duration = Duration::from_secs(5);

// ---- the instance

/// Dials again for every tunnel that has lost its stream, and for a new one if none takes calls.
pub(crate) fn dial(world: &mut World) {
    for life in 0..world.lives.len() {
        let half = &world.lives[life].instance;
        if half.lives() && half.is_detached() && !is_asking(world, Some(life)) && world.random.once_in(world.redials) {
            dial_again(world, life);
        }
    }
    let takes_calls = |life: &Life| life.instance.lives() && !life.instance.is_draining && !life.is_told_to_move;
    if !world.lives.iter().any(takes_calls) && !is_asking(world, None) && world.random.once_in(world.redials) {
        dial_new(world);
    }
}

/// Asks for a tunnel on a new stream. If a stream carries it still, that one is frozen until the answer is known.
pub(crate) fn dial_again(world: &mut World, life: usize) {
    let World { lives, now, seen, .. } = world;
    let Life { instance, token, .. } = &mut lives[life];
    seen.moves += u64::from(instance.is_attached());
    let Some(point) = instance.resume_point(*now) else { return };
    let resume = Resume {
        tunnel_id: tunnel_id(life),
        token: token.clone(),
        epoch: point.epoch,
        rx_next: point.rx_next,
        tx_first: point.tx_first,
        tx_next: point.tx_next,
    };
    seen.dials += 1;
    let ask = Ask { life: Some(life), epoch: point.epoch, at: *now };
    say_hello(world, ask, Some(resume));
}

/// Asks for a new tunnel, whatever becomes of the old ones.
pub(crate) fn dial_new(world: &mut World) {
    let ask = Ask { life: None, epoch: Epoch::FIRST, at: world.now };
    say_hello(world, ask, None);
}

pub(crate) fn is_asking(world: &World, life: Option<usize>) -> bool {
    world.roads.iter().any(|road| matches!(road.at_instance, Seat::Asks(ask) if ask.life == life))
}

fn say_hello(world: &mut World, ask: Ask, resume: Option<Resume>) {
    let hello = hello(world, resume);
    let mut road = Road::new(ask, &mut world.random);
    road.up.write(encode_hello(&hello), &mut world.random, world.now);
    world.roads.push(road);
}

pub(crate) fn hello(world: &World, resume: Option<Resume>) -> Hello {
    Hello {
        versions: 1..=1,
        features: Vec::new(),
        instance_id: InstanceId::parse("i").unwrap(),
        incarnation: Incarnation([world.incarnation; 16]),
        services: Vec::new(),
        software_version: String::new(),
        weight: 1,
        labels: Default::default(),
        routing_keys: Vec::new(),
        max_calls: world.config.max_open_calls.into(),
        health: Health::Serving,
        draining: false,
        resume,
    }
}

/// The answer to a Hello came.
pub(crate) fn welcome(world: &mut World, road: usize, ask: Ask, message: Bytes) {
    let World { lives, roads, now, config, seen, lies, random, .. } = world;
    let now = *now;
    let road = &mut roads[road];
    match (decode_welcome(message).expect("the gateway says Welcome"), ask.life) {
        (Welcome::Accepted(accepted), None) => {
            let life = usize::from(accepted.tunnel_id.0[0]);
            let config = config.clone().adopt(&accepted).unwrap();
            lives[life].instance.begin(Tunnel::instance(config, now), now);
            road.sit(Side::Instance, Seat::Carries(life, Epoch::FIRST));
        }
        (Welcome::Resumed(resumed), Some(life)) if std::mem::take(lies) => {
            let half = &mut lives[life].instance;
            let lie = match random.between(0, 3) {
                0 => Resumed { epoch: Epoch::new(resumed.epoch.get() + 1), ..resumed },
                1 => Resumed { epoch: Epoch::new(resumed.epoch.get() - 1), ..resumed },
                2 => Resumed { rx_next: Seq::new(half.numbers.sent + 2), ..resumed },
                _ => Resumed { rx_next: Seq::new(0), ..resumed },
            };
            half.hear_a_lie(&lie, now);
            road.leave(Side::Instance);
            seen.lies += 1;
        }
        (Welcome::Resumed(resumed), Some(life)) => {
            let Life { instance, token, .. } = &mut lives[life];
            token.clone_from(&resumed.new_token);
            instance.resumed(&resumed, now).expect("the answer to what was asked");
            road.sit(Side::Instance, Seat::Carries(life, resumed.epoch));
            seen.resumes += 1;
        }
        (Welcome::Rejected(rejected), Some(life)) => {
            let half = &mut lives[life].instance;
            if rejected.reason == RejectReason::Unknown {
                half.is_over = true;
                if let Some(tunnel) = &mut half.tunnel {
                    tunnel.lost(now);
                }
                seen.unknown += 1;
            } else {
                assert_eq!(rejected.reason, RejectReason::ResourceExhausted, "the owner of a tunnel is let in");
                seen.thaws += u64::from(half.is_frozen());
                half.thaw(now);
            }
            road.leave(Side::Instance);
        }
        (Welcome::Rejected(_), None) => road.leave(Side::Instance),
        (answer, life) => panic!("{answer:?} to {life:?}"),
    }
}

/// Nobody can tell what became of a Hello: the stream that was frozen for it is given up.
pub(crate) fn give_up(world: &mut World, road: usize, ask: Ask) {
    let World { lives, roads, now, seen, .. } = world;
    roads[road].leave(Side::Instance);
    if let Some(life) = ask.life {
        let half = &mut lives[life].instance;
        half.detach(half.epoch, *now);
        seen.given_up += 1;
    }
}

/// Answers that do not come in time.
pub(crate) fn run_out_of_patience(world: &mut World) {
    for road in 0..world.roads.len() {
        if let Seat::Asks(ask) = world.roads[road].at_instance
            && (ask.at + PATIENCE <= world.now || (!world.is_calm && world.random.once_in(100)))
        {
            give_up(world, road, ask);
        }
    }
}

/// When the next of them is overdue.
pub(crate) fn patience_ends_at(road: &Road) -> Option<grpcrouter_protocol::Time> {
    match road.at_instance {
        Seat::Asks(ask) => Some(ask.at + PATIENCE),
        _ => None,
    }
}

// ---- the gateway

/// A Hello came.
pub(crate) fn hello_came(world: &mut World, road: usize, message: Bytes) {
    let hello = decode_hello(message).expect("the instance says Hello");
    if !world.is_calm && world.random.once_in(12) {
        // Too many at once, say.
        reject(world, road, RejectReason::ResourceExhausted);
        return;
    }
    match hello.resume {
        Some(resume) => resume_asked(world, road, &resume),
        None => accept(world, road, hello.incarnation.0[0]),
    }
}

fn resume_asked(world: &mut World, road: usize, resume: &Resume) {
    let fresh = fresh_token(world);
    let life = usize::from(resume.tunnel_id.0[0]);
    match world.lives[life].resume(resume, fresh, world.now) {
        Ok(resumed) => {
            say(world, road, &Welcome::Resumed(resumed));
            world.roads[road].sit(Side::Gateway, Seat::Carries(life, resume.epoch));
        }
        Err(ResumeError::Closed) => reject(world, road, RejectReason::Unknown),
        Err(ResumeError::OldEpoch { .. }) => reject(world, road, RejectReason::Invalid),
        Err(ResumeError::WrongToken) => reject(world, road, RejectReason::PermissionDenied),
        Err(error) => panic!("{error}"),
    }
}

fn accept(world: &mut World, road: usize, incarnation: u8) {
    displace(world, incarnation);
    let fresh = fresh_token(world);
    let life = world.lives.len();
    let accepted = Accepted {
        version: 1,
        features: Vec::new(),
        tunnel_id: tunnel_id(life),
        resume_token: fresh.token.clone(),
        heartbeat: world.config.heartbeat,
        resume_window: world.config.resume_window,
        limits: world.config.limits(),
        gateways: Vec::new(),
    };
    world.lives.push(Life::new(&world.config, fresh, incarnation, world.now));
    say(world, road, &Welcome::Accepted(accepted));
    world.roads[road].sit(Side::Gateway, Seat::Carries(life, Epoch::FIRST));
    world.seen.lives += 1;
}

/// The latest Hello takes the new calls. Another process: the old tunnels are over at once. The same: they are closed, or
/// finish what they have.
fn displace(world: &mut World, incarnation: u8) {
    let World { lives, random, now, seen, .. } = world;
    for life in lives.iter_mut().filter(|life| life.gateway.lives()) {
        let is_same = life.incarnation == incarnation;
        let half = &mut life.gateway;
        if is_same && (half.is_draining || life.instance.is_draining || !random.once_in(3)) {
            continue;
        }
        half.is_over = true;
        seen.displaced += 1;
        let Some(tunnel) = &mut half.tunnel else { continue };
        if is_same {
            half.has_closed = true;
            tunnel.close(close(CloseCode::Replaced), *now);
        } else {
            tunnel.lost(*now);
        }
    }
}

/// No tunnel on this stream.
pub(crate) fn reject(world: &mut World, road: usize, reason: RejectReason) {
    let message = String::new();
    let rejected = Rejected { reason, message, retry_after: Duration::ZERO, gateways: Vec::new(), versions: None };
    say(world, road, &Welcome::Rejected(rejected));
    world.roads[road].leave(Side::Gateway);
}

fn say(world: &mut World, road: usize, welcome: &Welcome) {
    world.roads[road].down.write(encode_welcome(welcome), &mut world.random, world.now);
}

/// A Hello that no owner said: on a connection of its own, answered at once, its answer read by nobody but the thief.
pub(crate) fn thief_asks(world: &mut World, life: usize, resume: Resume) -> Result<Resumed, ResumeError> {
    let hello = decode_hello(encode_hello(&hello(world, Some(resume))).slice(5..)).unwrap();
    let fresh = fresh_token(world);
    let answer = world.lives[life].resume(&hello.resume.unwrap(), fresh, world.now);
    if let Err(ResumeError::Impossible(_)) = &answer {
        let bytes = encode_close(Side::Gateway, &close(CloseCode::ProtocolError));
        assert!(decode_welcome(bytes.slice(5..)).is_err(), "a Close is no Welcome");
    }
    answer
}

pub(crate) fn close(code: CloseCode) -> Close {
    Close { code, reason: "the world wants it".into(), retry_after: Duration::ZERO }
}

/// A token that was never given before, with a hash that nobody could make without it.
pub(crate) fn fresh_token(world: &mut World) -> FreshToken {
    world.tokens += 1;
    let token = Bytes::copy_from_slice(&world.tokens.to_be_bytes());
    FreshToken { hash: tokens_hold::hash(&token), token }
}

pub(crate) fn tunnel_id(life: usize) -> TunnelId {
    let mut id = [0; 16];
    id[0] = u8::try_from(life).expect("few tunnels");
    TunnelId(id)
}
