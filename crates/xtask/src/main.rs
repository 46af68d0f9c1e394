//! The entry of `cargo xtask`: reads the arguments, does it, and answers with an honest exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match xtask::cli::parse(arguments).and_then(xtask::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                #[expect(
                    clippy::print_stderr,
                    reason = "a program's last word on why it failed"
                )]
                {
                    eprintln!("xtask: {failure}");
                }
            }
            ExitCode::FAILURE
        }
    }
}
