//! The whole public suite, in the lines that a backend needs for it.

use std::sync::Arc;

use custom_repository::RedbRepository;
use runtree_conformance::SimpleBackend;
use runtree_repository::{Capabilities, Durability, Sharing};
use tempfile::NamedTempFile;

runtree_conformance::tests!(SimpleBackend::new(
    Capabilities::new(Durability::Full, Sharing::Process),
    |clock| {
        let file = NamedTempFile::new()?;
        Ok((RedbRepository::open(file.path(), Arc::new(clock))?, file))
    },
    |(store, _), namespace| Ok(Arc::new(store.with_namespace(namespace.clone()))),
));
