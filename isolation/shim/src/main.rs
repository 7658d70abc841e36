//! buildflow-shim
fn main() {}
