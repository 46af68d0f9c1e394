//! Makes sure of the programs that the tests need, and installs them where that can be done.

use std::fs;
use std::path::Path;

use crate::shell::{self, Shell};
use crate::{Failure, Result, console, environment};

/// A setting of Debian's packaging that would make and start a system cluster with the server.
const CLUSTER_CONF: &str = "/etc/postgresql-common/createcluster.conf";

/// What the machine offers for an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Whether there is `apt-get`.
    pub apt: bool,
    /// Whether this is root.
    pub root: bool,
    /// Whether there is `sudo`.
    pub sudo: bool,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look(shell: &Shell) -> Self {
        Self {
            apt: environment::program("apt-get").is_some(),
            root: shell::read(shell.command("id").arg("-u")).is_ok_and(|id| id.trim() == "0"),
            sudo: environment::program("sudo").is_some(),
        }
    }

    /// Answers the words that go before a command so that it may change the system, if there is a way.
    #[must_use]
    pub const fn as_root(self) -> Option<&'static [&'static str]> {
        match (self.root, self.sudo) {
            (true, _) => Some(&[]),
            (false, true) => Some(&["sudo"]),
            (false, false) => None,
        }
    }
}

/// Makes sure that there is a server to test on: a given one, or programs to start one.
///
/// # Errors
///
/// When there is none and none can be installed; the message says in one line what to install.
pub fn postgres(shell: &Shell) -> Result {
    let given = environment::variable(runtree_testkit::postgres::URL_VARIABLE).is_some();
    if given || has_postgres() {
        return Ok(());
    }
    let machine = Machine::look(shell);
    let Some(as_root) = machine.as_root().filter(|_| machine.apt) else {
        return Err(Failure::new(missing_postgres()));
    };
    console::title("PostgreSQL's server is missing: installing it");
    for words in postgres_installation() {
        apt(shell, as_root, &words)
            .map_err(|failure| Failure::new(format!("{}\n{failure}", missing_postgres())))?;
    }
    if has_postgres() {
        Ok(())
    } else {
        Err(Failure::new(missing_postgres()))
    }
}

/// Makes sure that there is a git program, the witness in the tests of worktrees.
///
/// # Errors
///
/// When there is none and none can be installed; the message says in one line what to install.
pub fn git(shell: &Shell) -> Result {
    const MISSING: &str = "git is missing: install it (Debian/Ubuntu: apt-get install git)";
    if environment::program("git").is_some() {
        return Ok(());
    }
    let machine = Machine::look(shell);
    let Some(as_root) = machine.as_root().filter(|_| machine.apt) else {
        return Err(Failure::new(MISSING));
    };
    console::title("git is missing: installing it");
    for words in [UPDATE.to_vec(), install("git")] {
        apt(shell, as_root, &words)
            .map_err(|failure| Failure::new(format!("{MISSING}\n{failure}")))?;
    }
    Ok(())
}

const UPDATE: &[&str] = &["apt-get", "update"];

/// The commands that install the server without the cluster that the package would start.
fn postgres_installation() -> [Vec<&'static str>; 5] {
    let cluster = |words: &[&'static str]| [&["pg_conftool", CLUSTER_CONF], words].concat();
    [
        UPDATE.to_vec(),
        install("postgresql-common"),
        cluster(&["set", "create_main_cluster", "false"]),
        install("postgresql"),
        // Back to the default: what is installed on this machine later is not ours to decide.
        cluster(&["remove", "create_main_cluster"]),
    ]
}

fn install(package: &'static str) -> Vec<&'static str> {
    vec![
        "apt-get",
        "install",
        "-y",
        "--no-install-recommends",
        package,
    ]
}

fn apt(shell: &Shell, as_root: &[&str], words: &[&str]) -> Result {
    // `env` passes the setting through sudo, which would drop the variable.
    let quiet = ["env", "DEBIAN_FRONTEND=noninteractive"];
    let mut words = as_root.iter().chain(&quiet).chain(words);
    let program = words.next().expect("the list holds at least `env`");
    shell::run(shell.command(*program).args(words))
}

/// Looks where the test kit looks: on the path and where Debian puts the servers.
fn has_postgres() -> bool {
    let complete = |bin: &Path| {
        ["initdb", "pg_ctl", "psql"]
            .iter()
            .all(|program| bin.join(program).is_file())
    };
    let on_path = environment::program("initdb")
        .as_deref()
        .and_then(Path::parent)
        .is_some_and(complete);
    on_path
        || fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(std::result::Result::ok)
            .any(|entry| complete(&entry.path().join("bin")))
}

fn missing_postgres() -> String {
    format!(
        "PostgreSQL's server is missing: install it (Debian/Ubuntu: apt-get install postgresql), \
         or set {} to a server where the tests may make databases",
        runtree_testkit::postgres::URL_VARIABLE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_changed_by_root_or_through_sudo_or_not_at_all() {
        let machine = |root, sudo| Machine {
            apt: true,
            root,
            sudo,
        };
        assert_eq!(machine(true, true).as_root(), Some(&[][..]));
        assert_eq!(machine(false, true).as_root(), Some(&["sudo"][..]));
        assert_eq!(machine(false, false).as_root(), None);
    }

    #[test]
    fn the_package_makes_no_cluster_of_its_own_and_the_setting_is_taken_back() {
        let commands = postgres_installation();
        let place = |words: &[&str]| commands.iter().position(|command| command.ends_with(words));
        let off = place(&["set", "create_main_cluster", "false"]).expect("it is set");
        let install = place(&["postgresql"]).expect("it is installed");
        let back = place(&["remove", "create_main_cluster"]).expect("it is removed");
        assert!(off < install && install < back);
    }

    #[test]
    fn what_is_missing_is_said_in_one_line() {
        assert!(!missing_postgres().contains('\n'));
    }
}
