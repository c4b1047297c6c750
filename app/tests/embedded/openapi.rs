//! The running API does what its own `OpenAPI` document says, whatever it is sent.

use crate::{
    api::{Api, password},
    folder::Folder,
};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// Where scripts/install-tools puts what the tests run.
fn tool(name: &str) -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    let path = target.join("tools/bin").join(name);
    assert!(path.exists(), "{name} is missing: run scripts/install-tools {name}, or make test");
    path
}

/// Requests made from the document, right and wrong ones: no server error, no status, type or body that the document does
/// not name, nothing wrong accepted, nothing right refused, and nothing without a token.
#[test]
fn every_route_keeps_to_the_document() {
    let folder = Folder::new();
    let api = Api::start(&folder, "service.log");
    let token = api.log_in(&password(&api.service).unwrap());
    let output = Command::new(tool("schemathesis"))
        .arg("--config-file")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/embedded/schemathesis.toml"))
        .args(["run", &format!("http://{}/openapi.json", api.addr), "--no-color", "--checks", "all"])
        .args(["--max-examples", "50", "--seed", "1", "--header", &format!("Authorization: Bearer {token}")])
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    // What it could not make a request of would be no failure.
    let line = |name: &str| report.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().trim();
    let (selected, all) = line("Selected:").split_once('/').unwrap();
    assert_eq!((selected, line("Tested:")), (all, all), "{report}");
}
