//! `dev --check`: the whole product comes up, works once, ends, and finds its data again.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::process::Command;

fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn it_comes_up_works_ends_and_finds_its_data_again() {
    let dir = engines::Scratch::new().unwrap();
    for round in 1..=2 {
        let output = Command::new(env!("CARGO_BIN_EXE_coditect-license"))
            .args([
                "dev",
                "--check",
                "--listen-addr",
                &free(),
                "--metrics-addr",
                &free(),
                "--issuer-addr",
                &free(),
            ])
            .arg("--dir")
            .arg(dir.path())
            .output()
            .unwrap();
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "round {round}: {said}{complained}");
        assert!(said.contains("the log has it"), "{said}");
        assert_eq!(complained, "", "it ends quietly");
    }
    let key = std::fs::metadata(dir.path().join("signing-key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
}
