//! Takes runs away from owners that are gone.

use async_trait::async_trait;
use diesel::sql_types::BigInt;
use runtree_repository::{
    HostName, Lease, LeaseRef, Overdue, RepositoryError, Rescue, RescueRuns, Rescued, RunSummary,
    Token,
};

use super::read::summaries;
use super::{PostgresRepository, micros, sql};
use crate::in_order::row_in_order;
use crate::row::{LeaseRow, RunRow, count};

row_in_order! {
    struct RescuedRow {
        #[diesel(embed)]
        run: RunRow,
        #[diesel(sql_type = BigInt)]
        seen_token: i64,
    }
}

#[async_trait]
impl RescueRuns for PostgresRepository {
    async fn leases(&self, host: Option<&HostName>) -> Result<Vec<Lease>, RepositoryError> {
        let statement = || {
            self.statement(sql::LEASES)
                .text_or_null(host.map(AsRef::as_ref))
        };
        let rows: Vec<LeaseRow> = self.read("read leases", statement).await?;
        rows.into_iter().map(LeaseRow::decode).collect()
    }

    async fn rescue(&self, rescue: &Rescue) -> Result<Vec<Rescued>, RepositoryError> {
        let dead = &rescue.proven_dead;
        let statement = || {
            self.statement(sql::RESCUE)
                .ids(dead.iter().map(|lease| *lease.run.as_bytes()))
                .ints(dead.iter().map(|lease| i64::from(lease.token.get())))
                .int(super::count(rescue.limit))
                .ids(rescue.spare.iter().map(|run| *run.as_bytes()))
        };
        let rows: Vec<RescuedRow> = self.write("rescue runs", statement).await?;
        rows.into_iter()
            .map(|row| {
                let run = row.run.decode()?;
                let lease = LeaseRef {
                    run: run.id,
                    token: Token::new(count("token", row.seen_token)?),
                };
                Ok(Rescued::new(lease, run))
            })
            .collect()
    }

    async fn time_out(&self, overdue: &Overdue) -> Result<Vec<RunSummary>, RepositoryError> {
        let statement = || {
            self.statement(sql::TIME_OUT)
                .int(super::count(overdue.limit))
                .int(micros(overdue.grace))
        };
        summaries(
            self.write("end runs whose deadline passed", statement)
                .await?,
        )
    }
}
