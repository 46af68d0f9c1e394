//! What people see: a live line per run on a terminal, plain lines elsewhere, and tables.

use std::error::Error;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use runtree::repository::{RunSummary, WorktreeQuery, WorktreeState};
use runtree::{Coordinator, Keep, Recovery, SweepMode, SweepReport, Timestamp, Verdict};

use crate::Failure;

/// Prints a line. Whoever reads it may go away early, as `head` does, which stops nothing.
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stdout().lock(), $($part)*));
    }};
}
use crate::check::Left;
pub(crate) use say;

/// Prints the title of what follows.
pub(crate) fn heading(title: &str) {
    say!("\n{title}\n{}", "-".repeat(title.len()));
}

/// Writes an error with everything that caused it.
pub(crate) fn with_sources(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.ends_with(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}

/// Writes an instant as people in Cairo's winter would, with the offset `+02:00`.
pub(crate) fn in_cairo(at: Timestamp) -> String {
    let local = at.saturating_add(Duration::from_secs(2 * 3_600)).to_text();
    local.as_str().replace('Z', "+02:00")
}

/// Writes an instant with `Z`.
pub(crate) fn in_utc(at: Timestamp) -> String {
    at.to_string()
}

/// Prints what an earlier start had left and this one has recovered, if there was anything.
pub(crate) fn recovery(recovery: &Recovery) {
    if recovery.is_empty() {
        return;
    }
    heading("Recovered from an earlier start that was cut short");
    for rescued in &recovery.rescued {
        say!("the run {} is {}", rescued.run.id, rescued.run.status);
    }
    for cleaned_up in &recovery.cleaned_up {
        say!(
            "the worktree {} is {}",
            cleaned_up.worktree.path,
            cleaned_up.worktree.state.as_str()
        );
    }
    for recovered in &recovery.worktrees {
        say!("the worktree {}: {:?}", recovered.name, recovered.recovery);
    }
    for left in &recovery.left {
        say!("left for next time: {left}");
    }
}

/// The progress of several runs.
pub(crate) struct Progress(Option<MultiProgress>);

/// The progress of one run.
#[derive(Clone)]
pub(crate) struct Line {
    workflow: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Draws live lines when somebody watches on a terminal.
    pub(crate) fn new() -> Self {
        Self(std::io::stdout().is_terminal().then(MultiProgress::new))
    }

    /// Adds a run.
    pub(crate) fn line(&self, workflow: &'static str) -> Line {
        let bar = self.0.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{spinner} {prefix:<16} {msg}");
            bar.set_style(
                style.expect("because the template is right, as every run of this shows"),
            );
            bar.set_prefix(workflow);
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Line { workflow, bar }
    }
}

impl Line {
    /// Shows where the run stands.
    pub(crate) fn show(&self, step: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(step.to_owned()),
            None => say!("{:<16} {step}", self.workflow),
        }
    }

    /// Shows how the run ended.
    pub(crate) fn end(&self, step: &str) {
        match &self.bar {
            Some(bar) => bar.finish_with_message(step.to_owned()),
            None => self.show(step),
        }
    }
}

/// Prints what a sweep found.
pub(crate) fn sweep(report: &SweepReport) {
    let verb = match report.mode {
        SweepMode::DryRun => "would remove",
        SweepMode::Real => "removed",
    };
    for entry in &report.entries {
        let path = entry.path.display();
        match &entry.verdict {
            Verdict::Remove(removal) => {
                say!(
                    "{verb:<13} {path} ({} files saved first)",
                    removal.saved.len()
                );
            }
            Verdict::Keep(keep) => say!("{:<13} {path} ({})", "keep", why(keep)),
            _ => say!("{:<13} {path}", "?"),
        }
    }
}

fn why(keep: &Keep) -> String {
    match keep {
        Keep::Main => "the main worktree".to_owned(),
        Keep::Persistent => "persistent".to_owned(),
        Keep::Foreign => "not made by runtree".to_owned(),
        Keep::NoRecord
        | Keep::Active
        | Keep::Young { .. }
        | Keep::CleanupPending
        | Keep::KeptBefore(_)
        | Keep::Unsafe(_)
        | Keep::Gone
        | Keep::Failed(_)
        | _ => format!("{keep:?}"),
    }
}

/// Prints the runs: id, workflow, status, end reason, duration, worktree, branch.
pub(crate) async fn table(coordinator: &Coordinator, runs: &[RunSummary]) -> Result<(), Failure> {
    let mut rows = vec![
        [
            "run",
            "workflow",
            "status",
            "end reason",
            "duration",
            "worktree",
            "branch",
        ]
        .map(str::to_owned),
    ];
    for run in runs {
        let worktrees = coordinator
            .runs()
            .worktrees(&WorktreeQuery::Run(run.id))
            .await?;
        let worktree = match worktrees.last() {
            Some(worktree) if worktree.state == WorktreeState::Kept => {
                format!("kept: {}", worktree.wanted.name)
            }
            Some(worktree) => worktree.state.as_str().to_owned(),
            None => "-".to_owned(),
        };
        let none = || "-".to_owned();
        rows.push([
            format!("...{}", run.id.short()),
            run.workflow.to_string(),
            run.status.to_string(),
            run.end_reason
                .map_or_else(none, |reason| reason.to_string()),
            run.duration()
                .map_or_else(none, |time| format!("{:.2} s", time.as_secs_f64())),
            worktree,
            run.worktree
                .as_ref()
                .map_or_else(none, |worktree| worktree.branch.to_string()),
        ]);
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        say!("{}", cells.join("  ").trim_end());
    }
    Ok(())
}

/// Names what is left on purpose, and the commands that remove it.
pub(crate) fn how_to_remove(repo: &Path, left: &Left, is_demo: bool) {
    let git = format!("git -C {}", quoted(&repo.to_string_lossy()));
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    say!(
        "Left on purpose: {}, {}, {}.",
        count(left.branches.len(), "branch").replace("branchs", "branches"),
        count(left.salvages.len(), "salvage ref"),
        count(left.worktrees.len(), "persistent worktree"),
    );
    say!("These commands remove them:\n");
    for worktree in &left.worktrees {
        say!(
            "  {git} worktree remove {}",
            quoted(&worktree.to_string_lossy())
        );
    }
    say!("  {git} branch -D {}", left.branches.join(" "));
    for salvage in &left.salvages {
        say!("  {git} update-ref -d {salvage}");
    }
    if let Some(root) = &left.root {
        say!("  rmdir {}", quoted(&root.to_string_lossy()));
    }
    if let Some(corner) = &left.corner {
        say!("  rm -r {}", quoted(&corner.to_string_lossy()));
    }
    if is_demo {
        let place = repo.parent().unwrap_or(repo);
        say!(
            "\nOr, as it was only a demonstration: rm -r {}",
            quoted(&place.to_string_lossy())
        );
    }
}

/// Quotes a text for a POSIX shell where it needs it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
