//! HTTP/2 by hand, frame by frame: for clients that no library would be.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type: RFC 9113, section 6.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// The type of DATA.
pub const DATA: u8 = 0;
/// The type of HEADERS.
pub const HEADERS: u8 = 1;
/// The type of RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// The type of SETTINGS.
pub const SETTINGS: u8 = 4;
/// The type of PING.
pub const PING: u8 = 6;
/// The type of GOAWAY.
pub const GOAWAY: u8 = 7;

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The head of a gRPC call, which stays open.
pub fn call(stream: u32, path: &str) -> Vec<u8> {
    // POST, http, and literals without Huffman, of names in HPACK's static table but for `te`.
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], "localhost");
    literal(&[0x0f, 0x10], "application/grpc");
    literal(b"\x00\x02te", "trailers");
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// A reset with CANCEL.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

const END_HEADERS: u8 = 4;

/// A client that only does what it is told to; it acknowledges nothing.
#[derive(Debug)]
pub struct ByteClient {
    stream: TcpStream,
}

impl ByteClient {
    /// Connects, and says what every client says first.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        Ok(Self { stream })
    }

    /// Sends these bytes.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next frame.
    pub async fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok(Frame { kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]), payload })
    }

    /// The next frame of this type; others are dropped.
    pub async fn next_of(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// The error code of the GOAWAY that comes, if one does before the stream ends.
    pub async fn go_away(&mut self) -> Option<u32> {
        let frame = self.next_of(GOAWAY).await.ok()?;
        Some(u32::from_be_bytes(frame.payload[4..8].try_into().ok()?))
    }

    /// Whether the connection is over; reads all that is left.
    pub async fn is_over(&mut self) -> bool {
        while self.next().await.is_ok() {}
        true
    }
}
