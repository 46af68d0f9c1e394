//! The reference on PostgreSQL: pgbench, with the statements that the server saw runtree send.
//!
//! runtree makes, claims and completes one run on a connection whose statements the server logs, with their values. Each text goes to
//! pgbench as it is, every `$n` a variable of the same value; only the ids that must differ are made or taken from the claim. Each client
//! begins with the settings that runtree's connection began with: without them the server plans the same statements otherwise.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runtree_benches::Lap;
use runtree_repository::id::RunId;
use runtree_testkit::postgres::TestPostgres;
use tempfile::TempDir;

use crate::ours::Ours;

/// Makes an id of version 7 as text, in the order of time as runtree's are; different for each client and turn.
const NEW_ID: &str = "(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7' \
    || lpad(to_hex(:client_id::bigint), 3, '0') || '8' || lpad(to_hex(:random::bigint), 15, '0'))::uuid";

/// pgbench on one database.
pub(crate) struct PgBench {
    url: String,
    program: PathBuf,
    clients: u32,
    directory: TempDir,
    settings: String,
    create: Script,
    work: Script,
}

/// A script and the values of its variables.
#[derive(Default)]
struct Script {
    text: String,
    variables: Vec<(String, String)>,
}

/// A statement as the server logged it.
struct Seen {
    text: String,
    /// The values in order; none is NULL.
    values: Vec<Option<String>>,
}

impl PgBench {
    /// Looks at runtree's statements on this database, and prepares pgbench with as many clients.
    pub(crate) fn new(server: &TestPostgres, url: &str, clients: u32) -> Self {
        let database = url.rsplit('/').next().expect("a URL has slashes");
        // The schema, before anything is logged.
        drop(Ours::postgres(url, 1));
        for setting in ["log_statement = 'all'", "log_parameter_max_length = -1"] {
            server.execute(
                "postgres",
                &format!("ALTER DATABASE {database} SET {setting}"),
            );
        }
        let before = log(server).len();
        let ours = Ours::postgres(url, 1);
        let settings = settings(&log(server)[before..]);
        let before = log(server).len();
        ours.create(1, 1);
        let (_, leases) = ours.claim(1, 1);
        ours.complete(&leases, 1);
        let mut seen = seen(&log(server)[before..]);
        // What tells watchers is gathered and sent beside the calls; pgbench does not send it.
        seen.retain(|seen| !seen.text.starts_with("SELECT pg_notify("));
        drop(ours);
        server.execute("postgres", &format!("ALTER DATABASE {database} RESET ALL"));
        let [create, claim, complete] = <[Seen; 3]>::try_from(seen).unwrap_or_else(|seen| {
            let texts: Vec<String> = seen
                .into_iter()
                .map(|seen| seen.text.chars().take(80).collect())
                .collect();
            panic!("a create, a claim and an ending are three statements, not {texts:#?}")
        });
        let run = leases.first().expect("one run waited").run;
        Self {
            url: url.to_owned(),
            program: program(server),
            clients,
            directory: crate::directory(),
            settings,
            create: creating(&create, run),
            work: working(&claim, &complete, run),
        }
    }

    /// Creates so many runs.
    pub(crate) fn create(&self, count: u64) -> Lap {
        self.run("create", &self.create, count)
    }

    /// Claims and completes so many runs.
    pub(crate) fn work(&self, count: u64) -> Lap {
        self.run("work", &self.work, count)
    }

    fn run(&self, name: &str, script: &Script, count: u64) -> Lap {
        let directory = tempfile::tempdir_in(&self.directory).expect("the directory is ours");
        let file = directory.path().join(name);
        let text = format!("{}{}", once(&self.settings), script.text);
        fs::write(&file, text).expect("the directory is ours");
        let turns = count / u64::from(self.clients);
        let mut command = Command::new(&self.program);
        command.args(["-n", "-M", "prepared", "-j", "2", "-D", "is_set=0"]);
        command.args(["-c", &self.clients.to_string(), "-t", &turns.to_string()]);
        command
            .arg("-l")
            .arg("--log-prefix")
            .arg(directory.path().join("log"));
        for (name, value) in &script.variables {
            command.arg("-D").arg(format!("{name}={value}"));
        }
        let output = command.arg("-f").arg(&file).arg(&self.url).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "pgbench: {told}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let done = finished(directory.path());
        assert_eq!(done.len() as u64, turns * u64::from(self.clients), "{told}");
        warm(&done)
    }
}

/// The settings, which each client sends in its first turn only.
fn once(settings: &str) -> String {
    format!("\\if :is_set\n\\else\n{settings};\n\\set is_set 1\n\\endif\n")
}

/// A turn that a client finished: which of its turns, and when, in microseconds.
struct Turn {
    number: u64,
    at: u64,
}

/// Reads the logs of a run, a line a turn: client, number, how long it took, script, and when it was over, in seconds and microseconds.
fn finished(directory: &Path) -> Vec<Turn> {
    let entries = fs::read_dir(directory).expect("the directory is ours");
    let names = entries.map(|entry| entry.expect("the directory is ours").path());
    let is_log = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("log."))
    };
    let logs = names.filter(is_log);
    let logs = logs.map(|path| fs::read_to_string(path).expect("pgbench wrote it"));
    logs.flat_map(|log| log.lines().map(turn).collect::<Vec<_>>())
        .collect()
}

fn turn(line: &str) -> Turn {
    let fields: Vec<u64> = line
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    let [_, number, _, _, seconds, micros] = <[u64; 6]>::try_from(fields)
        .unwrap_or_else(|_| panic!("pgbench logs six numbers a turn, not `{line}`"));
    Turn {
        number,
        at: seconds * 1_000_000 + micros,
    }
}

/// Counts from when each client has done its first turn, in which it prepares its statements: runtree's connections have theirs.
fn warm(done: &[Turn]) -> Lap {
    let first = done.iter().map(|turn| turn.number).min();
    let firsts = done.iter().filter(|turn| Some(turn.number) == first);
    let begin = firsts
        .map(|turn| turn.at)
        .max()
        .expect("because there are turns");
    let later: Vec<u64> = done
        .iter()
        .map(|turn| turn.at)
        .filter(|at| *at > begin)
        .collect();
    // Tried out, each client takes one turn.
    let end = later.iter().max().copied().unwrap_or(begin + 1);
    Lap {
        operations: later.len() as u64,
        spent: Duration::from_micros(end - begin),
    }
}

fn creating(seen: &Seen, run: RunId) -> Script {
    let id = uuid(run);
    let mut script = Script::default();
    script
        .text
        .push_str("\\set random random(0, 1000000000000000000)\n");
    script.add("c", seen, |value| {
        (value == format!("{{{id}}}")).then(|| format!("ARRAY[{NEW_ID}]"))
    });
    script.text.push_str(";\n");
    script
}

fn working(claim: &Seen, complete: &Seen, run: RunId) -> Script {
    let id = uuid(run);
    let mut script = Script::default();
    script.add("t", claim, |_| None);
    script.text.push_str("\n\\gset claimed_\n");
    script.add("e", complete, |value| {
        // The claim answers the bytes of the id. That its token is 1 is true of each, for each is claimed once.
        (value == id).then(|| "encode(:claimed_id::bytea, 'hex')::uuid".to_owned())
    });
    script.text.push_str(";\n");
    script
}

impl Script {
    /// Adds a statement, each of its values by the name of a variable, or what takes its place.
    fn add(&mut self, prefix: &str, seen: &Seen, instead: impl Fn(&str) -> Option<String>) {
        let mut replaced = 0;
        let mut pieces = seen.text.split('$');
        self.text.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = piece.split_at(digits);
            let place: usize = number.parse().expect("because a `$` has a number after it");
            let value = seen.values[place - 1].as_deref();
            match value.and_then(&instead) {
                Some(text) => {
                    self.text.push_str(&text);
                    replaced += 1;
                }
                // A variable without a value is NULL.
                None => write!(self.text, ":{prefix}{place}").expect("because a string takes it"),
            }
            self.text.push_str(rest);
        }
        for (place, value) in seen.values.iter().enumerate() {
            let name = format!("{prefix}{}", place + 1);
            self.variables
                .extend(value.clone().map(|value| (name, value)));
        }
        let has_ids = seen
            .values
            .iter()
            .flatten()
            .any(|value| instead(value).is_some());
        assert_eq!(has_ids, replaced > 0, "{}", seen.text);
    }
}

/// Reads out of the server's log what the first connection was set to: the first statement without values.
fn settings(log: &str) -> String {
    let log = log.replace("\n\t", "\u{1f}");
    let mut lines = log.lines();
    let text = lines.find_map(|line| Some(line.split_once("LOG:  statement: SET ")?.1));
    let text = text.expect("because a connection begins with its settings");
    format!("SET {}", text.trim_end_matches(';').replace('\u{1f}', "\n"))
}

/// Reads the statements out of the server's log: `execute <name>: <text>`, and their values in the line after.
fn seen(log: &str) -> Vec<Seen> {
    // What does not begin with a time goes on where the last line ended, behind a tab.
    let log = log.replace("\n\t", "\u{1f}");
    let mut statements = Vec::new();
    let mut last: Option<String> = None;
    for line in log.lines() {
        let line = line.replace('\u{1f}', "\n");
        if let Some((_, executed)) = line.split_once("LOG:  execute ") {
            let (_, text) = executed
                .split_once(": ")
                .expect("because a name comes first");
            last = Some(text.to_owned());
        } else if let Some((_, values)) = line.split_once("DETAIL:  parameters: ") {
            let values = parameters(values);
            statements.extend(last.take().map(|text| Seen { text, values }));
        }
    }
    statements
}

/// Reads `$1 = 'default', $2 = NULL`.
fn parameters(text: &str) -> Vec<Option<String>> {
    let mut values = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(" = ") {
        let Some(quoted) = after.strip_prefix('\'') else {
            values.push(None);
            rest = after;
            continue;
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices().peekable();
        let mut end = quoted.len();
        while let Some((at, character)) = characters.next() {
            if character != '\'' {
                value.push(character);
            } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
                value.push('\'');
            } else {
                end = at + 1;
                break;
            }
        }
        values.push(Some(value));
        rest = &quoted[end..];
    }
    values
}

fn log(server: &TestPostgres) -> String {
    server.execute(
        "postgres",
        "SELECT pg_read_file(current_setting('data_directory') || '/../log')",
    )
}

/// pgbench stands beside the programs of the server.
fn program(server: &TestPostgres) -> PathBuf {
    let directory = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
    PathBuf::from(server.execute("postgres", directory).trim()).join("pgbench")
}

/// An id as PostgreSQL writes it.
fn uuid(run: RunId) -> String {
    let hex: String = run
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
