//! The two database engines behind one interface. No other file of the product uses sqlx.
//!
//! A verb opens a [`DbSession`] and runs [`sql`] statements in it. One text serves both engines: placeholders are `$1`, `$2`
//! and so on, and what only PostgreSQL needs (row locks, casts) stands in comments like `/*! FOR UPDATE */`, which SQLite
//! skips and which are plain SQL on PostgreSQL.

mod copy;
mod error;
mod file;
mod migrations;
mod open;
mod postgres;
mod row;
mod server;
mod session;
mod sqlite;
mod statement;

pub use self::{
    copy::{Import, backup},
    open::OpenError,
};
pub(super) use self::{
    row::{Row, time, unreadable},
    server::Queue,
    session::{Access, DbSession, Pool},
    statement::{Statement, forked, keys, lock, sql},
};
