//! Two hosts with a wire between them, inside this machine: network namespaces of our own, joined by a veth pair.
//!
//! Nothing outside of the two can reach them or be reached from them. Both are gone when the value is dropped.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub struct Namespaces {
    names: [String; 2],
    /// Where the thread was before.
    home: File,
}

const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 213, 77, 1), Ipv4Addr::new(10, 213, 77, 2)];

impl Namespaces {
    /// Needs root; an error says what was refused.
    pub fn new() -> Result<Self, String> {
        let home =
            File::open("/proc/thread-self/ns/net").map_err(|error| format!("no namespaces: {error}"))?;
        let id = std::process::id();
        let made = Self { names: [format!("tidegate-{id}-a"), format!("tidegate-{id}-b")], home };
        let [first, second] = &made.names;
        for name in [first, second] {
            run(&["ip", "netns", "add", name])?;
            run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        }
        run(&[
            "ip", "-n", first, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", second,
        ])?;
        for (name, address) in made.names.iter().zip(ADDRESSES) {
            run(&["ip", "-n", name, "address", "add", &format!("{address}/24"), "dev", "wire"])?;
            run(&["ip", "-n", name, "link", "set", "wire", "up"])?;
        }
        Ok(made)
    }

    pub fn first_address(&self) -> IpAddr {
        ADDRESSES[0].into()
    }

    pub fn second_address(&self) -> IpAddr {
        ADDRESSES[1].into()
    }

    /// From now on this thread and the processes that it starts are on the first host.
    pub fn enter_first(&self) {
        self.enter(0);
    }

    /// From now on this thread and the processes that it starts are on the second host.
    pub fn enter_second(&self) {
        self.enter(1);
    }

    fn enter(&self, which: usize) {
        let path = format!("/run/netns/{}", self.names[which]);
        let namespace = File::open(path).expect("ip made it");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
    }

    /// The wire carries nothing any more, and tells nobody on the first host: its end stays up.
    pub fn cut(&self) {
        run(&["ip", "-n", &self.names[1], "link", "set", "wire", "down"]).expect("it was up");
    }

    pub fn heal(&self) {
        run(&["ip", "-n", &self.names[1], "link", "set", "wire", "up"]).expect("it exists");
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        for name in &self.names {
            let _ = run(&["ip", "netns", "del", name]);
        }
    }
}

/// Runs a tool; an error says what it said.
pub fn run(line: &[&str]) -> Result<(), String> {
    let output = Command::new(line[0]).args(&line[1..]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(format!("`{}`: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("`{}`: {error}", line[0])),
    }
}
