//! Several processes on one file, processes that are killed, and a process without rights.
//!
//! A child is this test binary again, told by a variable what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use runtree_diesel::SqliteRepository;
use runtree_repository::id::RunId;
use runtree_repository::{
    ClaimOf, CreateRuns as _, Created, EventKind, EventNumber, Limit, NewRun, Outcome,
    OwnRuns as _, PageRequest, ReadRuns as _, RunFilter, Write,
};

use super::{claim, create, request};

const ROLE: &str = "RUNTREE_TEST_ROLE";
const FILE: &str = "RUNTREE_TEST_FILE";

/// What a child says begins with this, to be told from what the test harness prints.
const MARK: &str = "child: ";

#[test]
#[ignore = "the body of child processes; does nothing when it is run by itself"]
fn child() {
    let (Some(role), Some(file)) = (variable(ROLE), variable(FILE)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "work" => work(Path::new(&file)).await,
            "create" => create_until_killed(Path::new(&file)).await,
            "open" => match SqliteRepository::open(&file).await {
                Ok(_) => say("opened"),
                Err(error) => say(&format!("{:?}: {error}", error.kind())),
            },
            other => panic!("there is no role {other}"),
        }
    });
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

pub(super) fn spawn(
    binary: &Path,
    role: &str,
    file: &Path,
    identity: Option<u32>,
) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut command = Command::new(binary);
    command.args([
        "--exact",
        "sqlite::processes::child",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(ROLE, role)
        .env(FILE, file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(identity) = identity {
        command.uid(identity).gid(identity);
    }
    let mut child = command.spawn().unwrap();
    let said = lines(child.stdout.take().unwrap());
    (child, said)
}

fn lines(stdout: ChildStdout) -> impl Iterator<Item = String> {
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    // The harness ends its own line only after the child's first words.
    lines.filter_map(|line| line.split_once(MARK).map(|(_, text)| text.to_owned()))
}

pub(super) fn this_binary() -> PathBuf {
    std::env::current_exe().unwrap()
}

const KEYS: usize = 60;

/// Creates runs that the other processes also create, some of its own, and claims and ends whatever it gets.
async fn work(file: &Path) {
    let runs = SqliteRepository::open(file).await.unwrap();
    say("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    for number in 0..KEYS {
        let shared = NewRun::new("shared").idempotency_key(format!("key {number}"));
        let (shared, own) = (request(shared), request(NewRun::new("own")));
        let (one, two, claimed) = tokio::join!(runs.create(&shared), runs.create(&own), async {
            let mut one_at_a_time = claim(ClaimOf::ANY);
            one_at_a_time.limit = Limit::new(3).unwrap();
            runs.claim(&one_at_a_time).await
        });
        match one.unwrap() {
            Created::New(run) => say(&format!("made {}", run.id)),
            Created::Existing(_) => {}
            Created::Conflict { existing, .. } => {
                panic!("the same request is no conflict: {existing:?}")
            }
        }
        assert!(matches!(two.unwrap(), Created::New(_)));
        end_all(&runs, claimed.unwrap()).await;
    }
    loop {
        let claimed = runs.claim(&claim(ClaimOf::ANY)).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        end_all(&runs, claimed).await;
    }
    say("done");
}

async fn end_all(runs: &SqliteRepository, claimed: Vec<runtree_repository::Claimed>) {
    for claimed in claimed {
        say(&format!("claimed {}", claimed.lease.run));
        let ended = runs
            .end(claimed.lease, &Outcome::Completed { result: None })
            .await
            .unwrap();
        assert!(matches!(ended, Write::Applied(_)), "{ended:?}");
    }
}

#[test]
fn processes_that_share_a_file_make_and_claim_each_run_once() {
    const PROCESSES: usize = 3;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("runs.db");
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|_| spawn(&this_binary(), "work", &file, None))
        .collect();
    for (_, said) in &mut children {
        assert_eq!(said.next().as_deref(), Some("ready"));
    }
    for (child, _) in &mut children {
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    // Read side by side: a child whose pipe is full would wait.
    let readers: Vec<_> = children
        .into_iter()
        .map(|(mut child, said)| {
            std::thread::spawn(move || {
                let said: Vec<String> = said.collect();
                assert!(child.wait().unwrap().success(), "{said:?}");
                assert_eq!(said.last().map(String::as_str), Some("done"));
                said
            })
        })
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for said in readers
        .into_iter()
        .flat_map(|reader| reader.join().unwrap())
    {
        *counts.entry(said).or_default() += 1;
    }
    assert_eq!(counts.remove("done"), Some(PROCESSES));
    assert_eq!(
        counts
            .keys()
            .filter(|said| said.starts_with("made "))
            .count(),
        KEYS
    );
    assert_eq!(
        counts
            .keys()
            .filter(|said| said.starts_with("claimed "))
            .count(),
        KEYS + PROCESSES * KEYS
    );
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

/// Says each run that was acknowledged, until somebody ends it.
async fn create_until_killed(file: &Path) {
    let runs = SqliteRepository::open(file).await.unwrap();
    let mut callers: Vec<tokio::task::JoinHandle<()>> = Vec::new();
    for _ in 0..8 {
        let runs = runs.clone();
        callers.push(tokio::spawn(async move {
            loop {
                say(&create(&runs, NewRun::new("builder").input("the task"))
                    .await
                    .id
                    .to_string());
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_that_it_was_told_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("runs.db");
    let mut acknowledged: BTreeSet<RunId> = BTreeSet::new();
    for round in 1..=5 {
        let (mut child, mut said) = spawn(&this_binary(), "create", &file, None);
        for _ in 0..40 * round {
            acknowledged.insert(said.next().unwrap().parse().unwrap());
        }
        child.kill().unwrap();
        // What was written to the pipe before the end was acknowledged as well; a line that was cut is not an id.
        acknowledged.extend(said.filter_map(|line| line.parse::<RunId>().ok()));
        child.wait().unwrap();
    }
    let runs = SqliteRepository::open(&file).await.unwrap();
    for id in &acknowledged {
        let run = runs
            .get(*id)
            .await
            .unwrap()
            .unwrap_or_else(|| panic!("{id} was lost"));
        assert_eq!(run.input.as_ref().unwrap().as_str(), "the task");
        let events = runs
            .events(*id, EventNumber::START, Limit::MAX)
            .await
            .unwrap();
        assert_eq!(
            events.iter().map(|event| event.kind).collect::<Vec<_>>(),
            [EventKind::Created]
        );
    }
    let page = PageRequest {
        limit: Limit::MAX,
        ..PageRequest::default()
    };
    assert!(
        !runs
            .list(&RunFilter::new(), &page)
            .await
            .unwrap()
            .runs
            .is_empty()
    );
    assert!(acknowledged.len() >= 600);
}

/// A user without rights; the superuser is not stopped by permissions.
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn what_may_not_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let set_mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // The child must reach the binary, wherever the build put it.
    let binary = directory.path().join("tests");
    fs::copy(this_binary(), &binary).unwrap();
    set_mode(&binary, 0o755);
    set_mode(directory.path(), 0o755);
    let database = directory.path().join("database");
    fs::create_dir(&database).unwrap();
    let file = database.join("runs.db");
    let runs = SqliteRepository::open(&file).await.unwrap();
    create(&runs, NewRun::new("builder")).await;
    runs.close().await;
    let before = fs::read(&file).unwrap();
    let identity = rustix::process::getuid().is_root().then_some(NOBODY);
    let open = |file: &Path| {
        let (mut child, said) = spawn(&binary, "open", file, identity);
        drop(child.stdin.take());
        let said: Vec<String> = said.collect();
        assert!(child.wait().unwrap().success());
        said.concat()
    };

    set_mode(&database, 0o555);
    set_mode(&file, 0o444);
    let said = open(&file);
    assert!(
        said.starts_with("ReadOnly: ") && said.contains("database may not be written"),
        "{said}"
    );
    let said = open(&database.join("new.db"));
    assert!(
        said.starts_with("ReadOnly: ") && said.contains("database may not be written"),
        "{said}"
    );
    set_mode(&database, 0o777);
    let said = open(&file);
    assert!(
        said.starts_with("ReadOnly: ") && said.contains("runs.db may not be"),
        "{said}"
    );
    set_mode(&file, 0o000);
    let said = open(&file);
    assert!(
        said.starts_with("ReadOnly: ") && said.contains("runs.db may not be"),
        "{said}"
    );
    set_mode(&file, 0o644);
    assert!(before == fs::read(&file).unwrap(), "the file was touched");
}
