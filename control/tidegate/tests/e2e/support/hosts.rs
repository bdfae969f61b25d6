//! Several hosts on one switch, inside this machine: network namespaces of our own, joined by a bridge in one more.
//!
//! Nothing outside can reach them or be reached from them. All are gone when the value is dropped. The thread that made them
//! enters one after the other; the processes and threads that it starts stay where it was then.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::namespaces::run;

/// A link-layer address that no host has: what is sent there arrives, and is no one's.
const NOBODY: &str = "02:00:00:00:00:01";

pub struct Hosts {
    switch: String,
    names: Vec<String>,
    /// Where the thread was before.
    home: File,
}

impl Hosts {
    /// Needs root; an error says what was refused.
    pub fn new(count: usize) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let home =
            File::open("/proc/thread-self/ns/net").map_err(|error| format!("no namespaces: {error}"))?;
        let name = format!("tidegate-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let names = (0..count).map(|host| format!("{name}-{host}")).collect();
        // What exists already goes if something below is refused.
        let made = Self { switch: format!("{name}-switch"), names, home };
        run(&["ip", "netns", "add", &made.switch])?;
        let switch = ["ip", "-n", &made.switch];
        run(&[&switch[..], &["link", "add", "bridge", "type", "bridge"]].concat())?;
        run(&[&switch[..], &["link", "set", "bridge", "up"]].concat())?;
        for (host, name) in made.names.iter().enumerate() {
            let (port, address) = (format!("port{host}"), format!("{}/24", address(host)));
            run(&["ip", "netns", "add", name])?;
            run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
            let pair = ["link", "add", &port, "type", "veth", "peer", "name", "wire", "netns", name.as_str()];
            run(&[&switch[..], &pair].concat())?;
            run(&[&switch[..], &["link", "set", &port, "master", "bridge", "up"]].concat())?;
            run(&["ip", "-n", name, "address", "add", &address, "dev", "wire"])?;
            run(&["ip", "-n", name, "link", "set", "wire", "up"])?;
        }
        Ok(made)
    }

    /// From now on this thread, and what it starts, is on that host.
    pub fn enter(&self, host: usize) {
        let path = format!("/run/netns/{}", self.names[host]);
        let namespace = File::open(path).expect("ip made it");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
    }

    /// Takes a host off the network, and tells it so.
    pub fn down(&self, host: usize) {
        self.on(host, &["link", "set", "wire", "down"]);
    }

    pub fn up(&self, host: usize) {
        self.on(host, &["link", "set", "wire", "up"]);
    }

    /// What one host sends to the other is lost from now on, and nobody is told.
    pub fn lose(&self, from: usize, to: usize) {
        let to = address(to).to_string();
        self.on(from, &["neigh", "replace", &to, "lladdr", NOBODY, "dev", "wire", "nud", "permanent"]);
    }

    pub fn lose_no_more(&self, from: usize, to: usize) {
        self.on(from, &["neigh", "del", &address(to).to_string(), "dev", "wire"]);
    }

    /// From now on a host answers for the address of another one, to itself.
    pub fn impersonate(&self, host: usize, other: usize) {
        self.on(host, &["address", "add", &format!("{}/32", address(other)), "dev", "lo"]);
    }

    /// What a host sends has so many bits a second, or as many as there are.
    pub fn shape(&self, host: usize, rate: Option<&str>) -> Result<(), String> {
        let name = self.names[host].as_str();
        match rate {
            Some(rate) => {
                let shape = ["root", "tbf", "rate", rate, "burst", "32k", "latency", "400ms"];
                run(&[&["tc", "-n", name, "qdisc", "replace", "dev", "wire"], &shape[..]].concat())
            }
            None => run(&["tc", "-n", name, "qdisc", "del", "dev", "wire", "root"]),
        }
    }

    fn on(&self, host: usize, line: &[&str]) {
        run(&[&["ip", "-n", &self.names[host]], line].concat()).expect("root may, and it exists");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.home.as_fd(), Some(LinkNameSpaceType::Network));
        for name in self.names.iter().chain([&self.switch]) {
            let _ = run(&["ip", "netns", "del", name]);
        }
    }
}

pub fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 78, host as u8 + 1)
}
