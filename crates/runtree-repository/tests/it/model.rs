//! The memory backend beside the naive model, and broken repositories that must not agree with it.

use runtree_conformance::model::{Plan, check};

use crate::memory::Memory;
use crate::rejected::Sinner;
use crate::sins::Sin;

#[test]
fn the_memory_backend_answers_as_the_model_does() {
    let agreement = check(Memory, &Plan::new()).unwrap_or_else(|other| panic!("{other}"));
    for (answer, times) in agreement.answers() {
        println!("{times:6} {answer}");
    }
}

#[test]
fn sins() {
    for sin in Sin::ALL {
        let plan = Plan::new().repeatable().without_shrinking();
        match check(Sinner(Some(*sin)), &plan) {
            Ok(_) => println!("PASSES {sin:?}"),
            Err(other) => println!("found {sin:?} {}", other.steps()),
        }
    }
}
