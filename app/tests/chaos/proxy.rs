//! A TCP proxy that cuts connections, and swallows what one side says before it does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    runtime::Runtime,
    select,
    sync::watch,
    task::JoinSet,
};

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Everything passes.
    Pass,
    /// What the client says is swallowed: requests are lost.
    Deafen,
    /// What the server says is swallowed: requests take effect and their answers are lost.
    Mute,
    /// It is closed.
    Cut,
}

/// Stands before one server. Its port stays, whatever becomes of the server.
pub(crate) struct Proxy {
    port: u16,
    connections: Arc<Mutex<Vec<watch::Sender<Order>>>>,
    // Dropped with the proxy, and with it all that it does.
    _runtime: Runtime,
}

impl Proxy {
    pub(crate) fn before(target: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<Mutex<Vec<watch::Sender<Order>>>>::default();
        let opened = Arc::clone(&connections);
        runtime.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (order, orders) = watch::channel(Order::Pass);
                let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
                opened.retain(|order| order.receiver_count() > 0);
                opened.push(order);
                passing.spawn(pass(client, SocketAddr::from((Ipv4Addr::LOCALHOST, target)), orders));
                while passing.try_join_next().is_some() {}
            }
        });
        Self { port, connections, _runtime: runtime }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections.
    pub(crate) fn cut_all(&self) {
        for connection in &*self.connections() {
            let _ = connection.send(Order::Cut);
        }
    }

    /// Swallows the requests on one connection: the `choice`-th, counted around.
    pub(crate) fn lose_requests(&self, choice: usize) {
        self.order(choice, Order::Deafen);
    }

    /// Swallows the answers on one connection: the `choice`-th, counted around.
    pub(crate) fn lose_answers(&self, choice: usize) {
        self.order(choice, Order::Mute);
    }

    fn order(&self, choice: usize, order: Order) {
        let mut connections = self.connections();
        connections.retain(|connection| connection.receiver_count() > 0);
        if let Some(place) = choice.checked_rem(connections.len()) {
            let _ = connections[place].send(order);
        }
    }

    /// Cuts what no longer passes everything: it has lost something and could only confuse both sides.
    pub(crate) fn cut_spoiled(&self) {
        for connection in &*self.connections() {
            if *connection.borrow() != Order::Pass {
                let _ = connection.send(Order::Cut);
            }
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<watch::Sender<Order>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(client: TcpStream, target: SocketAddr, mut orders: watch::Receiver<Order>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Small requests and answers must not wait for each other.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    select! {
        () = copy(from_client, to_server, orders.clone(), Order::Deafen) => {}
        () = copy(from_server, to_client, orders.clone(), Order::Mute) => {}
        _ = orders.wait_for(|order| *order == Order::Cut) => {}
    }
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    orders: watch::Receiver<Order>,
    swallow: Order,
) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut bytes).await {
        let swallowed = *orders.borrow() == swallow;
        if count == 0 || (!swallowed && to.write_all(&bytes[..count]).await.is_err()) {
            return;
        }
    }
}
