//! No credentials in any log line, whatever becomes of them.

use grpcrouter_runtime::{ApiKey, Callers};
use grpcrouter_tests::lines::Lines;
use serde_json::json;

use crate::{Files, Place, forge};

#[tokio::test]
async fn no_line_shows_a_credential() {
    let lines = Lines::default();
    let _guard = lines.listen_to("info,grpcrouter_runtime=trace");
    let files = Files::new();
    let (key, other) = (ApiKey::generate(), ApiKey::generate());
    files.write("keys.toml", &key.entry("ci", &[]));
    let callers: Callers = files.callers();
    let shown = format!("{callers:?} {:?}", callers.layer().unwrap());
    let place = Place::new(callers).await;
    let good = forge::good();
    let expired = forge::token("hs", &forge::but(forge::claims(), json!({ "exp": 1 })));
    let forged = forge::token("ec", &forge::claims()).replace("ey", "ez");

    for token in [&good, &expired, &forged, key.text(), other.text()] {
        place.with_token(token).await;
        place.call(&[("x-api-key", token)]).await;
    }
    // Somebody takes the key for its id.
    files.write(
        "keys.toml",
        &key.entry("ci", &[]).replace(&format!("id = \"{}", key.id()), &format!("id = \"{}", key.text())),
    );
    place.call(&[("x-api-key", key.text())]).await;
    place.stop().await;

    let all = lines.all().join("\n") + &shown;
    assert!(all.contains("call refused") && all.contains("BAD_CREDENTIALS"), "the log is there");
    assert!(all.contains("what stands between the first two _ of the key"), "the file was refused");
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let secrets = [signature(&good), signature(&expired), signature(&forged), good.clone(), forged, expired];
    let secret_of = |key: &ApiKey| key.text().rsplit_once('_').unwrap().1.to_owned();
    let shared = String::from_utf8(forge::SHARED.to_vec()).unwrap();
    for secret in secrets.into_iter().chain([secret_of(&key), secret_of(&other), shared]) {
        assert_eq!(all.matches(&secret).count(), 0, "{secret}");
    }
}
