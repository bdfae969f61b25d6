//! Plans, reasons and refusals as text for people. Stateless.
//!
//! Always: every component of a plan is a line; the bar has exactly its width, and no component with bytes is without a
//! cell as long as there are cells.

use std::fmt::Write;

use super::component::short;
use super::error::PlanError;
use super::fit::Proposal;
use super::keys::{ALIASES, Known, Preset, TM_LINKS, TM_RECORD, TM_SEGMENT, TM_SLOTS, TM_WEIGHTS, known};
use super::{Input, Name, Origin, Part, Plan, Profile, Settings};

/// Cells of the bar.
const BAR: usize = 64;

/// What a component looks like in the bar.
const fn mark(name: Name) -> char {
    match name {
        Name::FrameworkHeap => '#',
        Name::TaskHeap => 'T',
        Name::FrameworkOffHeap => '+',
        Name::TaskOffHeap => 'o',
        Name::NetworkMemory => '=',
        Name::ManagedMemory => 'M',
        Name::JvmMetaspace => 'j',
        Name::JvmOverhead => '.',
        Name::Heap => 'H',
        Name::OffHeap => 'O',
        Name::CheckpointMetadata => 'c',
        Name::TotalFlinkMemory | Name::TotalProcessMemory => ' ',
    }
}

/// The plan as a table: component, bytes, size, share of the process, then the bar, what a slot gets, and warnings.
pub fn table(plan: &Plan) -> String {
    let mut text = String::new();
    let total = plan.total_process();
    let leaves = plan.leaves();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} memory, profile {}", plan.process().title(), plan.profile());
    let _ = writeln!(text);
    let _ = writeln!(text, "    {:<20} {:>20}  {:>12}  {:>6}", "component", "bytes", "size", "share");
    for (name, component) in plan.components() {
        line(&mut text, mark(name), name.title(), component.bytes, total);
        if name == Name::OffHeap {
            for (name, part) in plan.off_heap_parts() {
                let title = format!("  {}", name.title());
                line(&mut text, ' ', &title, part.bytes, total);
            }
        }
    }
    let _ = writeln!(text, "\n  [{}]", bar(&leaves, BAR));
    if let Plan::TaskManager(plan) = plan {
        let slot = plan.per_slot();
        let (slots, buffers, segment) = (plan.shape.slots, plan.network_buffers(), plan.shape.segment);
        let unused = plan.network.bytes - buffers * segment;
        let _ = writeln!(text, "\n  network: {buffers} buffers of {segment} bytes, {unused} bytes unused");
        let _ = writeln!(
            text,
            "  {}: task heap {}, task off-heap {}, managed {}, network {} ({} buffers)",
            if slots == 1 { "the one slot".to_owned() } else { format!("each of {slots} slots") },
            short(slot.task_heap),
            short(slot.task_off_heap),
            short(slot.managed_memory),
            short(slot.network_memory),
            slot.network_buffers
        );
    }
    warnings(&mut text, plan);
    text
}

/// Why each component has its size: the rule, then every input with its origin and what it overrides.
pub fn explain(plan: &Plan, settings: &Settings) -> String {
    let mut text = String::new();
    for (name, component) in plan.components().into_iter().chain(plan.off_heap_parts()) {
        let _ = writeln!(text, "{} = {} ({})", name.json(), component.bytes, short(component.bytes));
        let _ = writeln!(text, "    {}", component.rule);
        let mut seen = Vec::new();
        for input in &component.inputs {
            if seen.contains(&input) {
                continue;
            }
            seen.push(input);
            let _ = writeln!(text, "    from {input}");
            if let Some(Preset::Stated(how)) = stated(input, plan.profile()) {
                let _ = writeln!(text, "        computed: {how}");
            }
            if let Some(alias) = settings.get(input.key).and_then(|setting| setting.alias) {
                let _ = writeln!(text, "        spelled {}: {}", alias.spelled, alias.why);
            }
            for shadowed in settings.shadowed(input.key) {
                let _ = writeln!(text, "        instead of {} ({})", shadowed.value, shadowed.origin);
            }
        }
    }
    if let Plan::TaskManager(plan) = plan {
        let (buffers, segment) = (plan.network_buffers(), plan.shape.segment);
        let _ = writeln!(
            text,
            "networkBuffers = {buffers}\n    networkMemory {} / segment {segment}",
            plan.network.bytes
        );
        from(&mut text, settings, plan.profile, TM_SEGMENT);
        let _ = writeln!(text, "perSlot\n    each resource / {} slots, whole bytes", plan.shape.slots);
        from(&mut text, settings, plan.profile, TM_SLOTS);
        from(&mut text, settings, plan.profile, TM_WEIGHTS);
        if plan.profile == Profile::Native {
            let (slots, links) = (plan.shape.slots, plan.shape.links);
            let _ =
                writeln!(text, "links\n    {slots} slots × {links} links, which stated needs provide for");
            from(&mut text, settings, plan.profile, TM_LINKS);
            let record_max = plan.record_max.max(plan.shape.segment);
            let _ = writeln!(
                text,
                "largestRecord = {record_max}\n    with a region for each edge of a slot if above a segment"
            );
            from(&mut text, settings, plan.profile, TM_RECORD);
        }
    }
    if let Some(parameters) = plan.jvm_parameters() {
        let _ = writeln!(text, "JVM parameters\n    {parameters}");
    }
    warnings(&mut text, plan);
    text
}

/// A refusal: what is wrong, every part of the sum, where the values came from, and what would help.
pub fn refusal(refusal: &PlanError) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", refusal.code(), refusal.sentence());
    if !refusal.parts.is_empty() {
        let sum: u128 = refusal.parts.iter().map(|part| u128::from(part.bytes)).sum();
        for part in &refusal.parts {
            let title = part.component.title();
            let _ = writeln!(text, "  {title:<20} {:>20}  {:>12}", part.bytes, short(part.bytes));
        }
        let _ = writeln!(text, "  {:<20} {sum:>20}", "sum");
    }
    for input in &refusal.inputs {
        let _ = writeln!(text, "  from {input}");
    }
    for (index, change) in refusal.changes.iter().enumerate() {
        let lead = if index == 0 { "smallest change that fits" } else { "or" };
        let _ = writeln!(text, "  {lead}: {change}");
    }
    if let [first, second] = refusal.together.as_slice() {
        let _ = writeln!(text, "  two changes that fit: {first}, and {second}");
    }
    text
}

/// The reference of keys as Markdown: one table of keys, one of aliases. `tables` are the plan's keys and those of other
/// parts of a process.
pub fn reference(tables: &[&[Known]]) -> String {
    let mut text = String::from(
        "| key | type | default | in profile `flink` | environment | meaning |\n|---|---|---|---|---|---|\n",
    );
    let preset = |preset: Preset, applies: bool| match preset {
        _ if !applies => "not used".to_owned(),
        Preset::None => "none".to_owned(),
        Preset::Text(value) => format!("`{value}`"),
        Preset::Stated(how) => how.to_owned(),
    };
    for known in tables.iter().flat_map(|table| table.iter()) {
        let native = preset(known.native, known.applies(Profile::Native));
        let flink = preset(known.flink, known.applies(Profile::Flink));
        let (key, kind, variable, meaning) = (known.key, known.kind.name(), known.variable(), known.meaning);
        let _ = writeln!(text, "| `{key}` | {kind} | {native} | {flink} | `{variable}` | {meaning} |");
    }
    text.push_str("\n| spelling of the Flink.NET documents | key | why |\n|---|---|---|\n");
    for alias in ALIASES {
        let keys: Vec<String> = alias.keys.iter().map(|key| format!("`{key}`")).collect();
        let _ = writeln!(text, "| `{}` | {} | {} |", alias.spelled, keys.join(", "), alias.why);
    }
    text
}

/// A proposal: each component with its peak, before and after, and the values to configure.
pub fn proposal(proposal: &Proposal) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:<22} {:>12}  {:>12}  {:>12}", "component", "peak", "now", "proposed");
    for fitted in &proposal.components {
        let peak = fitted.peak.map_or_else(|| "-".to_owned(), short);
        let (title, from, to) = (fitted.component.title(), short(fitted.from), short(fitted.to));
        let _ = writeln!(text, "{title:<22} {peak:>12}  {from:>12}  {to:>12}");
    }
    let _ = writeln!(text);
    for (key, value) in &proposal.values {
        let _ = writeln!(text, "{key}: {value}");
    }
    text
}

/// The parts side by side, each as wide as its share of the sum, in `width` cells.
pub fn bar(parts: &[Part], width: usize) -> String {
    let shown: Vec<(char, u64)> =
        parts.iter().filter(|part| part.bytes > 0).map(|part| (mark(part.component), part.bytes)).collect();
    let sum: u128 = shown.iter().map(|(_, bytes)| u128::from(*bytes)).sum();
    if sum == 0 {
        return " ".repeat(width);
    }
    // Each shown part has a cell of its own, as far as the width goes; the others are divided by share.
    let free = width.saturating_sub(shown.len()) as u128;
    let (mut before, mut given) = (0u128, 0u128);
    let mut cells = String::new();
    for (mark, bytes) in shown {
        before += u128::from(bytes);
        let until = before * free / sum;
        let count = usize::try_from(until - given).unwrap_or(0) + 1;
        given = until;
        cells.extend(std::iter::repeat_n(mark, count));
    }
    cells.chars().take(width).collect()
}

/// Where the value of a key came from that is no component's input.
fn from(text: &mut String, settings: &Settings, profile: Profile, key: &'static str) {
    let default = || match known(key).map(|known| known.preset(profile)) {
        Some(Preset::Text(value)) => Some(Input { key, value: value.to_owned(), origin: Origin::Default }),
        _ => None,
    };
    if let Some(input) = settings.input(key).or_else(default) {
        let _ = writeln!(text, "    from {input}");
    }
}

/// How a default was computed that is not a text.
fn stated(input: &Input, profile: Profile) -> Option<Preset> {
    let known = known(input.key).filter(|_| input.origin == Origin::Default)?;
    Some(known.preset(profile))
}

fn line(text: &mut String, mark: char, title: &str, bytes: u64, total: u64) {
    let share = if total == 0 { 0.0 } else { bytes as f64 * 100.0 / total as f64 };
    let _ = writeln!(text, "  {mark} {title:<20} {bytes:>20}  {:>12}  {share:>5.1}%", short(bytes));
}

fn warnings(text: &mut String, plan: &Plan) {
    for warning in plan.warnings() {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::keys::KEYS;
    use crate::plan::{Process, Request, Syntax, resolve};
    use proptest::prelude::*;

    fn settings(text: &str) -> Settings {
        let mut settings = Settings::new();
        settings.add_file("t.yaml", text, Syntax::Yaml).expect("read");
        settings
    }

    #[test]
    fn a_table_has_every_component() {
        let settings = settings("taskmanager.memory.process.size: 1728m");
        let plan = resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).expect("it holds");
        let text = table(&plan);
        for (name, component) in plan.components() {
            assert!(text.contains(name.title()) && text.contains(&component.bytes.to_string()), "{text}");
        }
        assert!(text.contains("4096 buffers of 32768 bytes, 2 bytes unused"), "{text}");
        let bar = text.lines().find_map(|line| line.strip_prefix("  [")).expect("a bar");
        assert_eq!(bar.len(), BAR + 1, "{bar}");
    }

    #[test]
    fn an_explanation_names_rules_and_origins() {
        let mut settings = settings("a: 1\ntaskmanager.process.memory.size: 1g\n");
        settings.add_define("taskmanager.memory.process.size=1728m").expect("another layer");
        let plan = resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).expect("it holds");
        let text = explain(&plan, &settings);
        let wanted = [
            "networkMemory = 134217730",
            "0.10000000149011612 of total flink memory (1342177280) = 134217730",
            "= 181193935, raised to the least allowed",
            "from taskmanager.memory.process.size = 1728m (-D)",
            "instead of 1g (t.yaml:2)",
            "from taskmanager.memory.managed.fraction = 0.4 (default)",
            "-Xmx536870902",
            "-XX:MaxDirectMemorySize=268435458",
        ];
        for wanted in wanted {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn a_refusal_lists_its_sum() {
        let settings = settings("taskmanager.memory.process.size: 981m");
        let error = resolve(&Request::new(Process::TaskManager, Profile::Flink, &settings)).expect_err("E6");
        let text = refusal(&error);
        assert!(
            text.starts_with("E6: TaskManager memory configuration failed: the parts need 533.200mb"),
            "{text}"
        );
        for wanted in
            ["network", "sum", "from taskmanager.memory.process.size = 981m (t.yaml:1)", "smallest change"]
        {
            assert!(text.contains(wanted), "{wanted} in\n{text}");
        }
    }

    #[test]
    fn the_reference_has_every_key() {
        let text = reference(&[KEYS]);
        assert!(KEYS.iter().all(|known| text.contains(&format!("| `{}` |", known.key))));
        assert!(
            text.contains("`taskmanager.memory.network.min`, `taskmanager.memory.network.max`"),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn a_bar_has_its_width(bytes in proptest::collection::vec(0..=i64::MAX as u64, 0..8), width in 8usize..200) {
            let parts: Vec<Part> =
                bytes.iter().map(|bytes| Part { component: Name::TaskHeap, bytes: *bytes }).collect();
            prop_assert_eq!(bar(&parts, width).chars().count(), width);
        }
    }
}
