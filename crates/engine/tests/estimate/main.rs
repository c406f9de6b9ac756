//! Tests of the estimate on real servers.

mod methods;
