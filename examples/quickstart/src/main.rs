//! The main job of runtree in one program.

fn main() {}
