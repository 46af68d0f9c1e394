//! No connection comes about where TLS is demanded and cannot be had as the host wants it.

use std::time::Instant;

use runtree_repository::ReadRuns as _;
use runtree_repository::id::IdGenerator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// The error of a refusal, which took less time than a server may take to answer.
async fn refused(url: &str, tls: MakeRustlsConnect) -> RepositoryError {
    let began = Instant::now();
    let error = open(url, tls).await.unwrap_err();
    assert!(began.elapsed() < LONG, "refused, not given up");
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error:?}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused() {
    let database = Server::with_tls().database();
    for query in ["sslmode=require", "sslmode=prefer"] {
        let tls = Authority::new("another authority").tls();
        let error = refused(&database.url(query), tls).await;
        let text = error.to_string();
        assert!(text.contains("invalid peer certificate"), "{text}");
        assert!(text.contains(&database.name), "{text}");
    }
    assert_eq!(database.connections(), (0, 0));
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    assert_eq!(database.execute(tables), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_host_is_refused_and_hostaddr_does_not_change_the_name() {
    let database = Server::with_tls().database();
    let tls = || database.server.authority.tls();
    let error = refused(&database.url_of("other.example"), tls()).await;
    let text = error.to_string();
    assert!(text.contains("invalid peer certificate"), "{text}");
    assert!(text.contains("other.example"), "{text}");
    assert_eq!(database.connections(), (0, 0));
    let runs = open(&database.url_of(NAME), tls()).await.unwrap();
    let nobody = IdGenerator::system().run_id().unwrap();
    assert_eq!(runs.get(nobody).await.unwrap(), None);
    let (all, over_tls) = database.connections();
    assert!(all >= 1);
    assert_eq!(over_tls, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_the_url_requires_it() {
    let database = Server::without_tls().database();
    let url = database.url("sslmode=require");
    let error = refused(&url, database.server.authority.tls()).await;
    let text = error.to_string();
    assert!(text.contains("server does not support TLS"), "{text}");
    assert_eq!(database.connections(), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_demands_tls_is_refused_without_a_connector() {
    let database = Server::with_tls().database();
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = database.url(&format!("sslmode={mode}"));
        let error = PostgresRepository::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = error.to_string();
        assert!(text.contains("PostgresBuilder::tls"), "{text}");
    }
    assert_eq!(database.connections(), (0, 0));
}

/// Takes one connection that asks for TLS, and agrees.
async fn agreed(server: &TcpListener) -> TcpStream {
    let (mut stream, _) = server.accept().await.unwrap();
    stream.read_exact(&mut [0; 8]).await.unwrap();
    stream.write_all(b"S").await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_in_the_handshake_is_given_up_in_time() {
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let url = format!("postgres://runtree@127.0.0.1:{port}/db?sslmode=require");
    let builder = PostgresRepository::builder(url)
        .tls(Authority::new("nobody's").tls())
        .connect_timeout(Duration::from_millis(200));
    let connecting = tokio::time::timeout(LONG, builder.connect());
    let (connected, _silent) = tokio::join!(connecting, agreed(&server));
    let error = connected.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_in_the_handshake_is_unavailable() {
    let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let url = format!("postgres://runtree@127.0.0.1:{port}/db?sslmode=require");
    let connecting = open(&url, Authority::new("nobody's").tls());
    let (connected, ()) = tokio::join!(connecting, async { drop(agreed(&server).await) });
    let error = connected.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}
