//! One slot over a simulated network, and the stranger at the other end of its only link.
//!
//! It owns both. Always: no byte of the stranger is on its way to our end that is not in `sent`, in this order.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tidegate_arena::{Arena, ArenaConfig, HugePages, SegmentSize};
use tidegate_exchange::endpoint::{Connector, DialRequest};
use tidegate_exchange::{
    AttemptPlan, ChannelPlan, Exchange, ExchangeConfig, Incoming, LinkFault, LocalHub, Prepared, SlotId,
    TaskIds, TaskPorts,
};
use tidegate_ring::sim::{SimNet, SimRing, SimSocket, Weather};
use tidegate_wire::referee::Referee;
use tidegate_wire::{
    End, Entry, HELLO_REPLY_LEN, Hello, MANIFEST_MAX, ManifestWriter, Parsed, RECORD_FORMAT, SlotAddress,
    VERSION, channels_hash, parse,
};

/// The channels of the link, by their numbers in the job.
pub const CHANNELS: [u32; 2] = [5, 9];
/// The attempt, and so the generation of all channels.
pub const ATTEMPT: u32 = 3;
/// Bytes of a segment.
pub const SEGMENT: u32 = 4096;
/// Segments of a slot: the least that the plan needs, and a few, so that credit is scarce.
const SEGMENTS: u32 = 24;
/// Turns after which everything that can happen has happened.
const TURNS_MAX: u32 = 4000;
/// Most bytes that a script may send.
const SENT_MAX: usize = 4 << 20;

const JOB: u128 = 7;
const CLUSTER: u128 = 11;
const US: SlotId = SlotId { taskmanager: 1, slot: 0 };
const STRANGER: SlotId = SlotId { taskmanager: 2, slot: 0 };

/// Nothing is late, short or lost: what goes wrong is the script's choice.
const WEATHER: Weather = Weather {
    latency_ns: [0, 0],
    capacity: [64 << 20, 64 << 20],
    short: 0,
    late: 0,
    late_ns: [0, 0],
    notification_ns: [0, 0],
    flip: 0,
};

/// Remembers what the slot wants to dial.
#[derive(Clone, Default)]
struct Dialed(Arc<Mutex<Option<DialRequest>>>);

impl Connector for Dialed {
    fn dial(&self, request: DialRequest) {
        *self.0.lock().expect("one thread") = Some(request);
    }
}

pub struct Bench {
    net: SimNet,
    pub slot: Exchange<SimRing>,
    pub ids: TaskIds,
    /// The stranger's end, until it hangs up.
    far: Option<SimSocket>,
    /// Bytes of trains that the stranger has not put into the network.
    pub outbox: Vec<u8>,
    /// All that it has.
    pub sent: Vec<u8>,
    /// What our end said and was not looked at yet.
    heard: Vec<u8>,
    trains_heard: u64,
    /// The number of the stranger's next train.
    pub train: u64,
    last_train: Vec<u8>,
}

/// The channels as a plan names them.
pub fn channel_plans() -> Vec<ChannelPlan> {
    CHANNELS.map(|channel| ChannelPlan { channel, peer: STRANGER, input: 0, schema: 42 }).to_vec()
}

/// A referee for each channel, seen from `end`.
pub fn referees(end: End) -> [Referee; 2] {
    CHANNELS.map(|channel| Referee::new(end, channel, ATTEMPT, SEGMENT))
}

impl Bench {
    /// A slot with this task, its link open.
    pub fn new(task: TaskPorts, end: End) -> Self {
        Self::with_segments(task, end, SEGMENTS)
    }

    /// The same, with so many segments.
    pub fn with_segments(task: TaskPorts, end: End, segments: u32) -> Self {
        let net = SimNet::new(0, WEATHER);
        let config = ArenaConfig {
            segment_size: SegmentSize::new(SEGMENT).expect("a power of two"),
            shards: vec![segments],
            huge_pages: HugePages::Never,
        };
        let (arena, mut shards) = Arena::on_heap(&config).expect("a small arena");
        let ring = SimRing::new(net.clone(), arena, false);
        let dialed = Dialed::default();
        let config = ExchangeConfig { me: US, cluster: CLUSTER };
        let mut slot =
            Exchange::new(ring, shards.remove(0), LocalHub::new(), Box::new(dialed.clone()), config);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let plan = AttemptPlan {
            job: JOB,
            epoch: 1,
            attempt: ATTEMPT,
            record_max: 0,
            tasks: vec![task],
            peers: [(STRANGER.taskmanager, address)].into(),
        };
        let ids = slot.prepare(&plan).expect("the plan fits").remove(0);
        let (near, mut far) = net.connect(US.taskmanager, STRANGER.taskmanager);
        let mailbox = slot.mailbox();
        let handed = match end {
            End::Consumer => {
                let request = dialed.0.lock().expect("one thread").take().expect("a consumer dials");
                let (link, hello) = (request.link, request.hello);
                mailbox.hand_over(Incoming::Dialed { link, hello, result: Ok(near) })
            }
            End::Producer => {
                let hello = hello();
                mailbox.hand_over(Incoming::Accepted { socket: near, hello, echo: hello.checksum() })
            }
        };
        assert!(handed.is_ok(), "the slot takes its mail");
        slot.turn();
        assert_eq!(slot.prepared(JOB, ATTEMPT), Prepared::Ready, "{:?}", slot.take_fault());
        if end == End::Producer {
            net.advance_to(net.now_ns() + 1);
            let reply = far.read_now(HELLO_REPLY_LEN).expect("the link is open");
            assert_eq!(reply.map(|bytes| bytes.len()), Some(HELLO_REPLY_LEN), "the slot accepts");
        }
        Self {
            net,
            slot,
            ids,
            far: Some(far),
            outbox: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            trains_heard: 0,
            train: 0,
            last_train: Vec::new(),
        }
    }

    /// Puts a train with the next number into the outbox.
    pub fn push_train(&mut self, entries: &[Entry], payloads: &[u8]) {
        let mut bytes = vec![0; MANIFEST_MAX];
        let mut writer = ManifestWriter::new(&mut bytes, self.train, 0);
        entries.iter().for_each(|entry| writer.push(*entry).expect("a script's train is small"));
        let len = writer.finish();
        bytes.truncate(len);
        bytes.extend_from_slice(payloads);
        self.train += 1;
        self.outbox.extend_from_slice(&bytes);
        self.last_train = bytes;
    }

    /// The same bytes again.
    pub fn repeat_train(&mut self) {
        self.outbox.extend_from_slice(&self.last_train);
    }

    /// Puts the first `count` bytes of the outbox into the network.
    pub fn send(&mut self, count: usize) {
        let count = count.min(self.outbox.len()).min(SENT_MAX - self.sent.len());
        let Some(far) = self.far.as_mut().filter(|_| count > 0) else { return };
        let bytes: Vec<u8> = self.outbox.drain(..count).collect();
        if far.write_now(&bytes).is_ok() {
            self.sent.extend_from_slice(&bytes);
        }
    }

    /// True until the stranger has hung up.
    pub fn connected(&self) -> bool {
        self.far.is_some()
    }

    /// The stranger hangs up.
    pub fn hang_up(&mut self) {
        self.far = None;
    }

    /// Time passes, and our slot has its turn. True if anything happened in it.
    pub fn turn(&mut self) -> bool {
        self.net.advance_to(self.net.now_ns() + 1_000);
        self.slot.turn()
    }

    /// What our end said since the last call: entry by entry, with its payload. Panics if that breaks a rule of a train.
    pub fn hear(&mut self, our: End) -> Vec<(Entry, Vec<u8>)> {
        let mut said = Vec::new();
        if let Some(far) = &mut self.far {
            while let Ok(Some(bytes)) = far.read_now(1 << 16) {
                if bytes.is_empty() {
                    break;
                }
                self.heard.extend_from_slice(&bytes);
            }
        }
        while let Parsed::Complete(manifest) = parse(&self.heard).expect("our trains are well-formed") {
            let end = manifest.len() + manifest.payload_bytes() as usize;
            if self.heard.len() < end {
                break;
            }
            manifest.check_train(self.trains_heard).expect("our trains are numbered");
            manifest.check_sender(our).expect("our end sends its own kinds");
            self.trains_heard += 1;
            let mut at = manifest.len();
            for entry in manifest.entries() {
                let len = entry.payload().map_or(0, |data| data.len as usize);
                said.push((entry, self.heard[at..at + len].to_vec()));
                at += len;
            }
            self.heard.drain(..end);
        }
        said
    }

    /// The next fault of our end.
    pub fn fault(&mut self) -> Option<LinkFault> {
        self.slot.take_fault()
    }

    /// Turns until nothing moves; `step` is what tasks and stranger do between turns, and says whether they did anything.
    pub fn settle(&mut self, mut step: impl FnMut(&mut Self) -> bool) {
        let mut idle = 0;
        for _ in 0..TURNS_MAX {
            let moved = self.turn() | step(self);
            idle = if moved { 0 } else { idle + 1 };
            if idle == 8 {
                return;
            }
        }
        panic!("still busy after {TURNS_MAX} turns: {:#?}", self.slot.ports.counters());
    }

    /// The attempt ends, and leaves nothing behind.
    pub fn end(mut self) {
        self.slot.cancel(JOB, ATTEMPT);
        for _ in 0..TURNS_MAX {
            if self.slot.closed(JOB, ATTEMPT) {
                break;
            }
            self.turn();
        }
        assert!(self.slot.closed(JOB, ATTEMPT), "a cancelled attempt ends");
        assert_eq!(
            self.slot.ports.segments_free(),
            self.slot.ports.segments(),
            "every segment is free at the end"
        );
    }
}

/// What the producer's slot expects to hear.
fn hello() -> Hello {
    let address = |slot: SlotId| SlotAddress { tm: slot.taskmanager, slot: slot.slot };
    Hello {
        version: VERSION,
        cluster: CLUSTER,
        job: JOB,
        epoch: 1,
        attempt: ATTEMPT,
        from: address(STRANGER),
        to: address(US),
        segment_size: SEGMENT,
        record_format: RECORD_FORMAT,
        channels: CHANNELS.len() as u32,
        channels_hash: channels_hash(CHANNELS.map(|channel| (channel, 42))),
    }
}
