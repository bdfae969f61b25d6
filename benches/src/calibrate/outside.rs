//! What the usual tools say of the same path, where they are installed: sockperf's latency, iperf3's stream.
//!
//! Their servers run on the second core, their clients on the first, since a child runs where its parent's thread may. Each
//! ends with its figure.

use std::error::Error;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Figure, Setting};
use crate::process::pin;

/// How long a server may take until it listens.
const LISTENS: Duration = Duration::from_secs(3);
/// How long a client measures, seconds: the least that both take.
const SECONDS: &str = "1";

/// A server, which ends with its owner.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; either way it is reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Half a round trip of 64 bytes over TCP, as sockperf calls its latency.
pub fn sockperf(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    let serve = |port: &str| format!("server --tcp -i 127.0.0.1 -p {port}");
    let ask = |port: &str| format!("ping-pong --tcp -i 127.0.0.1 -m 64 -t {SECONDS} -p {port}");
    let said = between(setting, "sockperf", serve, ask)?;
    let us = percentile(&said, "50.000").ok_or("sockperf said no percentile 50")?;
    let p99 = percentile(&said, "99.000").unwrap_or(f64::NAN) * 1e3;
    Ok(Figure {
        what: "TCP, 64 bytes, one way, by sockperf",
        value: us * 1e3,
        unit: "ns",
        note: format!("p99 {p99:.0}"),
    })
}

/// A stream of writes of 32 KiB by iperf3.
pub fn iperf3(setting: Setting) -> Result<Figure, Box<dyn Error>> {
    let serve = |port: &str| format!("-s -1 -p {port}");
    let ask = |port: &str| format!("-c 127.0.0.1 -J -l 32K -t {SECONDS} -p {port}");
    let said = between(setting, "iperf3", serve, ask)?;
    let value = received(&said).ok_or("iperf3 said nothing of what was received")? / 8e9;
    Ok(Figure { what: "TCP stream by iperf3, 32 KiB a write", value, unit: "GB/s", note: String::new() })
}

/// Runs a tool against itself; gives what its client says.
fn between(
    setting: Setting,
    tool: &'static str,
    serve: impl Fn(&str) -> String,
    ask: impl Fn(&str) -> String,
) -> Result<String, Box<dyn Error>> {
    // A port that was free a moment ago; nobody else on this machine is expected to take it.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let words = serve(&port);
    let started = thread::scope(|scope| {
        let starter = scope.spawn(|| {
            pin(setting.cores[1]);
            let mut command = Command::new(tool);
            command.args(words.split(' ')).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn()
        });
        starter.join().unwrap_or_else(|_| Err(std::io::Error::other("the starter of a server panicked")))
    });
    let _server = Server(started.map_err(|error| format!("{tool} is not installed ({error})"))?);
    let begun = std::time::Instant::now();
    loop {
        let words = ask(&port);
        let output = Command::new(tool).args(words.split(' ')).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        if begun.elapsed() > LISTENS {
            return Err(format!("{tool} failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Of a line such as `sockperf: ---> percentile 50.000 =    8.212`, microseconds.
fn percentile(said: &str, which: &str) -> Option<f64> {
    let line = said.lines().find(|line| line.contains(&format!("percentile {which}")))?;
    line.rsplit_once('=')?.1.trim().parse().ok()
}

/// Bits per second that arrived.
fn received(said: &str) -> Option<f64> {
    let value: Value = serde_json::from_str(said).ok()?;
    value["end"]["sum_received"]["bits_per_second"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_understood() {
        let said = "sockperf: Total 9 observations\nsockperf: ---> percentile 99.000 =   37.1\nsockperf: ---> percentile 50.000 =    8.212\n";
        assert_eq!((percentile(said, "50.000"), percentile(said, "99.000")), (Some(8.212), Some(37.1)));
        assert_eq!(percentile("sockperf: no server", "50.000"), None);
        let said = r#"{"start":{},"end":{"sum_received":{"seconds":1.0,"bits_per_second":1.76e10}}}"#;
        assert_eq!(received(said), Some(1.76e10));
        assert_eq!(received("iperf3: error"), None);
    }

    #[test]
    fn a_tool_that_is_missing_is_named() {
        let setting = Setting { cores: [0, 0], budget: Duration::ZERO };
        let error = between(setting, "no-such-tool", |_| String::new(), |_| String::new()).unwrap_err();
        assert!(error.to_string().contains("no-such-tool is not installed"), "{error}");
    }
}
