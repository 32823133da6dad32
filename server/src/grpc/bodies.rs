//! gRPC requests and responses as HTTP bodies: what is encoded already goes out as it is, uncopied.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as _, Frame};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::convert::FRAME_HEAD_BYTES;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// A response with this body.
pub(super) fn response<B>(body: B) -> Response<Body>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    response
}

/// What ends a response.
pub(super) fn trailers(ended: Result<(), Status>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    match ended {
        Ok(()) => {
            trailers.insert(Status::GRPC_STATUS, OK);
        }
        // A message that is not fit for a header is left out.
        Err(status) => {
            if status.add_header(&mut trailers).is_err() {
                trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
            }
        }
    }
    trailers
}

/// The one answer to a unary call.
#[derive(Debug)]
pub(super) struct Single {
    frame: Option<Bytes>,
    ended: bool,
}

impl Single {
    /// A message in its frame.
    pub(super) fn new(frame: Bytes) -> Single {
        Single {
            frame: Some(frame),
            ended: false,
        }
    }
}

impl http_body::Body for Single {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.frame.take() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        let first = !std::mem::replace(&mut self.ended, true);
        Poll::Ready(first.then(|| Ok(Frame::trailers(trailers(Ok(()))))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// The messages of a request.
#[derive(Debug)]
pub(super) struct Messages<T> {
    body: Body,
    bytes_max: usize,
    /// What has arrived in one piece and is not read yet.
    whole: Bytes,
    /// The beginning of a message that arrives in several.
    part: BytesMut,
    message: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Messages<T> {
    /// Refuses messages longer than `bytes_max`.
    pub(super) fn new(body: Body, bytes_max: usize) -> Messages<T> {
        Messages {
            body,
            bytes_max,
            whole: Bytes::new(),
            part: BytesMut::new(),
            message: PhantomData,
        }
    }

    /// The next message; `None` when the caller has said all.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Status>>> {
        loop {
            match self.arrived() {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None if self.part.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(unfinished()))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(data);
                    }
                }
            }
        }
    }

    /// Called when what arrived before has been read as far as it goes.
    fn take(&mut self, data: Bytes) {
        if self.part.is_empty() {
            self.whole = data;
        } else {
            self.part.extend_from_slice(&data);
        }
    }

    fn arrived(&mut self) -> Result<Option<T>, Status> {
        let bytes: &[u8] = match self.part.is_empty() {
            true => &self.whole,
            false => &self.part,
        };
        let Some(length) = announced(bytes, self.bytes_max)? else {
            self.keep();
            return Ok(None);
        };
        let end = FRAME_HEAD_BYTES + length;
        if bytes.len() < end {
            self.keep();
            return Ok(None);
        }
        let mut message = match self.part.is_empty() {
            true => self.whole.split_to(end),
            false => self.part.split_to(end).freeze(),
        };
        message.advance(FRAME_HEAD_BYTES);
        let decoded = T::decode(message);
        decoded
            .map(Some)
            .map_err(|error| Status::internal(format!("the request cannot be decoded: {error}")))
    }

    /// What is there is the beginning of a message.
    fn keep(&mut self) {
        if self.part.is_empty() && !self.whole.is_empty() {
            self.part.extend_from_slice(&self.whole);
            self.whole = Bytes::new();
        }
    }
}

impl<T: Message + Default> Messages<T> {
    /// The one message of a unary call.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) async fn only(mut self) -> Result<T, Status> {
        let first = std::future::poll_fn(|context| self.poll_next(context)).await;
        first.unwrap_or_else(|| Err(Status::internal("the request has no message")))
    }
}

/// The length that a frame's head says; `None` when the head is not there yet.
fn announced(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Status> {
    let Some((head, _)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    let [flag, length @ ..] = *head;
    if flag != 0 {
        return Err(Status::new(
            Code::Unimplemented,
            "the request is compressed, which this registry does not read",
        ));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > bytes_max {
        return Err(Status::out_of_range(format!(
            "the request has {length} bytes, at most {bytes_max} are allowed"
        )));
    }
    Ok(Some(length))
}

fn unfinished() -> Status {
    Status::internal("the request ended within a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::frame;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use trimtab_proto::v1::Receipt;

    fn receipt(revision: u64) -> Receipt {
        Receipt {
            service: "catalog".to_owned(),
            revision,
        }
    }

    fn messages(pieces: Vec<Bytes>) -> Messages<Receipt> {
        let frames = pieces
            .into_iter()
            .map(|piece| Ok::<_, Status>(Frame::data(piece)));
        let body = StreamBody::new(stream::iter(frames));
        Messages::new(Body::new(body), 1_000)
    }

    async fn all(mut messages: Messages<Receipt>) -> Vec<Result<u64, Code>> {
        let mut read = Vec::new();
        while let Some(next) = std::future::poll_fn(|context| messages.poll_next(context)).await {
            let ended = next.is_err();
            read.push(next.map(|it| it.revision).map_err(|status| status.code()));
            if ended {
                break;
            }
        }
        read
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let sent: BytesMut = (1..=5).flat_map(|it| frame(&receipt(it))).collect();
        let sent = sent.freeze();
        for size in 1..=sent.len() {
            let pieces = sent.chunks(size).map(Bytes::copy_from_slice).collect();
            let read = all(messages(pieces)).await;
            assert_eq!(read, [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)], "by {size}");
        }
    }

    #[tokio::test]
    async fn what_breaks_a_rule_ends_the_request_with_a_status() {
        let cut = frame(&receipt(1)).slice(..7);
        assert_eq!(all(messages(vec![cut])).await, [Err(Code::Internal)]);
        let compressed = Bytes::from_static(&[1, 0, 0, 0, 0]);
        assert_eq!(
            all(messages(vec![compressed])).await,
            [Err(Code::Unimplemented)]
        );
        let immense = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(all(messages(vec![immense])).await, [Err(Code::OutOfRange)]);
        let nonsense = Bytes::from_static(&[0, 0, 0, 0, 1, 0xff]);
        assert_eq!(all(messages(vec![nonsense])).await, [Err(Code::Internal)]);
    }

    #[tokio::test]
    async fn an_answer_is_its_bytes_and_then_ok() {
        let bytes = frame(&receipt(7));
        let collected = Single::new(bytes.clone()).collect().await.expect("whole");
        assert_eq!(
            collected.trailers().map(|it| it["grpc-status"].clone()),
            Some(OK)
        );
        assert_eq!(collected.to_bytes(), bytes);
    }
}
