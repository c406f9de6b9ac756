//! When servers may be sampled again. A sample takes some of a server's time and reclaims keys, so that its limit is one of the
//! server process, over all instances and replicas: several instances may be databases of one server, or names of it.

use std::time::Duration;

use jiff::Timestamp;
use keysweep_engine::ServerProcess;

use super::{Store, StoreError, clock::after, db::sql};

/// How long a held instance leaves the next sample to others after one of its own, so that it does not take all of them.
const YIELD: Duration = Duration::from_secs(60);

impl Store {
    /// Reserves a sample of a server for a time, so that no other one is taken meanwhile. Returns `None`, or how long to wait where
    /// the last sample forbids another one. `holder`: id of the instance whose holder asks, which waits a minute longer after a
    /// sample of its own; `None`: it is not for a holder.
    pub async fn reserve_sample(
        &self,
        server: &ServerProcess,
        time: Duration,
        holder: Option<&str>,
    ) -> Result<Option<Duration>, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        let reserved = sql("INSERT INTO server_sample (address, run_id, next_at, holder) VALUES ($1, $2, $3, $4)
             ON CONFLICT (address, run_id) DO UPDATE SET next_at = excluded.next_at, holder = excluded.holder
             WHERE server_sample.next_at <= CASE WHEN server_sample.holder = excluded.holder THEN $6 ELSE $5 END")
        .bind(&server.address)
        .bind(&server.run_id)
        .bind(after(now, time))
        .bind(holder)
        .bind(now)
        .bind(now.checked_sub(YIELD).unwrap_or(Timestamp::MIN))
        .execute(&mut tx)
        .await?;
        if reserved == 0 {
            let row = sql("SELECT next_at FROM server_sample WHERE address = $1 AND run_id = $2")
                .bind(&server.address)
                .bind(&server.run_id)
                .optional(&mut tx)
                .await?;
            let next: Option<Timestamp> = row.map(|row| row.get("next_at")).transpose()?;
            let wait = next.map_or(Duration::ZERO, |next| next.duration_since(now).unsigned_abs());
            tx.roll_back().await;
            return Ok(Some(wait));
        }
        self.commit(tx).await?;
        Ok(None)
    }

    /// Saves when a server may be sampled again, whatever was reserved; zero: at once. `holder`: as for
    /// [`Store::reserve_sample`].
    pub async fn set_next_sample(
        &self,
        server: &ServerProcess,
        wait: Duration,
        holder: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        sql("INSERT INTO server_sample (address, run_id, next_at, holder) VALUES ($1, $2, $3, $4)
             ON CONFLICT (address, run_id) DO UPDATE SET next_at = excluded.next_at, holder = excluded.holder")
        .bind(&server.address)
        .bind(&server.run_id)
        .bind(after(now, wait))
        .bind(holder)
        .execute(&mut tx)
        .await?;
        self.commit(tx).await
    }
}
