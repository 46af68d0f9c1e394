//! The one place where these commands print lines of their own.

#![expect(clippy::print_stdout, reason = "a command tells its user what it does")]

use std::io::Write as _;
use std::time::Duration;

/// Prints a line, before whatever a program started next prints.
pub(crate) fn say(line: &str) {
    println!("{line}");
    // A closed pipe is the reader's wish to hear no more, not a failure of the work.
    std::io::stdout().flush().ok();
}

/// Prints the title of a step, set off from what came before.
pub(crate) fn title(text: &str) {
    say(&format!("\n==> {text}"));
}

/// Writes a duration as people read it.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{seconds}.{} s", time.subsec_millis() / 100)
    }
}
