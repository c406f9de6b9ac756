//! Tests of what a server allows and reports.

mod checks;
mod lazyfree;
mod rights;
