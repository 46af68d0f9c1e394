//! Programs of cargo's kind that the checks need: pinned, and installed below `target` where the machine lacks them.

use std::process::Command;

use crate::shell::{self, Shell};
use crate::{Result, console};

/// Where tools are installed that the machine lacks, below the workspace.
const TOOLS: &str = "target/tools";

/// A subcommand of cargo's, in the one version that the checks are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// The package and its program: `cargo-` and the subcommand.
    pub(crate) package: &'static str,
    /// The version.
    pub(crate) version: &'static str,
}

/// Checks `deny.toml`.
pub(crate) const DENY: Tool = Tool {
    package: "cargo-deny",
    version: "0.20.2",
};

/// Lists the public items of a crate; each version reads one version of rustdoc's JSON.
pub(crate) const PUBLIC_API: Tool = Tool {
    package: "cargo-public-api",
    version: "0.52.0",
};

impl Tool {
    /// Answers a command of this tool, which is installed first where it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be installed.
    pub(crate) fn command(self, shell: &Shell) -> Result<Command> {
        let subcommand = self.package.trim_start_matches("cargo-");
        if self.is_itself(&mut shell.cargo(&[subcommand, "--version"])) {
            return Ok(shell.cargo(&[subcommand]));
        }
        let own = shell.root().join(TOOLS).join("bin").join(self.package);
        if !self.is_itself(shell.command(&own).arg("--version")) {
            let Self { package, version } = self;
            console::say(&format!("installing {package} {version} in {TOOLS}"));
            shell::run(&mut self.installation(shell))?;
        }
        Ok(shell.command(own))
    }

    fn is_itself(self, command: &mut Command) -> bool {
        let output = command.output().ok();
        let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
        text.is_some_and(|text| version_in(&text) == Some(self.version))
    }

    /// Makes the command that installs the tool: built without optimisation it takes a third of the
    /// time, and what it does is short either way.
    fn installation(self, shell: &Shell) -> Command {
        let mut command = shell.cargo(&[
            "install",
            self.package,
            "--version",
            self.version,
            "--locked",
            "--debug",
            "--no-default-features",
            "--root",
            TOOLS,
        ]);
        command
            .env("CARGO_PROFILE_DEV_DEBUG", "false")
            // In a directory of its own that goes afterwards, whatever the tests are built in.
            .env_remove("CARGO_TARGET_DIR");
        command
    }
}

/// Answers the version in what a tool says of itself, as in `cargo-deny 0.20.2`.
fn version_in(text: &str) -> Option<&str> {
    text.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_says_another_version_or_nothing_is_not_the_tool() {
        let shell = Shell::of_workspace();
        let says = |text: &str| DENY.is_itself(shell.command("echo").arg(text));
        assert!(says(&format!("cargo-deny {}", DENY.version)));
        assert!(!says("cargo-deny 0.0.1"));
        assert!(!says(""));
        assert!(!DENY.is_itself(&mut shell.command("runtree-no-such-program")));
    }
}
