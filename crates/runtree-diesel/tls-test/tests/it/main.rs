//! What each `sslmode` means over the host's rustls, against a server that has TLS and one that has none.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails its test by panicking"
)]

mod refusals;
mod repository;

use std::sync::OnceLock;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use runtree_diesel::PostgresRepository;
use runtree_repository::{ErrorKind, RepositoryError};
use runtree_testkit::postgres::{ServerCertificate, TestPostgres};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Long enough for a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(60);

/// The name in the certificate of the server, beside its address.
const NAME: &str = "db.example";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate_of_server(&self) -> ServerCertificate {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned(), NAME.to_owned()]).unwrap();
        ServerCertificate {
            certificate: params.signed_by(&key, &self.0).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// What a host hands over that trusts this authority and no other.
    fn tls(&self) -> MakeRustlsConnect {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.0.pem().as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        MakeRustlsConnect::new(config)
    }
}

/// A server, and the authority that its certificate is of, if it has one.
struct Server {
    postgres: TestPostgres,
    authority: Authority,
}

impl Server {
    fn with_tls() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Authority::new("the authority of the server");
            let certificate = authority.certificate_of_server();
            Self {
                postgres: TestPostgres::start_on_loopback(Some(&certificate)),
                authority,
            }
        })
    }

    fn without_tls() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self {
            postgres: TestPostgres::start_on_loopback(None),
            authority: Authority::new("an authority of nobody"),
        })
    }

    fn database(&'static self) -> Database {
        let on_socket = self.postgres.fresh_database();
        let name = on_socket.rsplit('/').next().unwrap().to_owned();
        Database {
            server: self,
            on_socket,
            name,
        }
    }
}

struct Database {
    server: &'static Server,
    on_socket: String,
    name: String,
}

impl Database {
    /// The URL over the network, with what follows the question mark.
    fn url(&self, query: &str) -> String {
        let port = self.server.postgres.port();
        format!("postgres://runtree@127.0.0.1:{port}/{}?{query}", self.name)
    }

    /// As [`url`](Self::url), under another name of the host.
    fn url_of(&self, host: &str) -> String {
        let port = self.server.postgres.port();
        let name = &self.name;
        format!("postgres://runtree@{host}:{port}/{name}?hostaddr=127.0.0.1&sslmode=require")
    }

    async fn open(&self, query: &str) -> Result<PostgresRepository, RepositoryError> {
        open(&self.url(query), self.server.authority.tls()).await
    }

    fn execute(&self, sql: &str) -> String {
        let answer = self.server.postgres.execute(&self.name, sql);
        answer.trim().to_owned()
    }

    /// How many connections of repositories there are, and how many of these are over TLS.
    fn connections(&self) -> (usize, usize) {
        let counted = self.execute(
            "select count(*), count(*) filter (where ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
             where datname = current_database() and application_name = 'runtree'",
        );
        let (all, over_tls) = counted.split_once('|').unwrap();
        (all.parse().unwrap(), over_tls.parse().unwrap())
    }
}

async fn open(url: &str, tls: MakeRustlsConnect) -> Result<PostgresRepository, RepositoryError> {
    PostgresRepository::builder(url)
        .tls(tls)
        .connect_timeout(LONG)
        .connect()
        .await
}
