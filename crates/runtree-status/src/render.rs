//! The transition table as documents: Markdown, Graphviz and Mermaid.

use std::fmt::Write as _;

use crate::status::RunStatus;
use crate::transition::{TRANSITIONS, Transition};

/// Renders [`TRANSITIONS`] as a Markdown table.
///
/// The table in this crate's front page is this text; a test compares them.
#[must_use]
pub fn transition_table_markdown() -> String {
    let mut table = String::from(
        "| # | event | from | to | end reason | guard | effect |\n|---|---|---|---|---|---|---|\n",
    );
    for row in TRANSITIONS {
        let cells = [
            row.number.to_string(),
            row.event.to_string(),
            from_text(row),
            to_text(row),
            row.end_reason
                .map(|reason| reason.to_string())
                .unwrap_or_default(),
            row.guard.to_owned(),
            row.effect.to_owned(),
        ];
        table.push('|');
        for cell in cells {
            push(&mut table, format_args!(" {cell} |"));
        }
        table.push('\n');
    }
    table
}

/// Renders [`TRANSITIONS`] as a Graphviz digraph: one node a status, one edge an event.
///
/// Events that leave the status as it is are edges from a node to itself.
#[must_use]
pub fn transition_diagram_dot() -> String {
    let mut dot = String::from("digraph run {\n    rankdir = LR;\n    start [shape = point];\n");
    for status in RunStatus::KNOWN {
        let shape = match status.is_ended() {
            Some(true) => "doublecircle",
            Some(false) | None => "circle",
        };
        push(&mut dot, format_args!("    {status} [shape = {shape}];\n"));
    }
    for (from, to, label) in edges("start", "\\n") {
        push(
            &mut dot,
            format_args!("    {from} -> {to} [label = \"{label}\"];\n"),
        );
    }
    dot.push_str("}\n");
    dot
}

/// Renders [`TRANSITIONS`] as a Mermaid state diagram.
#[must_use]
pub fn transition_diagram_mermaid() -> String {
    let mut mermaid = String::from("stateDiagram-v2\n    direction LR\n");
    for (from, to, label) in edges("[*]", ", ") {
        push(&mut mermaid, format_args!("    {from} --> {to}: {label}\n"));
    }
    for status in RunStatus::KNOWN {
        if status.is_ended() == Some(true) {
            push(&mut mermaid, format_args!("    {status} --> [*]\n"));
        }
    }
    mermaid
}

/// Returns every pair of nodes the table connects, once, with the events between them.
fn edges(start: &str, separator: &str) -> Vec<(String, String, String)> {
    let mut edges: Vec<(String, String, String)> = Vec::new();
    let mut add = |from: String, to: String, event: String| match edges
        .iter_mut()
        .find(|edge| edge.0 == from && edge.1 == to)
    {
        Some(edge) => {
            edge.2.push_str(separator);
            edge.2.push_str(&event);
        }
        None => edges.push((from, to, event)),
    };
    for row in TRANSITIONS {
        if let (true, Some(to)) = (row.from.is_empty(), row.to) {
            add(start.to_owned(), to.to_string(), row.event.to_string());
        }
        for from in row.from {
            let to = row.to.unwrap_or(*from);
            add(from.to_string(), to.to_string(), row.event.to_string());
        }
    }
    edges
}

fn from_text(row: &Transition) -> String {
    if row.from.is_empty() {
        return "none".to_owned();
    }
    let words: Vec<&str> = row.from.iter().map(RunStatus::as_str).collect();
    words.join(", ")
}

fn to_text(row: &Transition) -> String {
    row.to
        .map_or_else(|| "as it is".to_owned(), |to| to.to_string())
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece)
        .expect("because writing to a string does not fail");
}
