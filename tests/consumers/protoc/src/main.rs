//! A gateway, a backend that dials it, and a client that calls the backend through it, in one program.
//! Prints `consumer ok` when the call was answered.

use std::{error::Error, future, time::Duration};

use grpcrouter_runtime::{Backend, Gateway};
use orders::{
    BuyRequest, BuyResponse, WatchRequest, WatchResponse,
    orders_client::OrdersClient,
    orders_router::OrdersRouter,
    orders_server::{Orders, OrdersServer},
};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};

/// The router stands beside the code of prost and tonic, in the module of the package.
pub mod orders {
    include!("gen/orders/v1/orders.v1.rs");
    include!("gen/orders_router.rs");
}

/// The other way: a file for the package, which the file of prost includes itself.
pub mod inserted {
    include!("gen/inserted/orders/v1/orders.v1.rs");
}

/// The service behind the firewall: nothing in it knows of the gateway.
struct Shop;

#[tonic::async_trait]
impl Orders for Shop {
    async fn buy(&self, request: Request<BuyRequest>) -> Result<Response<BuyResponse>, Status> {
        let receipt = format!("one {}", request.into_inner().article);
        Ok(Response::new(BuyResponse { receipt }))
    }

    type WatchStream = tokio_stream::Empty<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tokio::time::timeout(Duration::from_secs(60), run()).await??;
    println!("consumer ok");
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);

    let gateway = Gateway::builder().add_router::<OrdersRouter>().build()?;
    tokio::spawn(async move { gateway.serve(listener, future::pending::<()>()).await });

    let backend = Backend::builder()
        .gateway(address.as_str())
        .instance_id("shop-1")
        .add_service(OrdersServer::new(Shop))
        .build()?;
    tokio::spawn(async move { backend.serve(future::pending::<()>()).await });

    let mut client = OrdersClient::connect(address).await?;
    let answer = loop {
        let mut request = Request::new(BuyRequest { article: "umbrella".into() });
        request.metadata_mut().insert("shop", "shop-1".parse()?);
        match client.buy(request).await {
            Ok(answer) => break answer.into_inner(),
            // The backend is still dialling.
            Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(status) => return Err(status.into()),
        }
    };
    if orders::orders_router::SPEC != inserted::orders_router::SPEC {
        return Err("both ways must give the same router".into());
    }
    if answer.receipt != "one umbrella" {
        return Err(format!("the backend answered {:?}", answer.receipt).into());
    }
    Ok(())
}
