//! What holds in every world that can be reached.

use kube::ResourceExt as _;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::model::{Fate, Flight, NAMES, PROGRESS, TROUBLE, World};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// A whole reconcile, with caches that show everything.
    Reconcile(usize),
    /// A reconcile reads; its writes come later.
    Begin(usize),
    /// A reconcile that has begun makes its next write.
    Step(usize, Fate),
    /// The SMO's watch catches up.
    SyncRequests,
    /// The watch of an O-Cloud catches up.
    SyncSite(usize),
    /// The operator ends, and starts again.
    Crash,
    Minute,
    Progress(usize, usize),
    Trouble(usize, usize),
    OtherKubeconfig,
}

fn actions(length: usize) -> impl Strategy<Value = Vec<Action>> {
    let which = 0..NAMES.len();
    let fate = prop_oneof![6 => Just(Fate::Answered), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Late)];
    let action = prop_oneof![
        6 => which.clone().prop_map(Action::Reconcile),
        4 => which.clone().prop_map(Action::Begin),
        8 => (which, fate).prop_map(|(which, fate)| Action::Step(which, fate)),
        3 => Just(Action::SyncRequests),
        3 => (0..2usize).prop_map(Action::SyncSite),
        1 => Just(Action::Crash),
        1 => Just(Action::Minute),
        6 => (0..PROGRESS.len(), 0..64usize).prop_map(|(which, pick)| Action::Progress(which, pick)),
        8 => (0..TROUBLE.len(), 0..64usize).prop_map(|(which, pick)| Action::Trouble(which, pick)),
        1 => Just(Action::OtherKubeconfig),
    ];
    prop::collection::vec(action, 0..length)
}

/// Carries the actions out; the rules of every single write are checked on the way.
fn play(world: &mut World, actions: &[Action]) {
    let mut flights: [Option<Flight>; 2] = [None, None];
    for action in actions {
        match *action {
            Action::Reconcile(which) => {
                flights[which] = None;
                world.sync_requests();
                world.sync_site(0);
                world.sync_site(1);
                world.reconcile(NAMES[which]);
            }
            Action::Begin(which) => flights[which] = world.begin(NAMES[which]),
            Action::Step(which, fate) => {
                if flights[which].as_mut().is_some_and(|flight| !world.step(flight, fate)) {
                    flights[which] = None;
                }
            }
            Action::SyncRequests => world.sync_requests(),
            Action::SyncSite(which) => world.sync_site(which),
            Action::Crash => {
                flights = [None, None];
                world.restart();
            }
            Action::Minute => {
                flights = [None, None];
                world.pass_a_minute();
                world.sync_requests();
                world.sync_site(0);
                world.sync_site(1);
            }
            Action::Progress(which, pick) => {
                PROGRESS[which](world, pick);
            }
            Action::Trouble(which, pick) => {
                TROUBLE[which](world, pick);
            }
            Action::OtherKubeconfig => {
                // The connection is another one, and whatever used the former one has ended.
                if flights.iter().all(Option::is_none) {
                    world.kubeconfig_is_changed();
                }
            }
        }
        world.check();
    }
}

/// The same cases in each run, so that a change is judged by what it changes; `PROPTEST_CASES` asks for a hunt with
/// that many new ones.
fn config(cases: u32) -> ProptestConfig {
    let told = ProptestConfig { failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return told;
    }
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), ..told }
}

proptest! {
    #![proptest_config(config(256))]

    /// From any world, when failures end, every request is carried out or says what its owner can do, and then nothing
    /// is written.
    #[test]
    fn every_request_comes_to_rest(actions in actions(80)) {
        let mut world = World::new();
        play(&mut world, &actions);
        world.heal();
        world.settle();
        for name in NAMES {
            world.check_at_rest(name);
        }
    }

    /// A request that is deleted goes, when its owner does what its message says; and nothing that it still has stays
    /// on an O-Cloud unless its owner lets it go.
    #[test]
    fn a_deleted_request_goes(actions in actions(80)) {
        let mut world = World::new();
        play(&mut world, &actions);
        world.heal();
        for name in NAMES {
            world.delete(name);
            world.unprotect(name);
        }
        world.settle();
        for name in NAMES {
            world.check_at_rest(name);
            world.abandon(name);
        }
        world.settle();
        let left: Vec<_> = world.requests.values().map(|request| (request.name_any(), request.status.clone())).collect();
        prop_assert!(left.is_empty(), "{:?}", left);
    }
}
