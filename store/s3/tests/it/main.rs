//! Blobs in S3, tried on a real S3 server in a process of its own.
//!
//! `BUILDFLOW_TEST_S3=<endpoint>,<region>,<bucket>,<access key>,<secret key>` names another object
//! store to be tried instead, e.g. a bucket of AWS; it is written under prefixes of its own.

mod faults;
mod proxy;
mod server;
mod suite;
mod tls;
mod uploads;
