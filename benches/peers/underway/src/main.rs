//! underway: a queue on PostgreSQL that records each attempt. An ending is written to the latest attempt, whoever writes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtree_benches::{INPUT, Lap, Orders, Round, answer};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;
use underway::{Job, To};

const CONNECTIONS: u32 = 32;
/// How many jobs run at once; each holds a connection.
const WORKERS: usize = 24;

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Bench {
    repository: String,
    issue: u64,
    text: String,
}

/// How many jobs have run.
type Done = Arc<AtomicU64>;

/// What is called for each job.
type Queue = Job<Bench, Done>;

fn main() {
    let orders = Orders::from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let done = Done::default();
    let (pool, queue) = runtime.block_on(async {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .connect(&orders.place)
            .await;
        let pool = pool.expect("the server answers");
        underway::run_migrations(&pool)
            .await
            .expect("the schema can be made");
        let queue = Job::<Bench, Done>::builder()
            .state(Arc::clone(&done))
            .step(|context, _: Bench| async move {
                context.state.fetch_add(1, Ordering::Relaxed);
                To::done()
            })
            .name("bench")
            .pool(pool.clone())
            .build()
            .await;
        (pool, queue.expect("the queue can be made"))
    });
    answer(|| runtime.block_on(round(&pool, &queue, &done, &orders)))
        .expect("the driver reads the answers");
}

async fn round(pool: &PgPool, queue: &Queue, done: &Done, orders: &Orders) -> Round {
    let alone = create(queue, orders.alone, 1).await;
    let together = create(queue, orders.together, Orders::CALLERS).await;
    create(queue, orders.more, Orders::CALLERS).await;
    let drained = drain(pool, queue, done).await;
    vec![Some(alone), Some(together), Some(drained)]
}

async fn create(queue: &Queue, count: u64, callers: u64) -> Lap {
    let job: Bench = serde_json::from_str(INPUT).expect("because it is JSON");
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let share = count / callers + u64::from(caller < count % callers);
        let (queue, job) = (queue.clone(), job.clone());
        tokio::spawn(async move {
            for _ in 0..share {
                queue.enqueue(&job).await.expect("the queue works");
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

/// How many jobs wait or run.
async fn left(pool: &PgPool) -> u64 {
    let open = "SELECT count(*) FROM underway.task WHERE state IN ('pending', 'in_progress')";
    let count: i64 = sqlx::query_scalar(open)
        .fetch_one(pool)
        .await
        .expect("the table is there");
    u64::try_from(count).expect("because a count is not negative")
}

/// Drains until every job is recorded as done.
async fn drain(pool: &PgPool, queue: &Queue, done: &Done) -> Lap {
    let operations = left(pool).await;
    let before = done.load(Ordering::Relaxed);
    let mut worker = queue.worker();
    worker.set_concurrency_limit(WORKERS);
    let start = Instant::now();
    let working = tokio::spawn(async move { worker.run().await });
    while done.load(Ordering::Relaxed) < before + operations || left(pool).await > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = start.elapsed();
    working.abort();
    Lap { operations, spent }
}
