//! The public suite that any run repository must pass.
