//! awa: a queue on PostgreSQL whose endings are fenced, and whose jobs are kept for a day. Endings are written in batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use awa::{Client, InsertOpts, InsertParams, JobArgs, JobResult, QueueConfig};
use runtree_benches::{INPUT, Lap, Orders, Round, answer};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;

const QUEUE: &str = "bench";
const CONNECTIONS: u32 = 32;
/// How many jobs run at once.
const WORKERS: u32 = 512;

#[derive(Clone, Debug, Deserialize, Serialize, JobArgs)]
struct Bench {
    repository: String,
    issue: u64,
    text: String,
}

fn main() {
    let orders = Orders::from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let pool = runtime.block_on(async {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&orders.place)
            .await;
        let pool = pool.expect("the server answers");
        awa::migrations::run(&pool)
            .await
            .expect("the schema can be made");
        // The first start of a client decides which tables jobs go to.
        let client = client(&pool, Arc::default());
        client.start().await.expect("a worker can be started");
        client.shutdown(Duration::from_secs(5)).await;
        pool
    });
    answer(|| runtime.block_on(round(&pool, &orders))).expect("the driver reads the answers");
}

fn client(pool: &PgPool, done: Arc<AtomicU64>) -> Client {
    let queue = QueueConfig {
        max_workers: WORKERS,
        poll_interval: Duration::from_millis(5),
        ..QueueConfig::default()
    };
    let client = Client::builder(pool.clone())
        .queue(QUEUE, queue)
        .register::<Bench, _, _>(move |_, _| {
            let done = Arc::clone(&done);
            async move {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(JobResult::Completed)
            }
        });
    client.build().expect("the settings are allowed")
}

async fn round(pool: &PgPool, orders: &Orders) -> Round {
    let alone = create(pool, orders.alone, 1).await;
    let together = create(pool, orders.together, Orders::CALLERS).await;
    let mut more = orders.more;
    while more > 0 {
        let some = more.min(1_000);
        more -= some;
        let jobs = (0..some).map(|_| InsertParams {
            kind: Bench::kind().to_owned(),
            args: serde_json::from_str(INPUT).expect("because it is JSON"),
            opts: opts(),
        });
        let added = awa::insert_many(pool, &jobs.collect::<Vec<_>>()).await;
        added.expect("the queue works");
    }
    let drained = drain(pool, orders.all()).await;
    vec![Some(alone), Some(together), Some(drained)]
}

fn opts() -> InsertOpts {
    InsertOpts {
        queue: QUEUE.to_owned(),
        ..InsertOpts::default()
    }
}

async fn create(pool: &PgPool, count: u64, callers: u64) -> Lap {
    let job: Bench = serde_json::from_str(INPUT).expect("because it is JSON");
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let share = count / callers + u64::from(caller < count % callers);
        let (pool, job) = (pool.clone(), job.clone());
        tokio::spawn(async move {
            for _ in 0..share {
                awa::insert_with(&pool, &job, opts())
                    .await
                    .expect("the queue works");
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

/// How many jobs are recorded as done since. awa's own count by state takes seconds, and would be most of what is measured.
async fn done_since(pool: &PgPool, start: &str) -> u64 {
    let count = sqlx::query_scalar::<_, i64>(
        "SELECT (SELECT coalesce(sum(completed_count), 0) FROM awa.receipt_completion_batches WHERE finalized_at >= $1::timestamptz)
            + (SELECT count(*) FROM awa.done_entries WHERE finalized_at >= $1::timestamptz)",
    );
    let count = count.bind(start.to_owned()).fetch_one(pool).await;
    let count = count.expect("awa keeps what is done in these tables");
    u64::try_from(count).expect("because a count is not negative")
}

/// Drains until every job is recorded as done.
async fn drain(pool: &PgPool, operations: u64) -> Lap {
    let done = Arc::<AtomicU64>::default();
    let client = client(pool, Arc::clone(&done));
    let began = sqlx::query_scalar::<_, String>("SELECT clock_timestamp()::text");
    let began = began.fetch_one(pool).await.expect("the server answers");
    let start = Instant::now();
    client.start().await.expect("a worker can be started");
    while done.load(Ordering::Relaxed) < operations || done_since(pool, &began).await < operations {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = start.elapsed();
    client.shutdown(Duration::from_secs(5)).await;
    Lap { operations, spent }
}
