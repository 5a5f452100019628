//! An instance that a test drives: the real core, but nothing moves unless the test says so.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use grpcrouter_protocol::{
    Accepted, CallId, Config, Epoch, Event, Health, Hello, Incarnation, InstanceId, Rejected, ResponsePart, Resume,
    ServiceOffer, Start, Time, Tunnel, Welcome, decode_welcome, encode_hello,
};
use http::Request;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

/// One instance on one Register stream.
#[derive(Debug)]
pub struct ByHand {
    /// The core of this instance.
    pub tunnel: Tunnel,
    /// What the gateway said.
    pub accepted: Accepted,
    /// What it says of itself.
    pub hello: Hello,
    /// What gives it the tunnel back.
    pub token: Bytes,
    stream: Stream,
    at: Epoch,
    started: std::time::Instant,
}

/// A Register stream on a connection of its own.
#[derive(Debug)]
pub struct Stream {
    outgoing: h2::SendStream<Bytes>,
    incoming: Messages,
    connection: JoinHandle<()>,
}

impl ByHand {
    /// Registers `myservice.MyService` as `id`.
    pub async fn register(gateway: SocketAddr, id: &str) -> anyhow::Result<Self> {
        Self::hello(gateway, &Self::introduction(id, 16)?).await
    }

    /// The Hello of `myservice.MyService` as `id`, which takes so many calls at once.
    pub fn introduction(id: &str, max_calls: u64) -> anyhow::Result<Hello> {
        Ok(Hello {
            versions: 1..=1,
            features: Vec::new(),
            instance_id: InstanceId::parse(id)?,
            incarnation: Incarnation(rand::random()),
            services: vec![ServiceOffer {
                name: "myservice.MyService".to_owned(),
                methods: ["Method1", "Method2", "Method3", "StreamMethod"].map(str::to_owned).to_vec(),
                descriptor_hash: Bytes::new(),
                not_serving: false,
            }],
            software_version: "by hand".to_owned(),
            weight: 1,
            labels: Default::default(),
            routing_keys: Vec::new(),
            max_calls,
            health: Health::Serving,
            draining: false,
            resume: None,
        })
    }

    /// Says any Hello; a refusal is an error.
    pub async fn hello(gateway: SocketAddr, hello: &Hello) -> anyhow::Result<Self> {
        let rejected = match Self::knock(gateway, None, &[], hello).await? {
            Ok(registered) => return Ok(registered),
            Err(rejected) => rejected,
        };
        bail!("{:?}", Welcome::Rejected(rejected))
    }

    /// Says any Hello with these `authorization` headers, over TLS if there is a configuration; the inner error is the
    /// gateway's rejection, the outer one that there was no Welcome at all.
    pub async fn knock(
        gateway: SocketAddr,
        tls: Option<&ClientConfig>,
        authorization: &[&str],
        hello: &Hello,
    ) -> anyhow::Result<Result<Self, Rejected>> {
        match tls {
            Some(config) => {
                Self::over(crate::tls::connect(gateway, config).await?, gateway, authorization, hello).await
            }
            None => {
                let socket = tokio::net::TcpStream::connect(gateway).await?;
                socket.set_nodelay(true)?;
                Self::over(socket, gateway, authorization, hello).await
            }
        }
    }

    async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        gateway: SocketAddr,
        authorization: &[&str],
        hello: &Hello,
    ) -> anyhow::Result<Result<Self, Rejected>> {
        let (stream, welcome) = Stream::over(io, gateway, authorization, hello).await?;
        let accepted = match welcome {
            Welcome::Accepted(accepted) => accepted,
            Welcome::Rejected(rejected) => return Ok(Err(rejected)),
            other => bail!("{other:?}"),
        };
        let config = Config::default().adopt(&accepted)?;
        let started = std::time::Instant::now();
        let tunnel = Tunnel::instance(config, Time::default());
        let (hello, token) = (hello.clone(), accepted.resume_token.clone());
        Ok(Ok(Self { tunnel, accepted, hello, token, stream, at: Epoch::FIRST, started }))
    }

    /// Loses its connection without a word, and knows it.
    pub async fn lose(&mut self) {
        self.stream.connection.abort();
        let _ = (&mut self.stream.connection).await;
        let now = self.now();
        self.tunnel.detach(self.at, now);
    }

    /// The Hello that asks for the tunnel; a stream that still has it is neither read nor written from here on.
    pub fn asks(&mut self) -> anyhow::Result<Hello> {
        let now = self.now();
        let point = self.tunnel.resume_point(now).context("the tunnel is over")?;
        let resume = Resume {
            tunnel_id: self.accepted.tunnel_id,
            token: self.token.clone(),
            epoch: point.epoch,
            rx_next: point.rx_next,
            tx_first: point.tx_first,
            tx_next: point.tx_next,
        };
        Ok(Hello { resume: Some(resume), ..self.hello.clone() })
    }

    /// Asks for the tunnel on a new connection and has it there; gives back the stream that it had.
    pub async fn resume(&mut self, gateway: SocketAddr) -> anyhow::Result<Stream> {
        let asked = self.asks()?;
        let (stream, welcome) = Stream::open(gateway, &[], &asked).await?;
        let Welcome::Resumed(resumed) = welcome else { bail!("{welcome:?}") };
        let now = self.now();
        self.tunnel.resumed(&resumed, now)?;
        (self.at, self.token) = (resumed.epoch, resumed.new_token);
        self.transmit_on(stream)
    }

    fn transmit_on(&mut self, stream: Stream) -> anyhow::Result<Stream> {
        let before = std::mem::replace(&mut self.stream, stream);
        self.transmit()?;
        Ok(before)
    }

    fn now(&self) -> Time {
        Time::default() + self.started.elapsed()
    }

    /// How long until `deadline`, as this instance was told it.
    pub fn left(&self, deadline: Time) -> std::time::Duration {
        deadline.since(self.now())
    }

    /// Takes one batch from the gateway; `false` when the stream has ended.
    pub async fn receive(&mut self) -> anyhow::Result<bool> {
        let Some(message) = self.stream.incoming.next().await? else { return Ok(false) };
        let now = self.now();
        self.tunnel.handle_batch(self.at, message, now)?;
        Ok(true)
    }

    /// Writes whatever is ready.
    pub fn transmit(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        while let Some(batch) = self.tunnel.poll_transmit(self.at, now) {
            self.stream.outgoing.send_data(batch, false)?;
        }
        Ok(())
    }

    /// Takes batches until one brings an event.
    pub async fn event(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Some(event) = self.tunnel.poll_event() {
                return Ok(event);
            }
            if !self.receive().await? {
                bail!("the gateway ended the stream");
            }
        }
    }

    /// Takes batches until a call comes.
    pub async fn started(&mut self) -> anyhow::Result<(CallId, Start)> {
        loop {
            if let Event::Started { call, start, .. } = self.event().await? {
                return Ok((call, start));
            }
        }
    }

    /// Says Drain, or rather will when it may transmit.
    pub fn drain(&mut self) {
        let now = self.now();
        self.tunnel.drain(now);
    }

    /// Answers a part of a call, and writes it.
    pub fn respond(&mut self, call: CallId, part: ResponsePart) -> anyhow::Result<()> {
        let now = self.now();
        self.tunnel.respond(call, part, now);
        self.transmit()
    }

    /// Tells the gateway that so many bytes of a request were read, and writes it.
    pub fn consumed(&mut self, call: CallId, length: usize) -> anyhow::Result<()> {
        let now = self.now();
        self.tunnel.consumed(call, length, now);
        self.transmit()
    }

    /// Writes bytes of the test's own as one message, whatever they are.
    pub fn write(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.stream.write(message)
    }

    /// Dies without a word.
    pub fn die(self) {
        self.stream.connection.abort();
    }
}

impl Stream {
    /// Opens one with these `authorization` headers and says this Hello; tells what the gateway answers.
    pub async fn open(gateway: SocketAddr, authorization: &[&str], hello: &Hello) -> anyhow::Result<(Self, Welcome)> {
        let socket = tokio::net::TcpStream::connect(gateway).await?;
        socket.set_nodelay(true)?;
        Self::over(socket, gateway, authorization, hello).await
    }

    async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        gateway: SocketAddr,
        authorization: &[&str],
        hello: &Hello,
    ) -> anyhow::Result<(Self, Welcome)> {
        let (client, connection) = h2::client::handshake(io).await?;
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = Request::post(format!("http://{gateway}/grpcrouter.Router/Register"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = authorization.iter().fold(request, |request, value| request.header("authorization", *value));
        let (response, mut outgoing) = client.ready().await?.send_request(request.body(())?, false)?;
        outgoing.send_data(encode_hello(hello), false)?;
        let (head, body) = response.await?.into_parts();
        let mut incoming = Messages { stream: body, buffer: BytesMut::new() };
        let no_welcome = || format!("no Welcome, but {:?}", tonic::Status::from_header_map(&head.headers));
        let welcome = decode_welcome(incoming.next().await?.with_context(no_welcome)?)?;
        Ok((Self { outgoing, incoming, connection }, welcome))
    }

    /// Writes these bytes as one message.
    pub fn write(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let mut bytes = BytesMut::with_capacity(message.len() + 5);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.len())?);
        bytes.put_slice(message);
        self.outgoing.send_data(bytes.freeze(), false)?;
        Ok(())
    }

    /// The next message; `None` at the end of the stream.
    pub async fn read(&mut self) -> anyhow::Result<Option<Bytes>> {
        self.incoming.next().await
    }

    /// Dies without a word.
    pub fn die(self) {
        self.connection.abort();
    }
}

#[derive(Debug)]
struct Messages {
    stream: h2::RecvStream,
    buffer: BytesMut,
}

impl Messages {
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            if let Some((prefix, rest)) = self.buffer.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
                if rest.len() >= length {
                    self.buffer.advance(5);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            let Some(data) = self.stream.data().await else { return Ok(None) };
            let data = data?;
            self.stream.flow_control().release_capacity(data.len())?;
            self.buffer.extend_from_slice(&data);
        }
    }
}
