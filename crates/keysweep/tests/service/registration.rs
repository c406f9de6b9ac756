//! Identity and instances over a real store: what operators register, and that secrets stay secret.

mod identity;
mod installation;
mod instances;
mod key_file;
