//! Frames of HTTP/2 as bytes, well and ill formed (RFC 9113, RFC 7541).

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0x77;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ACK: u8 = 1;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

/// The first request of a connection.
pub const FIRST: u32 = 1;

pub const LARGEST_ID: u32 = 0x7fff_ffff;

/// All error codes, and one that there is not.
pub const CODES: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xdead_beef];

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_saying(payload.len() as u32, kind, flags, stream, payload)
}

/// One that says that it has so many bytes.
pub fn frame_saying(length: u32, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header in a block: as it is, with no table.
pub fn header(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        match u8::try_from(text.len()) {
            Ok(length) if length < 127 => bytes.push(length),
            // A number of seven bits, then seven bits at a time.
            _ => {
                let rest = text.len() - 127;
                bytes.extend([127, (rest & 127) as u8 | 128, (rest >> 7) as u8]);
            }
        }
        bytes.extend(text);
    }
    bytes
}

pub fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter();
    headers
        .flat_map(|(name, value)| header(name.as_bytes(), value.as_bytes()))
        .collect()
}

pub fn headers(flags: u8, headers: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, FIRST, &block(headers))
}

pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(name, value): &(u16, u32)| {
        let name = name.to_be_bytes().into_iter();
        name.chain(value.to_be_bytes()).collect::<Vec<u8>>()
    };
    let payload: Vec<u8> = pairs.iter().flat_map(pair).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub fn settings_ack() -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[])
}

pub fn ping(flags: u8) -> Vec<u8> {
    frame(PING, flags, 0, b"01234567")
}

pub fn reset(code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, FIRST, &code.to_be_bytes())
}

pub fn go_away(last: u32, code: u32) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend(code.to_be_bytes());
    frame(GOAWAY, 0, 0, &payload)
}

pub fn window(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// For the connection and for all its streams.
pub fn largest_window() -> Vec<u8> {
    let more = LARGEST_ID - 65_535;
    [settings(&[(4, LARGEST_ID)]), window(0, more)].concat()
}

pub fn continuation(payload: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, 0, FIRST, payload)
}

pub fn unknown(payload: &[u8]) -> Vec<u8> {
    frame(UNKNOWN, 0xff, FIRST, payload)
}

/// A message of gRPC.
pub fn message(content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend((content.len() as u32).to_be_bytes());
    bytes.extend(content);
    bytes
}

pub fn head() -> Vec<u8> {
    headers(
        0,
        &[(":status", "200"), ("content-type", "application/grpc")],
    )
}

pub fn trailers(status: &str) -> Vec<u8> {
    headers(END_STREAM, &[("grpc-status", status)])
}
