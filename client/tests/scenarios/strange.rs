//! What a server may say besides answers, and what it must not say.

use crate::frames::{
    ACK, CODES, CONTINUATION, DATA, END_HEADERS, END_STREAM, FIRST, GOAWAY, HEADERS, LARGEST_ID,
    PADDED, PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY,
    block, frame, frame_saying, go_away, head, header, headers, ping, reset, settings,
    settings_ack, unknown, window,
};

/// Each with its name.
pub fn strange() -> Vec<(String, Vec<u8>)> {
    let mut all = connection_wide();
    all.extend(of_streams());
    all.extend(of_headers());
    for code in CODES {
        all.push((format!("reset with {code}"), reset(code)));
        for last in [0, FIRST, LARGEST_ID] {
            let name = format!("goaway after {last} with {code}");
            all.push((name, go_away(last, code)));
        }
    }
    all
}

fn named<const N: usize>(all: [(&str, Vec<u8>); N]) -> Vec<(String, Vec<u8>)> {
    all.map(|(name, bytes)| (name.to_owned(), bytes)).into()
}

fn connection_wide() -> Vec<(String, Vec<u8>)> {
    named([
        ("an unknown frame", unknown(b"whatever")),
        ("a frame too large", frame(DATA, 0, FIRST, &[0; 20_000])),
        (
            "a length that never comes",
            frame_saying(0xff_ffff, DATA, 0, FIRST, b"x"),
        ),
        ("half a head of a frame", vec![0, 0, 9, 1]),
        (
            "HTTP/1",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec(),
        ),
        ("settings again", settings(&[(3, 100), (4, 65_535)])),
        ("settings unknown", settings(&[(0x1234, 7)])),
        ("settings of half a pair", frame(SETTINGS, 0, 0, &[0, 3, 0])),
        ("settings on a stream", frame(SETTINGS, 0, FIRST, &[])),
        (
            "settings acknowledged with words",
            frame(SETTINGS, ACK, 0, &[0; 6]),
        ),
        ("settings acknowledged that were not sent", settings_ack()),
        ("a window beyond all", settings(&[(4, 1 << 31)])),
        ("no window", settings(&[(4, 0)])),
        ("the largest window", settings(&[(4, LARGEST_ID)])),
        ("frames of one byte", settings(&[(5, 1)])),
        ("no requests at once", settings(&[(3, 0)])),
        ("no table", settings(&[(1, 0)])),
        ("a table of everything", settings(&[(1, u32::MAX)])),
        ("no headers", settings(&[(6, 0)])),
        ("push, please", settings(&[(2, 1)])),
        ("push as nobody has it", settings(&[(2, 2)])),
        ("a ping", ping(0)),
        ("a pong nobody asked for", ping(ACK)),
        ("a short ping", frame(PING, 0, 0, b"0123")),
        ("a ping on a stream", frame(PING, 0, FIRST, b"01234567")),
        ("a short goaway", frame(GOAWAY, 0, 0, &[0; 4])),
        ("a goaway on a stream", frame(GOAWAY, 0, FIRST, &[0; 8])),
        (
            "a goaway and another",
            [go_away(LARGEST_ID, 0), go_away(0, 0)].concat(),
        ),
        (
            "a goaway that takes back another",
            [go_away(0, 0), go_away(LARGEST_ID, 0)].concat(),
        ),
        ("no more window", window(0, 0)),
        ("the window's end", window(0, LARGEST_ID)),
        (
            "the window's end, twice",
            [window(0, LARGEST_ID), window(0, LARGEST_ID)].concat(),
        ),
        ("half a window", frame(WINDOW_UPDATE, 0, 0, &[0, 0])),
    ])
}

fn of_streams() -> Vec<(String, Vec<u8>)> {
    let promise = [&2_u32.to_be_bytes()[..], &block(&[(":status", "200")])].concat();
    named([
        ("data on no stream", frame(DATA, 0, 0, b"x")),
        ("data on an idle stream", frame(DATA, 0, 99, b"x")),
        ("data on a stream of the server's", frame(DATA, 0, 2, b"x")),
        (
            "data padded with more than it is",
            frame(DATA, PADDED, FIRST, &[200, 1, 2]),
        ),
        ("data padded with nothing", frame(DATA, PADDED, FIRST, &[])),
        ("no data", frame(DATA, 0, FIRST, &[])),
        ("the end", frame(DATA, END_STREAM, FIRST, &[])),
        (
            "the end, and more",
            [
                frame(DATA, END_STREAM, FIRST, &[]),
                frame(DATA, 0, FIRST, b"x"),
            ]
            .concat(),
        ),
        ("a stream's window without more", window(FIRST, 0)),
        (
            "a stream's window's end",
            [window(FIRST, LARGEST_ID), window(FIRST, LARGEST_ID)].concat(),
        ),
        ("an idle stream's window", window(99, 1)),
        (
            "a stream that waits for itself",
            frame(PRIORITY, 0, FIRST, &[0, 0, 0, 1, 7]),
        ),
        ("half a priority", frame(PRIORITY, 0, FIRST, &[0])),
        ("half a reset", frame(RST_STREAM, 0, FIRST, &[0])),
        ("a reset of no stream", frame(RST_STREAM, 0, 0, &[0; 4])),
        (
            "a reset of an idle stream",
            frame(RST_STREAM, 0, 99, &[0; 4]),
        ),
        ("a reset and another", [reset(8), reset(0)].concat()),
        (
            "a promise",
            frame(PUSH_PROMISE, END_HEADERS, FIRST, &promise),
        ),
        (
            "half a promise",
            frame(PUSH_PROMISE, END_HEADERS, FIRST, &[0]),
        ),
    ])
}

fn of_headers() -> Vec<(String, Vec<u8>)> {
    let ok = (":status", "200");
    let grpc = ("content-type", "application/grpc");
    let long = "x".repeat(10_000);
    named([
        ("another head", head()),
        ("a head that ends all", headers(END_STREAM, &[ok, grpc])),
        (
            "a head of an idle stream",
            frame(HEADERS, END_HEADERS, 99, &block(&[ok])),
        ),
        (
            "a head of no stream",
            frame(HEADERS, END_HEADERS, 0, &block(&[ok])),
        ),
        (
            "a head of the server's",
            frame(HEADERS, END_HEADERS, 2, &block(&[ok])),
        ),
        ("a head without a status", headers(0, &[grpc])),
        ("a head with two", headers(0, &[ok, ok, grpc])),
        (
            "a head with none of HTTP's",
            headers(0, &[(":status", "9999"), grpc]),
        ),
        (
            "a head with no number",
            headers(0, &[(":status", "fine"), grpc]),
        ),
        (
            "a head of a request",
            headers(0, &[(":method", "GET"), (":path", "/")]),
        ),
        (
            "a head in capitals",
            headers(0, &[ok, ("Content-Type", "application/grpc")]),
        ),
        (
            "a head of HTTP/1",
            headers(
                0,
                &[
                    ok,
                    ("connection", "close"),
                    ("transfer-encoding", "chunked"),
                ],
            ),
        ),
        ("a head with the status behind", headers(0, &[grpc, ok])),
        (
            "a head with nothing in it",
            frame(HEADERS, END_HEADERS, FIRST, &[]),
        ),
        (
            "a head without names",
            frame(HEADERS, END_HEADERS, FIRST, &header(b"", b"")),
        ),
        (
            "a head with line feeds",
            headers(0, &[ok, ("x", "a\r\nb: c")]),
        ),
        (
            "a head of no table",
            frame(
                HEADERS,
                END_HEADERS,
                FIRST,
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f],
            ),
        ),
        (
            "a head of bits",
            frame(
                HEADERS,
                END_HEADERS,
                FIRST,
                &[0x40, 0x85, 0xff, 0xff, 0xff, 0xff, 0xff, 0],
            ),
        ),
        (
            "a table too large",
            frame(HEADERS, END_HEADERS, FIRST, &[0x3f, 0xff, 0xff, 0xff, 0x7f]),
        ),
        (
            "a head that depends",
            frame(
                HEADERS,
                END_HEADERS | WITH_PRIORITY,
                FIRST,
                &[0, 0, 0, 1, 7, 0x88],
            ),
        ),
        (
            "a head of half a priority",
            frame(HEADERS, END_HEADERS | WITH_PRIORITY, FIRST, &[0]),
        ),
        (
            "a head too large",
            headers(0, &[ok, grpc, ("x", &long), ("y", &long), ("z", &long)]),
        ),
        (
            "a head that goes on elsewhere",
            [
                frame(HEADERS, 0, FIRST, &block(&[ok])),
                frame(DATA, 0, FIRST, b"x"),
            ]
            .concat(),
        ),
        (
            "a head that goes on",
            [
                frame(HEADERS, 0, FIRST, &block(&[ok, grpc])),
                frame(CONTINUATION, END_HEADERS, FIRST, &[]),
            ]
            .concat(),
        ),
        (
            "a head's rest",
            frame(CONTINUATION, END_HEADERS, FIRST, &block(&[ok])),
        ),
        ("a word beforehand", headers(0, &[(":status", "103")])),
        (
            "a word beforehand that ends all",
            headers(END_STREAM, &[(":status", "100")]),
        ),
        ("another protocol", headers(0, &[(":status", "101")])),
        (
            "too short a length",
            headers(0, &[ok, grpc, ("content-length", "1")]),
        ),
        (
            "too long a length",
            headers(0, &[ok, grpc, ("content-length", "1000")]),
        ),
        (
            "a length of no number",
            headers(0, &[ok, grpc, ("content-length", "-1")]),
        ),
        (
            "a length beyond all",
            headers(
                0,
                &[ok, grpc, ("content-length", "99999999999999999999999")],
            ),
        ),
        (
            "trailers that end nothing",
            headers(0, &[("grpc-status", "0")]),
        ),
        (
            "trailers with a status of HTTP",
            headers(END_STREAM, &[ok, ("grpc-status", "0")]),
        ),
        (
            "trailers without a status",
            headers(END_STREAM, &[("x", "y")]),
        ),
        (
            "trailers with no number",
            headers(END_STREAM, &[("grpc-status", "fine")]),
        ),
        (
            "trailers with a number of none",
            headers(END_STREAM, &[("grpc-status", "4294967296")]),
        ),
        (
            "trailers with strange words",
            headers(
                END_STREAM,
                &[("grpc-status", "14"), ("grpc-message", "%ff%zz%")],
            ),
        ),
        (
            "trailers with strange details",
            headers(
                END_STREAM,
                &[("grpc-status", "14"), ("grpc-status-details-bin", "!!")],
            ),
        ),
        (
            "only trailers",
            headers(END_STREAM, &[ok, grpc, ("grpc-status", "14")]),
        ),
        (
            "an answer of a proxy",
            headers(0, &[(":status", "502"), ("content-type", "text/html")]),
        ),
        (
            "an answer of nobody",
            headers(END_STREAM, &[(":status", "404")]),
        ),
        (
            "packed with what nobody has",
            headers(0, &[ok, grpc, ("grpc-encoding", "zip")]),
        ),
    ])
}
