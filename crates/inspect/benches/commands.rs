//! Measures how well commands are understood.
fn main() {}
