//! buildflow
fn main() {}
