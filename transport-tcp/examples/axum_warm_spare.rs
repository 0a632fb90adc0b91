//! A web service in two processes: one answers and fills its cache from a slow database, the other is its warm spare.
//!
//! Without arguments it starts itself twice, kills the first process, and shows that the second one asks the database
//! for nothing: `cargo run --release -p hotspare-tcp --example axum_warm_spare`
//!
//! With arguments it is one process of the service, the part to copy: where it answers HTTP, where it listens for
//! replication, and, for a spare, where its primary listens for replication:
//! ```text
//! axum_warm_spare 127.0.0.1:8080 127.0.0.1:7400
//! axum_warm_spare 127.0.0.1:8081 127.0.0.1:7401 127.0.0.1:7400
//! curl 127.0.0.1:8080/user/7      # and when that process is dead:
//! curl -X POST 127.0.0.1:8081/promote
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use hotspare::{Cache, Config, ReplicationConfig, Typed};
use hotspare_tcp::{Node, Options};
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
/// What a handler answers: a text, or a status and the reason.
type Answer = std::result::Result<String, (StatusCode, String)>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => demonstrate(),
        [http, replication] => tokio::runtime::Runtime::new()?.block_on(serve(http, replication, None)),
        [http, replication, primary] => {
            tokio::runtime::Runtime::new()?.block_on(serve(http, replication, Some(primary)))
        }
        _ => {
            Err("give nothing, or: HTTP_ADDRESS REPLICATION_ADDRESS [REPLICATION_ADDRESS_OF_THE_PRIMARY]"
                .into())
        }
    }
}

// The service.

#[derive(Serialize, Deserialize)]
struct User {
    name: String,
    visits: u32,
}

/// What is slow, and what the cache is there to spare.
#[derive(Default)]
struct Database {
    queries: AtomicUsize,
}

impl Database {
    async fn user(&self, number: u64) -> std::io::Result<User> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(User { name: format!("user {number}"), visits: 0 })
    }
}

#[derive(Clone)]
struct Service {
    users: Typed<u64, User>,
    database: Arc<Database>,
}

async fn serve(http: &str, replication: &str, primary: Option<&String>) -> Result<()> {
    let group = match primary {
        None => ReplicationConfig::primary(),
        // Its copy answers reads before it is promoted, too; what is not in it is loaded and not stored.
        Some(primary) => ReplicationConfig::replica_of(primary).replica_reads(true),
    };
    let cache = Cache::new(Config::new().memory_bytes_max(64 << 20).replication(group))?;
    // Replication has a thread of its own, beside the runtime.
    let node = Node::start(&cache, Options::new().listen(replication.parse()?))?;
    let service = Service { users: Typed::new(&cache, "user", 1)?, database: Arc::default() };
    let routes = Router::new()
        .route("/user/{number}", get(user))
        .route("/status", get(status))
        // In production: where only the fail-over manager reaches it.
        .route("/promote", post(promote))
        .with_state(service);
    let listener = tokio::net::TcpListener::bind(http).await?;
    println!("{} {}", listener.local_addr()?, node.listen_address().ok_or("it listens")?);
    let stop = async { tokio::signal::ctrl_c().await.expect("the system tells of Ctrl-C") };
    axum::serve(listener, routes).with_graceful_shutdown(stop).await?;
    // An orderly end ships what the spare lacks.
    node.shutdown(Duration::from_secs(5));
    Ok(())
}

/// From the cache, or else from the database: one query, however many requests want the same user.
async fn user(State(service): State<Service>, Path(number): Path<u64>) -> Answer {
    let load = service.database.user(number);
    let user = service.users.get_or_load_async(&number, Duration::from_secs(600), load).await;
    let user = user.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?;
    Ok(format!("{}, {} visits\n", user.name, user.visits))
}

async fn status(State(service): State<Service>) -> String {
    let status = service.users.cache().status();
    let queries = service.database.queries.load(Ordering::Relaxed);
    format!("role {}\nseq {}\nqueries {queries}\n", status.role.as_str(), status.seq)
}

async fn promote(State(service): State<Service>) -> Answer {
    let term = service.users.cache().promote(false);
    let term = term.map_err(|error| (StatusCode::CONFLICT, error.to_string()))?;
    Ok(format!("primary of term {term}\n"))
}

// The demonstration.

const USERS: u64 = 200;
const CLIENTS: u64 = 8;

fn demonstrate() -> Result<()> {
    let mut primary = Process::start(&["127.0.0.1:0", "127.0.0.1:0"])?;
    let spare = Process::start(&["127.0.0.1:0", "127.0.0.1:0", &primary.replication])?;

    ask_for_all_users(&primary)?;
    let before = primary.figure("queries")?;
    println!("{CLIENTS} clients asked for {USERS} users each; the primary asked its database {before} times");
    assert_eq!(before, USERS, "each user was loaded once, for all clients");

    // Replication is asynchronous: wait until the spare has the last write.
    let deadline = Instant::now() + Duration::from_secs(20);
    while spare.figure("seq")? < primary.figure("seq")? {
        assert!(Instant::now() < deadline, "the spare does not catch up");
        std::thread::sleep(Duration::from_millis(5));
    }
    primary.kill()?;
    print!("the primary was killed; the spare is {}", spare.request("POST", "/promote")?);

    ask_for_all_users(&spare)?;
    let after = spare.figure("queries")?;
    println!("the same clients asked the spare for the same users; it asked its database {after} times");
    assert_eq!(after, 0, "the spare is warm");

    // It is a primary like any other: what it loads it keeps.
    spare.request("GET", "/user/1000000")?;
    spare.request("GET", "/user/1000000")?;
    assert_eq!(spare.figure("queries")?, 1, "a new user was loaded once");
    Ok(())
}

/// All clients at once, each beginning with another user.
fn ask_for_all_users(service: &Process) -> Result<()> {
    std::thread::scope(|scope| {
        let ask = |client: u64| {
            (0..USERS).try_for_each(|step| {
                let number = (step + client * USERS / CLIENTS) % USERS;
                let answer = service.request("GET", &format!("/user/{number}"))?;
                assert_eq!(answer, format!("user {number}, 0 visits\n"));
                Ok(())
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || ask(client))).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
    })
}

/// One process of the service; it dies with this handle.
struct Process {
    child: Child,
    http: String,
    replication: String,
}

impl Process {
    /// Starts this program with arguments, and reads from its first line which ports it took.
    fn start(arguments: &[&str]) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut process = Process { child, http: String::new(), replication: String::new() };
        let mut line = String::new();
        BufReader::new(process.child.stdout.take().ok_or("piped")?).read_line(&mut line)?;
        let (http, replication) = line.trim().split_once(' ').ok_or("it did not start")?;
        (process.http, process.replication) = (http.to_owned(), replication.to_owned());
        Ok(process)
    }

    /// SIGKILL: nothing is said, nothing is flushed.
    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// One request on a connection of its own; the answer's body.
    fn request(&self, method: &str, path: &str) -> Result<String> {
        let mut connection = TcpStream::connect(&self.http)?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(connection, "{method} {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
        if head.split(' ').nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(answer.into()) }
    }

    /// A number of `/status`.
    fn figure(&self, name: &str) -> Result<u64> {
        let status = self.request("GET", "/status")?;
        let figure = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such figure")?;
        Ok(figure.trim().parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.kill();
    }
}
