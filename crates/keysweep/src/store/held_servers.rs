//! Which instance holds which server. Several instances may be names of one server, in several projects, and their workers may be on
//! several hosts: each would take what another has written for the server's own settings.

use keysweep_engine::ServerProcess;

use super::{
    Store, StoreError,
    db::{DbSession, sql},
};
use crate::model::HoldLease;

/// The store's answer to the reservation of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerReservation {
    /// The instance of the lease holds the server.
    Reserved,
    /// Another worker has the lease.
    Lost,
    /// Another instance holds it.
    Held {
        /// The project of that instance.
        project_id: String,
        /// Its name.
        name: String,
    },
}

impl Store {
    /// Reserves the settings of a server for the instance of a lease, or confirms that. The reservation lasts as long as a worker
    /// holds the instance, and for this process of the server also as long as it may have other settings than its own.
    pub async fn reserve_server(
        &self,
        lease: &HoldLease,
        server: &ServerProcess,
    ) -> Result<ServerReservation, StoreError> {
        let mut tx = self.begin().await?;
        let now = self.now(&mut tx).await?;
        // The row of the hold stays as it is until the commit, so that no worker loses the lease meanwhile.
        let held = sql("UPDATE hold SET epoch = epoch WHERE instance_id = $1 AND owner = $2 AND epoch = $3")
            .bind(&lease.instance_id)
            .bind(&lease.owner)
            .bind(lease.epoch)
            .execute(&mut tx)
            .await?;
        if held == 0 {
            tx.roll_back().await;
            return Ok(ServerReservation::Lost);
        }
        let reserved = sql("INSERT INTO held_server (address, run_id, instance_id) VALUES ($1, $2, $3)
             ON CONFLICT (address) DO UPDATE SET run_id = excluded.run_id, instance_id = excluded.instance_id
             WHERE held_server.instance_id = excluded.instance_id OR NOT EXISTS (
                 SELECT 1 FROM hold WHERE hold.instance_id = held_server.instance_id AND (
                     hold.owner IS NOT NULL AND hold.expires_at > $4
                     OR hold.changed AND held_server.run_id = excluded.run_id
                 )
             )")
        .bind(&server.address)
        .bind(&server.run_id)
        .bind(&lease.instance_id)
        .bind(now)
        .execute(&mut tx)
        .await?;
        if reserved > 0 {
            self.commit(tx).await?;
            return Ok(ServerReservation::Reserved);
        }
        let holder = sql("SELECT instance.project_id, instance.name FROM held_server
             JOIN instance ON instance.id = held_server.instance_id WHERE held_server.address = $1")
        .bind(&server.address)
        .one(&mut tx)
        .await?;
        tx.roll_back().await;
        Ok(ServerReservation::Held { project_id: holder.get("project_id")?, name: holder.get("name")? })
    }
}

/// Removes the reservations of an instance, whose servers have their own settings, or have other addresses now.
pub(super) async fn free_servers(tx: &mut DbSession, instance_id: &str) -> Result<(), StoreError> {
    sql("DELETE FROM held_server WHERE instance_id = $1").bind(instance_id).execute(tx).await?;
    Ok(())
}
