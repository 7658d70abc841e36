//! The whole agent against a server and sandboxes that the tests command.

mod agents;
mod fake_material;
mod fake_sandboxes;
mod fake_server;
mod real;
mod scenarios;
