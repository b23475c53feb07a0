//! Who may know whom, checked against what cargo resolves.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, MetadataCommand};

const SERVICE: [&str; 7] = ["events", "merkle", "audit", "tokens", "actors", "projections", "api"];

/// The direct dependencies of a crate of the workspace, those of its tests apart.
fn dependencies(name: &str) -> BTreeSet<String> {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let package = metadata.packages.iter().find(|package| package.name.as_str() == name).unwrap();
    let normal = package.dependencies.iter().filter(|one| one.kind == DependencyKind::Normal);
    normal.map(|one| one.name.clone()).collect()
}

fn of_the_service(name: &str) -> BTreeSet<String> {
    dependencies(name)
        .into_iter()
        .filter(|one| SERVICE.contains(&one.as_str()) || one == "loadtests")
        .collect()
}

#[test]
fn arrows_point_one_way() {
    let only = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(of_the_service("events"), only(&[]));
    assert_eq!(of_the_service("merkle"), only(&[]));
    assert_eq!(of_the_service("audit"), only(&["events", "merkle"]));
    assert_eq!(of_the_service("tokens"), only(&["merkle"]));
    assert_eq!(of_the_service("actors"), only(&["events"]));
    assert_eq!(of_the_service("projections"), only(&["events"]));
    assert_eq!(of_the_service("api"), only(&["events", "audit", "tokens", "actors", "projections"]));
    // The load generator knows HTTP only, and the engines know nobody.
    assert_eq!(of_the_service("loadtests"), only(&[]));
    assert_eq!(of_the_service("engines"), only(&[]));
}

#[test]
fn each_protocol_is_spoken_in_one_crate() {
    for (library, speaker) in [
        ("fred", "actors"),
        ("ractor", "actors"),
        ("poem-openapi", "api"),
        ("google-cloud-kms-v1", "api"),
        ("jsonwebtoken", "api"),
        ("refinery", "events"),
    ] {
        for name in SERVICE {
            assert_eq!(dependencies(name).contains(library), name == speaker, "{name} and {library}");
        }
    }
    for name in ["events", "merkle", "audit", "tokens", "actors", "projections"] {
        assert!(!dependencies(name).contains("poem") && !dependencies(name).contains("engines"), "{name}");
    }
}
