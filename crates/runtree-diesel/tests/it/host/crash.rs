//! A process that is killed around its commit: afterwards its own row is there exactly if the run is.
//!
//! A child is this test binary again, told by a variable what to do. It accepts orders, each a row of its own and a run, claims the
//! run of an earlier one, and ends it with another row; all the while it is killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use runtree_repository::status::RunStatus;
use runtree_repository::{PageRequest, RunFilter};

use super::*;

const ROLE: &str = "RUNTREE_TEST_ROLE";
const DATABASE: &str = "RUNTREE_TEST_DATABASE";

/// What a child says begins with this, to be told from what the test harness prints.
const MARK: &str = "child: ";

/// How often a process is killed.
const KILLS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the body of child processes; does nothing when it is run by itself"]
async fn child() {
    let (Some(role), Some(database)) = (variable(ROLE), variable(DATABASE)) else {
        return;
    };
    match role.as_str() {
        #[cfg(feature = "sqlite")]
        "host on sqlite" => {
            let runs = runtree_diesel::SqliteRepository::open(&database).await;
            let host = sqlite::connect(database.as_ref());
            work(std::sync::Arc::new(runs.unwrap()), host).await;
        }
        #[cfg(feature = "postgres")]
        "host on postgres" => {
            let runs = runtree_diesel::PostgresRepository::connect(&database).await;
            let host = postgres::connect(&database).await;
            work(std::sync::Arc::new(runs.unwrap()), host).await;
        }
        other => panic!("there is no role {other}"),
    }
}

/// Accepts and ends orders until somebody ends it, and says each step.
async fn work(runs: DynRunRepository, mut host: impl Host) {
    loop {
        let accepted = request(NewRun::new("builder"));
        host.begin().await;
        host.order(accepted.id).await.unwrap();
        say("ordered");
        new(host.create(&accepted).await);
        say("created");
        host.commit().await.unwrap();
        say("committed");
        let lease = claimed(&runs, accepted.id).await.unwrap().lease;
        host.begin().await;
        host.execute(&done(accepted.id)).await.unwrap();
        applied(host.end(lease, &completed()).await);
        say("ended");
        host.commit().await.unwrap();
        say("committed the end");
    }
}

/// The row of the application that says that an order is done.
fn done(id: RunId) -> String {
    format!("UPDATE orders SET is_done = 1 WHERE run = '{id}'")
}

#[expect(
    clippy::disallowed_methods,
    reason = "a child of a test is told by its environment what to do"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::print_stdout, reason = "a child tells its parent")]
fn say(text: &str) {
    println!("{MARK}{text}");
    std::io::stdout().flush().unwrap();
}

fn spawn(role: &str, database: &str) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "host::crash::child", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(DATABASE, database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = lines(child.stdout.take().unwrap());
    (child, said)
}

fn lines(stdout: ChildStdout) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    // The harness ends its own line only after the child's first words.
    lines.filter_map(|line| line.split_once(MARK).map(|(_, text)| text.to_owned()))
}

/// What children said that was committed.
#[derive(Default)]
struct Acknowledged {
    orders: usize,
    ends: usize,
}

/// Lets a process work, and kills it at this step of one of its rounds.
fn kill_one(role: &str, database: &str, step: &str, rounds: usize, told: &mut Acknowledged) {
    let (mut child, said) = spawn(role, database);
    let mut left = rounds;
    for line in said {
        match line.as_str() {
            "committed" => told.orders += 1,
            "committed the end" => told.ends += 1,
            _ => {}
        }
        if line == step {
            left -= 1;
        }
        if left == 0 {
            // Until the signal is delivered the process goes on with the next step, the commit or what follows it.
            child.kill().unwrap();
            left = usize::MAX;
        }
    }
    assert!(!child.wait().unwrap().success());
    assert!(left > rounds, "the process ended by itself before {step}");
}

/// Asserts that orders and runs are the same, and done and completed ones.
async fn assert_one_with_the_runs(
    runs: &DynRunRepository,
    orders: &BTreeSet<RunId>,
    done: &BTreeSet<RunId>,
    told: &Acknowledged,
) {
    let (mut all, mut ended) = (BTreeSet::new(), BTreeSet::new());
    let mut page = PageRequest::default();
    loop {
        let found = runs.list(&RunFilter::new(), &page).await.unwrap();
        for run in &found.runs {
            all.insert(run.id);
            if run.status == RunStatus::Completed {
                ended.insert(run.id);
            }
            let kinds = kinds(runs, run.id).await;
            assert_eq!(kinds.first(), Some(&EventKind::Created));
            assert_eq!(kinds.last() == Some(&EventKind::Completed), run.has_ended());
        }
        match found.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(orders, &all);
    assert_eq!(done, &ended);
    assert!(
        orders.len() >= told.orders,
        "{} orders were told of",
        told.orders
    );
    assert!(done.len() >= told.ends, "{} ends were told of", told.ends);
    assert!(told.ends > 0, "nothing was ended in all rounds");
}

/// The steps at which processes are killed, in turn.
const STEPS: [&str; 5] = [
    "ordered",
    "created",
    "committed",
    "ended",
    "committed the end",
];

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_process_killed_around_its_commit_leaves_order_and_run_or_neither_in_a_file() {
    let file = diesel::SqliteConnection::database();
    let path = file.path.to_str().unwrap();
    let mut told = Acknowledged::default();
    for (round, step) in (0..KILLS).zip(STEPS.into_iter().cycle()) {
        kill_one("host on sqlite", path, step, 1 + round % 3, &mut told);
        let runs = diesel::SqliteConnection::repository(&file, &namespace()).await;
        if round + 1 == KILLS {
            let mut host = sqlite::connect(&file.path);
            let (orders, done) = (sqlite::orders(&mut host), sqlite::done(&mut host));
            assert_one_with_the_runs(&runs, &orders, &done, &told).await;
        }
    }
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_around_its_commit_leaves_order_and_run_or_neither_on_a_server() {
    const NOBODY: &str = "select count(*) = 0 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    let url = postgres::database();
    let mut told = Acknowledged::default();
    for (round, step) in (0..KILLS).zip(STEPS.into_iter().cycle()) {
        kill_one("host on postgres", &url, step, 1 + round % 3, &mut told);
    }
    // The server may still be at the last commit that it was sent.
    postgres::wait_until(&url, NOBODY).await;
    let runs = std::sync::Arc::new(
        runtree_diesel::PostgresRepository::connect(&url)
            .await
            .unwrap(),
    );
    let (orders, done) = (postgres::orders(&url).await, postgres::done(&url).await);
    assert_one_with_the_runs(&(runs as DynRunRepository), &orders, &done, &told).await;
}
