//! The capacity benchmarks.
