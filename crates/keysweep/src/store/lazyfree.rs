//! Which tasks rely on `lazyfree-lazy-expire` in which server process.
//!
//! A process is its address with its run id. The run id alone is what a server says of itself: one that names the run id of
//! another project's server would keep the setting of that server on, or have it turned off.

use keysweep_engine::Holders;

use super::{
    Store, StoreError,
    db::{DbSession, Queue, sql},
    instances::instance,
};
use crate::model::{Instance, LazyFreeHold};

impl Store {
    /// Records that a task's scan relies on the setting in a server process. Returns the holders of that process.
    pub async fn acquire_lazyfree(&self, hold: &LazyFreeHold) -> Result<Holders, StoreError> {
        let mut tx = self.begin().await?;
        tx.queue(Queue::LazyFree).await?;
        let holders = self.add_holder(&mut tx, hold).await?;
        self.commit(tx).await?;
        Ok(holders)
    }

    /// Does the same, but only if a task is recorded for that process already, this one included; otherwise returns `None`.
    pub async fn join_lazyfree(&self, hold: &LazyFreeHold) -> Result<Option<Holders>, StoreError> {
        let mut tx = self.begin().await?;
        tx.queue(Queue::LazyFree).await?;
        let holder = sql("SELECT 1 FROM lazyfree_hold WHERE run_id = $1 AND address = $2 LIMIT 1")
            .bind(&hold.run_id)
            .bind(&hold.address);
        if holder.optional(&mut tx).await?.is_none() {
            tx.roll_back().await;
            return Ok(None);
        }
        let holders = self.add_holder(&mut tx, hold).await?;
        self.commit(tx).await?;
        Ok(Some(holders))
    }

    async fn add_holder(&self, tx: &mut DbSession, hold: &LazyFreeHold) -> Result<Holders, StoreError> {
        let now = self.now(tx).await?;
        let added = sql("INSERT INTO lazyfree_hold (run_id, task_id, address, held_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING")
        .bind(&hold.run_id)
        .bind(&hold.task_id)
        .bind(&hold.address)
        .bind(now)
        .execute(tx)
        .await?;
        Ok(Holders { held_before: added == 0, others: others(tx, hold).await? })
    }

    /// Removes a task from the holders of a process. Returns how many others there are.
    pub async fn release_lazyfree(&self, hold: &LazyFreeHold) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        tx.queue(Queue::LazyFree).await?;
        sql("DELETE FROM lazyfree_hold WHERE run_id = $1 AND address = $2 AND task_id = $3")
            .bind(&hold.run_id)
            .bind(&hold.address)
            .bind(&hold.task_id)
            .execute(&mut tx)
            .await?;
        let others = others(&mut tx, hold).await?;
        self.commit(tx).await?;
        Ok(others)
    }

    /// Returns the records of tasks that have finished, each with its instance: their workers died before they put the
    /// setting back.
    pub async fn abandoned_lazyfree(&self) -> Result<Vec<(LazyFreeHold, Instance)>, StoreError> {
        sql("SELECT instance.*, hold.run_id AS hold_run_id, hold.task_id AS hold_task_id, hold.address AS hold_address
             FROM lazyfree_hold AS hold
             JOIN task ON task.id = hold.task_id
             JOIN instance ON instance.id = task.instance_id
             WHERE task.status IN ('success', 'failed')
             ORDER BY hold.held_at")
        .list(&mut self.reader().await?, |row| {
            let hold = LazyFreeHold {
                run_id: row.get("hold_run_id")?,
                task_id: row.get("hold_task_id")?,
                address: row.get("hold_address")?,
            };
            Ok((hold, instance(row)?))
        })
        .await
    }
}

/// Returns how many other tasks are recorded for the same process.
async fn others(tx: &mut DbSession, hold: &LazyFreeHold) -> Result<u64, StoreError> {
    sql("SELECT COUNT(*) AS others FROM lazyfree_hold WHERE run_id = $1 AND address = $2 AND task_id <> $3")
        .bind(&hold.run_id)
        .bind(&hold.address)
        .bind(&hold.task_id)
        .one(tx)
        .await?
        .get("others")
}
