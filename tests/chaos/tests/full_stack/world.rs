//! Gateways, backends and clients on sockets of this machine, with a relay before each gateway; and what must be true of
//! every call when its schedule is over.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use grpcrouter_chaos::{Caller, Failure, Journal, Worker};
use grpcrouter_runtime::{Backend, Gateway, GatewayBuilder, ServeError};
use grpcrouter_tests::relay::{Cut, Relay};
use myservice::proto::{my_service_router::MyServiceRouter, my_service_server::MyServiceServer};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::{sleep, sleep_until, timeout},
};
use tonic::{Code, transport::Endpoint};

use super::{
    clock,
    plan::{BACKENDS, Fault, Plan, PlannedCall, Story},
};

/// What came of one schedule.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) broken: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

/// Runs one schedule in a runtime and a time of its own.
pub(crate) fn run(plan: &Plan) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let moved = Arc::new(AtomicU64::new(0));
    let world = World::play(plan, moved.clone());
    let seen = runtime.block_on(clock::drive(world, || moved.load(Ordering::Relaxed), LIMIT));
    seen.unwrap_or_else(|| Seen { broken: vec![format!("it hangs: not over after {LIMIT:?}")], ..Seen::default() })
}

/// What is made once in a process is made now, before any time that is not the machine's.
pub(crate) fn warm_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let gateway = RunningGateway::start(Gateway::builder(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let backend = RunningBackend::start(&format!("http://{}", gateway.address), 0, Arc::new(|_| {}));
        backend.backend.ready().await;
    });
}

struct World {
    gateways: Vec<RunningGateway>,
    /// One before each gateway for the bad line of its clients.
    bad_lines: Vec<Relay>,
    /// The ways from instances to gateways, as the plan has them.
    links: Vec<Relay>,
    backends: Vec<Option<RunningBackend>>,
    /// Those that were asked to stop.
    stopping: Vec<JoinHandle<Result<(), ServeError>>>,
    journal: Arc<Mutex<BTreeMap<u64, u64>>>,
    moved: Arc<AtomicU64>,
}

/// What becomes of a backend or a link after a fault.
enum Later {
    Release(usize),
    Admit(usize),
    Start(usize),
}

impl World {
    async fn play(plan: &Plan, moved: Arc<AtomicU64>) -> Seen {
        let (mut links, mut listeners) = (Vec::new(), Vec::new());
        for _ in 0..plan.gateways {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        for link in 0..plan.links {
            links.push(Relay::to(listeners[link % plan.gateways].local_addr().unwrap()).await);
        }
        let peers: Vec<String> = if plan.gateways > 1 { links.iter().map(Relay::uri).collect() } else { Vec::new() };
        let (mut gateways, mut bad_lines) = (Vec::new(), Vec::new());
        for (number, listener) in listeners.into_iter().enumerate() {
            let builder = Gateway::builder().resume_window(plan.resume_window).peers(peers.clone());
            let builder = if plan.gateways > 1 { builder.advertise(links[number].uri()) } else { builder };
            let gateway = RunningGateway::start(builder, listener);
            bad_lines.push(Relay::to(gateway.address).await);
            gateways.push(gateway);
        }
        let backends = (0..BACKENDS).map(|_| None).collect();
        let (stopping, journal) = (Vec::new(), Arc::default());
        let mut world = Self { gateways, bad_lines, links, backends, stopping, journal, moved };
        for backend in 0..BACKENDS {
            world.start(backend);
        }
        while world.gateways.iter().any(|gateway| gateway.gateway.stats().instances < BACKENDS) {
            sleep(Duration::from_millis(1)).await; // waits because a gateway does not announce its sums
        }

        let mut calls = JoinSet::new();
        let began = tokio::time::Instant::now();
        for (number, call) in plan.calls.iter().enumerate() {
            calls.spawn(world.call(number, call, began));
        }
        let ends = tokio::spawn(async move {
            let mut ends = BTreeMap::new();
            while let Some(end) = calls.join_next().await {
                let (number, end) = end.expect("a call panicked");
                ends.insert(number, end);
            }
            ends
        });
        let leaves = world.leaving(plan, began);
        tokio::join!(world.trouble(plan, began), leaves);
        let ends = timeout(CALLS_END, ends).await;
        let Ok(Ok(ends)) = ends else {
            let open: Vec<_> = world.gateways.iter().map(|gateway| gateway.gateway.stats()).collect();
            return Seen { broken: vec![format!("calls do not end: {open:?}")], ..Seen::default() };
        };
        let mut seen = world.judge(plan, &ends);
        world.end(&mut seen).await;
        seen
    }

    fn start(&mut self, backend: usize) {
        let (book, moved) = (self.journal.clone(), self.moved.clone());
        let journal: Journal = Arc::new(move |id| {
            moved.fetch_add(1, Ordering::Relaxed);
            *book.lock().unwrap().entry(id).or_default() += 1;
        });
        self.backends[backend] =
            Some(RunningBackend::start(&self.links[backend % self.links.len()].uri(), backend, journal));
    }

    /// The first gateway is asked to stop, if the plan says so.
    fn leaving(&mut self, plan: &Plan, began: tokio::time::Instant) -> impl Future<Output = ()> + use<> {
        let leaves = plan.leaves.map(|at| (began + at, self.gateways[0].stop.take()));
        async move {
            if let Some((at, Some(stop))) = leaves {
                sleep_until(at).await; // waits because the schedule says when
                let _ = stop.send(());
            }
        }
    }

    /// One call, from its time on; None: the client took it back.
    fn call(
        &self,
        number: usize,
        call: &PlannedCall,
        began: tokio::time::Instant,
    ) -> impl Future<Output = (usize, Option<Result<(), Failure>>)> + Send + 'static {
        let address =
            if call.on_bad_line { self.bad_lines[call.gateway].address() } else { self.gateways[call.gateway].address };
        let (work, at, cancel_after, moved) = (call.work, began + call.at, call.cancel_after, self.moved.clone());
        let (key, deadline, dawdle) = (call.key.map(name), call.deadline, call.dawdle);
        async move {
            sleep_until(at).await; // waits because the schedule says when
            let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
            let mut caller = Caller::new(channel);
            (caller.key, caller.deadline, caller.dawdle) = (key, deadline, dawdle);
            let end = match cancel_after {
                Some(after) => timeout(after, caller.perform(&work)).await.ok(),
                None => Some(caller.perform(&work).await),
            };
            moved.fetch_add(1, Ordering::Relaxed);
            (number, end)
        }
    }

    /// Does what the plan says, and mends what is broken in the end.
    async fn trouble(&mut self, plan: &Plan, began: tokio::time::Instant) {
        let mut later: Vec<(tokio::time::Instant, Later)> = Vec::new();
        let mut faults = plan.faults.iter().map(|(at, fault)| (began + *at, *fault)).peekable();
        loop {
            later.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            let next = faults.peek().map(|(at, _)| *at);
            match (next, later.last()) {
                (Some(next), Some((due, _))) if *due <= next => {}
                (Some(next), _) => {
                    sleep_until(next).await; // waits because the schedule says when
                    let (at, fault) = faults.next().expect("it was there");
                    later.extend(self.fault(fault).map(|(after, what)| (at + after, what)));
                    continue;
                }
                (None, Some(_)) => {}
                (None, None) => return,
            }
            let (due, what) = later.pop().expect("it was there");
            sleep_until(due).await; // waits because the schedule says when
            match what {
                Later::Release(link) => self.links[link].release(),
                Later::Admit(link) => self.links[link].refuse(false),
                Later::Start(backend) => self.start(backend),
            }
        }
    }

    fn fault(&mut self, fault: Fault) -> Option<(Duration, Later)> {
        self.moved.fetch_add(1, Ordering::Relaxed);
        match fault {
            Fault::Cut { link, how } => self.links[link].cut(how),
            Fault::CutAfter { link, way, bytes, how } => self.links[link].cut_after(way, bytes, how),
            Fault::HalfClose { link, way } => self.links[link].half_close(way),
            Fault::Strand { link } => self.links[link].strand(),
            Fault::CutClients { gateway } => self.bad_lines[gateway].cut(Cut::Reset),
            Fault::Hold { link, way, lasts } => {
                self.links[link].hold(way);
                return Some((lasts, Later::Release(link)));
            }
            Fault::Refuse { link, lasts } => {
                self.links[link].refuse(true);
                self.links[link].cut(Cut::Reset);
                return Some((lasts, Later::Admit(link)));
            }
            Fault::Stop { backend, back_after } => {
                // None: it was stopped already, and is about to be started.
                let running = self.backends[backend].take()?;
                let _ = running.stop.send(());
                self.stopping.push(running.task);
                return Some((back_after, Later::Start(backend)));
            }
            Fault::Kill { backend, back_after } => {
                self.backends[backend].take()?.task.abort();
                return Some((back_after, Later::Start(backend)));
            }
        }
        None
    }

    /// What must be true of each call.
    fn judge(&self, plan: &Plan, ends: &BTreeMap<usize, Option<Result<(), Failure>>>) -> Seen {
        let mut seen = Seen::default();
        let journal = self.journal.lock().unwrap().clone();
        for (number, call) in plan.calls.iter().enumerate() {
            let executions = journal.get(&call.work.id).copied().unwrap_or(0);
            let end = ends.get(&number).expect("every call ends");
            let (what, wrong) = verdict(plan, call, end.as_ref(), executions);
            *seen.counts.entry(what).or_default() += 1;
            if let Some(why) = wrong {
                let (at, kind, id) = (call.at, call.work.kind, call.work.id);
                let end = match end {
                    None => "taken back".to_owned(),
                    Some(Ok(())) => "ok".to_owned(),
                    Some(Err(failure)) => failure.to_string(),
                };
                let key = call.key.map(name).unwrap_or_default();
                seen.broken.push(format!("call {id} ({kind:?}, key {key:?}, at {at:?}): {why}: {end}"));
            }
        }
        let dialled: u64 = self.links.iter().map(Relay::taken).sum();
        seen.counts.insert("connections of instances", dialled);
        seen
    }

    /// All stop; nothing may be left.
    async fn end(mut self, seen: &mut Seen) {
        for backend in self.backends.iter_mut().filter_map(Option::take) {
            let _ = backend.stop.send(());
            self.stopping.push(backend.task);
        }
        for task in self.stopping {
            if timeout(CALLS_END, task).await.is_err() {
                seen.broken.push("a backend does not stop".into());
            }
        }
        for gateway in self.gateways {
            let _ = gateway.stop.map(|stop| stop.send(()));
            if timeout(CALLS_END, gateway.task).await.is_err() {
                seen.broken.push("a gateway does not stop".into());
            }
            let stats = gateway.gateway.stats();
            if (stats.calls, stats.queued_bytes, stats.tunnels, stats.parked_calls) != (0, 0, 0, 0) {
                seen.broken.push(format!("left at the end: {stats:?}"));
            }
        }
        // No port waits for the rest of an orderly end.
        self.links.iter().chain(&self.bad_lines).for_each(|relay| relay.cut(Cut::Reset));
        sleep(Duration::from_millis(5)).await; // waits because the relays have to see it
    }
}

/// What to count a call as, and what is wrong with it.
fn verdict(
    plan: &Plan,
    call: &PlannedCall,
    end: Option<&Result<(), Failure>>,
    executions: u64,
) -> (&'static str, Option<String>) {
    if executions > 1 {
        return ("broken", Some(format!("executed {executions} times")));
    }
    let failure = match end {
        None => return ("taken back", None),
        Some(Ok(())) if executions == 1 => return ("ok", None),
        Some(Ok(())) => return ("broken", Some("ended well and was never executed".into())),
        Some(Err(failure @ Failure::Wrong(_))) => return ("broken", Some(failure.to_string())),
        Some(Err(failure)) => failure,
    };
    if call.on_bad_line {
        return ("client was cut off", None);
    }
    let (code, outcome) = (failure.code(), failure.outcome());
    if call.deadline.is_some() && matches!(code, Some(Code::DeadlineExceeded | Code::Cancelled)) {
        return ("deadline", None);
    }
    // Half of an answer is out: no status can follow it.
    let in_a_message = code == Some(Code::Internal) && outcome.is_empty() && call.work.size > PART;
    if call.deadline.is_some() && in_a_message {
        return ("deadline in a message", None);
    }
    let unsent = matches!(outcome.as_str(), "NOT_SENT" | "NOT_STARTED");
    if unsent && executions > 0 {
        return ("broken", Some(format!("was executed, and ended {outcome}")));
    }
    let may_be_alone = match plan.story {
        Story::Cuts | Story::GatewayLeaves => false,
        Story::Drains => call.key.is_some(),
        Story::Outages | Story::Crashes | Story::TooLong => true,
    };
    let may_be_lost = matches!(plan.story, Story::Crashes | Story::TooLong);
    match (code, outcome.as_str()) {
        (Some(Code::Unavailable), "NOT_SENT" | "NOT_STARTED") if may_be_alone => ("nobody there", None),
        (Some(Code::Unavailable), "MAYBE_EXECUTED") if may_be_lost => ("lost", None),
        _ if may_be_lost && in_a_message => ("lost in a message", None),
        _ => ("broken", Some("should have ended well".into())),
    }
}

struct RunningGateway {
    gateway: Gateway,
    address: SocketAddr,
    /// None: it was asked to stop.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl RunningGateway {
    fn start(builder: GatewayBuilder, listener: TcpListener) -> Self {
        let gateway = builder.add_router::<MyServiceRouter>().drain_timeout(CALLS_END).build().unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(listener, stopped).await }
        });
        Self { gateway, address, stop: Some(stop), task }
    }
}

struct RunningBackend {
    backend: Backend,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl RunningBackend {
    fn start(gateway: &str, number: usize, journal: Journal) -> Self {
        let service = MyServiceServer::new(Worker::new(&name(number), journal));
        let builder = Backend::builder().gateway(gateway).instance_id(name(number)).add_service(service);
        let backend = builder.drain_timeout(CALLS_END).build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let backend = backend.clone();
            async move { backend.serve(stopped).await }
        });
        Self { backend, stop, task }
    }
}

fn name(backend: usize) -> String {
    format!("b{backend}")
}

/// All answers of a call whose messages are no longer than this come in one piece.
const PART: usize = 8 * 1024;

/// Calls last some seconds, and outages half a minute: by then everything has been mended for long.
const CALLS_END: Duration = Duration::from_secs(120);

/// Of a schedule as a whole.
const LIMIT: Duration = Duration::from_secs(400);
