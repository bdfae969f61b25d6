//! One entry of a manifest as a value, and what is true of it whatever the link's state. No state.
//!
//! Always true of an [`Entry`] that came out of a manifest or went into one: it obeys W-24 to W-34, so that encoding
//! what was decoded gives the same 32 bytes.

use crate::error::WireError;
use crate::limits::{CREDITS_MAX, PAYLOAD_MAX, RECORD_MAX};
use crate::raw;

/// The channel number that means the whole link (W-34); only [`Kind::Error`] may carry it.
pub const LINK: u32 = u32::MAX;

/// What an entry says (W-23). The numbers are the bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A payload of records follows the manifest.
    Data = 1,
    /// Aligned checkpoint barrier: voids the channel's credit.
    Barrier = 2,
    /// In the place of a barrier: this checkpoint will not complete here.
    AbortMarker = 3,
    /// No record of this channel is older from here on.
    Watermark = 4,
    /// How many payloads wait for credit at the producer.
    Backlog = 5,
    /// Credits from the consumer.
    Grant = 6,
    /// The alignment is over: the channel's data may go on, with these credits.
    Resume = 7,
    /// No more data; events may follow.
    EndOfData = 8,
    /// Nothing more but the close-ack.
    EndOfPartition = 9,
    /// The consumer wants nothing more of this channel.
    Close = 10,
    /// The producer's last word on this channel.
    CloseAck = 11,
    /// What one end holds against the other, or against itself.
    Error = 12,
    /// The channel's next record is larger than a segment: it wants a region at the consumer.
    Ask = 13,
    /// The region is there: the record's slices may come.
    Admit = 14,
}

/// The two ends of a link. Data flows from the producer to the consumer; the consumer dials (W-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The slot whose partitions feed the link.
    Producer,
    /// The slot whose gates the link feeds.
    Consumer,
}

impl Kind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 14] = [
        Self::Data,
        Self::Barrier,
        Self::AbortMarker,
        Self::Watermark,
        Self::Backlog,
        Self::Grant,
        Self::Resume,
        Self::EndOfData,
        Self::EndOfPartition,
        Self::Close,
        Self::CloseAck,
        Self::Error,
        Self::Ask,
        Self::Admit,
    ];

    /// The kind with this number on the wire, if there is one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        if byte == 0 || byte as usize > Self::ALL.len() { None } else { Some(Self::ALL[byte as usize - 1]) }
    }

    /// Whether `end` may send this kind (W-23).
    #[must_use]
    pub const fn sent_by(self, end: End) -> bool {
        match self {
            Self::Grant | Self::Resume | Self::Close | Self::Admit => matches!(end, End::Consumer),
            Self::Error => true,
            _ => matches!(end, End::Producer),
        }
    }

    /// Whether entries of this kind take the next sequence number of their channel (W-36); the others carry 0.
    #[must_use]
    pub const fn is_sequenced(self) -> bool {
        matches!(
            self,
            Self::Data
                | Self::Barrier
                | Self::AbortMarker
                | Self::Watermark
                | Self::EndOfData
                | Self::EndOfPartition
                | Self::CloseAck
        )
    }

    /// Whether an entry of this kind spends one credit, unless it is a slice (W-38). Control never does, so data cannot starve
    /// it.
    #[must_use]
    pub const fn needs_credit(self) -> bool {
        matches!(self, Self::Data)
    }
}

/// One payload, as its entry announces it (W-25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Data {
    /// Bytes of this payload, 1 to the agreed segment size; of a slice, to [`PAYLOAD_MAX`].
    pub len: u32,
    /// Bytes of the whole that this payload is a slice of; equal to `len` where it is no slice.
    pub total: u32,
    /// Where in that whole this payload starts, in bytes.
    pub offset: u32,
    /// CRC32C of the payload's bytes.
    pub crc: u32,
}

impl Data {
    /// A payload that holds whole records: no slice of anything.
    #[must_use]
    pub const fn whole(len: u32, crc: u32) -> Self {
        Self { len, total: len, offset: 0, crc }
    }

    /// Whether this payload is all or part of one record that is larger than a segment (W-26).
    #[must_use]
    pub const fn is_slice(&self, segment_size: u32) -> bool {
        self.total > segment_size
    }

    /// Whether this payload ends the whole that it belongs to (W-26); true of every payload that is no slice.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.offset as u64 + self.len as u64 == self.total as u64
    }

    fn is_within_limits(&self) -> bool {
        let end = u64::from(self.offset) + u64::from(self.len);
        (1..=PAYLOAD_MAX).contains(&self.len) && self.total <= RECORD_MAX && end <= u64::from(self.total)
    }
}

/// What an entry carries beside its channel (W-25 to W-34).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A payload (W-25).
    Data(Data),
    /// An aligned barrier (W-27).
    Barrier {
        /// The checkpoint's number.
        checkpoint: u64,
    },
    /// An aborted barrier (W-27).
    AbortMarker {
        /// The checkpoint's number.
        checkpoint: u64,
    },
    /// Event time of the channel (W-28).
    Watermark {
        /// Event time in milliseconds since 1970; every later record is at least this old or late.
        value: i64,
    },
    /// The producer's need, in [`Entry::backlog`] (W-29).
    Backlog,
    /// More credits (W-30).
    Grant {
        /// Segments promised in addition, 1 to [`CREDITS_MAX`].
        credits: u32,
        /// Barriers of this channel that the consumer had seen when it granted.
        barriers: u32,
    },
    /// End of an alignment (W-31).
    Resume {
        /// The checkpoint whose barrier stopped the channel.
        checkpoint: u64,
        /// Segments promised afresh, 0 to [`CREDITS_MAX`].
        credits: u32,
        /// Barriers of this channel that the consumer had seen.
        barriers: u32,
    },
    /// No more data (W-32).
    EndOfData,
    /// Nothing more (W-32).
    EndOfPartition,
    /// The consumer leaves (W-33).
    Close,
    /// The producer's last word (W-33).
    CloseAck,
    /// A fault (W-34); see [`ErrorCode`](crate::ErrorCode).
    Error {
        /// What went wrong; numbers unknown to this version are passed on, 0 is refused.
        code: u16,
        /// What was found, by code.
        detail: u64,
    },
    /// A record larger than a segment comes next (W-46).
    Ask {
        /// Its bytes, 1 to [`RECORD_MAX`].
        total: u32,
    },
    /// There is a region for the record that was asked for (W-47).
    Admit {
        /// Its bytes, as they were asked for.
        total: u32,
    },
}

impl Body {
    /// The kind that this body belongs to.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Data(_) => Kind::Data,
            Self::Barrier { .. } => Kind::Barrier,
            Self::AbortMarker { .. } => Kind::AbortMarker,
            Self::Watermark { .. } => Kind::Watermark,
            Self::Backlog => Kind::Backlog,
            Self::Grant { .. } => Kind::Grant,
            Self::Resume { .. } => Kind::Resume,
            Self::EndOfData => Kind::EndOfData,
            Self::EndOfPartition => Kind::EndOfPartition,
            Self::Close => Kind::Close,
            Self::CloseAck => Kind::CloseAck,
            Self::Error { .. } => Kind::Error,
            Self::Ask { .. } => Kind::Ask,
            Self::Admit { .. } => Kind::Admit,
        }
    }

    /// Whether a consumer that receives `self` drops the `undelivered` entry before it (W-45), so that what needs no
    /// credit cannot pile up: newer barriers and abort-markers take the place of older ones, and a watermark that of one
    /// which no payload follows (the caller looks no further back than the last payload).
    #[must_use]
    pub const fn replaces(&self, undelivered: &Self) -> bool {
        match self {
            Self::Barrier { .. } | Self::AbortMarker { .. } => {
                matches!(undelivered, Self::Barrier { .. } | Self::AbortMarker { .. })
            }
            Self::Watermark { .. } => matches!(undelivered, Self::Watermark { .. }),
            _ => false,
        }
    }
}

/// One line of a manifest (W-22).
///
/// ```
/// use tidegate_wire::{Body, Data, Entry, Kind};
/// let entry = Entry::sequenced(7, 1, 42, Body::Barrier { checkpoint: 3 });
/// assert_eq!(entry.kind(), Kind::Barrier);
/// let data = Entry::data(7, 1, 43, 2, Data::whole(4096, 0x1234));
/// assert_eq!((data.sequence, data.backlog), (43, 2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Channel number, unique within the job; [`LINK`] for an error of the whole link.
    pub channel: u32,
    /// Generation of the channel: the attempt it belongs to (W-35).
    pub generation: u32,
    /// Payloads that wait at the producer behind this entry, saturating; of [`Kind::Data`] and [`Kind::Backlog`], else 0.
    pub backlog: u16,
    /// Place in the channel's order; of sequenced kinds, else 0 (W-36).
    pub sequence: u32,
    /// What the entry says.
    pub body: Body,
}

impl Entry {
    /// A payload's entry; `backlog` payloads of the channel still wait behind it.
    #[must_use]
    pub const fn data(channel: u32, generation: u32, sequence: u32, backlog: u16, data: Data) -> Self {
        Self { channel, generation, backlog, sequence, body: Body::Data(data) }
    }

    /// An entry with a place in the channel's order but without payload: barrier, abort-marker, watermark,
    /// end-of-data, end-of-partition, close-ack.
    #[must_use]
    pub const fn sequenced(channel: u32, generation: u32, sequence: u32, body: Body) -> Self {
        Self { channel, generation, backlog: 0, sequence, body }
    }

    /// An entry outside the channel's order: grant, resume, close, error, ask, admit.
    #[must_use]
    pub const fn control(channel: u32, generation: u32, body: Body) -> Self {
        Self { channel, generation, backlog: 0, sequence: 0, body }
    }

    /// The statement that `backlog` payloads of the channel wait for credit.
    #[must_use]
    pub const fn backlog(channel: u32, generation: u32, backlog: u16) -> Self {
        Self { channel, generation, backlog, sequence: 0, body: Body::Backlog }
    }

    /// A fault of the whole link (W-34).
    #[must_use]
    pub const fn link_error(code: u16, detail: u64) -> Self {
        Self::control(LINK, 0, Body::Error { code, detail })
    }

    /// The entry's kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// The payload's measures, if the entry has a payload.
    #[must_use]
    pub const fn payload(&self) -> Option<Data> {
        match self.body {
            Body::Data(data) => Some(data),
            _ => None,
        }
    }

    /// Whether the entry obeys every rule that does not depend on the link's state (W-24 to W-34).
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let raw = self.to_raw();
        decode(0, &Fields::of(&raw)) == Ok(*self)
    }

    pub(crate) fn to_raw(self) -> raw::Entry {
        let words = match self.body {
            Body::Data(Data { len, total, offset, crc }) => [len, total, offset, crc],
            Body::Barrier { checkpoint } | Body::AbortMarker { checkpoint } => wide(checkpoint, [0, 0]),
            Body::Watermark { value } => wide(value.cast_unsigned(), [0, 0]),
            Body::Grant { credits, barriers } => [credits, barriers, 0, 0],
            Body::Resume { checkpoint, credits, barriers } => wide(checkpoint, [credits, barriers]),
            Body::Error { code, detail } => {
                let [low, high, ..] = wide(detail, [0, 0]);
                [u32::from(code), 0, low, high]
            }
            Body::Ask { total } | Body::Admit { total } => [total, 0, 0, 0],
            Body::Backlog | Body::EndOfData | Body::EndOfPartition | Body::Close | Body::CloseAck => [0; 4],
        };
        raw::Entry {
            channel: self.channel,
            generation: self.generation,
            kind: self.kind() as u8,
            flags: 0,
            backlog: self.backlog,
            sequence: self.sequence,
            words,
        }
    }
}

/// The fields of an entry in the host's byte order, out of an archive or about to become one.
pub(crate) struct Fields {
    channel: u32,
    generation: u32,
    kind: u8,
    flags: u8,
    backlog: u16,
    sequence: u32,
    words: [u32; 4],
}

impl Fields {
    pub(crate) fn view(bytes: &[u8]) -> Self {
        let raw = raw::view::<raw::ArchivedEntry>(bytes);
        Self {
            channel: raw.channel.to_native(),
            generation: raw.generation.to_native(),
            kind: raw.kind,
            flags: raw.flags,
            backlog: raw.backlog.to_native(),
            sequence: raw.sequence.to_native(),
            words: [
                raw.words[0].to_native(),
                raw.words[1].to_native(),
                raw.words[2].to_native(),
                raw.words[3].to_native(),
            ],
        }
    }

    fn of(raw: &raw::Entry) -> Self {
        Self {
            channel: raw.channel,
            generation: raw.generation,
            kind: raw.kind,
            flags: raw.flags,
            backlog: raw.backlog,
            sequence: raw.sequence,
            words: raw.words,
        }
    }
}

/// Reads entry number `entry` of a manifest and checks it (W-24 to W-34).
pub(crate) fn decode(entry: u8, fields: &Fields) -> Result<Entry, WireError> {
    let Some(kind) = Kind::from_byte(fields.kind) else {
        return Err(WireError::Kind { entry, found: fields.kind });
    };
    let body = decode_body(entry, kind, fields.words)?;
    let unused = [
        fields.flags != 0,
        fields.backlog != 0 && !matches!(kind, Kind::Data | Kind::Backlog),
        fields.sequence != 0 && !kind.is_sequenced(),
    ];
    if unused.contains(&true) {
        return Err(WireError::Unused { entry, kind });
    }
    let whole_link = fields.channel == LINK;
    if whole_link && (kind != Kind::Error || fields.generation != 0) {
        return Err(WireError::Channel { entry, kind });
    }
    Ok(Entry {
        channel: fields.channel,
        generation: fields.generation,
        backlog: fields.backlog,
        sequence: fields.sequence,
        body,
    })
}

fn decode_body(entry: u8, kind: Kind, words: [u32; 4]) -> Result<Body, WireError> {
    let [a, b, c, d] = words;
    let first = narrow(a, b);
    let (body, unused) = match kind {
        Kind::Data => {
            let data = Data { len: a, total: b, offset: c, crc: d };
            if !data.is_within_limits() {
                return Err(WireError::Payload { entry, len: a, total: b, offset: c });
            }
            (Body::Data(data), 0)
        }
        Kind::Barrier => (Body::Barrier { checkpoint: first }, c | d),
        Kind::AbortMarker => (Body::AbortMarker { checkpoint: first }, c | d),
        Kind::Watermark => (Body::Watermark { value: first.cast_signed() }, c | d),
        Kind::Grant if (1..=CREDITS_MAX).contains(&a) => (Body::Grant { credits: a, barriers: b }, c | d),
        Kind::Grant => return Err(WireError::Credits { entry, found: a }),
        Kind::Resume if c <= CREDITS_MAX => (Body::Resume { checkpoint: first, credits: c, barriers: d }, 0),
        Kind::Resume => return Err(WireError::Credits { entry, found: c }),
        Kind::Error => match u16::try_from(a) {
            Ok(code) if code != 0 => (Body::Error { code, detail: narrow(c, d) }, b),
            _ => return Err(WireError::Code { entry, found: a }),
        },
        Kind::Ask | Kind::Admit if a == 0 || a > RECORD_MAX => {
            return Err(WireError::Payload { entry, len: 0, total: a, offset: 0 });
        }
        Kind::Ask => (Body::Ask { total: a }, b | c | d),
        Kind::Admit => (Body::Admit { total: a }, b | c | d),
        Kind::Backlog => (Body::Backlog, a | b | c | d),
        Kind::EndOfData => (Body::EndOfData, a | b | c | d),
        Kind::EndOfPartition => (Body::EndOfPartition, a | b | c | d),
        Kind::Close => (Body::Close, a | b | c | d),
        Kind::CloseAck => (Body::CloseAck, a | b | c | d),
    };
    if unused == 0 { Ok(body) } else { Err(WireError::Unused { entry, kind }) }
}

/// A 64-bit value in the first two words, low half first.
const fn wide(value: u64, rest: [u32; 2]) -> [u32; 4] {
    [value as u32, (value >> 32) as u32, rest[0], rest[1]]
}

const fn narrow(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}
