//! A throwaway PostgreSQL server for tests, gone with the process that asked for it however that process ends.
//!
//! Tests take a database of their own and nothing else:
//!
//! ```no_run
//! use runtree_testkit::postgres::TestPostgres;
//!
//! let url = TestPostgres::get().fresh_database();
//! ```
//!
//! The server is a new cluster made by the distribution's `initdb`, reached through a Unix socket in
//! its own directory, so that no port is chosen and none can collide. `RUNTREE_TEST_POSTGRES_URL`
//! names a server to use instead; `cargo xtask test` sets it to one [`TestPostgres::start`] for a whole
//! run, because a cluster takes about a second to make and each test may be its own process.
//!
//! A test never skips for want of a server: it panics with one line that says what to install.

#![cfg(unix)]

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The variable that names a server to use instead of starting one.
pub const URL_VARIABLE: &str = "RUNTREE_TEST_POSTGRES_URL";

const MISSING: &str = "PostgreSQL's server is missing: run `cargo xtask test`, or install it \
                       (Debian/Ubuntu: apt-get install postgresql), or set RUNTREE_TEST_POSTGRES_URL";

/// The role that owns every test database of a cluster of ours.
const ROLE: &str = "runtree";

/// What the server runs with.
///
/// `fsync` and `full_page_writes` guard against a loss of power, which no test causes.
/// `synchronous_commit` stays on: a commit that was acknowledged survives [`TestPostgres::stop_immediate`].
/// The time zone is an odd one on purpose: code that lets the server's local time in shows it at once.
const SETTINGS: &str = "
fsync = off
full_page_writes = off
max_connections = 100
shared_buffers = 32MB
listen_addresses = ''
unix_socket_permissions = 0700
timezone = '<+0545>-05:45'
";

/// What the socket's name ends with, where the server has no port.
const SOCKET_PORT: u16 = 5432;

/// Longest path a Unix socket may have, in bytes, on the strictest system (macOS).
const SOCKET_PATH_MAX: usize = 103;

/// What a server shows to those who connect over TLS, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The certificate, and those between it and its authority.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// A running PostgreSQL server whose databases are thrown away.
///
/// Dropping it, or the end of the process in any way including `SIGKILL`, stops a server that
/// [`start`](Self::start) made and removes its directory, or drops the databases made on a given one.
#[derive(Debug)]
pub struct TestPostgres {
    base: BaseUrl,
    psql: PathBuf,
    cluster: Option<Cluster>,
    keeper: Mutex<Keeper>,
}

impl TestPostgres {
    /// Answers the server of this process: the given one where [`URL_VARIABLE`] is set, else one cluster that all tests of the process share.
    ///
    /// # Panics
    ///
    /// When there is no server program, or it does not start.
    pub fn get() -> &'static Self {
        static SHARED: OnceLock<TestPostgres> = OnceLock::new();
        SHARED.get_or_init(|| match variable(URL_VARIABLE) {
            Some(url) if !url.is_empty() => {
                Self::given(url.to_str().expect("the server's URL is UTF-8"))
            }
            Some(_) | None => Self::start(),
        })
    }

    /// Starts a cluster of its own, whatever the environment says.
    ///
    /// For tests that stop the server, and for a test runner that shares one among many processes.
    ///
    /// # Panics
    ///
    /// When there is no server program, or it does not start.
    pub fn start() -> Self {
        Self::start_cluster(|cluster| cluster.start_server())
    }

    /// Starts a cluster of its own, as [`start`](Self::start), that is reached over a port of the loopback address as well: with TLS where
    /// there is a certificate, without any where there is none.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start), and when no port is found.
    pub fn start_on_loopback(certificate: Option<&ServerCertificate>) -> Self {
        Self::start_cluster(|cluster| cluster.start_on_loopback(certificate))
    }

    fn start_cluster(start: impl FnOnce(&mut Cluster)) -> Self {
        let programs = server_programs().unwrap_or_else(|| panic!("{MISSING}"));
        let account = Account::unprivileged();
        let root = account.private_directory();
        let mut cluster = Cluster {
            programs,
            account,
            root,
            port: SOCKET_PORT,
        };
        // Before anything runs: from here on the directory goes even if this process is killed.
        let keeper = cluster.keeper();
        cluster.initialise();
        start(&mut cluster);
        Self {
            base: BaseUrl::of_socket(&cluster.socket_directory(), cluster.port),
            psql: cluster.programs.join("psql"),
            cluster: Some(cluster),
            keeper: Mutex::new(keeper),
        }
    }

    /// Uses the server at `url`, on which it may create and drop databases.
    ///
    /// # Panics
    ///
    /// When `url` is not a `postgres://` URL.
    pub fn given(url: &str) -> Self {
        let base = BaseUrl::parse(url);
        let psql = server_programs().map_or_else(|| "psql".into(), |bin| bin.join("psql"));
        let keeper = dropping_keeper(&psql, &base.with_database("postgres"));
        Self {
            base,
            psql,
            cluster: None,
            keeper: Mutex::new(keeper),
        }
    }

    /// Answers the URL of `database` on this server, as `tokio-postgres`, libpq and `psql` read it.
    pub fn url(&self, database: &str) -> String {
        self.base.with_database(database)
    }

    /// Answers the port of [`start_on_loopback`](Self::start_on_loopback).
    ///
    /// # Panics
    ///
    /// When this server was given.
    pub fn port(&self) -> u16 {
        self.own_cluster().port
    }

    /// Creates an empty database that no other test has and answers its URL.
    ///
    /// # Panics
    ///
    /// When the server refuses.
    pub fn fresh_database(&self) -> String {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // The process id alone may repeat on a server that several machines or containers share.
        let random = RandomState::new().build_hasher().finish();
        let name = format!("rt_{}_{count}_{random:016x}", std::process::id());
        // The keeper learns the name first, so that a crash in between leaves nothing either.
        self.keeper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remember(&name);
        // `template0`, because a connection to `template1` would make the copy fail.
        self.execute(
            "postgres",
            &format!("create database {name} template template0"),
        );
        self.url(&name)
    }

    /// Runs `sql` with `psql` and answers what it printed, unaligned and without headers.
    ///
    /// # Panics
    ///
    /// When `psql` is missing or a statement fails.
    pub fn execute(&self, database: &str, sql: &str) -> String {
        let output = clean(Command::new(&self.psql))
            .args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(database))
            .args(["-c", sql])
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}: {MISSING}", self.psql.display()));
        String::from_utf8(succeeded("psql", output)).expect("psql's answer is UTF-8")
    }

    /// Stops the server as an administrator would: sessions end, everything is written out.
    ///
    /// # Panics
    ///
    /// When this server was given and is not ours to stop, or when it does not stop.
    pub fn stop(&self) {
        self.own_cluster().stop_server("fast");
    }

    /// Stops the server as a crash would: at once, leaving recovery to the next start.
    ///
    /// # Panics
    ///
    /// As [`stop`](Self::stop).
    pub fn stop_immediate(&self) {
        self.own_cluster().stop_server("immediate");
    }

    /// Starts a stopped server again, on the same data and under the same URLs.
    ///
    /// # Panics
    ///
    /// When this server was given, or when it does not start.
    pub fn start_again(&self) {
        self.own_cluster().start_server();
    }

    fn own_cluster(&self) -> &Cluster {
        self.cluster
            .as_ref()
            .expect("only a server made by TestPostgres::start may be stopped")
    }
}

/// A data directory, the programs that serve it and the account they run under.
#[derive(Debug)]
struct Cluster {
    programs: PathBuf,
    account: Account,
    root: PathBuf,
    /// What the socket's name ends with, and where the server is on the network, if it is.
    port: u16,
}

impl Cluster {
    fn data_directory(&self) -> PathBuf {
        self.root.join("data")
    }

    fn socket_directory(&self) -> PathBuf {
        self.root.clone()
    }

    fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = clean(Command::new(self.programs.join(program)));
        // The current directory of the test may be one that the account cannot enter.
        command.current_dir(&self.root);
        self.account.apply(&mut command);
        command
    }

    fn initialise(&self) {
        let output = self
            .command("initdb")
            .args([
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
                "-U",
                ROLE,
                "-D",
            ])
            .arg(self.data_directory())
            .output()
            .expect("initdb runs: it was found a moment ago");
        succeeded("initdb", output);
        let settings = format!(
            "{SETTINGS}unix_socket_directories = '{}'\n",
            self.socket_directory().display()
        );
        self.set(&settings);
    }

    /// Adds settings; the last of a name is the one that counts.
    fn set(&self, settings: &str) {
        OpenOptions::new()
            .append(true)
            .open(self.data_directory().join("postgresql.conf"))
            .and_then(|mut file| file.write_all(settings.as_bytes()))
            .expect("initdb leaves a configuration to add to");
    }

    /// Starts on a port that nobody has, which another may take in between: then on another.
    fn start_on_loopback(&mut self, certificate: Option<&ServerCertificate>) {
        if let Some(ServerCertificate { certificate, key }) = certificate {
            self.place("server.crt", certificate);
            self.place("server.key", key);
            self.set("ssl = on\n");
        }
        self.set("listen_addresses = '127.0.0.1'\n");
        let mut tries = 5;
        loop {
            // It is given back as soon as it is known.
            let found = TcpListener::bind(("127.0.0.1", 0)).and_then(|found| found.local_addr());
            self.port = found.expect("the loopback address has ports").port();
            self.set(&format!("port = {}\n", self.port));
            tries -= 1;
            match self.try_start() {
                Ok(()) => return,
                Err(why) => assert!(tries > 0, "{why}"),
            }
        }
    }

    /// Puts a file into the data directory that only the server can read, as it demands for keys.
    fn place(&self, name: &str, text: &str) {
        let path = self.data_directory().join(name);
        let placed = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        placed.expect("the data directory can be written");
        self.account.give(&path);
    }

    fn start_server(&self) {
        self.try_start().unwrap_or_else(|why| panic!("{why}"));
    }

    fn try_start(&self) -> Result<(), String> {
        let status = self
            .command("pg_ctl")
            .args(["start", "-w", "-s", "-t", "60", "-D"])
            .arg(self.data_directory())
            .arg("-l")
            .arg(self.log())
            // Not captured: the server would inherit the pipe and keep it open.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl runs: it stands beside initdb");
        if status.success() {
            return Ok(());
        }
        Err(format!(
            "PostgreSQL does not start ({status}):\n{}",
            fs::read_to_string(self.log()).unwrap_or_default()
        ))
    }

    fn stop_server(&self, mode: &str) {
        let output = self
            .command("pg_ctl")
            .args(["stop", "-w", "-s", "-t", "60", "-m", mode, "-D"])
            .arg(self.data_directory())
            .output()
            .expect("pg_ctl runs: it stands beside initdb");
        succeeded("pg_ctl stop", output);
    }

    /// Starts the keeper that stops the server and removes its directory when its input ends.
    fn keeper(&self) -> Keeper {
        let mut command = clean(Command::new("sh"));
        command
            .args(["-c", "cat >/dev/null; \"$0\" stop -s -w -m immediate -D \"$1/data\"; cd /; rm -rf \"$1\""])
            .arg(self.programs.join("pg_ctl"))
            .arg(&self.root)
            .current_dir(&self.root);
        self.account.apply(&mut command);
        Keeper::spawn(command)
    }
}

/// A small process that outlives this one just long enough to clean up after it.
///
/// It reads from a pipe that only this process can write to. However this process ends, the kernel
/// closes the pipe, and the keeper does its work and ends.
#[derive(Debug)]
struct Keeper {
    child: Child,
}

impl Keeper {
    fn spawn(mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::piped())
            // A test runner waits for whoever holds its pipes, and must not wait for this one.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals to the test's group (Ctrl-C, a runner's time limit) are not for the keeper.
            .process_group(0)
            .spawn()
            .expect("sh runs on every Unix");
        Self { child }
    }

    /// Tells the keeper of one database; one that removes the whole cluster does not care.
    fn remember(&mut self, database: &str) {
        if let Some(pipe) = &mut self.child.stdin {
            writeln!(pipe, "{database}").expect("the keeper reads until the end");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // Whoever drops a server finds it gone afterwards. A failed wait leaves the keeper to itself.
        self.child.wait().ok();
    }
}

/// Starts the keeper that drops databases on a server that is not ours, as far as that still works.
fn dropping_keeper(psql: &Path, maintenance_url: &str) -> Keeper {
    let mut command = clean(Command::new("sh"));
    command
        .arg("-c")
        .arg("names=; while read -r name; do names=\"$names $name\"; done; for name in $names; do \"$0\" -X -q -w -d \"$1\" -c \"drop database if exists $name with (force)\"; done")
        .arg(psql)
        .arg(maintenance_url);
    Keeper::spawn(command)
}

/// The account that the server runs under: PostgreSQL refuses to run as root.
#[derive(Debug)]
struct Account {
    switch_to: Option<(u32, u32)>,
}

impl Account {
    /// Answers the present account, or `postgres` (else `nobody`) where the present one is root.
    fn unprivileged() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { switch_to: None };
        }
        let switch_to = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| Some((numeric_id("-u", name)?, numeric_id("-g", name)?)));
        assert!(
            switch_to.is_some(),
            "PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`"
        );
        Self { switch_to }
    }

    fn apply(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.switch_to {
            command.uid(uid).gid(gid);
        }
    }

    /// Makes a directory that only this account (and root) can enter.
    fn private_directory(&self) -> PathBuf {
        // Root's own temporary directory may be closed to the account that must use it.
        let parent = if self.switch_to.is_some() {
            PathBuf::from("/tmp")
        } else {
            temporary_directory()
        };
        let root = tempfile::Builder::new()
            .prefix("rtpg-")
            .tempdir_in(parent)
            .expect("a temporary directory can be made")
            // The keeper removes it, for it also lives when this process was killed.
            .keep();
        let socket = root.join(".s.PGSQL.65535");
        assert!(
            socket.as_os_str().len() <= SOCKET_PATH_MAX,
            "the temporary directory's path is too long for a socket: {}",
            socket.display()
        );
        self.give(&root);
        root
    }

    fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.switch_to {
            std::os::unix::fs::chown(path, Some(uid), Some(gid))
                .expect("root can give its own away");
        }
    }
}

fn numeric_id(flag: &str, account: &str) -> Option<u32> {
    let output = Command::new("id").args([flag, account]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// A server's URL, taken apart around the name of the database.
#[derive(Debug, PartialEq, Eq)]
struct BaseUrl {
    before_database: String,
    query: String,
}

impl BaseUrl {
    fn of_socket(directory: &Path, port: u16) -> Self {
        let host = percent_encoded(
            directory
                .to_str()
                .expect("the temporary directory is UTF-8"),
        );
        let port = if port == SOCKET_PORT {
            String::new()
        } else {
            format!(":{port}")
        };
        Self {
            before_database: format!("postgres://{ROLE}@{host}{port}/"),
            query: String::new(),
        }
    }

    fn parse(url: &str) -> Self {
        let (scheme, rest) = url
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "postgres" | "postgresql"))
            .unwrap_or_else(|| panic!("{URL_VARIABLE} is not a postgres:// URL: {url}"));
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (rest, String::new()),
        };
        let authority = path
            .split_once('/')
            .map_or(path, |(authority, _)| authority);
        Self {
            before_database: format!("{scheme}://{authority}/"),
            query,
        }
    }

    fn with_database(&self, database: &str) -> String {
        let Self {
            before_database,
            query,
        } = self;
        format!("{before_database}{}{query}", percent_encoded(database))
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Answers the directory of the newest server's programs, if there is one.
fn server_programs() -> Option<PathBuf> {
    let on_path = variable("PATH").unwrap_or_default();
    let installed = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    std::env::split_paths(&on_path)
        .chain(installed)
        .filter(|bin| {
            ["initdb", "pg_ctl", "psql"]
                .iter()
                .all(|program| bin.join(program).is_file())
        })
        .filter_map(|bin| Some((server_version(&bin)?, bin)))
        .max_by_key(|(version, _)| *version)
        .map(|(_, bin)| bin)
}

/// Reads `(major, minor)` from `postgres (PostgreSQL) 16.4 (Debian 16.4-1)`.
fn server_version(bin: &Path) -> Option<(u32, u32)> {
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let word = text.split_whitespace().nth(2)?;
    let mut numbers = word
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

/// Frees a command from the caller's environment, whose `PG*` variables would point it elsewhere.
fn clean(mut command: Command) -> Command {
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = variable("PATH") {
        command.env("PATH", path);
    }
    command
}

fn succeeded(what: &str, output: Output) -> Vec<u8> {
    assert!(
        output.status.success(),
        "{what} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told of a given server, and where programs are, by their environment"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's files go where the machine wants temporary files"
)]
fn temporary_directory() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::{Duration, Instant};

    use super::*;

    /// Set for the one run of [`holds_a_server_until_killed`] that is meant to hold one.
    const HOLD: &str = "RUNTREE_TESTKIT_HOLD";

    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "{what} did not come true");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn name_in(url: &str) -> &str {
        url.rsplit('/').next().expect("a URL has slashes")
    }

    #[test]
    fn each_fresh_database_is_empty_and_nobody_elses() {
        let server = TestPostgres::get();
        let (one, two) = (server.fresh_database(), server.fresh_database());
        assert_ne!(one, two);
        server.execute(name_in(&one), "create table only_here (id int)");
        let tables = "select count(*) from pg_tables where schemaname = 'public'";
        assert_eq!(server.execute(name_in(&one), tables).trim(), "1");
        assert_eq!(server.execute(name_in(&two), tables).trim(), "0");
        assert_eq!(server.url(name_in(&one)), one);
    }

    #[test]
    fn a_commit_survives_a_crash_of_the_server_and_dropping_it_leaves_nothing() {
        let server = TestPostgres::start();
        let root = server.own_cluster().root.clone();
        let url = server.fresh_database();
        server.execute(name_in(&url), "create table kept as select 7 as value");
        server.stop_immediate();
        server.start_again();
        assert_eq!(
            server
                .execute(name_in(&url), "select value from kept")
                .trim(),
            "7"
        );
        server.stop();
        server.start_again();
        assert_eq!(
            server
                .execute(name_in(&url), "select value from kept")
                .trim(),
            "7"
        );
        drop(server);
        assert!(!root.exists());
    }

    #[test]
    fn databases_on_a_given_server_are_dropped_with_their_user() {
        let server = TestPostgres::start();
        let given = TestPostgres::given(&server.url("postgres"));
        let url = given.fresh_database();
        let there = format!(
            "select count(*) from pg_database where datname = '{}'",
            name_in(&url)
        );
        assert_eq!(server.execute("postgres", &there).trim(), "1");
        drop(given);
        assert_eq!(server.execute("postgres", &there).trim(), "0");
    }

    /// Not a test of its own: the process that the next test kills.
    #[test]
    #[ignore = "run by a_killed_process_leaves_no_server_and_no_directory"]
    fn holds_a_server_until_killed() {
        if variable(HOLD).is_none() {
            return;
        }
        let server = TestPostgres::start();
        let root = server.own_cluster().root.clone();
        assert!(root.join("data/postmaster.pid").is_file());
        println!("\nroot={}", root.display());
        // Ends only by a signal, or with the test that runs it.
        std::io::stdin().lines().for_each(drop);
    }

    #[test]
    fn a_killed_process_leaves_no_server_and_no_directory() {
        let mut child = Command::new(std::env::current_exe().expect("a test knows its program"))
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("postgres::tests::holds_a_server_until_killed")
            .env(HOLD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test program runs");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let root = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(PathBuf::from(line.strip_prefix("root=")?)))
            .expect("the child says where its server is");
        let pid_file = fs::read_to_string(root.join("data/postmaster.pid"))
            .expect("the server runs while the child lives");
        let pid: i32 = pid_file
            .lines()
            .next()
            .and_then(|line| line.parse().ok())
            .expect("the first line is the server's pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid is positive");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        wait_until("the directory is gone", || !root.exists());
        wait_until("the server is gone", || {
            rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
        });
    }

    #[test]
    fn only_the_database_changes_in_a_given_url() {
        for (given, expected) in [
            (
                "postgres://u:p@h:5433/db?sslmode=disable",
                "postgres://u:p@h:5433/x?sslmode=disable",
            ),
            ("postgresql://u@%2Frun%2Fpg", "postgresql://u@%2Frun%2Fpg/x"),
            ("postgres:///?host=/run/pg", "postgres:///x?host=/run/pg"),
        ] {
            assert_eq!(BaseUrl::parse(given).with_database("x"), expected);
        }
    }
}
