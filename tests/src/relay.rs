//! A TCP relay that does what networks do: it cuts, stalls, half-closes, refuses and delays. It knows no time but the
//! delay that it is told, so a test decides when each of these happens.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// Which way bytes go through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From who connected to the target.
    Out,
    /// From the target to who connected.
    Back,
}

/// How a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends get a reset, and what is on its way is lost.
    Reset,
    /// Both ends see an orderly end, and what is on its way is lost.
    Finish,
}

/// A relay on a free port. Dropped, it is gone with all its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    orders: watch::Sender<Orders>,
    counts: watch::Sender<Counts>,
    carried: [AtomicU64; 2],
    /// How many bytes may still go this way before the cut.
    fuse: Mutex<Option<(Way, u64, Cut)>>,
}

/// What was ordered so far.
#[derive(Debug, Clone)]
struct Orders {
    target: SocketAddr,
    held: [bool; 2],
    refuse: bool,
    delay: Duration,
    cuts: u64,
    how: Cut,
    half_closes: [u64; 2],
    strands: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    taken: u64,
    open: usize,
}

impl Relay {
    /// Starts one that carries to `target`.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, target)
    }

    /// The same on a listener that is there already.
    ///
    /// # Panics
    /// If it has no address.
    pub fn on(listener: TcpListener, target: SocketAddr) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let orders = Orders {
            target,
            held: [false; 2],
            refuse: false,
            delay: Duration::ZERO,
            cuts: 0,
            how: Cut::Reset,
            half_closes: [0; 2],
            strands: 0,
        };
        let shared = Arc::new(Shared {
            orders: watch::Sender::new(orders),
            counts: watch::Sender::new(Counts::default()),
            carried: [AtomicU64::new(0), AtomicU64::new(0)],
            fuse: Mutex::new(None),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// "http://ADDRESS".
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Carries connections that come from now on to another target.
    pub fn aim(&self, target: SocketAddr) {
        self.order(|orders| orders.target = target);
    }

    /// Ends every connection of this moment. Who dials again is carried.
    pub fn cut(&self, how: Cut) {
        self.order(|orders| (orders.cuts, orders.how) = (orders.cuts + 1, how));
    }

    /// Carries so many more bytes this way, over all connections, and then [cuts](Self::cut) every one of them.
    pub fn cut_after(&self, way: Way, bytes: u64, how: Cut) {
        *self.shared.fuse() = Some((way, bytes, how));
    }

    /// Carries nothing this way until it is [released](Self::release); connections stay, and nobody is told.
    pub fn hold(&self, way: Way) {
        self.order(|orders| orders.held[way as usize] = true);
    }

    /// Carries nothing any more, either way, on the connections of this moment, and tells nobody: they are half-open until
    /// they are [cut](Self::cut). Who dials again is carried.
    pub fn strand(&self) {
        self.order(|orders| orders.strands += 1);
    }

    /// Carries both ways again: what waited goes on its way.
    pub fn release(&self) {
        self.order(|orders| orders.held = [false; 2]);
    }

    /// Whoever receives what goes this way sees its end; what still comes is lost. The other way goes on.
    pub fn half_close(&self, way: Way) {
        self.order(|orders| orders.half_closes[way as usize] += 1);
    }

    /// Whether connections that come are reset at once.
    pub fn refuse(&self, on: bool) {
        self.order(|orders| orders.refuse = on);
    }

    /// Each byte takes so long each way, of connections that come from now on.
    pub fn delay(&self, delay: Duration) {
        self.order(|orders| orders.delay = delay);
    }

    /// How many connections came, those that were refused left out.
    pub fn taken(&self) -> u64 {
        self.shared.counts.borrow().taken
    }

    /// How many are open now.
    pub fn open(&self) -> usize {
        self.shared.counts.borrow().open
    }

    /// Bytes that went this way so far.
    pub fn carried(&self, way: Way) -> u64 {
        self.shared.carried[way as usize].load(Ordering::Relaxed)
    }

    /// Returns when so many connections have come in all.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn has_taken(&self, count: u64) {
        self.counted(|counts| counts.taken >= count).await;
    }

    /// Returns when so many connections are open.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn has_open(&self, count: usize) {
        self.counted(|counts| counts.open == count).await;
    }

    async fn counted(&self, is_so: impl Fn(&Counts) -> bool) {
        // The sender lives as long as this relay.
        let _ = self.shared.counts.subscribe().wait_for(is_so).await;
    }

    fn order(&self, order: impl FnOnce(&mut Orders)) {
        self.shared.orders.send_modify(order);
    }
}

impl Orders {
    /// Whether a connection that these orders were given for carries this way now.
    fn may_go(&self, now: &Self, way: Way) -> bool {
        !now.held[way as usize] && now.strands == self.strands
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn fuse(&self) -> std::sync::MutexGuard<'_, Option<(Way, u64, Cut)>> {
        self.fuse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many of `length` bytes may go this way, and how to cut after them.
    fn let_through(&self, way: Way, length: usize) -> (usize, Option<Cut>) {
        let mut fuse = self.fuse();
        let Some((_, left, how)) = fuse.as_mut().filter(|(burns, ..)| *burns == way) else { return (length, None) };
        let through = usize::try_from(*left).map_or(length, |left| left.min(length));
        *left -= through as u64;
        let cut = (*left == 0).then_some(*how);
        if cut.is_some() {
            *fuse = None;
        }
        (through, cut)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { return };
                if shared.orders.borrow().refuse {
                    let _ = near.set_zero_linger();
                    continue;
                }
                // Before it is counted: whoever waits for it may cut it at once.
                let born = shared.orders.borrow().clone();
                let place = Place::take(&shared);
                connections.spawn(connection(near, shared.clone(), born, place));
            }
        }
    }
}

/// Counts one open connection.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.counts.send_modify(|counts| (counts.taken, counts.open) = (counts.taken + 1, counts.open + 1));
        Self(shared.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.open -= 1);
    }
}

async fn connection(mut near: TcpStream, shared: Arc<Shared>, born: Orders, place: Place) {
    let mut orders = shared.orders.subscribe();
    let Ok(mut far) = TcpStream::connect(born.target).await else {
        let _ = near.set_zero_linger();
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let cut = {
        let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
        let both = async {
            tokio::try_join!(
                carry(Way::Out, near_in, far_out, &shared, &born),
                carry(Way::Back, far_in, near_out, &shared, &born)
            )
        };
        tokio::select! {
            biased;
            Ok(now) = orders.wait_for(|now| now.cuts > born.cuts) => Some(now.how),
            ended = both => ended.is_err().then_some(Cut::Reset),
        }
    };
    drop(place);
    match cut {
        None => {}
        Some(Cut::Reset) => {
            let _ = (near.set_zero_linger(), far.set_zero_linger());
        }
        // Closed with bytes unread, a socket would be reset: they are read, and lost.
        Some(Cut::Finish) => {
            tokio::join!(finish(near), finish(far));
        }
    }
}

async fn finish(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut buffer = vec![0; CHUNK];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// One way of one connection. An error is the end of both ways.
async fn carry(way: Way, from: ReadHalf<'_>, to: WriteHalf<'_>, shared: &Shared, born: &Orders) -> io::Result<()> {
    // Bounded, so that a receiver that does not read stops the sender, as it would without a relay.
    let (sender, receiver) = mpsc::channel(IN_TRANSIT);
    tokio::try_join!(take_in(way, from, sender, shared, born), give_out(way, to, receiver, shared, born))?;
    Ok(())
}

async fn take_in(
    way: Way,
    mut from: ReadHalf<'_>,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
    shared: &Shared,
    born: &Orders,
) -> io::Result<()> {
    let mut orders = shared.orders.subscribe();
    let mut buffer = vec![0; CHUNK];
    loop {
        let _ = orders.wait_for(|now| born.may_go(now, way)).await;
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        // Who does not take it any more has seen a half-close: it is lost.
        let _ = sender.send((Instant::now() + born.delay, buffer[..length].to_vec())).await;
    }
}

async fn give_out(
    way: Way,
    mut to: WriteHalf<'_>,
    mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
    shared: &Shared,
    born: &Orders,
) -> io::Result<()> {
    let (mut orders, mut half_closed) = (shared.orders.subscribe(), shared.orders.subscribe());
    let write = async {
        while let Some((due, bytes)) = receiver.recv().await {
            if due > Instant::now() {
                sleep_until(due).await; // waits because it plays a long way
            }
            let _ = orders.wait_for(|now| born.may_go(now, way)).await;
            let (through, cut) = shared.let_through(way, bytes.len());
            to.write_all(&bytes[..through]).await?;
            shared.carried[way as usize].fetch_add(through as u64, Ordering::Relaxed);
            if let Some(how) = cut {
                shared.orders.send_modify(|orders| (orders.cuts, orders.how) = (orders.cuts + 1, how));
                // What is left of the bytes must not go.
                std::future::pending::<()>().await;
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        biased;
        Ok(_) = half_closed.wait_for(|now| now.half_closes[way as usize] > born.half_closes[way as usize]) => {}
        written = write => written?,
    }
    to.shutdown().await
}

/// Read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks on a way: 16 MiB, what a fast link holds over a long way.
const IN_TRANSIT: usize = 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    /// Both ends of one connection through a relay.
    async fn connected() -> (Relay, TcpStream, TcpStream) {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::to(target.local_addr().unwrap()).await;
        let near = TcpStream::connect(relay.address()).await.unwrap();
        let (far, _) = target.accept().await.unwrap();
        (relay, near, far)
    }

    async fn read(from: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_an_end_is_told() {
        let (relay, mut near, mut far) = connected().await;

        near.write_all(b"there").await.unwrap();
        far.write_all(b"back").await.unwrap();

        assert_eq!(read(&mut far, 5).await, b"there");
        assert_eq!(read(&mut near, 4).await, b"back");
        drop(near);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        drop(far);
        relay.has_open(0).await;
        assert_eq!((relay.taken(), relay.carried(Way::Out), relay.carried(Way::Back)), (1, 5, 4));
    }

    #[tokio::test]
    async fn a_reset_is_an_error_at_both_ends_and_an_orderly_cut_an_end() {
        let (relay, mut near, mut far) = connected().await;
        relay.cut(Cut::Reset);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let (relay, mut near, mut far) = connected().await;
        relay.cut(Cut::Finish);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        relay.has_open(0).await;
    }

    #[tokio::test]
    async fn a_cut_in_the_middle_lets_exactly_so_many_bytes_through() {
        let (relay, mut near, mut far) = connected().await;
        relay.cut_after(Way::Out, 3, Cut::Finish);

        near.write_all(b"there").await.unwrap();

        let mut came = Vec::new();
        far.read_to_end(&mut came).await.unwrap();
        assert_eq!(came, b"the");
        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_held_one_way_comes_when_it_is_released_and_the_other_way_goes_on() {
        let (relay, mut near, mut far) = connected().await;
        relay.hold(Way::Out);
        near.write_all(b"there").await.unwrap();
        far.write_all(b"back").await.unwrap();

        assert_eq!(read(&mut near, 4).await, b"back");
        assert_eq!(relay.carried(Way::Out), 0);

        relay.release();
        assert_eq!(read(&mut far, 5).await, b"there");
    }

    #[tokio::test]
    async fn a_stranded_connection_carries_nothing_and_the_next_one_does() {
        let (relay, mut near, mut far) = connected().await;
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        relay.aim(target.local_addr().unwrap());
        relay.strand();
        near.write_all(b"there").await.unwrap();
        far.write_all(b"back").await.unwrap();

        let mut again = TcpStream::connect(relay.address()).await.unwrap();
        again.write_all(b"again").await.unwrap();

        let (mut other, _) = target.accept().await.unwrap();
        assert_eq!(read(&mut other, 5).await, b"again");
        assert_eq!((relay.carried(Way::Out), relay.carried(Way::Back)), (5, 0));
        relay.cut(Cut::Reset);
        assert_eq!(near.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn after_a_half_close_one_way_is_at_its_end_and_the_other_goes_on() {
        let (relay, mut near, mut far) = connected().await;

        relay.half_close(Way::Back);

        assert_eq!(near.read(&mut [0; 1]).await.unwrap(), 0);
        near.write_all(b"there").await.unwrap();
        assert_eq!(read(&mut far, 5).await, b"there");
        far.write_all(b"lost").await.unwrap();
    }

    #[tokio::test]
    async fn who_is_refused_is_reset_and_who_comes_later_reaches_the_new_target() {
        let (relay, _near, _far) = connected().await;
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        relay.aim(other.local_addr().unwrap());
        relay.refuse(true);
        let mut refused = TcpStream::connect(relay.address()).await.unwrap();
        assert_eq!(refused.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        relay.refuse(false);
        let mut near = TcpStream::connect(relay.address()).await.unwrap();
        near.write_all(b"hello").await.unwrap();

        let (mut far, _) = other.accept().await.unwrap();
        assert_eq!(read(&mut far, 5).await, b"hello");
        assert_eq!(relay.taken(), 2);
    }

    #[tokio::test]
    async fn a_delay_is_kept_both_ways() {
        let (relay, _near, _far) = connected().await;
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        relay.aim(target.local_addr().unwrap());
        let delay = Duration::from_millis(20);
        relay.delay(delay);
        let mut near = TcpStream::connect(relay.address()).await.unwrap();
        let (mut far, _) = target.accept().await.unwrap();

        let began = Instant::now();
        near.write_all(b"x").await.unwrap();
        let there = read(&mut far, 1).await;
        far.write_all(&there).await.unwrap();

        assert_eq!(read(&mut near, 1).await, b"x");
        assert!(began.elapsed() >= 2 * delay);
    }
}
