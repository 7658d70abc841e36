//! The page in the browser: its files, served from the program itself, and who is logged in there.
//!
//! | file | what |
//! |---|---|
//! | `files` | the built files and the addresses of the views, with the rules a browser is given |
//! | `session` | a token in a cookie, for the browser only |
//!
//! The page itself is written in TypeScript (`page/` at the top of the tree) and speaks the public
//! interface like everyone. Not here: any data that it shows.

mod files;
pub(crate) mod session;

#[cfg(test)]
pub(crate) use files::VIEWS;
pub(crate) use files::{is_for_people, lost, routes};
