//! The direction of imports, as ARCHITECTURE.md draws it, read from the manifests:
//! `model` <- `repo`, `sources`, `stores` <- `ops` <- `daemon` <- `cli`, and a fence around what is heavy or foreign.

use crate::shell::{cargo, output, root};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;

/// Which of our crates each crate may be built on. `testkit` and `xtask` are outside the picture and never shipped.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("repo", &["model"]),
    ("sources", &["model"]),
    ("stores", &["model"]),
    ("ops", &["model", "repo", "sources", "stores"]),
    ("daemon", &["model", "repo", "sources", "stores", "ops"]),
    ("cli", &["model", "repo", "sources", "stores", "ops", "daemon"]),
    ("testkit", &["model", "repo", "stores"]),
    ("xtask", &["model", "repo", "stores", "testkit"]),
];

/// What a crate may use in its tests beyond its arrows: the shared suites, and a store to keep bytes in.
const IN_TESTS: &[&str] = &["testkit", "stores"];

/// Foreign crates that only some of ours may be built on, tests aside.
const FENCES: &[(&str, &[&str])] = &[
    ("rusqlite", &["sources", "daemon", "testkit", "xtask"]),
    ("anyhow", &["cli", "xtask"]),
    ("clap", &["cli", "xtask"]),
    ("clap_complete", &["cli"]),
    ("indicatif", &["cli"]),
    ("comfy-table", &["cli"]),
    ("ignore", &["sources"]),
    ("aws-lc-rs", &["repo", "sources", "stores"]),
    ("reqwest", &["stores", "daemon"]),
    ("russh", &["stores"]),
    ("scrypt", &["repo"]),
    ("zstd", &["repo", "xtask"]),
    ("toml", &["cli", "ops", "model", "xtask"]),
];

/// One line of a manifest: this crate is built on that.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    of: String,
    by: String,
    in_tests: bool,
}

/// Fails with every arrow that points the wrong way.
pub(crate) fn check() -> Result<()> {
    let text = output(&mut cargo(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("read cargo's metadata")?;
    let uses = uses(&metadata)?;
    let mut wrong: Vec<String> = uses.iter().filter_map(judge).collect();
    wrong.extend(wiring()?);
    if !wrong.is_empty() {
        bail!("imports against the picture in ARCHITECTURE.md:\n  {}", wrong.join("\n  "));
    }
    println!("layers: {} imports, all in order", uses.len());
    Ok(())
}

fn uses(metadata: &Value) -> Result<BTreeSet<Use>> {
    let mut uses = BTreeSet::new();
    for package in metadata["packages"].as_array().context("cargo's metadata has no packages")? {
        let by = short(package["name"].as_str().unwrap_or_default());
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let of = short(dependency["name"].as_str().unwrap_or_default());
            uses.insert(Use { of, by: by.clone(), in_tests: dependency["kind"] == "dev" });
        }
    }
    Ok(uses)
}

fn short(package: &str) -> String {
    match package {
        "lastgood" => "cli".to_owned(),
        other => other.strip_prefix("lastgood-").unwrap_or(other).to_owned(),
    }
}

/// What is wrong with a use, if anything.
fn judge(used: &Use) -> Option<String> {
    let Use { of, by, in_tests } = used;
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == by) else {
        return Some(format!("{by} has no place in the picture; give it one in xtask/src/layers.rs"));
    };
    let is_ours = ARROWS.iter().any(|(name, _)| name == of);
    let is_allowed = if is_ours {
        allowed.contains(&of.as_str()) || (*in_tests && IN_TESTS.contains(&of.as_str()))
    } else {
        *in_tests || FENCES.iter().find(|(name, _)| name == of).is_none_or(|(_, who)| who.contains(&by.as_str()))
    };
    (!is_allowed).then(|| format!("{by} must not use {of}{}", if *in_tests { " even in tests" } else { "" }))
}

/// Only the wiring names concrete sources and stores: any other file of `cli` that does is wrong.
fn wiring() -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut folders = vec![root().join("crates/cli/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let path = entry?.path();
            let is_wiring = path.file_stem().is_some_and(|stem| stem == "wiring");
            if path.is_dir() && !is_wiring {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_wiring {
                let text = fs_err::read_to_string(&path)?;
                for name in ["lastgood_sources", "lastgood_stores"].iter().filter(|name| text.contains(**name)) {
                    wrong.push(format!("{} names {name}; only wiring.rs may", path.display()));
                }
            }
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(by: &str, of: &str, in_tests: bool) -> bool {
        judge(&Use { of: of.into(), by: by.into(), in_tests }).is_none()
    }

    #[test]
    fn arrows_against_the_picture_and_through_a_fence_are_told() {
        for (by, of, in_tests, allowed) in [
            ("repo", "model", false, true),
            ("model", "repo", false, false),
            ("repo", "sources", false, false),
            ("stores", "repo", false, false),
            ("repo", "stores", true, true),
            ("repo", "sources", true, false),
            ("ops", "cli", false, false),
            ("cli", "ops", false, true),
            ("cli", "testkit", false, false),
            ("cli", "testkit", true, true),
            ("repo", "rusqlite", false, false),
            ("sources", "rusqlite", false, true),
            ("repo", "serde", false, true),
            ("newcomer", "serde", false, false),
        ] {
            assert_eq!(verdict(by, of, in_tests), allowed, "{by} -> {of}");
        }
    }

    #[test]
    fn uses_are_read_from_the_metadata() {
        let metadata = serde_json::json!({"packages": [{"name": "lastgood", "dependencies": [
            {"name": "lastgood-ops", "kind": null}, {"name": "lastgood-testkit", "kind": "dev"}]}]});
        let uses: Vec<_> = uses(&metadata).unwrap().into_iter().map(|u| (u.by, u.of, u.in_tests)).collect();
        assert_eq!(uses, [("cli".into(), "ops".into(), false), ("cli".into(), "testkit".into(), true)]);
    }
}
