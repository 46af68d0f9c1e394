//! runtree's ids and those of the crates one would otherwise take, each behind one function.
//!
//! The bench `ids` compares what they cost, the program `fork` what a fork does to them.

pub mod fork;

use std::fmt;

use mti::prelude::{MagicTypeIdExt, V7};
use runtree_id::IdGenerator;
use type_safe_id::{StaticType, TypeSafeId};
use ulid::Ulid;
use uuid::Uuid;

/// Is what `type-safe-id` calls a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run;

impl StaticType for Run {
    const TYPE: &'static str = "run";
}

/// A crate that makes ids.
pub struct Maker {
    /// What it is called in tables.
    pub name: &'static str,
    make: Box<dyn Fn() -> u128 + Sync>,
}

impl Maker {
    /// Makes a maker from its name and what it does for one id.
    pub fn new(name: &'static str, make: impl Fn() -> u128 + Sync + 'static) -> Self {
        Self {
            name,
            make: Box::new(make),
        }
    }

    /// Makes an id and returns its 128 bits.
    #[must_use]
    pub fn make(&self) -> u128 {
        (self.make)()
    }
}

impl fmt::Debug for Maker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maker")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Returns runtree's maker: one generator that all threads share.
#[must_use]
pub fn runtree() -> Maker {
    let generator = IdGenerator::system();
    Maker::new("runtree", move || {
        let id = generator.run_id().expect("because the machine is well");
        id.as_uuid().as_u128()
    })
}

/// Returns the others, each as its documentation begins.
#[must_use]
pub fn peers() -> Vec<Maker> {
    let uuid = if cfg!(feature = "fast-rng") {
        "uuid with fast-rng"
    } else {
        "uuid"
    };
    vec![
        Maker::new(uuid, || now_v7().as_u128()),
        Maker::new("ulid", || Ulid::generate().0),
        Maker::new("type-safe-id", || TypeSafeId::<Run>::new().uuid().as_u128()),
        Maker::new("mti", || {
            let id = "run".create_type_id::<V7>();
            id.suffix().to_uuid().as_u128()
        }),
        Maker::new("ferroid", || {
            ferroid::generator::thread_local::Ulid::new_ulid_mono(|_| std::thread::yield_now())
                .to_raw()
        }),
    ]
}

/// Makes a UUID of version 7, which is what everything is compared with.
#[expect(clippy::disallowed_methods, reason = "it is the reference")]
#[inline]
#[must_use]
pub fn now_v7() -> Uuid {
    Uuid::now_v7()
}
