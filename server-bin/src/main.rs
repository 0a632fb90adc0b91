//! The binary `hotspare`; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hotspare_server::main()
}
