//! tonic's view of an envelope: one gRPC message holds the bytes of `Envelope::encode`, nothing else.
//!
//! No state. Always: what the decoder accepts, `Envelope::decode` accepted.

use crate::envelope::{Envelope, FrameError};
use bytes::{Buf, BufMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Sends `E`, receives `D`.
#[derive(Debug)]
pub struct EnvelopeCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for EnvelopeCodec<E, D> {
    fn default() -> Self {
        EnvelopeCodec(PhantomData)
    }
}

/// Encodes envelopes of `E`.
#[derive(Debug)]
pub struct EnvelopeEncoder<E>(PhantomData<E>);

/// Decodes envelopes of `D`.
#[derive(Debug)]
pub struct EnvelopeDecoder<D>(PhantomData<D>);

impl<E, D> Codec for EnvelopeCodec<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    type Encode = Envelope<E>;
    type Decode = Envelope<D>;
    type Encoder = EnvelopeEncoder<E>;
    type Decoder = EnvelopeDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        EnvelopeEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        EnvelopeDecoder(PhantomData)
    }
}

impl<E: Serialize + Send + 'static> Encoder for EnvelopeEncoder<E> {
    type Item = Envelope<E>;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = item.encode().map_err(status)?;
        out.put_slice(&bytes);
        Ok(())
    }
}

impl<D: DeserializeOwned + Send + 'static> Decoder for EnvelopeDecoder<D> {
    type Item = Envelope<D>;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        Envelope::decode(&bytes).map(Some).map_err(status)
    }
}

/// The one place where a frame error becomes a gRPC status.
fn status(error: FrameError) -> Status {
    let text = error.to_string();
    match error {
        FrameError::Version { .. } => Status::failed_precondition(text),
        FrameError::TooLarge { .. } => Status::resource_exhausted(text),
        FrameError::Garbage { .. } | FrameError::Body(_) => Status::invalid_argument(text),
    }
}
