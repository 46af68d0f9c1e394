//! The two kinds of connection, over the host's own TLS or without any, behind a face that does not show which.

use std::task::{Context, Poll};

use async_trait::async_trait;
use diesel_async::AsyncPgConnection;
use runtree_repository::RepositoryError;
use tokio_postgres::config::Config;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Error, Socket};

use super::connect::Connector;

/// What the server sends on a connection, until that ends. Nothing goes either way unless it is polled.
pub(super) type Messages =
    Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> + Send>;

/// Makes connections, with or without TLS.
#[async_trait]
pub(super) trait Dial: Send + Sync {
    /// Connects for statements, to a server that passes the connector's checks.
    async fn establish(&self, connector: &Connector) -> Result<AsyncPgConnection, RepositoryError>;

    /// Connects for listening: the driver's own two halves.
    async fn listen(&self, config: &Config) -> Result<(Client, Messages), Error>;
}

/// Makes connections over this TLS, as far as the URL asks for it.
pub(super) struct Over<T>(pub(super) T);

#[async_trait]
impl<T> Dial for Over<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    async fn establish(&self, connector: &Connector) -> Result<AsyncPgConnection, RepositoryError> {
        let connecting = connector.config().connect(self.0.clone());
        let (client, connection) = connecting
            .await
            .map_err(|failure| connector.refused(failure))?;
        connector.check_server(|parameter| connection.parameter(parameter))?;
        AsyncPgConnection::try_from_client_and_connection(client, connection)
            .await
            .map_err(|failure| connector.not_set_up(failure))
    }

    async fn listen(&self, config: &Config) -> Result<(Client, Messages), Error> {
        let (client, mut connection) = config.connect(self.0.clone()).await?;
        Ok((client, Box::new(move |cx| connection.poll_message(cx))))
    }
}
