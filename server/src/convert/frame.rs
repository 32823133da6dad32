//! A message behind the five bytes that gRPC puts before each.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Whether it is compressed, and its length.
pub(crate) const FRAME_HEAD_BYTES: usize = 5;

/// One message, ready for a response's body.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = head(length);
    // Cannot fail: there is room.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

/// The same message with another field after those it has.
pub(crate) fn frame_with(framed: &Bytes, field: &[u8]) -> Bytes {
    let message = framed.get(FRAME_HEAD_BYTES..).unwrap_or_default();
    let mut bytes = head(message.len() + field.len());
    bytes.put_slice(message);
    bytes.put_slice(field);
    bytes.freeze()
}

/// Room for a message of this length, with its head.
pub(super) fn head(length: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(FRAME_HEAD_BYTES + length);
    bytes.put_u8(0);
    // A view that is longer cannot be registered.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes
}
