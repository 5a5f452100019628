//! The promises of the hash: stable, even, by weight, few keys move, nobody is overrun.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::tests::{ANY, Fake, fake, letters, numbered, picker, picks, weighing},
    *,
};

const KEYS: usize = 20_000;

fn key(number: usize) -> RoutingKey {
    RoutingKey::Value(format!("tenant-{number}").into_bytes().into())
}

/// Who has each of the keys.
fn owners(set: &[Arc<Fake>]) -> Vec<String> {
    let picker = picker(&mut ConsistentHash::default(), set);
    (0..KEYS).map(|number| picker.pick(&key(number), &ANY).unwrap().name.clone()).collect()
}

fn counts(owners: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    owners.iter().for_each(|owner| *counts.entry(owner.as_str()).or_default() += 1);
    counts
}

#[test]
fn the_bytes_are_hashed_as_ever() {
    // FNV-1a of "a" and of "foobar" are published: 0xaf63dc4c8601ec8c and 0x85944171f73967e8.
    assert_eq!(hash(b"a"), mix(0xaf63_dc4c_8601_ec8c));
    assert_eq!(hash(b"foobar"), mix(0x8594_4171_f739_67e8));
}

#[test]
fn keys_belong_to_whom_they_belonged_in_every_version() {
    let picker = picker(&mut ConsistentHash::default(), &letters("abcdefgh"));

    let owners: String =
        (0..32).map(|number| picker.pick(&key(number), &ANY).unwrap().name.clone()).collect::<Vec<_>>().concat();

    assert_eq!(owners, "fcafhbeechgagfggcfdddcdegebdeadh");
}

#[test]
fn gateways_to_which_the_instances_came_in_another_order_choose_alike() {
    let set = numbered(50);
    let mut other = numbered(50);
    other.reverse();
    other.rotate_left(17);

    assert_eq!(owners(&set), owners(&other));
}

#[test]
fn a_key_stays_where_it_is_call_for_call() {
    let picker = picker(&mut ConsistentHash::default(), &numbered(20));
    for number in 0..100 {
        let first = picker.pick(&key(number), &ANY).unwrap();
        assert!((0..20).all(|_| Arc::ptr_eq(&picker.pick(&key(number), &ANY).unwrap(), &first)));
    }
}

#[test]
fn the_keys_are_spread_evenly() {
    for len in [2, 3, 10, 100] {
        let owners = owners(&numbered(len));
        let (counts, due) = (counts(&owners), KEYS as f64 / len as f64);
        let most = *counts.values().max().unwrap() as f64;
        assert_eq!(counts.len(), len);
        let least = *counts.values().min().unwrap() as f64;
        // What the hash does, and what chance does to so few keys.
        assert!(most <= due * 1.15 + 3.0 * due.sqrt(), "{len}: the busiest has {most}, due are {due}");
        assert!(least >= due * 0.75 - 3.0 * due.sqrt(), "{len}: the idlest has {least}, due are {due}");
    }
}

#[test]
fn keys_are_spread_by_weight() {
    let owners = owners(&weighing(&[("a", 40), ("b", 20), ("c", 20), ("d", 10), ("e", 10)]));

    for (name, weight) in [("a", 40), ("b", 20), ("c", 20), ("d", 10), ("e", 10)] {
        let (got, due) = (counts(&owners)[name] as f64, (KEYS * weight / 100) as f64);
        assert!((got - due).abs() <= due * 0.15, "{name}: {got} keys, due are {due}");
    }
}

#[test]
fn who_comes_takes_its_share_and_no_other_key_moves() {
    for len in [2, 10, 100] {
        let before = owners(&numbered(len));
        let mut set = numbered(len);
        set.push(fake("newcomer", 1, 0));

        let after = owners(&set);

        let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
        assert!(moved.iter().all(|(_, after)| *after == "newcomer"));
        let due = KEYS as f64 / (len + 1) as f64;
        assert!(moved.len() as f64 <= due * 1.15 + 3.0 * due.sqrt(), "{len}: {} moved, due are {due}", moved.len());
        assert!(!moved.is_empty());
    }
}

#[test]
fn of_who_goes_the_keys_move_and_no_other() {
    for gone in 0..10 {
        let before = owners(&numbered(10));
        let mut set = numbered(10);
        let gone = set.remove(gone);

        let after = owners(&set);

        assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == gone.name));
    }
}

#[test]
fn one_that_does_not_suit_gives_its_keys_to_several() {
    let set = numbered(10);
    let (before, picker) = (owners(&set), picker(&mut ConsistentHash::default(), &set));
    let out = &set[3].name;

    let after: Vec<_> =
        (0..KEYS).map(|number| picker.pick(&key(number), &|one| one.name != *out).unwrap().name.clone()).collect();

    let moved: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(before, _)| *before == out));
    let heirs: BTreeSet<_> = moved.iter().map(|(_, after)| *after).collect();
    assert_eq!(heirs.len(), 9);
}

#[test]
fn nobody_has_more_than_its_share_and_a_quarter_even_of_one_hot_key() {
    for len in [3, 10, 200] {
        let set = numbered(len);
        let picker = picker(&mut ConsistentHash::default(), &set);
        for call in 0..len * 40 {
            let hot = call % 4 == 0;
            picker.pick(&key(if hot { 7 } else { call }), &ANY).unwrap().open(1);
        }
        let most = set.iter().map(|one| one.open_calls()).max().unwrap();
        assert!(most <= 52, "{len}: 40 calls each, one has {most}");
    }
}

#[test]
fn with_few_calls_a_key_is_not_sent_away_from_its_own() {
    let set = numbered(50);
    let picker = picker(&mut ConsistentHash::default(), &set);
    let own = picker.pick(&key(1), &ANY).unwrap();

    (0..8).for_each(|_| picker.pick(&key(1), &ANY).unwrap().open(1));

    assert_eq!(own.open_calls(), 8);
    assert!(!Arc::ptr_eq(&picker.pick(&key(1), &ANY).unwrap(), &own));
}

#[test]
fn one_that_is_no_busier_than_the_others_keeps_its_keys() {
    let set = numbered(4);
    let picker = picker(&mut ConsistentHash::default(), &set);
    let own = picker.pick(&key(1), &ANY).unwrap();
    own.open(20);
    assert!(!Arc::ptr_eq(&picker.pick(&key(1), &ANY).unwrap(), &own));

    set.iter().for_each(|one| {
        if one.open_calls() == 0 {
            one.open(19);
        }
    });
    (0..4).for_each(|_| drop(picker.pick(&key(2), &ANY)));

    assert!(Arc::ptr_eq(&picker.pick(&key(1), &ANY).unwrap(), &own));
}

#[test]
fn calls_without_a_key_take_turns() {
    assert_eq!(picks(&*picker(&mut ConsistentHash::default(), &letters("abc")), 6, &ANY), "abcabc");
}

#[test]
fn a_key_may_be_any_bytes() {
    let picker = picker(&mut ConsistentHash::default(), &numbered(5));
    for key in [vec![], vec![0; 10_000], vec![0xff, 0xfe], (0..=255).collect()] {
        assert!(picker.pick(&RoutingKey::Value(key.into()), &ANY).is_some());
    }
}

#[test]
fn the_heaviest_takes_no_more_room_than_a_hundred() {
    let circle = |weight| Circle::new(&[fake("a", weight, 0)].into(), &Arc::default()).points.len();

    assert_eq!([circle(1), circle(100), circle(1000)], [4, 400, 400]);
}
