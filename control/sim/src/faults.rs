//! What befalls a cluster: processes that die, pause or leave, streams that break, clocks that jump, a store that fails.
//!
//! Always: after [`Cluster::calm`] nothing befalls it any more, and everybody who was gone or paused comes back.

use tidegate_ring::sim::Weather;
use tidegate_taskmanager::agent;

use crate::cluster::{Cluster, Event, MS, Process};
use crate::store::{STORE, newest_epoch};
use crate::wires::KEEPALIVE_NS;

/// A JobManager that was replaced has so long to notice it by itself.
const RETIRE_NS: u64 = 3_000 * MS;

/// Kinds of accidents, with the words for the report.
pub const KINDS: [&str; 16] = [
    "TaskManagers killed",
    "hosts of TaskManagers without power",
    "TaskManagers that left in order",
    "TaskManagers paused",
    "data connections reset",
    "one-way stalls of data",
    "JobManagers killed",
    "hosts of JobManagers without power",
    "JobManagers paused",
    "JobManagers started beside a living one",
    "control connections reset",
    "one-way stalls of control",
    "full disks",
    "stores that fail for a while",
    "clocks that jumped",
    "power cuts of everything",
];

impl Cluster {
    /// Something of this kind happens now, if it can. Gives whether it did.
    ///
    /// # Errors
    /// What is wrong afterwards.
    pub fn strike(&mut self, kind: usize) -> Result<bool, String> {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        let leader = self.some_leader();
        let up = self.hosts[host].up.is_some();
        let happens = match kind {
            0..=3 => up,
            6..=8 => leader.is_some(),
            9 => self.leaders.iter().filter(|leader| !leader.is_gone()).count() == 1,
            10 | 11 => self.links.values().any(|link| !link.cut),
            12 => !self.disk.is_full(),
            13 => self.flaky == 0,
            _ => true,
        };
        if !happens {
            return Ok(false);
        }
        self.say(|| format!("ACCIDENT: {}", KINDS[kind]));
        match kind {
            0 => self.kill_host(host, false),
            1 => self.kill_host(host, true),
            2 => self.tell_host(host, agent::Input::Stop("somebody wants it to leave".to_owned()))?,
            3 => self.pause(Process::Host(host)),
            4 => return Ok(self.net.reset_one()),
            5 => {
                let to = (host as u64 + 1 + self.random.below(self.hosts.len() as u64 - 1))
                    % self.hosts.len() as u64;
                let ns = self.random.within([100_000, 200 * MS]);
                self.net.stall(host as u64 + 1, to + 1, ns);
            }
            6 | 7 => self.kill_leader(leader.unwrap_or_default(), kind == 7)?,
            8 => {
                self.pause(Process::Leader(leader.unwrap_or_default()));
                if self.random.chance(32_768) {
                    // Whoever watches it takes it for dead.
                    self.start_leader();
                }
            }
            9 => self.start_leader(),
            10 => {
                let link = self.some_link();
                self.cut(link);
            }
            11 => self.stall_link(),
            12 => {
                self.disk.set_full(true);
                let ns = self.random.within([MS, 3_000 * MS]);
                self.after(ns, Event::Room);
            }
            13 => {
                self.flaky = self.random.within([4_000, 40_000]) as u32;
                let ns = self.random.within([10 * MS, 2_000 * MS]);
                self.after(ns, Event::Healthy);
            }
            14 => self.jump(host),
            _ => self.power_cut()?,
        }
        Ok(true)
    }

    fn some_leader(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.leaders.len()).filter(|at| !self.leaders[*at].is_gone()).collect();
        let choice = self.random.below(alive.len() as u64) as usize;
        alive.get(choice).copied()
    }

    fn some_link(&mut self) -> u64 {
        let alive: Vec<u64> = self.links.iter().filter(|(_, link)| !link.cut).map(|(id, _)| *id).collect();
        let recent = &alive[alive.len().saturating_sub(4)..];
        recent[self.random.below(recent.len() as u64) as usize]
    }

    /// A TaskManager process ends; its supervisor starts another one.
    pub fn stop_host(&mut self, index: usize) {
        let place = &mut self.hosts[index];
        let Some(host) = place.up.take() else { return };
        let id = index as u64 + 1;
        self.net.crash(id);
        self.switch.crash(id);
        if let Some(link) = host.link {
            self.close_at_host(link);
        }
        self.paused.remove(&Process::Host(index));
        // Its drivers' sockets close; what its tasks held goes down with its memory.
        drop(host);
        let ns = self.random.within([1, 800]) * MS;
        self.after(ns, Event::Boot(index));
    }

    fn kill_host(&mut self, index: usize, power: bool) {
        if let Some(host) = &mut self.hosts[index].up {
            host.die(&self.disk, &mut self.random);
            if power {
                host.tear(&self.disk, &mut self.random);
            }
        }
        if power && let Some(link) = self.hosts[index].up.as_mut().and_then(|host| host.link.take()) {
            // Nobody says anything; the other end asks some time.
            self.silence(link);
        }
        self.stop_host(index);
    }

    fn kill_leader(&mut self, index: usize, power: bool) -> Result<(), String> {
        self.leave_work_behind(index)?;
        let links: Vec<u64> = self.leaders[index].links.iter().copied().collect();
        for link in links {
            if power {
                self.silence(link);
            } else {
                self.close_at_leader(link);
            }
        }
        self.bury_leader(index);
        Ok(())
    }

    /// All machines lose power at once, and the disk with them.
    fn power_cut(&mut self) -> Result<(), String> {
        (0..self.hosts.len()).for_each(|host| self.kill_host(host, false));
        let alive: Vec<usize> = (0..self.leaders.len()).filter(|at| !self.leaders[*at].is_gone()).collect();
        alive.into_iter().try_for_each(|leader| self.kill_leader(leader, true))?;
        let open = self.disk.cut(&mut self.random);
        self.say(|| format!("{open} names and files were not safe"));
        self.history.after_cut(&self.disk)
    }

    /// One end of a stream is gone without a word: the other hears of it when it asks.
    fn silence(&mut self, link: u64) {
        let ns = self.random.within([KEEPALIVE_NS / 2, KEEPALIVE_NS]);
        self.after(ns, Event::Cut(link));
    }

    fn pause(&mut self, process: Process) {
        if self.paused.contains_key(&process) {
            return;
        }
        let ns = self.random.within([10 * MS, [200 * MS, 6_000 * MS][self.random.clone().below(2) as usize]]);
        self.say(|| format!("{process:?} stands still for {} ms", ns / MS));
        self.paused.insert(process, Vec::new());
        self.after(ns, Event::Resume(process));
        if ns > KEEPALIVE_NS {
            let links: Vec<u64> = match process {
                Process::Host(host) => self.hosts[host].up.iter().filter_map(|host| host.link).collect(),
                Process::Leader(leader) => self.leaders[leader].links.iter().copied().collect(),
            };
            links.into_iter().for_each(|link| self.after(KEEPALIVE_NS, Event::Cut(link)));
        }
    }

    fn stall_link(&mut self) {
        let id = self.some_link();
        let side = self.random.below(2) as usize;
        let ns = self.random.within([10 * MS, 4_000 * MS]);
        let until_ns = self.net.now_ns() + ns;
        if let Some(link) = self.links.get_mut(&id) {
            link.stalled_ns[side] = until_ns;
        }
        if ns > KEEPALIVE_NS {
            self.after(KEEPALIVE_NS, Event::Cut(id));
        }
    }

    fn jump(&mut self, host: usize) {
        let ms = self.random.within([100, 10_000]);
        match self.some_leader().filter(|_| self.random.clone().chance(32_768)) {
            Some(leader) => self.leaders[leader].jumped_ms += ms,
            None => {
                if let Some(host) = &mut self.hosts[host].up {
                    host.jumped_ns += ms * MS;
                }
            }
        }
    }

    /// A bit of something in the store is wrong from now on. False if there is nothing to damage.
    pub fn rot(&mut self) -> bool {
        let whole = |path: &String| path.contains("/chk-") && !path.contains(".damaged/");
        let files: Vec<String> = self.disk.below(STORE).into_iter().filter(whole).collect();
        if files.is_empty() {
            return false;
        }
        let path = &files[self.random.below(files.len() as u64) as usize];
        let bits = self.disk.look(path, <[u8]>::len).unwrap_or_default() as u64 * 8;
        if bits == 0 {
            return false;
        }
        let at = self.random.below(bits);
        self.disk.flip(path, at);
        self.history.rotten = true;
        self.say(|| format!("ACCIDENT: bit {at} of {path} is wrong from now on"));
        true
    }

    /// From now on the sun shines.
    ///
    /// # Errors
    /// What is wrong when everybody goes on.
    pub fn calm(&mut self, weather: Weather) -> Result<(), String> {
        self.say(|| "calm".to_owned());
        self.calm_ns = Some(self.net.now_ns());
        self.net.set_weather(Weather { flip: 0, ..weather });
        self.disk.set_full(false);
        self.flaky = 0;
        self.after(RETIRE_NS, Event::Retire);
        let paused: Vec<Process> = self.paused.keys().copied().collect();
        paused.into_iter().try_for_each(|process| self.resume(process))
    }

    /// A JobManager that was replaced notices it at its next restore or commit. One that has no job does neither, and
    /// would keep its TaskManagers; whoever started the other one has to end it.
    pub fn retire(&mut self) -> Result<(), String> {
        let newest = newest_epoch(&self.disk);
        let old = |at: &usize| self.leaders[*at].leads() && self.leaders[*at].epoch < newest;
        let old: Vec<usize> = (0..self.leaders.len()).filter(old).collect();
        for leader in old {
            self.say(|| format!("JobManager {leader} is ended: it was replaced"));
            self.kill_leader(leader, false)?;
        }
        Ok(())
    }

    /// No slot has anything to do with the job any more.
    pub fn idle(&self) -> bool {
        let held = |place: &crate::cluster::Place| place.up.as_ref().is_none_or(|host| host.agent.is_free());
        self.hosts.iter().all(held)
    }
}
