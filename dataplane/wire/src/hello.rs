//! The handshake: the consumer's hello, the producer's reply, and why a link may be refused. No state.
//!
//! Always true: both messages have a fixed length in every version (W-6), and a refusal names what the producer
//! expected and what it found.

use core::fmt;

use crate::checksum::payload_crc;
use crate::limits::{CHANNELS_MAX, HELLO_LEN, HELLO_REPLY_LEN, SEGMENT_MAX, SEGMENT_MIN};
use crate::manifest::VERSION;
use crate::raw::{self, ArchivedHello, ArchivedHelloReply, HELLO_CHECKSUM_AT, REPLY_CHECKSUM_AT};

/// First four bytes of a hello: "TGHI" (W-5).
pub const HELLO_MAGIC: u32 = u32::from_le_bytes(*b"TGHI");
/// First four bytes of a reply: "TGRE" (W-8).
pub const HELLO_REPLY_MAGIC: u32 = u32::from_le_bytes(*b"TGRE");

/// How this build archives records (W-12): rkyv 0.8, little endian, unaligned, 32-bit relative pointers.
pub const RECORD_FORMAT: u64 = u64::from_le_bytes([0, 8, 0, 0, 32, 0, 0, 0]);

/// One end of a link: a slot of a TaskManager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotAddress {
    /// The TaskManager's id within the cluster.
    pub tm: u64,
    /// The slot's number within the TaskManager.
    pub slot: u32,
}

/// What the consumer says first, and what the producer compares with its own plan (W-5, W-7).
///
/// ```
/// use tidegate_wire::{channels_hash, Hello, SlotAddress, HELLO_LEN, RECORD_FORMAT};
/// let hello = Hello {
///     version: tidegate_wire::VERSION, cluster: 1, job: 2, epoch: 3, attempt: 4,
///     from: SlotAddress { tm: 10, slot: 0 }, to: SlotAddress { tm: 11, slot: 1 },
///     segment_size: 32 * 1024, record_format: RECORD_FORMAT,
///     channels: 2, channels_hash: channels_hash([(5, 0xAB), (6, 0xAB)]),
/// };
/// let mut bytes = [0; HELLO_LEN];
/// hello.write(&mut bytes);
/// let received = Hello::parse(&bytes).unwrap();
/// assert_eq!(received.check(&hello), Ok(()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version ([`VERSION`]).
    pub version: u16,
    /// Identity of the cluster.
    pub cluster: u128,
    /// Identity of the job.
    pub job: u128,
    /// Leadership of the JobManager that deployed the attempt.
    pub epoch: u64,
    /// Attempt of the job; also the generation of the link's channels (W-35).
    pub attempt: u32,
    /// The slot that dials: the consumer.
    pub from: SlotAddress,
    /// The slot that is dialled: the producer.
    pub to: SlotAddress,
    /// Bytes of a segment of the consumer, a power of two from [`SEGMENT_MIN`] to [`SEGMENT_MAX`].
    pub segment_size: u32,
    /// How records are archived; see [`RECORD_FORMAT`].
    pub record_format: u64,
    /// Number of channels on the link, 1 to [`CHANNELS_MAX`].
    pub channels: u32,
    /// [`channels_hash`] of those channels and their record schemas.
    pub channels_hash: u64,
}

impl Hello {
    /// Writes the hello's bytes and its checksum.
    pub fn write(&self, bytes: &mut [u8; HELLO_LEN]) {
        let raw = raw::Hello {
            magic: HELLO_MAGIC,
            version: self.version,
            flags: 0,
            segment_size: self.segment_size,
            channels: self.channels,
            cluster: self.cluster,
            job: self.job,
            epoch: self.epoch,
            from_tm: self.from.tm,
            to_tm: self.to.tm,
            from_slot: self.from.slot,
            to_slot: self.to.slot,
            attempt: self.attempt,
            reserved_a: 0,
            record_format: self.record_format,
            channels_hash: self.channels_hash,
            reserved_b: [0; 5],
            checksum: 0,
        };
        raw::store(&raw, bytes);
        seal(bytes, HELLO_CHECKSUM_AT);
    }

    /// Reads a hello and checks what needs no knowledge of the job: magic, checksum, version, reserved fields,
    /// segment size and channel count within their limits (first half of W-7).
    ///
    /// # Errors
    /// The [`Refusal`] to answer with: `Garbage`, `Version`, `SegmentSize` or `Channels`.
    pub fn parse(bytes: &[u8; HELLO_LEN]) -> Result<Self, Refusal> {
        let raw = raw::view::<ArchivedHello>(bytes);
        let (magic, checksum) = (raw.magic.to_native(), raw.checksum.to_native());
        Refusal::unless(magic == HELLO_MAGIC, RefusalCode::Garbage, HELLO_MAGIC, magic)?;
        let found = payload_crc(&bytes[..HELLO_CHECKSUM_AT]);
        Refusal::unless(checksum == found, RefusalCode::Garbage, checksum, found)?;
        let version = raw.version.to_native();
        Refusal::unless(version == VERSION, RefusalCode::Version, VERSION, version)?;
        let reserved =
            raw.reserved_b.iter().fold(raw.reserved_a.to_native(), |all, word| all | word.to_native())
                | u32::from(raw.flags.to_native());
        Refusal::unless(reserved == 0, RefusalCode::Garbage, 0_u32, reserved)?;

        let hello = Self {
            version,
            cluster: raw.cluster.to_native(),
            job: raw.job.to_native(),
            epoch: raw.epoch.to_native(),
            attempt: raw.attempt.to_native(),
            from: SlotAddress { tm: raw.from_tm.to_native(), slot: raw.from_slot.to_native() },
            to: SlotAddress { tm: raw.to_tm.to_native(), slot: raw.to_slot.to_native() },
            segment_size: raw.segment_size.to_native(),
            record_format: raw.record_format.to_native(),
            channels: raw.channels.to_native(),
            channels_hash: raw.channels_hash.to_native(),
        };
        let size = hello.segment_size;
        let size_ok = size.is_power_of_two() && (SEGMENT_MIN..=SEGMENT_MAX).contains(&size);
        Refusal::unless(size_ok, RefusalCode::SegmentSize, SEGMENT_MAX, size)?;
        let channels_ok = (1..=CHANNELS_MAX).contains(&hello.channels);
        Refusal::unless(channels_ok, RefusalCode::Channels, CHANNELS_MAX, hello.channels)?;
        Ok(hello)
    }

    /// Compares a received hello with the one the producer expects for this link (second half of W-7).
    ///
    /// # Errors
    /// The [`Refusal`] to answer with, for the first difference in the order cluster, epoch, job, attempt, slots,
    /// segment size, record format, channel count, channels' hash.
    pub fn check(&self, expected: &Self) -> Result<(), Refusal> {
        use RefusalCode as Code;
        // Identities of 128 bits are reported by their low half: enough to tell them apart in a log.
        Refusal::unless(
            self.cluster == expected.cluster,
            Code::Cluster,
            expected.cluster as u64,
            self.cluster as u64,
        )?;
        Refusal::unless(self.epoch == expected.epoch, Code::Epoch, expected.epoch, self.epoch)?;
        Refusal::unless(self.job == expected.job, Code::Job, expected.job as u64, self.job as u64)?;
        Refusal::unless(self.attempt == expected.attempt, Code::Attempt, expected.attempt, self.attempt)?;
        Refusal::unless(self.to == expected.to, Code::Slot, slot_word(expected.to), slot_word(self.to))?;
        Refusal::unless(
            self.from == expected.from,
            Code::Slot,
            slot_word(expected.from),
            slot_word(self.from),
        )?;
        Refusal::unless(
            self.segment_size == expected.segment_size,
            Code::SegmentSize,
            expected.segment_size,
            self.segment_size,
        )?;
        Refusal::unless(
            self.record_format == expected.record_format,
            Code::RecordFormat,
            expected.record_format,
            self.record_format,
        )?;
        Refusal::unless(
            self.channels == expected.channels,
            Code::Channels,
            expected.channels,
            self.channels,
        )?;
        Refusal::unless(
            self.channels_hash == expected.channels_hash,
            Code::Channels,
            expected.channels_hash,
            self.channels_hash,
        )
    }

    /// The checksum of the hello's bytes: what the reply echoes (W-8).
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut bytes = [0; HELLO_LEN];
        self.write(&mut bytes);
        Self::echo_of(&bytes)
    }

    /// What a reply to these bytes echoes, whether they are a good hello or garbage: their last four bytes (W-8).
    #[must_use]
    pub fn echo_of(bytes: &[u8; HELLO_LEN]) -> u32 {
        raw::view::<ArchivedHello>(bytes).checksum.to_native()
    }
}

/// Hash over the channels of a link and the schemas of their records (W-11): FNV-1a, 64 bits, over 12 bytes per
/// channel. Give `(channel, schema)` pairs by ascending channel number, on both ends.
///
/// # Panics
/// If the channels do not ascend: the caller's bug, and the two ends could not agree.
///
/// ```
/// use tidegate_wire::channels_hash;
/// assert_eq!(channels_hash([]), 0xcbf2_9ce4_8422_2325);
/// assert_ne!(channels_hash([(1, 7)]), channels_hash([(1, 8)]));
/// ```
#[must_use]
pub fn channels_hash(channels: impl IntoIterator<Item = (u32, u64)>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut previous = None;
    for (channel, schema) in channels {
        assert!(
            previous < Some(channel),
            "misuse: channels are hashed in ascending order, {channel} comes late"
        );
        previous = Some(channel);
        for byte in channel.to_le_bytes().into_iter().chain(schema.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// The named reasons for refusing a link (W-9). The numbers are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum RefusalCode {
    /// Another protocol version.
    Version = 1,
    /// Another cluster.
    Cluster = 2,
    /// Another leadership: found older = the consumer is stale, found newer = the producer is.
    Epoch = 3,
    /// A job that the producer does not run (yet).
    Job = 4,
    /// An attempt that the producer does not run (yet, or any more).
    Attempt = 5,
    /// A slot that is not the one addressed, or not the one expected to dial.
    Slot = 6,
    /// Another segment size, or one out of range.
    SegmentSize = 7,
    /// Records are archived in another format.
    RecordFormat = 8,
    /// Other channels, or other record schemas on them.
    Channels = 9,
    /// The link exists already, or the producer has no room for it now.
    Busy = 10,
    /// Not a hello: wrong magic, wrong checksum, reserved fields set.
    Garbage = 11,
}

impl RefusalCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 11] = [
        Self::Version,
        Self::Cluster,
        Self::Epoch,
        Self::Job,
        Self::Attempt,
        Self::Slot,
        Self::SegmentSize,
        Self::RecordFormat,
        Self::Channels,
        Self::Busy,
        Self::Garbage,
    ];

    /// The code with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        if number == 0 || number as usize > Self::ALL.len() {
            None
        } else {
            Some(Self::ALL[number as usize - 1])
        }
    }

    /// Whether dialling again within the attempt's deadline can help (W-10): the producer may not be prepared yet, or
    /// busy. Every other refusal stays.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Job | Self::Attempt | Self::Slot | Self::Busy)
    }
}

/// Why the producer refused a link, with what it expected and what it found (W-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub code: RefusalCode,
    /// What the producer would have accepted; meaning by code.
    pub expected: u64,
    /// What the hello said.
    pub found: u64,
}

impl Refusal {
    /// The refusal of a link for which the producer has no room now: it holds `found` of at most `expected`.
    #[must_use]
    pub const fn busy(expected: u64, found: u64) -> Self {
        Self { code: RefusalCode::Busy, expected, found }
    }

    fn unless(
        ok: bool,
        code: RefusalCode,
        expected: impl Into<u64>,
        found: impl Into<u64>,
    ) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self { code, expected: expected.into(), found: found.into() }) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.code {
            RefusalCode::Version => "the two ends speak different protocol versions: run the same build",
            RefusalCode::Cluster => "the consumer belongs to another cluster: check the address it was given",
            RefusalCode::Epoch => "the ends follow different leaders: the older one must register again",
            RefusalCode::Job => "the producer does not run this job (yet)",
            RefusalCode::Attempt => "the producer does not run this attempt (yet, or any more)",
            RefusalCode::Slot => "the slots are not those of the producer's plan",
            RefusalCode::SegmentSize => "set the same segment size on every TaskManager, 4 KiB to 1 MiB",
            RefusalCode::RecordFormat => "the builds archive records differently: run the same build",
            RefusalCode::Channels => {
                "the ends have different channels or record schemas: deploy the same job binary"
            }
            RefusalCode::Busy => "the link exists already or there is no room: it may be dialled again",
            RefusalCode::Garbage => "the bytes are no hello: is something else dialling this port?",
        };
        let Self { code, expected, found } = self;
        write!(f, "producer refused the link ({code:?}): expected {expected:#x}, found {found:#x}; {advice}")
    }
}

impl core::error::Error for Refusal {}

/// The producer's answer to a hello (W-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// The last four bytes of the hello this answers ([`Hello::echo_of`]).
    pub echo: u32,
    /// Why not; `None` = the link is established.
    pub refusal: Option<Refusal>,
}

impl HelloReply {
    /// Writes the reply's bytes and its checksum.
    pub fn write(&self, bytes: &mut [u8; HELLO_REPLY_LEN]) {
        let (code, expected, found) = match self.refusal {
            Some(refusal) => (refusal.code as u16, refusal.expected, refusal.found),
            None => (0, 0, 0),
        };
        let raw = raw::HelloReply {
            magic: HELLO_REPLY_MAGIC,
            version: VERSION,
            code,
            expected,
            found,
            echo: self.echo,
            checksum: 0,
        };
        raw::store(&raw, bytes);
        seal(bytes, REPLY_CHECKSUM_AT);
    }

    /// Reads a reply, of whatever version: a producer of another version must be able to say so (W-6).
    ///
    /// # Errors
    /// [`ReplyError`] if the bytes are no reply, or were damaged.
    pub fn parse(bytes: &[u8; HELLO_REPLY_LEN]) -> Result<Self, ReplyError> {
        let raw = raw::view::<ArchivedHelloReply>(bytes);
        let magic = raw.magic.to_native();
        if magic != HELLO_REPLY_MAGIC {
            return Err(ReplyError::Magic { found: magic });
        }
        let (expected, found) = (raw.checksum.to_native(), payload_crc(&bytes[..REPLY_CHECKSUM_AT]));
        if expected != found {
            return Err(ReplyError::Checksum { expected, found });
        }
        let echo = raw.echo.to_native();
        let (expected, found) = (raw.expected.to_native(), raw.found.to_native());
        match raw.code.to_native() {
            0 if raw.version.to_native() != VERSION => {
                Err(ReplyError::Version { found: raw.version.to_native() })
            }
            0 if (expected, found) == (0, 0) => Ok(Self { echo, refusal: None }),
            0 => Err(ReplyError::Code { found: 0 }),
            number => match RefusalCode::from_number(number) {
                Some(code) => Ok(Self { echo, refusal: Some(Refusal { code, expected, found }) }),
                None => Err(ReplyError::Code { found: number }),
            },
        }
    }
}

/// Why a reply could not be understood: the consumer closes the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Not the first bytes of a reply.
    Magic {
        /// The first four bytes, as a little-endian number.
        found: u32,
    },
    /// The bytes do not match their checksum.
    Checksum {
        /// The checksum in the reply.
        expected: u32,
        /// The checksum of the bytes.
        found: u32,
    },
    /// Accepted by a producer of another version, which it must not do.
    Version {
        /// The producer's version.
        found: u16,
    },
    /// A refusal code that this version does not know, or an acceptance that carries values.
    Code {
        /// The number in the reply.
        found: u16,
    },
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic { found } => {
                write!(
                    f,
                    "peer sent no reply to the hello: it starts with {found:#010x}; is the address right?"
                )
            }
            Self::Checksum { expected, found } => write!(
                f,
                "the reply was damaged on its way: it says checksum {expected:#010x}, its bytes have {found:#010x}"
            ),
            Self::Version { found } => {
                write!(f, "peer violated W-8: version {found} accepted a hello of version {VERSION}")
            }
            Self::Code { found } => {
                write!(f, "peer violated W-9: refusal code {found} is unknown: run the same build")
            }
        }
    }
}

impl core::error::Error for ReplyError {}

/// Puts the checksum of everything before `at` at `at`, which is the last four bytes.
fn seal(bytes: &mut [u8], at: usize) {
    let checksum = payload_crc(&bytes[..at]);
    bytes[at..].copy_from_slice(&checksum.to_le_bytes());
}

/// A slot in 64 bits for a report: the low half of the TaskManager's id, then the slot.
fn slot_word(address: SlotAddress) -> u64 {
    address.tm << 32 | u64::from(address.slot)
}
