//! The server `hotspare` as a library, so that tests can start it in their own process and from their own binary.
//!
//! | module | concept |
//! |---|---|
//! | `args` | flags to settings, each checked |
//! | `log` | the process's log |
//! | `replication` | the transport that carries replication |
//! | `certificates` | the command `cert` |
//! | `run` | the life of the process: start, wait, drain, stop |
//! | `fault` | a panic ends the process |
//! | `daemon` | the background, the pid file, another user |
//! | `server` | memcached's clients |
//! | `users` | their names and passwords |
//! | `admin` | the operator's HTTP, and `control`, its command-line client |
//! | `keepalived` | a node's role in step with keepalived's virtual address |
//! | `service_manager` | telling systemd how the process is |
//! | `debug_clock` | a clock for tests |
//! | `demo` | the demonstration |
//! | `bench` | any memcached server under load |

mod admin;
mod args;
pub mod bench;
mod certificates;
mod control;
mod daemon;
pub mod debug_clock;
pub mod demo;
mod fault;
mod keepalived;
mod log;
mod memory_file;
mod replication;
mod run;
pub mod server;
mod service_manager;
pub mod settings;
pub mod users;

/// Entry points for fuzzing what clients and files say.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::server::cuts::check as check_connection;
}

use std::io::Write as _;
use std::process::ExitCode;

/// What `-i` prints.
const LICENSE: &str = "hotspare may be used under the MIT license or the Apache License 2.0, as you like; both come with its source, as \
                       LICENSE-MIT and LICENSE-APACHE.";

/// Exit code for flags that can't be carried out (`EX_USAGE`, as memcached's).
pub(crate) const EXIT_USAGE: u8 = 64;

/// Exit code for a user that there is not (`EX_NOUSER`, as memcached's).
pub(crate) const EXIT_USER: u8 = 67;

/// Exit code for what the system refuses, such as a port in use (`EX_OSERR`, as memcached's).
pub(crate) const EXIT_SYSTEM: u8 = 71;

/// The program: reads the process's arguments, does what they say, gives the exit code.
pub fn main() -> ExitCode {
    match args::parse(std::env::args_os()) {
        Ok(args::Action::Serve(plan)) if plan.daemon.starts_second => {
            daemon::start_in_background(std::env::args_os().skip(1))
        }
        Ok(args::Action::Serve(plan)) => run::serve(*plan),
        Ok(args::Action::License) => {
            print(LICENSE);
            ExitCode::SUCCESS
        }
        Ok(args::Action::Control(request)) => control::run(&request),
        Ok(args::Action::Keepalived(plan)) => keepalived::run(plan),
        Ok(args::Action::Demo(options)) => demo::run(&options),
        Ok(args::Action::Bench(plan)) => bench::run(&plan),
        Ok(args::Action::Cert(options)) => certificates::run(&options),
        Err(args::Refusal::Message(text)) => {
            say(&text);
            ExitCode::from(EXIT_USAGE)
        }
        Err(args::Refusal::Host(text)) => {
            say(&text);
            ExitCode::from(EXIT_SYSTEM)
        }
        Err(args::Refusal::Clap(error)) => {
            // Help and the version go to standard output and are no failure.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            say(&args::in_one_line(&error));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// One line on standard error. Nobody reading it is no reason to panic.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "hotspare: {text}");
}

/// The result of a command on standard output. Who closed the pipe has read enough.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}
