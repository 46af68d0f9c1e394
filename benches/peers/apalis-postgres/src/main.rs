//! apalis-postgres: a queue on PostgreSQL that keeps what is done. An ending is checked by the worker's name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage};
use runtree_benches::{INPUT, Lap, Orders, Round, answer};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;

const CONNECTIONS: u32 = 32;
/// How many jobs are fetched at once, and how many run at once.
const FETCHED: usize = 200;
const CONCURRENCY: usize = 200;

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Bench {
    repository: String,
    issue: u64,
    text: String,
}

type Done = Arc<AtomicU64>;

fn main() {
    let orders = Orders::from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let pool = runtime.block_on(async {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&orders.place)
            .await;
        let pool = pool.expect("the server answers");
        PostgresStorage::setup(&pool)
            .await
            .expect("the schema can be made");
        pool
    });
    answer(|| runtime.block_on(round(&pool, &orders))).expect("the driver reads the answers");
}

fn storage(pool: &PgPool) -> PostgresStorage<Bench> {
    PostgresStorage::new(pool).with_config(Config::default().queue("bench").batch_size(FETCHED))
}

async fn round(pool: &PgPool, orders: &Orders) -> Round {
    let alone = create(pool, orders.alone, 1).await;
    let together = create(pool, orders.together, Orders::CALLERS).await;
    create(pool, orders.more, Orders::CALLERS).await;
    let drained = drain(pool).await;
    vec![Some(alone), Some(together), Some(drained)]
}

async fn create(pool: &PgPool, count: u64, callers: u64) -> Lap {
    let job: Bench = serde_json::from_str(INPUT).expect("because it is JSON");
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let share = count / callers + u64::from(caller < count % callers);
        let (mut storage, job) = (storage(pool), job.clone());
        tokio::spawn(async move {
            for _ in 0..share {
                storage.push(job.clone()).await.expect("the queue works");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no caller panics");
    }
    Lap {
        operations: count,
        spent: start.elapsed(),
    }
}

/// How many jobs are not done.
async fn left(pool: &PgPool) -> u64 {
    let open = "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'";
    let count: i64 = sqlx::query_scalar(open)
        .fetch_one(pool)
        .await
        .expect("the table is there");
    u64::try_from(count).expect("because a count is not negative")
}

/// Drains until every job is recorded as done.
async fn drain(pool: &PgPool) -> Lap {
    async fn work(_: Bench, done: Data<Done>) -> Result<(), BoxDynError> {
        done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    let operations = left(pool).await;
    let done = Done::default();
    let start = Instant::now();
    let worker = WorkerBuilder::new(format!("bench-{:?}", start))
        .backend(storage(pool))
        .data(Arc::clone(&done))
        .concurrency(CONCURRENCY)
        .build(work);
    let working = tokio::spawn(worker.run());
    while done.load(Ordering::Relaxed) < operations || left(pool).await > 0 {
        assert!(!working.is_finished(), "the worker goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let spent = start.elapsed();
    working.abort();
    Lap { operations, spent }
}
