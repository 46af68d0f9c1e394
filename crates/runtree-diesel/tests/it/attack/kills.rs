//! `kill -9` of one of many processes at any moment, again and again: nothing that was acknowledged is lost, and every run ends.

use runtree_testkit::dice::Dice;
use runtree_testkit::history::monotonic_nanos;
use runtree_testkit::postgres::TestPostgres;

use super::Workers;
use crate::histories::{Scene, processes, runtime, seed, wait_for, working_time};

/// A line of a history has about so many bytes.
const LINE: u64 = 200;

fn kill_again_and_again(mut scene: Scene) {
    let mut dice = Dice::new(seed());
    let mut workers = Workers::start(&mut scene, processes());
    let until = monotonic_nanos() + u64::try_from(working_time().as_nanos()).unwrap();
    let mut kills = 0_usize;
    while monotonic_nanos() < until || kills < 5 {
        let victim = usize::try_from(dice.below(processes())).unwrap();
        workers.kill(victim, dice.between(1, 30) * LINE, &mut scene);
        kills += 1;
    }
    // The last ones begin in the midst of what the killed have left.
    workers.wait_for_more(LINE);
    scene.stop();
    wait_for(workers.all);
    // Not even a call fails: whom others leave in the middle does not hear of it.
    let figures = runtime().block_on(scene.conclude(&[]));
    figures.show(&format!("{kills} kills"));
    let started = usize::try_from(processes()).unwrap() + kills;
    assert_eq!(figures.processes, started + 1, "{figures:?}");
}

#[test]
fn processes_that_are_killed_lose_nothing_of_a_sqlite_file() {
    kill_again_and_again(Scene::on_sqlite());
}

#[test]
fn processes_that_are_killed_lose_nothing_of_a_postgresql() {
    kill_again_and_again(Scene::on_postgres(TestPostgres::get().fresh_database()));
}
