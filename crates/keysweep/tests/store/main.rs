//! Tests of the store on both databases.

mod conformance;
mod postgres;
mod sqlite;
mod unreadable;
