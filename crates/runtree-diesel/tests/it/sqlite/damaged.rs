//! A file that something has damaged: whatever needs the damaged page says so, nothing panics, and the same handle goes on.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use runtree_diesel::SqliteRepository;
use runtree_repository::id::RunId;
use runtree_repository::{
    Annotation, ClaimOf, DynRunRepository, ErrorKind, EventNumber, Limit, NewRun, PageRequest,
    RepositoryError, RunFilter,
};

use super::{claim, create, request};

/// How many runs are in the file: enough that a table has pages above its leaves.
const RUNS: usize = 60;

/// The page that begins with the header of the file, which stays.
const FIRST: usize = 1;

/// What was answered, well or with the one kind of error that may be.
#[derive(Debug, Default)]
struct Answers {
    good: usize,
    corrupt: usize,
}

impl Answers {
    fn note<T>(&mut self, what: &str, answer: Result<T, RepositoryError>) {
        match answer {
            Ok(_) => self.good += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
                self.corrupt += 1;
            }
        }
    }
}

/// A closed file with runs in several states, some with texts that need pages of their own.
async fn file(path: &Path) -> Vec<RunId> {
    let runs = SqliteRepository::open(path).await.unwrap();
    let mut ids = Vec::new();
    for number in 0..RUNS {
        let input = if number % 10 == 0 { 9_000 } else { 40 };
        let run = NewRun::new("builder")
            .input("x".repeat(input))
            .metadata("number", number)
            .idempotency_key(format!("key {number}"));
        ids.push(create(&runs, run).await.id);
    }
    let everything: DynRunRepository = Arc::new(runs.clone());
    everything.claim(&claim(ClaimOf::ANY)).await.unwrap();
    drop(everything);
    runs.close().await;
    ids
}

async fn read_all(runs: &DynRunRepository, ids: &[RunId], answers: &mut Answers) {
    let everything = RunFilter::new();
    answers.note("now", runs.now().await);
    answers.note("count", runs.count(&everything).await);
    answers.note("statistics", runs.statistics(&everything).await);
    let page = PageRequest::default();
    answers.note("list", runs.list(&everything, &page).await);
    answers.note("leases", runs.leases(None).await);
    for id in ids {
        answers.note("get", runs.get(*id).await);
        let events = runs.events(*id, EventNumber::START, Limit::MAX).await;
        answers.note("events", events);
    }
}

async fn write_all(runs: &DynRunRepository, ids: &[RunId], answers: &mut Answers) {
    let note = Annotation::new().metadata("note", true);
    let waiting: Vec<_> = ids
        .iter()
        .step_by(7)
        .map(|id| {
            let (runs, note, id) = (runs.clone(), note.clone(), *id);
            // At once, so that several of them are written together.
            tokio::spawn(async move { runs.annotate(id, &note).await })
        })
        .collect();
    for annotated in waiting {
        answers.note("annotate", annotated.await.expect("it does not panic"));
    }
    answers.note("claim", runs.claim(&claim(ClaimOf::ANY)).await);
    let new = request(NewRun::new("builder").input("y".repeat(9_000)));
    answers.note("create", runs.create(&new).await);
    answers.note("get what was made", runs.get(new.id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_is_told_as_such_and_harms_nobody_who_does_without_it() {
    const PAGE: usize = 4_096;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runs.db");
    let ids = file(&path).await;
    let whole = fs::read(&path).unwrap();
    let pages = whole.len() / PAGE;
    let (mut hurt, mut both, mut unopened) = (0, 0, 0);
    for page in FIRST..pages {
        // Pages of one table stand together: each table gets both.
        let fill = if page % 2 == 0 { 0xff } else { 0x00 };
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(fill);
        let path = directory.path().join(format!("{page}-{fill}.db"));
        fs::write(&path, bytes).unwrap();
        let runs = match SqliteRepository::open(&path).await {
            Ok(runs) => runs,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {error:?}");
                unopened += 1;
                continue;
            }
        };
        let everything: DynRunRepository = Arc::new(runs.clone());
        let mut answers = Answers::default();
        read_all(&everything, &ids, &mut answers).await;
        write_all(&everything, &ids, &mut answers).await;
        // The threads that read and write are there as before.
        read_all(&everything, &ids, &mut answers).await;
        write_all(&everything, &ids, &mut answers).await;
        hurt += usize::from(answers.corrupt > 0);
        both += usize::from(answers.corrupt > 0 && answers.good > 0);
        drop(everything);
        runs.close().await;
        fs::remove_file(&path).unwrap();
    }
    let tried = pages - FIRST;
    assert!(tried > 40, "{tried} files are too few");
    assert!(
        hurt + unopened > tried / 2 && both > tried / 3,
        "of {tried} files {unopened} were not opened, {hurt} answered that they are damaged, {both} answered other calls too"
    );
}
