//! Small things that grow when nobody looks: words that tie the project to one machine, and fragments of the changelog
//! that say nothing.

use crate::shell::{output, root};
use anyhow::{Result, bail};
use std::process::Command;

/// What must not stand anywhere in the repository, and why. Written in two halves, or this file would be the first find.
fn forbidden() -> Vec<(String, &'static str)> {
    let join = |a: &str, b: &str| format!("{a}{b}");
    vec![
        (join("/wo", "rk/"), "a path of one machine"),
        (join("/tmp", "/w/"), "a path of one machine"),
        (join("/root", "/."), "a path of one machine"),
        (join("deb.", "debian.org"), "a mirror's host: take it from the machine's configuration"),
        (join("snapshot.", "debian.org"), "a mirror's host: take it from the machine's configuration"),
        (join("index.", "crates.io"), "a registry's host: leave it to cargo"),
        (join("artifact", "ory"), "a registry's host: leave it to cargo"),
        (join("registry.", "npmjs"), "a registry's host: leave it to npm"),
    ]
}

/// Fails with every find.
pub(crate) fn check() -> Result<()> {
    let listed = output(
        Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root()),
    )?;
    let files: Vec<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    let forbidden = forbidden();
    let mut wrong = Vec::new();
    for name in &files {
        // A file removed but not yet committed is listed too; text alone is looked at.
        let Ok(text) = fs_err::read_to_string(root().join(name)) else { continue };
        wrong.extend(finds(name, &text, &forbidden));
        if name.starts_with("changelog/unreleased/") && !name.ends_with("/.gitkeep") {
            wrong.extend(fragment(name, &text));
        }
    }
    if !wrong.is_empty() {
        bail!("not tidy:\n  {}", wrong.join("\n  "));
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

fn finds(name: &str, text: &str, forbidden: &[(String, &'static str)]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (word, why) in forbidden {
            // A path only where one begins, so that `a/framework/` is none.
            let hit = line.match_indices(word.as_str()).any(|(at, _)| {
                !word.starts_with('/') || !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-".contains(c))
            });
            if hit {
                found.push(format!("{name}:{}: {word:?} is {why}", number + 1));
            }
        }
    }
    found
}

/// A fragment tells one change as its user sees it: a first line that is a sentence of its own, then what is to be known.
fn fragment(name: &str, text: &str) -> Option<String> {
    let first = text.lines().next().unwrap_or_default().trim();
    let is_told = (10..=120).contains(&first.chars().count()) && name.ends_with(".md");
    (!is_told)
        .then(|| format!("{name}: a fragment is a .md file whose first line tells the change in 10 to 120 letters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_one_machine_are_found_with_their_line() {
        let path = ["/wo", "rk/main"].concat();
        let found = finds("a.md", &format!("fine\nsee {path} and\nnet{path}"), &forbidden());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("a.md:2:"), "{found:?}");
    }

    #[test]
    fn a_fragment_without_a_telling_first_line_is_refused() {
        assert_eq!(fragment("changelog/unreleased/a.md", "Backups of a folder can be restored\n"), None);
        assert!(fragment("changelog/unreleased/a.md", "\nlater").is_some());
        assert!(fragment("changelog/unreleased/a", "Backups of a folder can be restored\n").is_some());
    }
}
