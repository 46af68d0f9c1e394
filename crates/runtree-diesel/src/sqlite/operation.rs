//! What waits to be written, and how its callers are answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use diesel::SqliteConnection;
use runtree_repository::time::Clock;
use runtree_repository::{Ending, ErrorKind, Namespace, RepositoryError, Run, Write};
use tokio::sync::oneshot;

use super::end;
use super::sql::Transaction;

/// The way back to a caller.
pub(super) type Reply<T> = oneshot::Sender<Result<T, RepositoryError>>;

/// What a caller wants of the writing thread.
pub(super) enum Request {
    /// Done for itself.
    One(Box<dyn Operation>),
    /// Done together with the other endings that wait.
    End(EndRequest),
}

/// An ending whose caller waits.
pub(super) struct EndRequest {
    pub(super) namespace: Namespace,
    pub(super) ending: Ending,
    pub(super) reply: Reply<Write<Run>>,
}

/// A unit of what is written, taken back and tried again.
pub(super) trait Operation: Send {
    /// Tells whether somebody still waits for the answer.
    fn is_wanted(&self) -> bool;

    /// Does the work inside a transaction, and answers whether it is news to watchers. May be called again when the transaction
    /// could not be committed, or when another operation in it failed.
    ///
    /// # Errors
    /// What the caller is told; what was done is taken back.
    fn run(
        &mut self,
        connection: &mut SqliteConnection,
        clock: &dyn Clock,
    ) -> Result<bool, RepositoryError>;

    /// Returns the operations that this one stands for, so that one of them that fails does not fail the others.
    fn apart(self: Box<Self>) -> Vec<Box<dyn Operation>>;

    /// Tells the caller that the operation is durable.
    fn succeed(self: Box<Self>);

    /// Tells the caller that the operation did not happen, or what is known of it.
    fn fail(self: Box<Self>, error: RepositoryError);
}

/// An operation for one caller.
pub(super) struct Queued<T, W> {
    pub(super) namespace: Namespace,
    pub(super) doing: &'static str,
    pub(super) work: W,
    pub(super) result: Option<T>,
    pub(super) reply: Reply<T>,
}

impl<T, W> Operation for Queued<T, W>
where
    T: Send + 'static,
    W: FnMut(&mut Transaction<'_>) -> Result<T, RepositoryError> + Send + 'static,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(
        &mut self,
        connection: &mut SqliteConnection,
        clock: &dyn Clock,
    ) -> Result<bool, RepositoryError> {
        self.result = None;
        // Read inside the transaction, so that the order of the stamps is the order of the writes.
        let mut transaction =
            Transaction::new(connection, &self.namespace, clock.now(), self.doing);
        self.result = Some((self.work)(&mut transaction)?);
        Ok(transaction.is_news())
    }

    fn apart(self: Box<Self>) -> Vec<Box<dyn Operation>> {
        vec![self]
    }

    fn succeed(self: Box<Self>) {
        answer(self.reply, self.result);
    }

    fn fail(self: Box<Self>, error: RepositoryError) {
        drop(self.reply.send(Err(error)));
    }
}

/// Endings of many callers: a few statements for all of them instead of a few for each.
struct Endings {
    namespace: Namespace,
    endings: Vec<Ending>,
    replies: Vec<Reply<Write<Run>>>,
    results: Vec<Write<Run>>,
}

impl Operation for Endings {
    fn is_wanted(&self) -> bool {
        true
    }

    fn run(
        &mut self,
        connection: &mut SqliteConnection,
        clock: &dyn Clock,
    ) -> Result<bool, RepositoryError> {
        self.results.clear();
        let mut transaction =
            Transaction::new(connection, &self.namespace, clock.now(), end::DOING);
        self.results = end::end_many(&mut transaction, &self.endings)?;
        Ok(transaction.is_news())
    }

    fn apart(self: Box<Self>) -> Vec<Box<dyn Operation>> {
        let Self {
            namespace,
            endings,
            replies,
            ..
        } = *self;
        let endings = endings.into_iter().zip(replies);
        endings
            .map(|(ending, reply)| alone(namespace.clone(), ending, reply))
            .collect()
    }

    fn succeed(self: Box<Self>) {
        let mut results = self.results.into_iter();
        for reply in self.replies {
            answer(reply, results.next());
        }
    }

    fn fail(self: Box<Self>, error: RepositoryError) {
        let error = Arc::new(error);
        for reply in self.replies {
            drop(reply.send(Err(copy(&error))));
        }
    }
}

/// Makes operations of what is still wanted: one for all endings in a namespace, and one for each other request.
///
/// Those whose callers wait at the same time have no order among themselves. Endings go where the last of them was, all the same: a
/// renewal that came before the ending of its run finds the run running.
pub(super) fn operations(requests: Vec<Request>) -> Vec<Box<dyn Operation>> {
    let mut operations = Vec::with_capacity(requests.len());
    let mut endings: BTreeMap<Namespace, Vec<EndRequest>> = BTreeMap::new();
    let mut place = 0;
    for request in requests {
        match request {
            Request::One(operation) if operation.is_wanted() => operations.push(operation),
            Request::End(wanted) if !wanted.reply.is_closed() => {
                place = operations.len();
                let alike = endings.entry(wanted.namespace.clone()).or_default();
                alike.push(wanted);
            }
            Request::One(_) | Request::End(_) => {}
        }
    }
    let endings = endings
        .into_iter()
        .map(|(namespace, endings)| together(namespace, endings));
    operations.splice(place..place, endings);
    operations
}

/// Makes one operation of endings in a namespace.
fn together(namespace: Namespace, mut endings: Vec<EndRequest>) -> Box<dyn Operation> {
    if endings.len() == 1
        && let Some(only) = endings.pop()
    {
        return alone(namespace, only.ending, only.reply);
    }
    let endings = endings.into_iter();
    let (endings, replies) = endings.map(|wanted| (wanted.ending, wanted.reply)).unzip();
    Box::new(Endings {
        namespace,
        endings,
        replies,
        results: Vec::new(),
    })
}

/// An ending that is done for itself.
fn alone(namespace: Namespace, ending: Ending, reply: Reply<Write<Run>>) -> Box<dyn Operation> {
    Box::new(Queued {
        namespace,
        doing: end::DOING,
        work: move |transaction: &mut Transaction<'_>| {
            end::end(transaction, ending.lease, &ending.outcome)
        },
        result: None,
        reply,
    })
}

/// Tells a caller that its operation is durable.
fn answer<T>(reply: Reply<T>, result: Option<T>) {
    let result = result.ok_or_else(|| {
        RepositoryError::new(ErrorKind::Internal, "a write was committed but never done")
    });
    // Nobody waits any more when this fails; the write is durable all the same.
    drop(reply.send(result));
}

/// The same error for another caller.
pub(super) fn copy(error: &Arc<RepositoryError>) -> RepositoryError {
    RepositoryError::new(error.kind(), error.to_string()).with_source(Arc::clone(error))
}
