//! The report as a page of Markdown. No state.

use super::{Report, Turns, goals, peers};
use crate::pairs::Failed;

impl Report {
    /// What was found so far.
    pub fn page(&self, turns: Turns) -> String {
        let Turns { rounds, seconds, cores: [first, second], .. } = turns;
        let how = if self.quick {
            "One round of tiny runs (`--quick`): **these figures mean nothing**.".to_owned()
        } else {
            format!(
                "Medians of {rounds} rounds of about {seconds} s; ends on cores {first} and {second}; {:.0} minutes in all.",
                self.minutes
            )
        };
        let mut page = format!("# Benchmarks\n\nWritten by `tidegate-benches report`. {how}\n{HEAD}\n");
        let [reached, missed, open] = goals::counts(self);
        page.push_str(&format!(
            "## Goals\n\n{reached} reached, {missed} missed, {open} not measured. {GOALS}\n{}\n",
            goals::table(self)
        ));
        for Failed { name, error } in self.failures() {
            page.push_str(&format!("{name}: failed: {}\n\n", error.lines().next().unwrap_or_default()));
        }
        page.push_str(&format!("## Machine\n\n{}\n", self.machine.table()));
        if let Some(calibration) = &self.calibration {
            page.push_str(&format!("## What the machine can do\n\n{calibration}\n"));
        }
        if let Some(costs) = &self.costs {
            page.push_str(&format!("## Constants of the exchange\n\n{COSTS}\n{}\n", costs.table()));
        }
        if let Some(idle) = &self.idle {
            page.push_str(&format!("## Idle\n\n{}\n", idle.table()));
        }
        for section in &self.sections {
            let table = section.comparison.table();
            page.push_str(&format!("## {}\n\n{}{table}\n", section.title, section.note));
        }
        if !self.sections.is_empty() {
            page.push_str(NOTES);
        }
        if !(self.latency.series.is_empty() && self.latency.failed.is_empty()) {
            let table = self.latency.table();
            page.push_str(&format!(
                "## Latency of records that are due at a given rate\n\n{LATENCY}\n{table}\n"
            ));
        }
        page.push_str(&peers::page(&self.peers));
        if let Some(micro) = &self.micro {
            page.push_str(&format!("## Parts, on one core\n\n{}\n", micro.table()));
        }
        page.push_str(&again(rounds, seconds));
        page.push_str(TAIL);
        page
    }
}

const HEAD: &str = "\
In a round each benchmark runs once, one after the other, and ratios are taken within rounds, to the first line of the
table. The machine is not reserved for this: rates of different tables, or of different pages, cannot be compared;
ratios within a table can.
";

/// What the goals' table is.
const GOALS: &str = "Medians and spread of the rounds; *x* is a ratio of the same
round. A goal of nothing is judged by its greatest round. Payload is copied after serialisation in one place, where a receive
falls into staging: beyond that there are no copies, so the row says how much falls there. The reference of one-way latency is
half a TCP ping-pong, which is what sockperf calls latency; where sockperf is installed its own figure stands beside it below.
What was tried at goals that are missed, and what it changed, is in [benches/ATTEMPTS.md](benches/ATTEMPTS.md).
";

/// What the constants are.
const COSTS: &str = "\
Nanoseconds of processor time of either end of an exchange without operators, fitted to runs of many sizes of records and
segments and numbers of channels: time = records x a + bytes x b + trains x c + wake-ups x d. A zero is what the runs do not show.
";

/// What the figures of latency are.
const LATENCY: &str = "\
Open loop, records of 16 bytes: arrival minus due time, so stalls of the sender count. Its thread does not sleep for the last
60 us before a record is due, so that no timer is late for it; sockperf's sender and Flink's source are awake, too. *TCP one
way* is half a round trip of 64 bytes between threads that sleep; *bare socket* sends the same due times by blocking writes
and reads (by spinning ones where the engine is told to spin). Medians of rounds; a run that achieves less than 99 % of its
rate is not valid. CPU is that of both TaskManagers.
";

/// What the tables mean.
const NOTES: &str = "\
CPU is processor time per record; each section says of whom and since when. *floor* is two processes that move the same
records without an engine: no credits, no tasks, no control plane, and no checksum unless the line says so; what was tried
to make it fast is in `benches/src/floor/mod.rs`. *raw stream* is what the driver carries with checksums, in the engine's
trains, when nobody makes or reads records. *shuffle* is the engine with everything on: credits, CRC32C of each payload,
validation, control plane, histograms of latency, metrics; *nothing measured* is without the last two. Bids have no floor,
since their records need the engine's format.

";

/// How to have such a page again.
fn again(rounds: u32, seconds: f64) -> String {
    format!(
        "## Again\n\n```\ncargo build --release -p tidegate-benches\n\
         cargo build --release --manifest-path benches/peers/Cargo.toml\n\
         target/release/tidegate-benches report --rounds {rounds} --seconds {seconds} \
         --with-peers benches/peers/target/release/tidegate-peers\n```\n\n"
    )
}

/// The end of every page.
const TAIL: &str = "\
## Not measured

Fan-out, skew, broadcast and flush intervals (`sweep` does); checkpoints while records flow; recovery; state larger than a
cache; a network other than loopback; zero-copy sends, which loopback cannot do.
";
