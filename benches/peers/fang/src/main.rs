//! fang: a queue on PostgreSQL that deletes what is done. Nobody is fenced, and nothing tells later what ran; a task whose worker died
//! stays in progress.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fang::asynk::async_queue::{AsyncQueue, AsyncQueueable};
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{AsyncRunnable, FangError, SleepParams, async_trait, typetag};
use runtree_benches::{INPUT, Lap, Orders, Round, answer};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

const CONNECTIONS: u32 = 32;

/// The table that fang's own migrations make; they would need libpq.
const SCHEMA: &str = "
    CREATE EXTENSION \"uuid-ossp\";
    CREATE TYPE fang_task_state AS ENUM ('new', 'in_progress', 'failed', 'finished', 'retried');
    CREATE TABLE fang_tasks (
        id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
        metadata jsonb NOT NULL,
        error_message text,
        state fang_task_state DEFAULT 'new' NOT NULL,
        task_type text DEFAULT 'common' NOT NULL,
        uniq_hash text,
        retries integer DEFAULT 0 NOT NULL,
        scheduled_at timestamptz NOT NULL DEFAULT now(),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX fang_tasks_state_index ON fang_tasks (state);
    CREATE INDEX fang_tasks_type_index ON fang_tasks (task_type);
    CREATE INDEX fang_tasks_scheduled_at_index ON fang_tasks (scheduled_at);
    CREATE INDEX fang_tasks_uniq_hash ON fang_tasks (uniq_hash);";

/// How many tasks have run.
static DONE: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Bench {
    repository: String,
    issue: u64,
    text: String,
}

#[typetag::serde]
#[async_trait]
impl AsyncRunnable for Bench {
    async fn run(&self, _: &dyn AsyncQueueable) -> Result<(), FangError> {
        DONE.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn main() {
    let orders = Orders::from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let (queue, client) = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&orders.place, tokio_postgres::NoTls)
            .await
            .expect("the server answers");
        tokio::spawn(connection);
        client
            .batch_execute(SCHEMA)
            .await
            .expect("the schema can be made");
        (connected(&orders).await, client)
    });
    answer(|| round(&runtime, &queue, &client, &orders)).expect("the driver reads the answers");
}

async fn connected(orders: &Orders) -> AsyncQueue {
    let mut queue = AsyncQueue::builder()
        .uri(orders.place.clone())
        .max_pool_size(CONNECTIONS)
        .build();
    queue.connect().await.expect("the server answers");
    queue
}

fn round(runtime: &Runtime, queue: &AsyncQueue, client: &Client, orders: &Orders) -> Round {
    let alone = runtime.block_on(create(queue, orders.alone, 1));
    let together = runtime.block_on(create(queue, orders.together, Orders::CALLERS));
    runtime.block_on(create(queue, orders.more, Orders::CALLERS));
    // Its workers cannot be stopped: they end with a runtime of their own.
    let workers = Runtime::new().expect("threads can be started");
    let drained = runtime.block_on(drain(&workers, client, orders));
    workers.shutdown_timeout(Duration::from_secs(5));
    vec![Some(alone), Some(together), Some(drained)]
}

async fn create(queue: &AsyncQueue, count: u64, callers: u64) -> Lap {
    let job: Bench = serde_json::from_str(INPUT).expect("because it is JSON");
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let share = count / callers + u64::from(caller < count % callers);
        let (queue, job) = (queue.clone(), job.clone());
        tokio::spawn(async move {
            for _ in 0..share {
                queue.insert_task(&job).await.expect("the queue works");
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

async fn left(client: &Client) -> u64 {
    let row = client
        .query_one("SELECT count(*) FROM fang_tasks", &[])
        .await;
    let count: i64 = row.expect("the table is there").get(0);
    u64::try_from(count).expect("because a count is not negative")
}

/// Drains until the table is empty.
async fn drain(workers: &Runtime, client: &Client, orders: &Orders) -> Lap {
    let operations = left(client).await;
    let before = DONE.load(Ordering::Relaxed);
    let short = Duration::from_millis(5);
    let orders = orders.clone();
    let ready = workers.spawn(async move { connected(&orders).await });
    let queue = ready.await.expect("the server answers");
    let start = Instant::now();
    workers.spawn(async move {
        let mut pool: AsyncWorkerPool<AsyncQueue> = AsyncWorkerPool::builder()
            .number_of_workers(CONNECTIONS)
            .queue(queue)
            .sleep_params(SleepParams {
                sleep_period: short,
                max_sleep_period: short,
                min_sleep_period: short,
                sleep_step: Duration::ZERO,
            })
            .build();
        pool.start().await;
    });
    while DONE.load(Ordering::Relaxed) < before + operations || left(client).await > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Lap {
        operations,
        spent: start.elapsed(),
    }
}
