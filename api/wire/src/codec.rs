//! The codec of the streams: protobuf, with small buffers.
//!
//! A server holds a stream for each of some thousand nodes, and most of them say a few bytes every five
//! seconds. The library's own buffers have 8 KiB for each direction, from the first byte to the last.
//! Not here: how large a message may be.

use prost::Message;
use std::marker::PhantomData;
use tonic::codec::BufferSettings;
use tonic_prost::ProstCodec;

/// What a stream's buffer has at first, and by how much it grows, bytes: most messages are smaller.
const BUFFER_BYTES: usize = 1_024;

/// From so many encoded bytes on they are sent, although more messages wait; the library's own value.
const YIELD_BYTES: usize = 32 * 1_024;

/// Encodes `T` and decodes `U`.
#[derive(Debug, Clone, Copy)]
pub struct SmallCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for SmallCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as tonic::codec::Codec>::Encoder;
    type Decoder = <ProstCodec<T, U> as tonic::codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(BUFFER_BYTES, YIELD_BYTES))
    }
}
