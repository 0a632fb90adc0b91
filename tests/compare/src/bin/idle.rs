//! What idle connections cost servers in memory: each connection asks once, and then says nothing.
//!
//! The same for every server: its process' resident memory with the connections, less that with one connection, which has
//! warmed it. What the system keeps of a socket is the same for all, and not in it.

use std::io::{self, BufRead, BufReader, Error, Write};
use std::net::TcpStream;

use clap::Parser;
use hotspare_compare::served::process::{Chosen, Family, Program, Server};
use hotspare_server::bench::load::Address;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Connections; each takes a descriptor of this process (`ulimit -n`).
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// A connection that has been answered once.
fn quiet(server: &Server) -> io::Result<TcpStream> {
    let Address::Tcp(address) = &server.address else { return Err(Error::other("no TCP")) };
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"get a\r\n")?;
    let mut line = String::new();
    // Nothing comes behind the line, so nothing is lost with the reader.
    BufReader::with_capacity(64, &stream).read_line(&mut line)?;
    if line == "END\r\n" { Ok(stream) } else { Err(Error::other(format!("{} said {line:?}", server.name))) }
}

/// Bytes a connection.
fn measure(program: &Program, connections: usize) -> io::Result<f64> {
    let server = Server::start(program, false, None)?;
    let first = quiet(&server)?;
    let before_kib = server.resident_kib()?;
    let others = (1..connections).map(|_| quiet(&server)).collect::<io::Result<Vec<_>>>()?;
    let more_kib = server.resident_kib()?.saturating_sub(before_kib);
    drop((first, others));
    let each = (more_kib << 10) as f64 / connections as f64;
    println!(
        "{:10} {more_kib:6} KiB for {connections} idle connections, {each:4.0} bytes each",
        program.name
    );
    Ok(each)
}

fn main() -> io::Result<()> {
    let args = Args::parse();
    let mut all = args.chosen.programs(args.threads, args.connections + 100);
    all.retain(|program| program.family == Family::Memcached);
    let mut first = None;
    for program in &all {
        let each = measure(program, args.connections)?;
        match first {
            None => first = Some(each),
            Some(first) => println!("{:10} {:.2} of {}", all[0].name, first / each, program.name),
        }
    }
    Ok(())
}
