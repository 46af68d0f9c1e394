//! graphile_worker: a queue on PostgreSQL that deletes what is done. A job that has been taken over may be completed by its former
//! worker, and nothing tells later what ran. Here with a local queue, which fetches in batches, and with batched completion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use runtree_benches::{INPUT, Lap, Orders, Round, answer};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

const CONNECTIONS: u32 = 32;
/// How many jobs run at once, and how many are fetched at once.
const CONCURRENCY: usize = 500;
const FETCHED: usize = 5_000;
/// How long completions are gathered.
const GATHERED: Duration = Duration::from_millis(5);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Bench {
    repository: String,
    issue: u64,
    text: String,
}

/// How many jobs have run.
#[derive(Clone, Debug)]
struct Done(Arc<AtomicU64>);

impl TaskHandler for Bench {
    const IDENTIFIER: &'static str = "bench";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(Done(done)) = context.get_ext::<Done>() {
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), String>(())
    }
}

fn main() {
    let orders = Orders::from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let (utils, client) = runtime.block_on(async {
        let worker = options(&orders).define_job::<Bench>().init().await;
        let utils = worker.expect("the server answers").create_utils();
        utils.migrate().await.expect("the schema can be made");
        let (client, connection) = tokio_postgres::connect(&orders.place, tokio_postgres::NoTls)
            .await
            .expect("the server answers");
        tokio::spawn(connection);
        (utils, client)
    });
    let answered = answer(|| runtime.block_on(round(&utils, &client, &orders)));
    answered.expect("the driver reads the answers");
}

fn options(orders: &Orders) -> WorkerOptions {
    WorkerOptions::default()
        .database_url(&orders.place)
        .max_pg_conn(CONNECTIONS)
        .schema("graphile_worker")
}

async fn round(utils: &WorkerUtils, client: &tokio_postgres::Client, orders: &Orders) -> Round {
    let alone = create(utils, orders.alone, 1).await;
    let together = create(utils, orders.together, Orders::CALLERS).await;
    let mut more = orders.more;
    while more > 0 {
        let some = more.min(1_000);
        more -= some;
        let jobs = (0..some).map(|_| RawJobSpec {
            identifier: "bench".to_owned(),
            payload: serde_json::from_str(INPUT).expect("because it is JSON"),
            spec: JobSpec::default(),
        });
        let added = utils.add_raw_jobs(&jobs.collect::<Vec<_>>()).await;
        added.expect("the queue works");
    }
    let drained = drain(client, orders).await;
    vec![Some(alone), Some(together), Some(drained)]
}

async fn create(utils: &WorkerUtils, count: u64, callers: u64) -> Lap {
    let job: Bench = serde_json::from_str(INPUT).expect("because it is JSON");
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let share = count / callers + u64::from(caller < count % callers);
        let (utils, job) = (utils.clone(), job.clone());
        tokio::spawn(async move {
            for _ in 0..share {
                let added = utils.add_job(job.clone(), JobSpec::default()).await;
                added.expect("the queue works");
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

async fn left(client: &tokio_postgres::Client) -> u64 {
    let row = client
        .query_one("SELECT count(*) FROM graphile_worker._private_jobs", &[])
        .await;
    let count: i64 = row.expect("the table is there").get(0);
    u64::try_from(count).expect("because a count is not negative")
}

/// Drains until the table is empty.
async fn drain(client: &tokio_postgres::Client, orders: &Orders) -> Lap {
    let operations = left(client).await;
    let done = Done(Arc::default());
    let worker = options(orders)
        .concurrency(CONCURRENCY)
        .poll_interval(Duration::from_millis(5))
        .complete_job_batch_delay(GATHERED)
        .local_queue(LocalQueueConfig::default().with_size(FETCHED))
        .listen_os_shutdown_signals(false)
        .add_extension(done.clone())
        .define_job::<Bench>()
        .init()
        .await;
    let worker = Arc::new(worker.expect("the server answers"));
    let start = Instant::now();
    let running = tokio::spawn({
        let worker = Arc::clone(&worker);
        async move { worker.run().await }
    });
    while done.0.load(Ordering::Relaxed) < operations || left(client).await > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = start.elapsed();
    worker.request_shutdown();
    running
        .await
        .expect("the worker does not panic")
        .expect("the worker works");
    Lap { operations, spent }
}
