//! Two real tunnels with a long or a narrow way between them: what one call reaches, and what a bulk upload costs the
//! others. All in simulated time and in counts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail by panic")]

mod way {
    pub(crate) mod road;
}

use std::time::Duration;

use grpcrouter_protocol::{Bytes, Config, WindowPool};
use way::road::{Road, Toward};

const MS: Duration = Duration::from_millis(1);
const MIB: f64 = (1 << 20) as f64;

/// What one call reaches in either direction, in bytes a second, after it had two seconds to find its pace.
fn reached(toward: Toward, config: &Config, rate: u64) -> f64 {
    let mut road = Road::new(config.clone(), rate, 25 * MS);
    let call = road.bulk(toward);
    road.run_for(2_000 * MS);
    let before = road.arrived(call);
    road.run_for(2_000 * MS);
    (road.arrived(call) - before) as f64 / 2.0
}

#[test]
fn over_50_ms_one_call_uses_its_window_in_each_round_trip() {
    let config = Config { max_window: 0, ..Config::default() };
    for toward in [Toward::Instance, Toward::Gateway] {
        let got = reached(toward, &config, 1 << 30);
        let most = config.initial_window as f64 / 0.05;
        println!("{toward:?}: a window of 64 KiB gives {:.2} of {:.2} MiB/s", got / MIB, most / MIB);
        assert!(got >= 0.8 * most && got <= most, "{got} of {most}");
    }
}

#[test]
fn over_50_ms_one_call_fills_the_link_or_the_largest_window() {
    let config = Config::default();
    for toward in [Toward::Instance, Toward::Gateway] {
        for rate in [1 << 20, 10 << 20, 40 << 20, 1 << 30] {
            let got = reached(toward, &config, rate);
            let most = (rate as f64).min(config.max_window as f64 / 0.05);
            println!("{toward:?}: a link of {} MiB/s gives {:.1} of {:.1} MiB/s", rate >> 20, got / MIB, most / MIB);
            assert!(got >= 0.8 * most && got <= most, "{got} of {most}");
        }
    }
}

#[test]
fn a_call_that_is_read_slowly_gives_its_window_back() {
    let pool = WindowPool::new(1 << 30);
    let mut road = Road::with_pool(Config::default(), 100 << 20, 25 * MS, &pool);
    let call = road.bulk(Toward::Gateway);
    road.run_for(2_000 * MS);
    let grown = pool.used();
    assert!(grown > 1 << 20, "{grown}");

    road.consume_at_most(call, 50_000);
    road.run_for(120_000 * MS);

    assert!(pool.used() < 1 << 19, "{} of {grown}", pool.used());
    drop(road);
    assert_eq!(pool.used(), 0);
}

#[test]
fn windows_that_grow_together_stay_within_the_pool_of_their_tunnel() {
    let config = Config { window_pool: 4 << 20, ..Config::default() };
    let mut road = Road::new(config, 1 << 30, 25 * MS);
    let calls = [(); 20].map(|()| road.bulk(Toward::Gateway));
    road.run_for(3_000 * MS);
    assert!(calls.iter().all(|&call| road.arrived(call) > 0));
    let (grown, held) = road.most_grown();
    assert!(grown > 2 << 20 && grown <= 4 << 20, "{grown} of the pool");
    // The formula of the limits: each call's first window, and the pool.
    assert!(held <= 20 * (64 << 10) + (4 << 20), "{held} bytes waited");
}

/// Fills everything that may be filled: every window in both directions, with consumers that never take. What waits at
/// each end is no more than the formula says, and nearly as much.
#[test]
fn what_waits_when_nobody_reads_is_what_the_formula_says() {
    let calls = 64;
    let config = Config { max_open_calls: calls, window_pool: 1 << 20, ..Config::default() };
    let mut road = Road::new(config, 1 << 30, MS);
    let ids = (0..calls).map(|_| (road.bulk(Toward::Instance), road.answer_in_bulk())).collect::<Vec<_>>();
    // All of them are read at first, so that windows grow.
    road.run_for(500 * MS);
    road.stop_reading();
    road.run_for(500 * MS);
    let window = 64 << 10;
    let formula = u64::from(calls) * window + (1 << 20);
    for (end, waiting) in road.waiting() {
        println!("{end:?}: {waiting} of {formula} bytes wait");
        assert!(waiting <= formula, "{end:?}: {waiting} of {formula}");
        assert!(waiting * 10 >= formula * 8, "{end:?}: only {waiting} of {formula}: nothing was filled");
    }
    // What the senders keep is bounded by itself: one first window for each call.
    for (end, queued) in road.queued() {
        assert!(queued as u64 <= u64::from(calls) * window, "{end:?}: {queued}");
    }
    drop(ids);
}

#[test]
fn beside_a_bulk_upload_a_small_call_goes_out_with_the_next_batch() {
    let mut road = Road::new(Config::default(), 10 << 20, 25 * MS);
    let bulk = road.bulk(Toward::Instance);
    road.run_for(1_000 * MS);
    for round in 0..100 {
        let before = road.batches_out();
        let small = road.small_call();
        road.run_until(|road| road.has_started(small));
        let batches = road.started_in(small) - before;
        assert!(batches <= 1, "round {round}: {batches} batches before the start");
        road.run_until(|road| road.is_over(small));
    }
    assert!(road.arrived(bulk) > 10 << 20, "the upload went on: {}", road.arrived(bulk));
}

#[test]
fn among_a_hundred_uploads_each_has_its_turn_and_a_small_message_waits_for_one_round() {
    let uploads = 100;
    let config = Config { max_open_calls: 200, ..Config::default() };
    let mut road = Road::new(config, 10 << 20, 25 * MS);
    let bulk = (0..uploads).map(|_| road.bulk(Toward::Instance)).collect::<Vec<_>>();
    let talk = road.open_quiet();
    road.run_for(2_000 * MS);

    let arrived = |road: &Road| bulk.iter().map(|&call| road.arrived(call)).sum::<u64>();
    let before = arrived(&road) + road.on_the_way();
    road.say(talk, Bytes::from_static(b"a small message"));
    road.run_until(|road| road.arrived(talk) > 0);
    let between = arrived(&road) - before;
    let round = uploads * (16 << 10);
    assert!(between > 0 && between <= round + (64 << 10), "{between} bytes of others went first, a round is {round}");

    let before = road.batches_out();
    let small = road.small_call();
    road.run_until(|road| road.has_started(small));
    assert!(road.started_in(small) - before <= 1, "a start goes before all of them");

    let shares = bulk.iter().map(|&call| road.arrived(call)).collect::<Vec<_>>();
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= 4 << 20, "from {least} to {most}");
    assert!(*least > 0);
}

#[test]
fn beside_bulk_both_ways_pings_come_back_with_the_next_batch() {
    let mut road = Road::new(Config::default(), 10 << 20, 25 * MS);
    road.bulk(Toward::Instance);
    road.answer_in_bulk();
    road.run_for(30_000 * MS);
    let trips = road.round_trips();
    // Growth measures the way every ten seconds while windows may grow; the answer waits for what is being written only.
    assert!(!trips.is_empty());
    let worst = trips.iter().max().unwrap();
    assert!(*worst <= 100 * MS, "the way is 50 ms, a ping took {worst:?}");
}

#[test]
fn a_lease_keeps_what_a_finished_call_still_holds() {
    let pool = WindowPool::new(1 << 30);
    let mut road = Road::with_pool(Config::default(), 100 << 20, 25 * MS, &pool);
    let call = road.bulk(Toward::Gateway);
    road.run_for(2_000 * MS);
    road.stop_reading();
    road.run_for(500 * MS);
    road.finish(call);
    road.run_until(|road| road.is_over(call));

    let waiting = road.waiting()[0].1;
    let first = 64 << 10;
    assert!(waiting > first, "{waiting}");
    assert_eq!(pool.used(), waiting - first, "all but a first window is accounted for");
    road.drop_leases();
    assert_eq!(pool.used(), 0);
}
