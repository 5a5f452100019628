//! What goes wrong: connections die in every way, processes too; tunnels are moved, taken over, drained and closed; thieves
//! show what they found.

use std::time::Duration;

use grpcrouter_protocol::{CloseCode, Health, Resume, ResumeError, Seq, Side, Update};

use super::apps;
use super::invariants::numbers_rise::Numbers;
use super::model::Shape;
use super::road::Seat;
use super::shell;
use super::world::World;

/// One fault, of any kind.
pub(crate) fn strike(world: &mut World) {
    let worst = if world.is_gentle { 17 } else { 36 };
    match world.random.between(0, worst) {
        0..=7 => cut_one(world),
        8..=9 => silence_one(world),
        10..=11 => drop_one(world),
        12..=17 => move_one(world),
        18..=21 => steal(world),
        22..=23 => say_news(world),
        24 => drain(world),
        25 => shell::dial_new(world),
        26 => outlast_the_window(world),
        27 => close(world),
        28 => restart_gateway(world),
        29 => restart_instance(world),
        30 => apps::cancel_all(world),
        31 | 34 | 35 => drain_under_load(world),
        32 => world.nonsense = true,
        33 => world.lies = true,
        _ => calls_and_cut(world),
    }
}

fn any_road(world: &mut World) -> Option<usize> {
    let live: Vec<usize> = (0..world.roads.len()).filter(|&road| world.roads[road].is_alive()).collect();
    (!live.is_empty()).then(|| live[world.random.size(0, live.len() - 1)])
}

fn any_life(world: &mut World, side: Side) -> Option<usize> {
    let live: Vec<usize> = (0..world.lives.len()).filter(|&life| world.lives[life].half(side).lives()).collect();
    (!live.is_empty()).then(|| live[world.random.size(0, live.len() - 1)])
}

fn any_side(world: &mut World) -> Side {
    if world.random.once_in(2) { Side::Gateway } else { Side::Instance }
}

/// A connection dies; both ends will hear of it.
fn cut_one(world: &mut World) {
    if let Some(road) = any_road(world) {
        world.roads[road].cut(&mut world.random);
        world.seen.cuts += 1;
    }
}

/// A connection dies in one direction or in both, and nobody is told.
fn silence_one(world: &mut World) {
    let Some(road) = any_road(world) else { return };
    let World { roads, random, seen, .. } = world;
    let road = &mut roads[road];
    road.is_silent = true;
    match random.between(0, 3) {
        0 => road.up.cut(random),
        1 => road.down.cut(random),
        _ => road.cut(random),
    }
    seen.silences += 1;
}

/// One end finds its connection dead, and the other will hear of it later.
fn drop_one(world: &mut World) {
    let Some(road) = any_road(world) else { return };
    let side = any_side(world);
    world.roads[road].cut(&mut world.random);
    world.notice(side, road);
    world.seen.cuts += 1;
}

/// The instance asks for a stream that is better than the one it has.
fn move_one(world: &mut World) {
    if let Some(life) = any_life(world, Side::Instance)
        && !shell::is_asking(world, Some(life))
    {
        shell::dial_again(world, life);
    }
}

/// The way is loaded with calls, and dies.
fn calls_and_cut(world: &mut World) {
    for _ in 0..world.random.size(1, 8) {
        apps::open(world);
    }
    world.write();
    cut_one(world);
}

/// Somebody asks for a tunnel that is not theirs: with a forged token, with one that was good once, or with the good one
/// and counters that cannot be.
fn steal(world: &mut World) {
    let Some(life) = any_life(world, Side::Gateway) else { return };
    let later = world.lives[life].gateway.epoch.get() + world.random.between(0, 3);
    let mut resume = Resume {
        tunnel_id: shell::tunnel_id(life),
        token: world.lives[life].good.current.clone(),
        epoch: grpcrouter_protocol::Epoch::new(later),
        rx_next: Seq::new(1),
        tx_first: Seq::new(1),
        tx_next: Seq::new(1),
    };
    match world.random.between(0, 9) {
        0..=2 => resume.token = "forged".into(),
        3 => resume.token = resume.token.slice(1..),
        4 => resume.epoch = world.lives[life].gateway.epoch,
        5 => {
            let Numbers { sent, taken } = world.lives[life].gateway.numbers;
            resume = Resume { rx_next: Seq::new(sent + 1), tx_next: Seq::new(taken + 1), ..resume };
            match world.random.between(0, 3) {
                0 => resume.rx_next = Seq::new(0),
                1 => resume.rx_next = Seq::new(sent + 2),
                2 => resume.tx_first = Seq::new(taken + 2),
                _ => resume.tx_next = Seq::new(taken),
            }
        }
        _ => {
            let worn = &world.lives[life].good.worn;
            if worn.is_empty() {
                return;
            }
            resume.token = worn[world.random.size(0, worn.len() - 1)].clone();
        }
    }
    match shell::thief_asks(world, life, resume) {
        Err(ResumeError::Impossible(_)) => world.seen.impossible += 1,
        Err(_) => world.seen.thieves += 1,
        Ok(_) => panic!("a thief got in"),
    }
}

/// The instance says how it is, or the gateway which gateways there are.
fn say_news(world: &mut World) {
    let side = any_side(world);
    let Some(life) = any_life(world, side) else { return };
    let World { lives, now, .. } = world;
    let life = &mut lives[life];
    match side {
        Side::Instance => {
            let Some(tunnel) = &mut life.instance.tunnel else { return };
            life.updates.said += 1;
            let update = Update {
                version: life.updates.said,
                health: Health::Serving,
                weight: 1,
                labels: Default::default(),
                load_permille: 0,
                not_serving: Vec::new(),
            };
            tunnel.update(update, *now);
        }
        Side::Gateway => {
            let Some(tunnel) = &mut life.gateway.tunnel else { return };
            life.peers.said += 1;
            tunnel.peers_changed(vec![life.peers.said.to_string()], *now);
        }
    }
}

/// One side takes no new call.
pub(crate) fn drain(world: &mut World) {
    let side = any_side(world);
    let Some(life) = any_life(world, side) else { return };
    let now = world.now;
    let half = world.lives[life].half_mut(side);
    half.is_draining = true;
    if let Some(tunnel) = &mut half.tunnel {
        tunnel.drain(now);
    }
}

/// Starts are on their way to an instance that drains, and its refusals wait; the connection may die before they go.
fn drain_under_load(world: &mut World) {
    let Some(life) = world.lives.len().checked_sub(1).filter(|&life| world.lives[life].is_whole()) else { return };
    let opens = if world.shape == Shape::Crowd { world.config.max_open_calls } else { 4 };
    (0..opens).for_each(|_| apps::open(world));
    world.write();
    let now = world.now;
    let half = &mut world.lives[life].instance;
    half.is_draining = true;
    if let Some(tunnel) = &mut half.tunnel {
        tunnel.drain(now);
    }
    // Longer than any way.
    world.now = world.now + Duration::from_millis(50);
    world.read();
    if world.random.once_in(2) {
        cut_one(world);
    }
}

/// Time passes until a tunnel without a stream may be over.
fn outlast_the_window(world: &mut World) {
    let ends = world.lives.iter().flat_map(|life| [&life.gateway, &life.instance]).filter_map(|half| half.expires_at());
    if let Some(at) = ends.min()
        && at > world.now
    {
        // A moment before, exactly then, or after.
        let early = Duration::from_nanos(1);
        world.now = match world.random.between(0, 2) {
            0 => world.now + at.since(world.now + early),
            1 => at,
            _ => at + Duration::from_millis(world.random.between(0, 2_000)),
        };
    }
}

/// One side ends the tunnel and says so.
pub(crate) fn close(world: &mut World) {
    let side = any_side(world);
    let Some(life) = any_life(world, side) else { return };
    let now = world.now;
    let half = world.lives[life].half_mut(side);
    half.is_over = true;
    half.has_closed = true;
    if let Some(tunnel) = &mut half.tunnel {
        tunnel.close(shell::close(CloseCode::Shutdown), now);
    }
    world.seen.closes += 1;
}

/// Its process is gone, with all that it held, and another one is there at once.
fn restart_gateway(world: &mut World) {
    apps::die(world, Side::Gateway);
    process_ends(world, Side::Gateway);
}

fn restart_instance(world: &mut World) {
    apps::die(world, Side::Instance);
    world.incarnation += 1;
    process_ends(world, Side::Instance);
}

fn process_ends(world: &mut World, side: Side) {
    let World { lives, roads, random, seen, .. } = world;
    for life in lives.iter_mut() {
        life.half_mut(side).die();
    }
    for road in roads.iter_mut().filter(|road| road.seat(side) != Seat::Gone) {
        road.cut(random);
        road.leave(side);
    }
    seen.restarts += 1;
}
