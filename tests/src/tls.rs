//! Clients over TLS: bare bytes, nothing but HTTP/2, and tonic's.

use std::{io, net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use myservice::proto::my_service_client::MyServiceClient;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::raw::RawClient;

/// Shakes hands with what listens at `address`, as `localhost`.
pub async fn connect(address: SocketAddr, config: &ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::new(config.clone())).connect(name, stream).await
}

/// A client that is nothing but HTTP/2 over TLS. The handle of its connection's task aborts it.
pub async fn raw(
    address: SocketAddr,
    config: &ClientConfig,
) -> anyhow::Result<(RawClient, tokio::task::JoinHandle<()>)> {
    RawClient::over(connect(address, config).await?, address).await
}

/// A tonic client over TLS.
pub async fn client(
    address: SocketAddr,
    config: ClientConfig,
) -> Result<MyServiceClient<Channel>, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: Uri| {
        let config = config.clone();
        async move { connect(address, &config).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://localhost:{}", address.port()))?;
    Ok(MyServiceClient::new(endpoint.connect_with_connector(connector).await?))
}
