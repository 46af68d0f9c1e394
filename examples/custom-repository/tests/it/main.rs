//! The public suite and the naive model, put to a backend of one's own, and the facade over it.

mod facade;
mod suite;

use std::sync::Arc;

use custom_repository::RedbRepository;
use runtree_conformance::model::{Plan, check};
use runtree_conformance::{Backend, Need, SimpleBackend, Verdict, cases, check_case};
use runtree_repository::status::RunStatus;
use runtree_repository::{Capabilities, Durability, Sharing};
use tempfile::NamedTempFile;

/// As the suite's, and with words of newer versions, which the store itself can write.
fn redb() -> impl Backend {
    let backend = SimpleBackend::new(
        Capabilities::new(Durability::Full, Sharing::Process),
        |clock| {
            let file = NamedTempFile::new()?;
            Ok((RedbRepository::open(file.path(), Arc::new(clock))?, file))
        },
        |(store, _), namespace| Ok(Arc::new(store.with_namespace(namespace.clone()))),
    );
    backend.writing_status(|(store, _), namespace, run, status| {
        let status = RunStatus::from_stored(status.as_str())?;
        let handle = store.with_namespace(namespace.clone());
        Ok(handle.overwrite_status(run, status)?)
    })
}

#[test]
fn it_answers_as_the_model_does() {
    let plan = Plan::new().one_in(4.try_into().expect("because four is not zero"));
    check(redb(), &plan).unwrap_or_else(|other| panic!("{other}"));
}

#[tokio::test]
async fn it_leaves_alone_what_a_newer_version_wrote() {
    let cases = cases()
        .iter()
        .filter(|case| case.need() == Need::ForeignWords);
    let mut count = 0;
    for case in cases {
        let verdict = check_case(case.name(), redb()).await;
        let is_kept = matches!(verdict, Some(Verdict::Passed));
        assert!(is_kept, "{}: {verdict:?}", case.name());
        count += 1;
    }
    assert!(count > 0, "no case is about words of newer versions");
}

#[test]
fn the_suite_takes_ten_lines() {
    let text = include_str!("suite.rs");
    let call = text
        .lines()
        .skip_while(|line| !line.starts_with("runtree_conformance::tests!"));
    let lines = call.count();
    assert!((2..=10).contains(&lines), "{lines} lines");
    let page = include_str!("../../README.md");
    let shown = text.lines().filter(|line| !line.starts_with("//!"));
    for line in shown {
        assert!(page.contains(line), "the page does not show `{line}`");
    }
}

#[test]
fn the_program_runs_a_run_to_its_end() {
    let program = env!("CARGO_BIN_EXE_custom-repository");
    let output = std::process::Command::new(program).output();
    let output = output.expect("because the program was built for this test");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ends: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(ends, ["pending", "running", "completed"]);
}
