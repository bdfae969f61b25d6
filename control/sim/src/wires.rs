//! Between processes: control streams, and what a TaskManager does with what it is told ([`crate::shell`]: a JobManager).
//!
//! Streams have a delay each way and end by either end, a reset, or silence; on one of them nothing overtakes. Always: a
//! message is the bytes that the real protocol sends.

use tidegate_rpc::{Envelope, Heartbeat, ToJobManager, ToTaskManager};
use tidegate_stream::slot::SlotCommand;
use tidegate_taskmanager::agent;

use crate::cluster::{Cluster, Event, MS, Process};
use crate::host::look_up;

/// What comes out of a stream.
pub enum Mail {
    /// It is open.
    Hello,
    Bytes(Vec<u8>),
    End(&'static str),
}

/// A stream between a TaskManager and a JobManager.
pub struct Link {
    pub host: usize,
    pub leader: usize,
    /// What is on its way is lost; nothing more gets through.
    pub cut: bool,
    /// Towards leader and host: when the last one arrives, and how long nothing does.
    pub last_ns: [u64; 2],
    pub stalled_ns: [u64; 2],
}

/// The sides of a stream.
pub const TO_LEADER: usize = 0;
pub const TO_HOST: usize = 1;

/// Who asks learns in this time that the other end is silent.
pub const KEEPALIVE_NS: u64 = 2_000 * MS;

impl Cluster {
    fn latency_ns(&mut self) -> u64 {
        let most = self.shape.control_ns;
        self.random.within([10_000, most])
    }

    /// Puts mail on a stream.
    pub fn post(&mut self, id: u64, side: usize, mail: Mail) {
        let latency_ns = self.latency_ns();
        let now_ns = self.net.now_ns();
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        let at_ns = (now_ns + latency_ns).max(link.last_ns[side]).max(link.stalled_ns[side]);
        link.last_ns[side] = at_ns;
        let event = if side == TO_LEADER {
            Event::ToLeader { leader: link.leader, link: id, mail }
        } else {
            Event::ToHost { host: link.host, link: id, mail }
        };
        self.at(at_ns, event);
    }

    /// The TaskManager's end of a stream closes.
    pub fn close_at_host(&mut self, link: u64) {
        self.post(link, TO_LEADER, Mail::End("it ended its connection"));
    }

    /// The JobManager's end of a stream closes.
    pub fn close_at_leader(&mut self, link: u64) {
        self.post(link, TO_HOST, Mail::End("it closed the connection"));
    }

    pub fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::ToLeader { leader, link, mail } => self.leader_hears(leader, link, mail),
            Event::ToHost { host, link, mail } => self.host_hears(host, link, mail),
            Event::Dial { host, life, dial } => self.dial(host, life, dial),
            Event::Beat { host, life, beat } => {
                self.beat(host, life, beat);
                Ok(())
            }
            Event::HostTick { host, life } => {
                if self.hosts[host].life != life || self.hosts[host].up.is_none() {
                    return Ok(());
                }
                self.after(100 * MS, Event::HostTick { host, life });
                self.tell_host(host, agent::Input::Tick)
            }
            Event::Fetch { host, life, slot, attempt, prepare, plan } => {
                if self.hosts[host].life != life {
                    return Ok(());
                }
                let result = look_up(&self.jobs, &self.disk, &prepare, &plan);
                self.tell_host(host, agent::Input::Fetched { slot, attempt, result })
            }
            Event::Opening { leader } => self.open(leader),
            Event::Work { leader } => self.work(leader),
            Event::Late(op) => {
                self.carry_out_late(&op);
                Ok(())
            }
            Event::Cut(link) => {
                self.cut(link);
                Ok(())
            }
            Event::Boot(host) => self.boot(host),
            Event::StartLeader => {
                if !self.leaders.iter().any(|leader| !leader.is_gone()) {
                    self.start_leader();
                }
                Ok(())
            }
            Event::Client => self.submit(),
            Event::Cancel => self.cancel(),
            Event::Resume(process) => self.resume(process),
            Event::Room => {
                self.say(|| "there is room on the disk".to_owned());
                self.disk.set_full(false);
                Ok(())
            }
            Event::Healthy => {
                self.flaky = 0;
                Ok(())
            }
            Event::Retire => self.retire(),
        }
    }

    /// A stream breaks: both ends hear of it, what was on its way is lost.
    pub fn cut(&mut self, id: u64) {
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.cut) else { return };
        link.cut = true;
        let (host, leader) = (link.host, link.leader);
        let [soon, later] = [(); 2].map(|()| self.latency_ns());
        self.after(soon, Event::ToHost { host, link: id, mail: Mail::End("connection reset") });
        self.after(later, Event::ToLeader { leader, link: id, mail: Mail::End("connection reset") });
    }

    // ---- TaskManagers ----

    /// The agent is told something, and what it wants is done.
    pub fn tell_host(&mut self, index: usize, input: agent::Input) -> Result<(), String> {
        let now_ns = self.net.now_ns();
        let Some(host) = &mut self.hosts[index].up else { return Ok(()) };
        let now_ms = host.now_ms(now_ns);
        host.agent.handle(now_ms, input);
        self.act_host(index)
    }

    fn host_hears(&mut self, index: usize, link: u64, mail: Mail) -> Result<(), String> {
        let place = &mut self.hosts[index];
        let Some(host) = place.up.as_mut().filter(|host| host.link == Some(link)) else { return Ok(()) };
        match mail {
            Mail::Hello => self.tell_host(index, agent::Input::Connected),
            Mail::End(reason) => {
                host.link = None;
                host.dials += 1;
                self.close_at_host(link);
                self.tell_host(index, agent::Input::Disconnected(reason.to_owned()))
            }
            Mail::Bytes(bytes) => {
                let envelope =
                    Envelope::<ToTaskManager>::decode(&bytes).map_err(|error| error.to_string())?;
                let (epoch, seen) = (envelope.epoch, place.epoch_seen);
                if let ToTaskManager::Registered(registered) = &envelope.body
                    && registered.epoch >= seen
                {
                    place.epoch_seen = registered.epoch;
                }
                let now_ms = host.now_ms(self.net.now_ns());
                host.agent.handle(now_ms, agent::Input::Message(Box::new(envelope)));
                let mut actions = Vec::new();
                actions.extend(std::iter::from_fn(|| host.agent.poll_action()));
                self.note(0x70, epoch);
                let effect = |action: &agent::Action| {
                    matches!(action, agent::Action::Command(..) | agent::Action::Fetch { .. })
                };
                if epoch < seen && actions.iter().any(effect) {
                    return Err(format!(
                        "host {}: a command of epoch {epoch} takes effect after one of epoch {seen}",
                        index + 1
                    ));
                }
                actions.into_iter().try_for_each(|action| self.perform(index, action))
            }
        }
    }

    /// Does what the agent wants.
    pub fn act_host(&mut self, index: usize) -> Result<(), String> {
        while let Some(action) = self.hosts[index].up.as_mut().and_then(|host| host.agent.poll_action()) {
            self.perform(index, action)?;
        }
        Ok(())
    }

    fn perform(&mut self, index: usize, action: agent::Action) -> Result<(), String> {
        let life = self.hosts[index].life;
        let Some(host) = &mut self.hosts[index].up else { return Ok(()) };
        match action {
            agent::Action::Dial { after_ms } => {
                host.dials += 1;
                let dial = host.dials;
                self.after(after_ms * MS + 1, Event::Dial { host: index, life, dial });
            }
            agent::Action::Send(envelope) => {
                if let Some(link) = host.link {
                    self.send_to_leader(index, link, &envelope)?;
                }
            }
            agent::Action::HangUp => {
                host.dials += 1;
                if let Some(link) = host.link.take() {
                    self.close_at_host(link);
                }
            }
            agent::Action::Join(cluster) => {
                assert_eq!(cluster, crate::cluster::CLUSTER, "there is one cluster");
            }
            agent::Action::Command(slot, command) => {
                let words = matches!(command, SlotCommand::Cancel(_) | SlotCommand::Prepare(_));
                let taken = host.slots[slot as usize].mailbox.send(command.clone());
                taken.map_err(|error| format!("host {} slot {slot}: {error}", index + 1))?;
                if words {
                    let word = if matches!(command, SlotCommand::Cancel(_)) { "cancel" } else { "prepare" };
                    self.say(|| format!("host {} slot {slot}: {word}", index + 1));
                }
            }
            agent::Action::Enter { attempt, store, checkpoints } => {
                host.roots.enter(attempt.job, attempt.attempt, store, checkpoints);
            }
            agent::Action::Leave(attempt) => host.roots.remove(attempt.job, attempt.attempt),
            agent::Action::Fetch { slot, attempt, prepare, plan, .. } => {
                let most = self.shape.store_ns;
                let ns = self.random.within([10_000, most]);
                self.after(ns, Event::Fetch { host: index, life, slot, attempt, prepare, plan });
            }
            agent::Action::Heartbeats { interval_ms } => {
                host.beats += 1;
                host.beat_ns = interval_ms * MS;
                let beat = host.beats;
                if interval_ms > 0 {
                    self.after(0, Event::Beat { host: index, life, beat });
                }
            }
            agent::Action::End(agent::End::Drained) => {
                self.say(|| format!("host {}: its TaskManager has left", index + 1));
                self.stop_host(index);
            }
            agent::Action::End(end) => return Err(format!("host {}: {end}", index + 1)),
        }
        Ok(())
    }

    fn send_to_leader(
        &mut self,
        index: usize,
        link: u64,
        envelope: &Envelope<ToJobManager>,
    ) -> Result<(), String> {
        if let ToJobManager::Failed { fault, .. } = &envelope.body {
            self.say(|| format!("host {}: attempt failed: {fault}", index + 1));
        }
        let bytes = envelope.encode().map_err(|error| error.to_string())?;
        self.post(link, TO_LEADER, Mail::Bytes(bytes));
        Ok(())
    }

    fn beat(&mut self, index: usize, life: u64, beat: u64) {
        let place = &mut self.hosts[index];
        let current = place.up.as_mut().filter(|host| place.life == life && host.beats == beat);
        let Some(host) = current else { return };
        let beat_ns = host.beat_ns;
        let heartbeat = ToJobManager::Heartbeat(Box::<Heartbeat>::default());
        let envelope = Envelope::new(host.agent.epoch(), heartbeat);
        if let (Some(link), Ok(bytes)) = (host.link, envelope.encode()) {
            self.post(link, TO_LEADER, Mail::Bytes(bytes));
        }
        self.after(beat_ns, Event::Beat { host: index, life, beat });
    }

    fn dial(&mut self, index: usize, life: u64, dial: u64) -> Result<(), String> {
        let current = self.hosts[index].up.as_ref().is_some_and(|host| host.dials == dial);
        if self.hosts[index].life != life || !current {
            return Ok(());
        }
        // The address leads to the newest that serves; sometimes still to an older one.
        let serving: Vec<usize> = (0..self.leaders.len()).filter(|at| self.leaders[*at].leads()).collect();
        let leader = match serving.as_slice() {
            [] => return self.tell_host(index, agent::Input::Disconnected("connection refused".to_owned())),
            [.., older, _] if self.calm_ns.is_none() && self.random.chance(16_384) => *older,
            [.., newest] => *newest,
        };
        let id = self.links.len() as u64 + 1;
        let link = Link { host: index, leader, cut: false, last_ns: [0; 2], stalled_ns: [0; 2] };
        self.links.insert(id, link);
        if let Some(host) = &mut self.hosts[index].up {
            host.link = Some(id);
        }
        self.post(id, TO_LEADER, Mail::Hello);
        self.post(id, TO_HOST, Mail::Hello);
        if self.paused.contains_key(&Process::Leader(leader)) {
            self.after(KEEPALIVE_NS, Event::Cut(id));
        }
        Ok(())
    }
}
