//! The server as a program, built beside the tests that kill it.

fn main() -> std::process::ExitCode {
    hotspare_server::main()
}
