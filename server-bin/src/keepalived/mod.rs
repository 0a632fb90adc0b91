//! The command `keepalived`: keeps a node's role in step with keepalived's virtual address.
//!
//! Lives here: reading the notify FIFO, looking at the node through its admin server, carrying out what the keeper
//! decides, saying all of it. Not here: the recipe for two machines (see `deploy/README.md`).

mod fifo;
mod keeper;
mod line;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::args::KeepalivedPlan;
use crate::control;
use crate::log::LogFormat;
use fifo::{Fifo, Line};
use keeper::{Deed, Keeper, View};
use line::Notice;

/// The longest wait for a line while there is nothing else to do.
const IDLE: Duration = Duration::from_secs(1);

/// How long nobody may have the FIFO open for writing before keepalived counts as ended; a reload makes it anew.
const ORPHANED_MAX: Duration = Duration::from_millis(1_500);

/// Odd lines that are told of one after the other; of more only a good line makes tell again.
const ODD_LINES_TOLD: u32 = 10;

/// The bytes of an odd line that are told.
const ODD_BYTES_TOLD: usize = 80;

/// Runs until a signal ends it.
pub(crate) fn run(plan: KeepalivedPlan) -> ExitCode {
    crate::log::start(0, LogFormat::Text);
    tracing::info!(
        fifo = %plan.fifo.display(),
        admin = plan.node.address,
        other = plan.other.as_deref().unwrap_or("unknown"),
        "keeping a node's role in step with keepalived"
    );
    let mut fifo = Fifo::at(&plan.fifo);
    let mut guard = Guard::new(plan);
    loop {
        for line in fifo.wait(guard.idle_for()) {
            guard.take(&line);
        }
        guard.heed_end(fifo.orphaned_for());
        guard.act();
    }
}

/// One node, its keeper, and what was said last.
struct Guard {
    plan: KeepalivedPlan,
    keeper: Keeper,
    began: Instant,
    /// The instance that is obeyed: the one given, else the first one named.
    instance: Option<String>,
    odd_lines: u32,
    last_said: String,
}

impl Guard {
    fn new(plan: KeepalivedPlan) -> Guard {
        let instance = plan.instance.clone();
        Guard {
            plan,
            keeper: Keeper::new(),
            began: Instant::now(),
            instance,
            odd_lines: 0,
            last_said: String::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn idle_for(&self) -> Duration {
        let left = |due_ms: u64| Duration::from_millis(due_ms.saturating_sub(self.now_ms()));
        self.keeper.due_ms().map_or(IDLE, left)
    }

    fn take(&mut self, line: &Line) {
        let (line, read) = match line {
            Line::Whole(line) => (line, line::parse(line)),
            Line::TooLong(line) => (line, Err("it is too long")),
        };
        match read {
            Ok((name, notice)) if self.instance.get_or_insert_with(|| name.to_owned()) == name => {
                self.odd_lines = 0;
                // It comes with every advertisement.
                if notice != Notice::LowerHeard {
                    tracing::info!(instance = name, "keepalived says {}", line.escape_ascii());
                }
                let now_ms = self.now_ms();
                self.keeper.handle_notice(notice, now_ms);
            }
            Ok(_) => self.tell_odd(line, "it is of another instance (see --instance)"),
            Err(why) => self.tell_odd(line, why),
        }
    }

    /// A keepalived that was killed says no more what holds, and another machine takes over.
    fn heed_end(&mut self, orphaned_for: Duration) {
        self.keeper.handle_heard(orphaned_for.is_zero());
        if orphaned_for > ORPHANED_MAX && self.keeper.due_ms().is_some() {
            tracing::warn!("keepalived has ended without a word: the node is left as it is");
            let now_ms = self.now_ms();
            self.keeper.handle_notice(Notice::Stop, now_ms);
        }
    }

    fn tell_odd(&mut self, line: &[u8], why: &str) {
        self.odd_lines = self.odd_lines.saturating_add(1);
        if self.odd_lines <= ODD_LINES_TOLD {
            let shown = &line[..line.len().min(ODD_BYTES_TOLD)];
            tracing::warn!("ignored a line, {why}: {}", shown.escape_ascii());
        }
    }

    fn act(&mut self) {
        if self.keeper.due_ms().is_none_or(|due_ms| self.now_ms() < due_ms) {
            return;
        }
        let view = self.look();
        let now_ms = self.now_ms();
        match self.keeper.handle_view(view.as_ref().ok(), now_ms) {
            Deed::Nothing => match &view {
                Err(why) => self.say_once(format!("the node can't be asked: {why}")),
                Ok(View { is_primary: true, .. }) => self.say_once("the node is the primary".to_owned()),
                Ok(View { promotable: Err(why), .. }) => {
                    self.say_once(format!("the node is not the primary and may not be promoted: {why}"));
                }
                Ok(_) => self.say_once("the node is not the primary".to_owned()),
            },
            Deed::Promote => match control::call(&self.plan.node, "POST", "/promote") {
                Ok(answer) => {
                    let term = field(&answer, "term").and_then(|term| term.as_u64()).unwrap_or_default();
                    tracing::info!(term, "promoted the node");
                    self.last_said.clear();
                }
                Err(why) => self.say_once(format!("the node refused to be promoted, trying on: {why}")),
            },
            Deed::GiveUp => self.give_up(),
        }
    }

    /// Makes the node follow the other one. Where that fails, the next look shows the same and it is tried again.
    fn give_up(&mut self) {
        let Some(other) = &self.plan.other else {
            return self.say_once(
                "another machine claims the virtual address and can't reach this node, which stays primary: with --other \
                 it would step down"
                    .to_owned(),
            );
        };
        // The node is the primary, so it has to be forced: that it serves nobody any more is what is meant.
        match control::call(&self.plan.node, "POST", &control::follow_path(other, true)) {
            Ok(_) => {
                tracing::warn!(
                    other,
                    "another machine claims the virtual address and can't reach this node: it stepped down"
                );
                let now_ms = self.now_ms();
                self.keeper.handle_gave_up(now_ms);
                self.last_said.clear();
            }
            Err(why) => self.say_once(format!("the node can't be made to step down: {why}")),
        }
    }

    fn look(&self) -> Result<View, String> {
        let answer = control::call(&self.plan.node, "GET", "/status")?;
        view(&answer).ok_or_else(|| "it gives no status".to_owned())
    }

    /// Says something unless it was the last thing said.
    fn say_once(&mut self, text: String) {
        if self.last_said != text {
            tracing::info!("{text}");
            self.last_said = text;
        }
    }
}

fn field(json: &str, name: &str) -> Option<Value> {
    serde_json::from_str::<Value>(json).ok()?.get(name).cloned()
}

/// What a status says.
fn view(json: &str) -> Option<View> {
    let status: Value = serde_json::from_str(json).ok()?;
    let promotable = match status.get("promotable")?.as_bool()? {
        true => Ok(()),
        false => {
            Err(status.get("promotable_reason").and_then(Value::as_str).unwrap_or("no reason").to_owned())
        }
    };
    Some(View {
        is_primary: status.get("role")?.as_str()? == "primary",
        promotable,
        has_replica: !status.get("replicas")?.as_array()?.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_anything_else_is_none() {
        let read = view(r#"{"role":"replica","promotable":false,"promotable_reason":"empty","replicas":[]}"#);
        let spare = View { is_primary: false, promotable: Err("empty".to_owned()), has_replica: false };
        assert_eq!(read, Some(spare));
        let read = view(r#"{"role":"primary","promotable":true,"replicas":[{}]}"#).unwrap();
        assert!(read.is_primary && read.has_replica && read.promotable.is_ok());
        for odd in ["", "[]", "{}", "null", r#"{"role":1,"promotable":true,"replicas":[]}"#] {
            assert_eq!(view(odd), None, "{odd}");
        }
    }

    #[test]
    fn only_one_instance_is_obeyed() {
        let plan = |instance: Option<&str>| KeepalivedPlan {
            fifo: "unused".into(),
            node: crate::args::NodeAdmin { address: "127.0.0.1:1".to_owned(), token: None },
            other: None,
            instance: instance.map(str::to_owned),
        };
        let line = |name: &str| Line::Whole(format!("INSTANCE \"{name}\" MASTER 100").into_bytes());
        let mut named = Guard::new(plan(Some("mine")));
        named.take(&line("web"));
        assert_eq!((named.keeper.due_ms(), named.odd_lines), (None, 1));
        named.take(&line("mine"));
        assert!(named.keeper.due_ms().is_some());
        let mut first = Guard::new(plan(None));
        first.take(&Line::TooLong(vec![b'x'; 513]));
        first.take(&Line::Whole(b"INSTANCE \"mine\" BACKUP 100".to_vec()));
        first.take(&line("web"));
        assert_eq!((first.keeper.due_ms(), first.odd_lines), (None, 1));
    }
}
