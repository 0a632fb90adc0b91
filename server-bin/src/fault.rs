//! A fault of the server's own: one of its threads panicked.
//!
//! Lives here: that the whole process ends then, with a line that says so. A process that went on would answer its health
//! checks without the thread that accepts clients, runs a quarter of them, or replicates, and no supervisor would restart
//! it. One that has ended is started again by its supervisor, and its replica may be promoted meanwhile.

use std::panic;
use std::thread;

/// Exit code for a fault of the program's own (`EX_SOFTWARE`).
pub(crate) const EXIT_FAULT: u8 = 70;

/// From now on the first panic of any thread ends this process, as if it had been killed: nothing is drained or saved.
pub(crate) fn end_process_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        let thread = thread::current();
        crate::say(&format!(
            "the thread {} panicked, which is a fault in this program: the process ends (exit code {EXIT_FAULT})",
            thread.name().unwrap_or("without a name")
        ));
        std::process::exit(i32::from(EXIT_FAULT));
    }));
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::process::{Command, Stdio};

    use hotspare::{Cache, Config};

    use super::*;
    use crate::server::Server;
    use crate::settings::Settings;

    /// The part of the test below that runs in a process of its own: a server whose first worker panics at a client's command.
    const CHILD: &str = "HOTSPARE_TEST_OF_FAULTS";

    #[test]
    fn a_worker_that_panics_ends_the_process_with_a_line_and_a_code() {
        if std::env::var_os(CHILD).is_some() {
            return serve_and_panic();
        }
        let name = "fault::tests::a_worker_that_panics_ends_the_process_with_a_line_and_a_code";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(i32::from(EXIT_FAULT)), "{said}");
        let line = said.lines().last().unwrap();
        assert!(line.starts_with("hotspare: the thread hotspare-worker-0 panicked"), "{said}");
        assert!(said.contains("as the test wants it"), "the panic itself is told, too: {said}");
    }

    fn serve_and_panic() {
        end_process_on_panic();
        let settings = Settings {
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            shutdown_command: true,
            threads: 1,
            ..Settings::default()
        };
        let cache = Cache::new(Config::new()).unwrap();
        let server = Server::start(cache, settings, |_| panic!("as the test wants it")).unwrap();
        let mut client = TcpStream::connect(server.addresses()[0]).unwrap();
        client.write_all(b"shutdown\r\n").unwrap();
        // Until the process ends, or, if it does not, the worker has closed the connection.
        let _ = client.read(&mut [0; 64]);
        std::thread::sleep(std::time::Duration::from_secs(2));
    }
}
