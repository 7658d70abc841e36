//! The interface as its callers see it: an in-process router over the store in memory and real git
//! repositories, with a stand-in for the leader that writes step records.

mod archive;
mod auth;
mod conditions;
mod events;
mod intake;
mod interface;
mod language;
mod mortal;
mod nodes;
mod page;
mod pipelines;
mod push;
mod readers;
mod retention;
mod rpc;
mod runs;
mod served;
mod several;
mod signed;
mod stage;
mod view;
