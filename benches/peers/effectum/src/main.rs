//! effectum: a queue on SQLite with one writing thread. It opens its file with the journal mode DELETE and `synchronous` NORMAL (the
//! pragma that should switch to WAL is misspelt), so that a power cut may damage what it acknowledged. An ending is checked by the
//! number of the worker, not by the attempt; there is no history of a job.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use effectum::{Job, JobRunner, Queue, RunningJob, Worker};
use runtree_benches::{INPUT, Lap, Orders, Round, answer};
use tokio::runtime::Runtime;

/// How many jobs the worker runs at once at most, and at how many it fetches more.
const CONCURRENCY: (u16, u16) = (512, 256);

fn main() {
    let orders = Orders::from_args();
    let runtime = Runtime::new().expect("threads can be started");
    let queue = runtime.block_on(Queue::new(Path::new(&orders.place)));
    let queue = Arc::new(queue.expect("the file can be opened"));
    answer(|| runtime.block_on(round(&queue, &orders))).expect("the driver reads the answers");
    // Its drop spawns a task.
    runtime.block_on(async { drop(queue) });
}

async fn round(queue: &Arc<Queue>, orders: &Orders) -> Round {
    let alone = create(queue, orders.alone, 1).await;
    let together = create(queue, orders.together, Orders::CALLERS).await;
    let mut more = orders.more;
    while more > 0 {
        let some = more.min(1_000);
        more -= some;
        let jobs = (0..some).map(|_| job()).collect();
        queue.add_jobs(jobs).await.expect("the queue works");
    }
    let drained = drain(queue).await;
    vec![Some(alone), Some(together), Some(drained)]
}

fn job() -> Job {
    Job::builder("bench").payload(INPUT.into()).build()
}

async fn create(queue: &Arc<Queue>, count: u64, callers: u64) -> Lap {
    let start = Instant::now();
    let callers = (0..callers).map(|caller| {
        let share = count / callers + u64::from(caller < count % callers);
        let queue = Arc::clone(queue);
        tokio::spawn(async move {
            for _ in 0..share {
                queue.add_job(job()).await.expect("the queue works");
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

/// Drains until nothing waits or runs any more.
async fn drain(queue: &Queue) -> Lap {
    let active = queue.num_active_jobs().await.expect("the queue works");
    let operations = active.pending + active.running;
    let runner = JobRunner::builder("bench", |_: RunningJob, ()| async { Ok::<(), String>(()) });
    let start = Instant::now();
    let worker = Worker::builder(queue, ())
        .jobs([runner.build()])
        .max_concurrency(CONCURRENCY.0)
        .min_concurrency(CONCURRENCY.1)
        .build()
        .await
        .expect("a worker can be started");
    // A job counts as finished when its end is written.
    while worker.counts().finished < operations {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let spent = start.elapsed();
    let active = queue.num_active_jobs().await.expect("the queue works");
    assert_eq!((active.pending, active.running), (0, 0));
    worker
        .unregister(None)
        .await
        .expect("a worker can be stopped");
    Lap { operations, spent }
}
