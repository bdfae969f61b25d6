//! Plain numbers that say what the exchange did and holds.

/// Counts of one slot's exchange since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payload bytes sent over links.
    pub payload_bytes_sent: u64,
    /// Payload bytes received over links.
    pub payload_bytes_received: u64,
    /// Payload bytes copied after serialisation: those that fell into staging.
    pub payload_bytes_copied: u64,
    /// Trains sent.
    pub trains_sent: u64,
    /// Trains received.
    pub trains_received: u64,
    /// Segments handed over inside the process.
    pub local_handovers: u64,
    /// Connections refused or broken.
    pub link_faults: u64,
}

/// Counts of one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelCounters {
    /// Payload bytes through the port.
    pub bytes: u64,
    /// Segments through the port.
    pub segments: u64,
}

/// How much of its quota a port uses, and what went through it; made without allocating, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortUsage {
    /// Segments it may hold or promise.
    pub quota: u32,
    /// Segments it holds or promised.
    pub used: u32,
    /// What went through.
    pub counters: ChannelCounters,
}

/// A partition, for the wait-for print and for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// The edge's name.
    pub name: String,
    /// Segments it may hold.
    pub quota: u32,
    /// Segments it holds.
    pub used: u32,
    /// Channels that have data but no credit.
    pub channels_without_credit: u32,
    /// Channels that wait for a resume.
    pub channels_blocked: u32,
    /// Channels in all.
    pub channels: u32,
    /// What went through.
    pub counters: ChannelCounters,
}

/// A gate, for the wait-for print and for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateReport {
    /// The task's name for it.
    pub name: String,
    /// Segments it may hold or promise.
    pub quota: u32,
    /// Segments it holds or promised.
    pub used: u32,
    /// The checkpoint it aligns.
    pub aligning: Option<u64>,
    /// Channels that have not ended.
    pub channels_live: u32,
    /// Channels in all.
    pub channels: u32,
    /// What went through.
    pub counters: ChannelCounters,
}
