//! What a missed goal is due to, in words, computed from the figures of the same run. No state.
//!
//! Always: a sentence names numbers of this run only; without them there is none.

use super::Report;
use super::latency::UNLOADED;
use super::moved::SHUFFLE;
use super::peers::MovedLine;
use crate::calibrate;
use crate::latency::Latency;
use crate::pairs::Sample;
use crate::sweep::NAMES;

/// Bytes of a full train of the engine: what a train's cost is divided by.
const TRAIN_BYTES: f64 = (16 * (32 << 10)) as f64;

/// The lines of a peer in the sections whose title has these words.
pub fn peer_lines<'a>(
    report: &'a Report,
    title: &'a str,
    name: &'a str,
) -> impl Iterator<Item = &'a MovedLine> {
    let all = report.peers.iter().flat_map(|peers| &peers.moved);
    let lines = all.filter(move |moved| moved.title.contains(title)).flat_map(|moved| &moved.lines);
    lines.filter(move |line| line.name.starts_with(name))
}

fn busier(sample: &Sample) -> f64 {
    sample.ends_ns[0].max(sample.ends_ns[1])
}

/// The busier core of one benchmark bounds its rate.
pub fn busy(report: &Report, section: &str, name: &str) -> Option<String> {
    let [busier, ..] = report.section(section)?.figure(name, busier)?;
    Some(format!("the busier core takes {busier:.1} ns each, which is {:.1} M/s at most", 1e3 / busier))
}

/// Processor time of one against another's, and which fitted constant is most of it in records of so many bytes.
pub fn against(report: &Report, section: &str, name: &str, of: &str, bytes: f64) -> Option<String> {
    let found = report.section(section)?;
    let [own, ..] = found.figure(name, busier)?;
    let [other, ..] = found.figure(of, busier)?;
    Some(format!("busier core {own:.1} ns a record, of {of} {other:.1}{}", constant(report, bytes)))
}

/// Processor time of both ends for a byte, nanoseconds.
pub fn cpu_ns_per_byte(sample: &Sample) -> f64 {
    sample.cpu_ns_per_record * sample.records_per_second / sample.bytes_per_second
}

/// Processor time of a byte in one benchmark against another's, where records differ in size.
pub fn per_byte(report: &Report, section: &str, name: &str, of: &str) -> Option<String> {
    let found = report.section(section)?;
    let ([own, ..], [other, ..]) = (found.figure(name, cpu_ns_per_byte)?, found.figure(of, cpu_ns_per_byte)?);
    Some(format!("both cores together {own:.3} ns a byte, of {of} {other:.3}"))
}

/// Processor time of a record against that of another system.
pub fn peer(report: &Report, title: &str, name: &str, section: &str, bytes: f64) -> Option<String> {
    let line = peer_lines(report, title, name).min_by(|a, b| a.ratio[0].total_cmp(&b.ratio[0]))?;
    let [own, ..] = report.section(section)?.figure(SHUFFLE, |sample| sample.cpu_ns_per_record)?;
    Some(format!(
        "both cores together {own:.1} ns a record, of {} {:.1}{}",
        line.name,
        line.cpu_ns_per_record,
        constant(report, bytes)
    ))
}

/// The constant that costs most in a record of so many bytes, if they were fitted.
fn constant(report: &Report, bytes: f64) -> String {
    let Some(costs) = &report.costs else { return String::new() };
    let sides = [("sender", &costs.sender), ("receiver", &costs.receiver)];
    let terms =
        sides.into_iter().filter_map(|(side, fit)| Some((side, fit.as_ref()?))).flat_map(|(side, fit)| {
            let [record, byte, train, _] = fit.costs;
            let shares = [record, byte * bytes, train * bytes / TRAIN_BYTES];
            shares.into_iter().zip(NAMES).map(move |(ns, name)| (side, name, ns))
        });
    match terms.max_by(|a, b| a.2.total_cmp(&b.2)) {
        Some((side, name, ns)) if ns > 0.0 => {
            format!(
                "; of the exchange's fitted constants the {side}'s per {name} weighs most, {ns:.1} ns of it"
            )
        }
        _ => String::new(),
    }
}

/// A second copy by a core is what shared memory cannot be faster than.
pub fn shared(report: &Report, section: &str, shm: &str, tcp: &str) -> Option<String> {
    let found = report.section(section)?;
    let per_byte = |sample: &Sample| busier(sample) * sample.records_per_second / sample.bytes_per_second;
    let ([shm, ..], [tcp, ..]) = (found.figure(shm, per_byte)?, found.figure(tcp, per_byte)?);
    let copy = report.calibration.as_ref().and_then(|found| found.value(calibrate::MEMCPY_COLD));
    let copy =
        copy.map_or(String::new(), |gb| format!(", of which one copy through memory is {:.2}", 1.0 / gb));
    Some(format!("busier core {shm:.2} ns a byte, by TCP {tcp:.2}{copy}"))
}

/// How many wake-ups a latency is away from half a ping-pong.
pub fn late(report: &Report, name: &str) -> Option<String> {
    let [p50, ..] = report.latency.figure(name, |run: &Latency| run.latency_us.p50)?;
    let [one_way, ..] = report.latency.figure(name, |run: &Latency| run.one_way_us[0])?;
    let wake_us = report.calibration.as_ref()?.value(calibrate::WAKE_FUTEX)? / 1e3;
    let beyond = p50 - one_way;
    Some(format!(
        "p50 {p50:.1} us is {beyond:.1} beyond half a ping-pong: {:.1} wake-ups of {wake_us:.1} us",
        beyond / wake_us
    ))
}

/// The same of what is not loaded, for rates that were measured elsewhere.
pub fn wake_up(report: &Report) -> Option<String> {
    late(report, UNLOADED).map(|says| format!("unloaded, {says}"))
}
