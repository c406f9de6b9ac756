//! What tests of restores ask a running server.

use keysweep_engine::{Address, ServerProcess};
use keysweep_harness::Server;

/// Returns `active-expire-effort`.
pub fn effort(server: &Server) -> String {
    let pair: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("active-expire-effort").query(&mut server.connection()).expect("a value");
    pair[1].clone()
}

/// Returns the address under which keysweep records it.
pub fn address(server: &Server) -> Address {
    server.address().to_string().parse().expect("an address")
}

/// Returns how keysweep knows its process.
pub fn process(server: &Server) -> ServerProcess {
    let info: redis::InfoDict = redis::cmd("INFO").arg("server").query(&mut server.connection()).expect("INFO");
    ServerProcess { address: server.address().to_string(), run_id: info.get("run_id").expect("a run ID") }
}
