//! A primary with a replica, and the Sentinels that monitor them.

use std::time::Duration;

use crate::condition::eventually;
use crate::server::Server;

/// Name by which the Sentinels know the primary.
const NAME: &str = "main";
const SENTINELS: u32 = 2;
/// Longest time for the Sentinels to find each other, or to fail over.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A primary with a replica, and two Sentinels that monitor them by the name `main`.
#[derive(Debug)]
pub struct Monitored {
    /// The primary until the first failover.
    pub primary: Server,
    /// Its replica until then.
    pub replica: Server,
    /// The Sentinels, both of which have to agree.
    pub sentinels: Vec<Server>,
}

impl Monitored {
    /// Starts a replica and Sentinels of this primary, and waits until the Sentinels know each other and the replica.
    ///
    /// # Panics
    /// If that takes more than 30 s.
    #[must_use]
    pub fn of(primary: Server) -> Self {
        let (flavor, replica) = (primary.flavor(), primary.replica());
        let launch = |_| Server::with(flavor).sentinel_of(NAME, &primary, SENTINELS).start();
        let sentinels: Vec<Server> = (0..SENTINELS).map(launch).collect();
        for sentinel in &sentinels {
            let mut connection = sentinel.connection();
            eventually("the Sentinels know each other and the replica", TIMEOUT, || {
                let answer: Vec<String> =
                    redis::cmd("SENTINEL").arg("MASTER").arg(NAME).query(&mut connection).expect("an answer");
                let field =
                    |name: &str| answer.iter().position(|field| field == name).map(|at| answer[at + 1].as_str());
                (field("num-slaves") == Some("1") && field("num-other-sentinels") == Some("1")).then_some(())
            });
        }
        Self { primary, replica, sentinels }
    }

    /// Returns a `redis-sentinel://` URL with all Sentinels.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|sentinel| sentinel.address().to_string()).collect();
        format!("redis-sentinel://{}/{NAME}", hosts.join(","))
    }

    /// Makes the Sentinels fail over. Returns once they begin: they refuse until they have discovered their nodes.
    ///
    /// # Panics
    /// If they refuse for more than 30 s.
    pub fn fail_over(&self) {
        let mut connection = self.sentinels[0].connection();
        eventually("the failover begins", TIMEOUT, || {
            redis::cmd("SENTINEL").arg("FAILOVER").arg(NAME).exec(&mut connection).ok()
        });
    }
}
