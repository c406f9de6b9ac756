//! TLS handshakes in progress: how many there may be, and which of them gives way to a new one. A client that begins a handshake and
//! falls silent takes a place until its time is over; without giving way, some of them would keep all others out.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use crate::{proxies::TrustedProxies, request::client_network};

/// Time after which a handshake may give way: one that goes on takes a few round trips.
const GRACE: Duration = Duration::from_secs(1);
/// Time between two attempts to find room while no handshake gives way.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// The handshakes of a listener.
pub struct Handshakes {
    most: usize,
    of_one: usize,
    /// Proxies, whose connections are those of many clients.
    exempt: TrustedProxies,
    grace: Duration,
    /// In the order in which they began.
    running: Vec<Running>,
}

/// A handshake, until its connection is served.
struct Running {
    /// `None`: a trusted proxy.
    client: Option<IpAddr>,
    began: Instant,
    has_ended: Ended,
    task: AbortHandle,
}

impl Running {
    /// Whether it may be ended for another one: neither that of a trusted proxy nor one that goes on or has ended.
    fn gives_way(&self, grace: Duration) -> bool {
        self.client.is_some() && self.began.elapsed() >= grace && !self.has_ended.0.load(Ordering::Relaxed)
    }
}

/// Whether a handshake has ended, so that its connection only waits to be served.
#[derive(Clone, Default)]
pub struct Ended(Arc<AtomicBool>);

impl Ended {
    /// Notes that it has.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Handshakes {
    /// Returns room for this number of handshakes, in all and of one client. The addresses of trusted proxies are exempt from the
    /// second.
    pub fn new(most: usize, of_one: usize, exempt: TrustedProxies) -> Self {
        Self { most, of_one, exempt, grace: GRACE, running: Vec::new() }
    }

    /// Begins a handshake with this client. If there is no room, the oldest one of the client that has the most ends for it, or of
    /// this client if it has as many as one may; it waits until one is older than a second. Does not begin it, which closes the
    /// connection, where all that this client may have are younger.
    pub async fn begin(&mut self, client: IpAddr, handshake: impl FnOnce(Ended) -> AbortHandle) {
        let client = client.to_canonical();
        let client = (!self.exempt.trust(client)).then(|| client_network(client));
        if self.make_room(client).await {
            let (began, has_ended) = (Instant::now(), Ended::default());
            self.running.push(Running { client, began, task: handshake(has_ended.clone()), has_ended });
        }
    }

    /// Returns whether this client may have another one.
    async fn make_room(&mut self, client: Option<IpAddr>) -> bool {
        loop {
            self.running.retain(|one| !one.task.is_finished());
            if client.is_some() && self.count(client) >= self.of_one && !self.end_oldest(client) {
                return false;
            }
            if self.running.len() < self.most {
                return true;
            }
            let slow = self.running.iter().filter(|one| one.gives_way(self.grace));
            // Of two clients with as many, the one whose handshake is older.
            let crowd = slow.rev().max_by_key(|one| self.count(one.client));
            match crowd.map(|one| one.client) {
                Some(client) => {
                    self.end_oldest(client);
                }
                None => tokio::time::sleep(ROOM_INTERVAL).await,
            }
        }
    }

    fn count(&self, client: Option<IpAddr>) -> usize {
        self.running.iter().filter(|one| one.client == client).count()
    }

    /// Ends the oldest handshake of a client that gives way, which closes its connection. Returns whether there was one.
    fn end_oldest(&mut self, client: Option<IpAddr>) -> bool {
        let oldest = self.running.iter().position(|one| one.client == client && one.gives_way(self.grace));
        let Some(index) = oldest else { return false };
        let ended = self.running.remove(index);
        tracing::debug!(client = ?ended.client, "TLS handshake gave way to a new one");
        ended.task.abort();
        true
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.running.iter().for_each(|one| one.task.abort());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begin(handshakes: &mut Handshakes, client: &str) -> AbortHandle {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        handshakes.begin(client.parse().expect("an address"), |_| task.clone()).await;
        tokio::task::yield_now().await;
        task
    }

    /// Time after which handshakes of these tests may give way.
    const SHORT: Duration = Duration::from_millis(200);

    fn handshakes(most: usize, of_one: usize, exempt: TrustedProxies) -> Handshakes {
        let mut handshakes = Handshakes::new(most, of_one, exempt);
        handshakes.grace = SHORT;
        handshakes
    }

    #[tokio::test]
    async fn a_new_client_takes_the_place_of_the_oldest_handshake_of_the_one_with_the_most() {
        let mut handshakes = handshakes(4, 3, TrustedProxies::default());
        let honest = begin(&mut handshakes, "192.0.2.1").await;
        let began = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..3 {
            silent.push(begin(&mut handshakes, "192.0.2.2").await);
        }
        let fresh = begin(&mut handshakes, "192.0.2.3").await;
        assert!(began.elapsed() >= SHORT, "none gives way before: it may go on");
        let gone: Vec<bool> = silent.iter().map(AbortHandle::is_finished).collect();
        assert_eq!(gone, [true, false, false]);
        assert!(!honest.is_finished() && !fresh.is_finished());
    }

    #[tokio::test]
    async fn a_client_with_as_many_as_it_may_have_takes_a_place_of_its_own() {
        let proxies = TrustedProxies::new(["10.0.0.1"]).expect("an address");
        let mut handshakes = handshakes(9, 2, proxies);
        let other = begin(&mut handshakes, "192.0.2.1").await;
        let first = begin(&mut handshakes, "2001:db8::1").await;
        let second = begin(&mut handshakes, "2001:db8::2").await;
        begin(&mut handshakes, "2001:db8::3").await;
        assert_eq!(handshakes.running.len(), 3, "a third one of theirs is refused while both may go on");
        tokio::time::sleep(SHORT).await;
        let third = begin(&mut handshakes, "2001:db8::3").await;
        assert!(first.is_finished() && !second.is_finished() && !third.is_finished() && !other.is_finished());
        for _ in 0..6 {
            let of_proxy = begin(&mut handshakes, "10.0.0.1").await;
            assert!(!of_proxy.is_finished(), "a proxy has the connections of many clients");
        }
        tokio::time::sleep(SHORT).await;
        begin(&mut handshakes, "192.0.2.9").await;
        assert!(
            handshakes.running.iter().filter(|one| one.client.is_none()).count() == 6,
            "and none of them gives way"
        );
    }

    #[tokio::test]
    async fn a_handshake_that_has_ended_is_not_cut_off() {
        let mut handshakes = handshakes(2, 2, TrustedProxies::default());
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let note_at_once = |ended: Ended| {
            ended.note();
            task.clone()
        };
        handshakes.begin("192.0.2.1".parse().expect("an address"), note_at_once).await;
        let silent = begin(&mut handshakes, "192.0.2.2").await;
        begin(&mut handshakes, "192.0.2.3").await;
        assert!(!task.is_finished() && silent.is_finished());
    }
}
