//! A service without the option, whose routes are said in code.

use grpcrouter_runtime::{FieldPath, FieldType, Gateway, MethodRoutes, OnMissingKey, ServiceRoutes, Strategy};

use crate::{Place, invalid, of_customer, who};

const ONE: &str = "/routing.Echo/One";

fn echo() -> ServiceRoutes {
    ServiceRoutes::new("routing.Echo").unary("One").server_streaming("Down").client_streaming("Up").bidi("Both")
}

async fn place(routes: ServiceRoutes) -> Place {
    Place::of(Gateway::builder().add_service(routes), &["a", "b"]).await
}

#[tokio::test]
async fn a_service_without_the_option_is_balanced() {
    let place = place(echo()).await;
    for method in ["One", "Down", "Up", "Both"] {
        assert_eq!(place.two(&format!("/routing.Echo/{method}"), &[]).await, "ab", "{method}");
    }
    assert_eq!(place.call("/routing.Echo/Other", &[]).await.code(), 12);
    place.end().await;
}

#[tokio::test]
async fn every_strategy_can_be_said_in_code() {
    let metadata = place(echo().routing_key("tenant")).await;
    assert_eq!(who(&metadata.call(ONE, &[("tenant", "b")]).await), "b");
    metadata.end().await;

    let path = place(echo().strategy(Strategy::PathBased).path_prefix("/t")).await;
    assert_eq!(who(&path.call("/t/b/routing.Echo/One", &[]).await), "b");
    path.end().await;

    let header = place(echo().strategy(Strategy::HeaderBased).routing_key("user-agent")).await;
    assert_eq!(who(&header.call(ONE, &[("user-agent", "b")]).await), "b");
    header.end().await;

    let customer_id = FieldPath::new(&[1, 2], FieldType::String).presence();
    let field = place(echo().strategy(Strategy::FieldBased).routing_key("customer.id").field(customer_id)).await;
    assert_eq!(who(&field.ask(ONE, &[], &of_customer("b")).await), "b");
    field.end().await;
}

#[tokio::test]
async fn a_method_may_differ_field_by_field() {
    let one = MethodRoutes::new().on_missing_key(OnMissingKey::Reject);
    let place = place(echo().routing_key("tenant").method_routes("One", one)).await;

    invalid(&place.call(ONE, &[]).await, "MISSING_ROUTING_KEY", &["tenant (METADATA_BASED)"]);
    assert_eq!(who(&place.call(ONE, &[("tenant", "b")]).await), "b");
    assert_eq!(place.two("/routing.Echo/Up", &[]).await, "ab");
    place.end().await;
}

#[test]
fn what_cannot_be_meant_is_told_when_the_gateway_is_built() {
    let refused = |routes: ServiceRoutes| Gateway::builder().add_service(routes).build().unwrap_err().to_string();

    assert!(refused(ServiceRoutes::new("/routing.Echo")).contains("add_service(/routing.Echo) cannot be used"));
    assert!(refused(echo().strategy(Strategy::FieldBased).routing_key("id")).contains("set field(..)"));
    assert!(refused(echo().unary("One")).contains("the path /routing.Echo/One is claimed by"));
    assert!(refused(echo().method_routes("Two", MethodRoutes::new())).contains("no such method here"));
}
