//! The arrows between the crates: `recorder -> formats <- analyzer`, and nothing else.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Finding;

/// Every crate of the workspace, with the crates of the workspace that it must depend on. The tests
/// may use `formats` too, but neither half of the product.
const REQUIRED: &[(&str, &[&str])] =
    &[("formats", &[]), ("recorder", &["formats"]), ("analyzer", &["formats"]), ("tests", &[])];
const ALLOWED: &[(&str, &str)] =
    &[("recorder", "formats"), ("analyzer", "formats"), ("tests", "formats")];

/// Checks the answer of `cargo metadata --no-deps`. Every kind of dependency counts: also one of
/// the tests or of the build script.
pub(crate) fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let packages = packages.context("`cargo metadata` names no packages")?;
    let crates: Vec<(&str, Vec<&str>)> = packages.iter().filter_map(name_and_edges).collect();
    let mut findings = Vec::new();
    for (name, edges) in &crates {
        let Some((_, required)) = REQUIRED.iter().find(|(known, _)| known == name) else {
            findings.push(Finding::Failure(format!("crate {name} has no place in the house")));
            continue;
        };
        for edge in required.iter().filter(|edge| !edges.contains(edge)) {
            findings.push(Finding::Failure(format!("crate {name} does not depend on {edge}")));
        }
        for edge in edges.iter().filter(|edge| crates.iter().any(|(other, _)| other == *edge)) {
            if !ALLOWED.contains(&(*name, *edge)) {
                findings.push(Finding::Failure(format!("crate {name} must not depend on {edge}")));
            }
        }
    }
    for (name, _) in REQUIRED.iter().filter(|(name, _)| !crates.iter().any(|row| row.0 == *name)) {
        findings.push(Finding::Failure(format!("there is no crate {name}")));
    }
    Ok(findings)
}

fn name_and_edges(package: &Value) -> Option<(&str, Vec<&str>)> {
    let name = package.get("name")?.as_str()?;
    let edges = package.get("dependencies")?.as_array()?;
    Some((name, edges.iter().filter_map(|edge| edge.get("name")?.as_str()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(rows: &[(&str, &[&str])]) -> Value {
        let package = |(name, edges): &(&str, &[&str])| {
            let edges: Vec<_> = edges.iter().map(|edge| json!({ "name": edge })).collect();
            json!({ "name": name, "dependencies": edges })
        };
        json!({ "packages": rows.iter().map(package).collect::<Vec<_>>() })
    }

    fn findings(recorder: &[&str], analyzer: &[&str], formats: &[&str]) -> usize {
        let rows =
            [("recorder", recorder), ("analyzer", analyzer), ("formats", formats), ("tests", &[])];
        check(&metadata(&rows)).unwrap().len()
    }

    #[test]
    fn the_arrows_point_one_way() {
        assert_eq!(findings(&["formats", "nix"], &["formats"], &["zstd"]), 0);
        assert_eq!(findings(&["formats", "analyzer"], &["formats"], &[]), 1);
        assert_eq!(findings(&["formats"], &["formats", "recorder"], &[]), 1);
        assert_eq!(findings(&["formats"], &["formats"], &["recorder"]), 1);
        assert_eq!(findings(&[], &["formats"], &[]), 1);
    }

    #[test]
    fn every_crate_has_its_place() {
        assert_eq!(check(&metadata(&[])).unwrap().len(), 4);
        let rows: [(&str, &[&str]); 1] = [("extra", &[])];
        assert_eq!(check(&metadata(&rows)).unwrap().len(), 5);
        assert!(check(&json!({})).is_err());
    }
}
