//! The clock of a PostgreSQL server steps by an hour forwards and back while processes work on it.
//!
//! The machine's clock stays as it is. The functions that the statements ask for the time are found first in a schema of the test's
//! own, where they answer the server's clock and an hour more or less; the statements themselves are the real ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtree_repository::id::RunId;
use runtree_repository::status::RunStatus;
use runtree_repository::{DynRunRepository, RunFilter, RunNews, RunRepositoryExt as _};
use runtree_testkit::dice::Dice;
use runtree_testkit::history::{Expectations, monotonic_nanos};
use runtree_testkit::postgres::TestPostgres;

use super::servers::answered_after;
use super::{Workers, wait_until};
use crate::histories::{Scene, runtime, seed, wait_for, working_time};

/// A clock that one statement sees at one instant, as it does the server's own: what it is off by is read with the statement's snapshot.
const CLOCK: &str = "
    create schema stepping;
    create table stepping.clock (off_by interval not null);
    insert into stepping.clock values ('0');
    create function stepping.statement_timestamp() returns timestamptz stable language sql
        as 'select pg_catalog.statement_timestamp() + off_by from stepping.clock';
    create function stepping.clock_timestamp() returns timestamptz volatile language sql
        as 'select pg_catalog.clock_timestamp() + off_by from stepping.clock';
    create function stepping.now() returns timestamptz stable language sql
        as 'select pg_catalog.now() + off_by from stepping.clock';
    do $$ begin execute format('alter database %I set search_path = stepping, pg_catalog, public', current_database()); end $$;
";

/// Notes what must never happen to a row of a run.
const WITNESS: &str = "
    create table stepping.witnessed (what text not null, run uuid not null);
    create function stepping.witness() returns trigger language plpgsql as $$ begin
        if new.updated_at < old.updated_at then
            insert into stepping.witnessed values ('updated_at went back', new.id);
        end if;
        if new.token < old.token then
            insert into stepping.witnessed values ('the token shrank', new.id);
        end if;
        if old.ended_at is not null and new.ended_at is distinct from old.ended_at then
            insert into stepping.witnessed values ('it ended again', new.id);
        end if;
        return null;
    end $$;
    create trigger witness after update on runtree_runs for each row execute function stepping.witness();
";

const WORKERS: u64 = 4;

/// A database with such a clock.
struct Stepped {
    server: &'static TestPostgres,
    database: String,
}

impl Stepped {
    fn new() -> (Self, Scene) {
        let server = TestPostgres::get();
        let url = server.fresh_database();
        let database = url.rsplit('/').next().unwrap();
        let database = database.split('?').next().unwrap().to_owned();
        server.execute(&database, CLOCK);
        (Self { server, database }, Scene::on_postgres(url))
    }

    fn execute(&self, sql: &str) -> String {
        self.server.execute(&self.database, sql).trim().to_owned()
    }

    fn put(&self, off_by: &str) {
        self.execute(&format!("update stepping.clock set off_by = '{off_by}'"));
    }

    fn count(&self, of: &str) -> u64 {
        let count = self.execute(&format!("select count(*) from {of}"));
        count.parse().unwrap()
    }
}

/// Watches the runs that wait or are worked on, until it is told to stop and nothing is left of them.
async fn watch(runs: DynRunRepository, is_over: Arc<AtomicBool>) -> BTreeSet<RunId> {
    let open = RunFilter::new().statuses([RunStatus::Pending, RunStatus::Running]);
    let mut watcher = runs.watch(open);
    let (mut seen, mut held) = (BTreeSet::new(), BTreeSet::new());
    loop {
        // The patience is for the end, when nothing is left that could be told of.
        match tokio::time::timeout(Duration::from_millis(200), watcher.next()).await {
            Ok(news) => match news.unwrap() {
                RunNews::Entered(run) => {
                    assert!(held.insert(run.id), "{} entered twice", run.id);
                    seen.insert(run.id);
                }
                RunNews::Changed(run) => assert!(held.contains(&run.id), "{run:?}"),
                RunNews::Left(run) => assert!(held.remove(&run), "{run} left twice"),
            },
            Err(_) if is_over.load(Ordering::SeqCst) && held.is_empty() => return seen,
            Err(_) => {}
        }
    }
}

#[test]
fn a_server_whose_clock_steps_by_an_hour_breaks_no_promise() {
    let runtime = runtime();
    let (stepped, mut scene) = Stepped::new();
    let runs = runtime.block_on(scene.store.open());
    stepped.execute(WITNESS);
    let is_over = Arc::new(AtomicBool::new(false));
    let watched = runtime.spawn(watch(runs.clone(), Arc::clone(&is_over)));
    let mut workers = Workers::start(&mut scene, WORKERS);
    let mut dice = Dice::new(seed());
    let until = monotonic_nanos() + u64::try_from(working_time().as_nanos()).unwrap();
    let mut steps = 0;
    while monotonic_nanos() < until || steps < 8 {
        let off_by = ["1 hour", "0", "-1 hour", "0"][steps % 4];
        stepped.put(off_by);
        let at = monotonic_nanos();
        workers.wait_for_more(dice.between(1, 10) * 100);
        wait_until("every process is answered after a step", || {
            answered_after(&scene.operations(), at).len() == usize::try_from(WORKERS).unwrap()
        });
        steps += 1;
    }
    scene.stop();
    wait_for(workers.all);
    // The clock was really where it was put, and the stamps are its.
    let now = "pg_catalog.statement_timestamp()";
    let ahead = stepped.count(&format!(
        "runtree_runs where created_at > {now} + interval '30 minutes'"
    ));
    let behind = stepped.count(&format!(
        "runtree_runs where created_at < {now} - interval '30 minutes'"
    ));
    assert!(ahead > 0 && behind > 0, "{ahead} ahead, {behind} behind");

    // What was planned while it was ahead is due by now.
    stepped.put("1 day");
    let expectations = Expectations {
        failures: Vec::new(),
        longest_call: Duration::from_secs(45),
        clocks_agree: false,
        all_ended: true,
    };
    let figures = runtime.block_on(scene.conclude_by(runs, expectations));
    figures.show(&format!("{steps} steps"));
    assert!(figures.calls > 100, "{figures:?}");
    let witnessed = stepped.execute("select what, count(*) from stepping.witnessed group by 1");
    assert_eq!(witnessed, "");
    is_over.store(true, Ordering::SeqCst);
    let seen = runtime.block_on(watched).unwrap();
    assert!(seen.len() > 10, "the watcher saw {} runs", seen.len());
}
