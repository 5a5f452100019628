//! `grpcrouter certs dev`.

use crate::world::run;

#[tokio::test]
async fn certificates_are_written_once_and_keys_are_their_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("certs");
    let path = into.to_str().unwrap();

    let written = run(&["certs", "dev", path, "--host", "gateway.example.com", "--host", "10.0.0.7"]).await.ok();

    let names = ["ca.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem"];
    assert_eq!(written.lines().collect::<Vec<_>>(), names.map(|name| format!("{path}/{name}")));
    #[cfg(unix)]
    for name in names {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(into.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077 == 0, name.contains("-key"), "{name}: {mode:o}");
    }

    let before = std::fs::read(into.join("ca.pem")).unwrap();
    let said = run(&["certs", "dev", path]).await.failed(1);
    assert_eq!(
        said,
        format!(
            "grpcrouter: {path}/ca.pem is there already and is not overwritten; remove it, or name another directory\n"
        )
    );
    assert_eq!(std::fs::read(into.join("ca.pem")).unwrap(), before);
}

#[tokio::test]
async fn the_certificates_are_of_the_names_that_were_asked_for() {
    use x509_parser::extensions::GeneralName;
    use x509_parser::pem::Pem;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    run(&["certs", "dev", path, "--host", "gw.example.com,10.0.0.7", "--client-uri", "spiffe://x/y"]).await.ok();
    let read = |name: &str| {
        let file = std::fs::File::open(directory.path().join(name)).unwrap();
        Pem::read(std::io::BufReader::new(file)).unwrap().0
    };
    let names = |pem: &Pem| -> Vec<String> {
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let names = names.value.general_names.iter().map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
            other => panic!("{other}"),
        });
        names.collect()
    };
    let ca = read("ca.pem");

    let server = read("server.pem");
    assert_eq!(
        names(&server),
        [
            "localhost",
            "[127, 0, 0, 1]",
            "[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]",
            "gw.example.com",
            "[10, 0, 0, 7]"
        ]
    );
    let client = read("client.pem");
    assert_eq!(names(&client), ["spiffe://x/y"]);
    for (leaf, is_server) in [(&server, true), (&client, false)] {
        let (leaf, ca) = (leaf.parse_x509().unwrap(), ca.parse_x509().unwrap());
        assert_eq!(leaf.issuer(), ca.subject());
        assert!(ca.is_ca() && !leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.server_auth, usage.client_auth), (is_server, !is_server));
    }

    let said = run(&["certs", "dev", &format!("{path}/other"), "--host", "no name"]).await.failed(1);
    assert_eq!(said, "grpcrouter: --host \"no name\" is neither a host name nor an IP address\n");
}
