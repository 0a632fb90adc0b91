//! The process's log: one writer, whose level `-v` sets at the start and the `verbosity` command later (rule G1).

use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// Changes the level of the log that was started here.
static SET_LEVEL: OnceLock<Box<dyn Fn(u8) + Send + Sync>> = OnceLock::new();

fn filter(verbosity: u8) -> EnvFilter {
    EnvFilter::new(match verbosity {
        0 => "info",
        1 => "debug",
        _ => "trace",
    })
}

/// How lines are written (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Begins to write to standard error. `RUST_LOG` counts more than the verbosity.
pub(crate) fn start(verbosity: u8, format: LogFormat) {
    let first = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(verbosity));
    let (filter_layer, handle) = reload::Layer::<EnvFilter, Registry>::new(first);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // A program that embeds this may have its own log already: that one stays as it is.
    if tracing_subscriber::registry().with(filter_layer).with(lines).try_init().is_ok() {
        // A second start would have failed above.
        let _ = SET_LEVEL.set(Box::new(move |verbosity| {
            // The log is gone only when the process is.
            let _ = handle.reload(filter(verbosity));
        }));
    }
}

/// Says more or less from now on.
pub(crate) fn set_verbosity(verbosity: u8) {
    if let Some(set_level) = SET_LEVEL.get() {
        set_level(verbosity);
    }
}
