//! SQLite and PostgreSQL beside the naive model that the memory backend is compared with too.

use std::num::NonZeroU32;

use runtree_conformance::Backend;
use runtree_conformance::model::{Plan, check};

/// Compares fewer sequences than of the memory backend, because files and servers are slower.
fn assert_agrees(backend: impl Backend, one_in: u32) {
    let one_in = NonZeroU32::new(one_in).expect("because some are compared");
    let agreement = check(backend, &Plan::new().one_in(one_in));
    let agreement = agreement.unwrap_or_else(|other| panic!("{other}"));
    assert!(agreement.answers().contains_key("create: new"));
}

#[cfg(feature = "sqlite")]
#[test]
fn a_sqlite_file_answers_as_the_model_does() {
    assert_agrees(crate::sqlite::conformance::Sqlite, 4);
}

#[cfg(feature = "postgres")]
#[test]
fn a_postgresql_server_answers_as_the_model_does() {
    assert_agrees(crate::postgres::Postgres, 16);
}
