//! The fork experiment in its short form, the proof that it would see what it looks for, and what the
//! reference is built with.

mod fork;
mod reference;
