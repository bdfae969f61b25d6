//! What a task counted, and what it waits for, in words.
//!
//! Reads the task's state and changes nothing.

use tidegate_exchange::{PortUsage, Ports};

use crate::head::Counts;
use crate::limits::RATES_INTERVAL_NS;
use crate::slot::message::{Rates, TaskMetrics};
use crate::stage::Wait;
use crate::task::{Task, TaskSeed};

impl Task {
    /// Writes what it counted over an older line about it, without allocating. False if the line is not about this task,
    /// or has other counters.
    pub(crate) fn refresh(&self, line: &mut TaskMetrics, ports: &Ports) -> bool {
        if (line.attempt, line.task) != (self.seed.attempt, self.seed.id) {
            return false;
        }
        let now_ns = ports.now_ns();
        line.counts = self.counts(now_ns);
        let (since_ns, before) = line.since;
        let elapsed_ns = now_ns.saturating_sub(since_ns);
        let long = elapsed_ns >= RATES_INTERVAL_NS;
        if long || line.rates == Rates::default() {
            // At first a short time is better than nothing, but it goes on.
            line.rates = Rates::between(&before, &line.counts, elapsed_ns);
        }
        if long {
            line.since = (now_ns, line.counts);
        }
        line.held_up = self.held_up();
        line.heap = (self.heap.held(), self.heap.peak());
        (line.input, line.output) = self.usage(ports);
        let mut lines = line.counters.iter_mut();
        for (_, metrics) in &self.seed.metrics {
            let same = metrics.visit(|name, value| match lines.next() {
                Some((_, known, old)) if known == name => {
                    *old = value;
                    true
                }
                _ => false,
            });
            if !same {
                return false;
            }
        }
        lines.next().is_none()
    }

    /// What it counted.
    pub fn metrics(&self, ports: &Ports) -> TaskMetrics {
        let mut counters = Vec::new();
        for (operator, metrics) in &self.seed.metrics {
            counters.extend(metrics.read().into_iter().map(|(name, value)| (operator.clone(), name, value)));
        }
        let TaskSeed { attempt, id, ref name, .. } = self.seed;
        let (input, output) = self.usage(ports);
        let now_ns = ports.now_ns();
        let counts = self.counts(now_ns);
        let heap = (self.heap.held(), self.heap.peak());
        // All of its life so far; what it did lately is known once it was looked at twice.
        let rates = Rates::between(&Counts::default(), &counts, counts.accounted_ns());
        let (since, held_up) = ((now_ns, counts), self.held_up());
        let latencies = self.seed.latencies.clone();
        TaskMetrics {
            attempt,
            task: id,
            name: name.clone(),
            counts,
            heap,
            input,
            output,
            counters,
            rates,
            since,
            held_up,
            latencies,
        }
    }

    fn usage(&self, ports: &Ports) -> (PortUsage, PortUsage) {
        let input = self.seed.gate.and_then(|gate| ports.gate_usage(gate)).unwrap_or_default();
        let mut output = PortUsage::default();
        for usage in self.seed.partitions.iter().filter_map(|&id| ports.partition_usage(id)) {
            output.quota += usage.quota;
            output.used += usage.used;
            output.counters.bytes += usage.counters.bytes;
            output.counters.segments += usage.counters.segments;
        }
        (input, output)
    }

    /// What it waits for, in words and with its ports: one line of the wait-for graph.
    pub fn describe(&self, ports: &Ports) -> String {
        let mut line =
            format!("{} [{}/{}] {:?}", self.seed.name, self.seed.id.vertex, self.seed.id.subtask, self.phase);
        if let Some(sending) = self.sending {
            line += &format!(", sends {sending:?}");
        }
        if let Some(snapshot) = &self.snapshot {
            line += &format!(", writes snapshot {}", snapshot.checkpoint);
        }
        line += &format!(", waits for {}", words(self.wait));
        if let Some(gate) = self.seed.gate.and_then(|gate| ports.gate_report(gate)) {
            line += &format!(", {gate:?}");
        }
        for partition in self.seed.partitions.iter().filter_map(|&id| ports.partition_report(id)) {
            line += &format!(", {partition:?}");
        }
        line
    }
}

fn words(wait: Wait) -> String {
    let mut words: Vec<String> = Vec::new();
    let all = [
        (wait.input, "input"),
        (wait.output, "output"),
        (wait.memory, "files"),
        (wait.external, "its waker"),
    ];
    words.extend(all.iter().filter(|(waits, _)| *waits).map(|(_, word)| (*word).to_owned()));
    words.extend(wait.until_ns.map(|at| format!("time {at}")));
    if words.is_empty() { "a command".to_owned() } else { words.join(" or ") }
}
