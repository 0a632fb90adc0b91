//! Telling systemd how the process is: it serves, it stops, it still lives (`Type=notify`, `WatchdogSec=`).
//!
//! All of it does nothing where no `NOTIFY_SOCKET` is set. What a socket refuses is only told: a server that serves is no
//! worse for it.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything listens.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// It stops listening, and takes its time to end.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

/// It lives.
pub(crate) fn alive() {
    tell(NotifyState::Watchdog);
}

/// How often the service manager wants to hear that this process lives, if at all: half of what it allows.
pub(crate) fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2).filter(|interval| !interval.is_zero())
}

fn tell(state: NotifyState<'_>) {
    if let Err(why) = sd_notify::notify(&[state]) {
        tracing::warn!(%why, "the service manager can't be told how this server is");
    }
}
