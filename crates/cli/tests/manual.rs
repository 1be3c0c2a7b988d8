//! The documentation against the program: the examples of the manual are run as a reader would run them, every command
//! and option is told, none is made up, and every link leads somewhere.
//!
//! In a page of `docs/manual`, each block marked `sh` is run by bash in the page's own empty folder, in order, with the
//! built program first on the search path. It must end with status 0, or with the one after the mark (`sh exit=3`). A
//! block marked `output` shows what the one before it said: each of its lines must be among those printed, in this
//! order; `…` stands for anything.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use lastgood_testkit::postgres::{PASSWORD, PgServer, SUPERUSER, Version};
use lastgood_testkit::rest_server::{RestOptions, RestServer};
use lastgood_testkit::s3::S3Server;
use lastgood_testkit::sshd::Sshd;
use lastgood_testkit::tools;
use std::collections::BTreeSet;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The page whose examples need a PostgreSQL server.
const SERVER_PAGE: &str = "postgresql.md";
/// The page whose examples need a bucket.
const BUCKET_PAGE: &str = "losing-a-place.md";
/// The page whose examples need servers that keep repositories.
const REMOTE_PAGE: &str = "other-machines.md";
const PROGRAM: &str = env!("CARGO_BIN_EXE_lastgood");

/// One test for each page.
macro_rules! pages {
    ($($test:ident: $page:literal,)*) => {
        $(
            #[test]
            fn $test() {
                run_page($page);
            }
        )*

        const PAGES: &[&str] = &[$($page),*];
    };
}

pages! {
    backing_up: "backing-up.md",
    buckets: "buckets.md",
    checking: "checking.md",
    commands: "commands.md",
    configuration: "configuration.md",
    copies: "copies.md",
    excludes: "excludes.md",
    getting_started: "getting-started.md",
    keys: "keys.md",
    leaving: "leaving.md",
    looking_inside: "looking-inside.md",
    losing_a_place: "losing-a-place.md",
    other_machines: "other-machines.md",
    contents: "README.md",
    postgresql: "postgresql.md",
    pruning: "pruning.md",
    repairing: "repairing.md",
    restoring: "restoring.md",
    retention: "retention.md",
    sqlite: "sqlite.md",
    status: "status.md",
    troubleshooting: "troubleshooting.md",
}

#[test]
fn every_page_of_the_manual_is_run() {
    let there: BTreeSet<String> = manual().into_iter().map(|(name, _)| name).collect();
    let run: BTreeSet<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    assert_eq!(there, run);
}

#[test]
fn the_manual_tells_every_command_and_option_and_makes_none_up() {
    let known = Words::of_program();
    let text: String = manual().into_iter().map(|(_, text)| text).collect();
    for command in &known.commands {
        assert!(text.contains(&format!("lastgood {command}")), "the manual never says `lastgood {command}`");
    }
    let told: BTreeSet<String> = options_in(&text);
    for option in &known.options {
        assert!(told.contains(option), "the manual never says {option}");
    }
    for option in &told {
        let is_foreign = FOREIGN_OPTIONS.contains(&option.as_str());
        assert!(known.options.contains(option) || is_foreign, "the manual says {option}, which does not exist");
    }
    for option in FOREIGN_OPTIONS {
        assert!(told.contains(*option), "the manual says {option} no more");
    }
}

/// Options of other programs that the manual speaks of.
const FOREIGN_OPTIONS: &[&str] = &[
    "--format",
    "--group-by",
    "--keep-last",
    "--password-file",
    "--prune",
    "--read-data",
    "--single-transaction",
    "--target",
];

#[test]
fn every_relative_link_leads_somewhere() {
    let root = root();
    let mut broken = Vec::new();
    for page in documents(&root) {
        let text = fs_err::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let leads = target.exists()
                && (heading.is_empty() || headings(&fs_err::read_to_string(&target).unwrap()).contains(heading));
            if !leads {
                broken.push(format!("{}: {link}", page.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "links to nowhere:\n{}", broken.join("\n"));
}

fn root() -> PathBuf {
    fs_err::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// The manual's pages by name.
fn manual() -> Vec<(String, String)> {
    let entries = fs_err::read_dir(root().join("docs/manual")).unwrap();
    let mut pages: Vec<(String, String)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs_err::read_to_string(&path).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

/// A piece of a page to be run, and what it must say.
struct Example {
    line: usize,
    script: String,
    exit: i32,
    output: Vec<String>,
}

fn examples(page: &str, text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(mark) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line.get(indent.min(line.len())..).unwrap_or_default())
            .take_while(|line| !line.starts_with("```"))
            .collect();
        match mark.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["sh"] => examples.push(Example { line: number + 1, script: body.join("\n"), exit: 0, output: Vec::new() }),
            ["sh", exit] => {
                let exit = exit.strip_prefix("exit=").and_then(|code| code.parse().ok());
                let exit = exit.unwrap_or_else(|| panic!("{page}:{}: not a mark: {mark}", number + 1));
                examples.push(Example { line: number + 1, script: body.join("\n"), exit, output: Vec::new() });
            }
            ["output"] => {
                let before = examples.last_mut().unwrap_or_else(|| panic!("{page}:{}: output of nothing", number + 1));
                before.output.extend(body.into_iter().map(str::to_owned));
            }
            ["console" | "text" | "toml" | "ini" | "json" | "gitignore"] => {}
            _ => panic!("{page}:{}: a block needs a mark: sh, output, console, text, toml, ini, json", number + 1),
        }
    }
    examples
}

fn run_page(page: &str) {
    let text = fs_err::read_to_string(root().join("docs/manual").join(page)).unwrap();
    let examples = examples(page, &text);
    let home = tempfile::tempdir().unwrap();
    // A reader's folder has a name of its own, which becomes the application's.
    let folder = home.path().join("shop");
    fs_err::create_dir(&folder).unwrap();
    let programs = programs(home.path());
    // A page that speaks of a server has one of its own, which the variables of PostgreSQL's programs name.
    let server = (page == SERVER_PAGE).then(|| PgServer::start(Version::V15));
    let mut variables = Vec::new();
    if let Some(server) = &server {
        for program in ["psql", "createdb"] {
            fs_err::os::unix::fs::symlink(server.bin(program), home.path().join("bin").join(program)).unwrap();
        }
        variables.extend([("PGHOST", "127.0.0.1".to_owned()), ("PGPORT", server.port().to_string())]);
        variables.extend([("PGUSER", SUPERUSER.to_owned()), ("PGPASSWORD", PASSWORD.to_owned())]);
    }
    let bucket = (page == BUCKET_PAGE).then(S3Server::start);
    if let Some(bucket) = &bucket {
        variables.extend([("BUCKET", bucket.url("shop"))]);
        // The server keeps objects as files, which restic reads as it would read them through the server.
        variables.extend([("RESTIC_BUCKET", bucket.bucket().join("shop").display().to_string())]);
        variables.extend([("AWS_ACCESS_KEY_ID", S3Server::KEY_ID.to_owned())]);
        variables.extend([("AWS_SECRET_ACCESS_KEY", S3Server::SECRET.to_owned())]);
    }
    let options = RestOptions { append_only: false, login: Some(("shop", "secret")) };
    let remote = (page == REMOTE_PAGE).then(|| (Sshd::start(), RestServer::in_memory(options)));
    if let Some((sshd, rest)) = &remote {
        variables.extend([("USER", sshd.user().to_owned()), ("PORT", sshd.port().to_string())]);
        variables.extend([("CLIENT_KEY", sshd.client_key().display().to_string())]);
        variables.extend([("FAR", home.path().join("far").display().to_string())]);
        variables.extend([("REST_PORT", rest.port().to_string())]);
    }
    for example in examples {
        let mut said = tempfile::tempfile().unwrap();
        let status = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &example.script])
            .current_dir(&folder)
            .env_clear()
            .env("PATH", &programs)
            .env("HOME", home.path())
            .env("LC_ALL", "C.UTF-8")
            .envs(variables.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said.try_clone().unwrap())
            .status()
            .unwrap();
        let mut output = Vec::new();
        said.rewind().unwrap();
        said.read_to_end(&mut output).unwrap();
        let output = String::from_utf8_lossy(&output);
        let place = format!("docs/manual/{page}:{}", example.line);
        assert_eq!(status.code(), Some(example.exit), "{place}:\n{}\n--- said\n{output}", example.script);
        let mut lines = output.lines();
        for want in &example.output {
            let found = lines.by_ref().any(|line| fits(want.trim(), line.trim()));
            assert!(found, "{place}: nobody said {want:?} (in this order):\n{}\n--- said\n{output}", example.script);
        }
    }
}

/// A search path with the program, and those of others that the manual speaks of, before the system's.
fn programs(home: &Path) -> std::ffi::OsString {
    let bin = home.join("bin");
    fs_err::create_dir(&bin).unwrap();
    for (name, path) in [
        ("lastgood", PathBuf::from(PROGRAM)),
        ("restic", tools::restic()),
        ("rustic", tools::rustic()),
        ("sqlite3", tools::sqlite3()),
    ] {
        fs_err::os::unix::fs::symlink(path, bin.join(name)).unwrap();
    }
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&rest))).unwrap()
}

/// Whether a line is as shown; `…` stands for anything, and runs of blanks for one.
fn fits(want: &str, line: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (want, line) = (plain(want), plain(line));
    let pieces: Vec<&str> = want.split('…').map(str::trim).collect();
    let [first, middle @ .., last] = pieces.as_slice() else { return want == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// The program's own words, from its help.
#[derive(Default)]
struct Words {
    commands: BTreeSet<String>,
    options: BTreeSet<String>,
}

impl Words {
    fn of_program() -> Self {
        let mut words = Self::default();
        words.add(&[]);
        words
    }

    fn add(&mut self, command: &[&str]) {
        let output = Command::new(PROGRAM).args(command).arg("--help").output().unwrap();
        assert!(output.status.success(), "help of {command:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        let mut in_commands = false;
        for line in help.lines() {
            if !line.starts_with(' ') {
                in_commands = line == "Commands:";
            } else if in_commands && line.starts_with("  ") && !line.starts_with("   ") {
                let name = line.split_whitespace().next().unwrap();
                if name != "help" {
                    let whole: Vec<&str> = command.iter().copied().chain([name]).collect();
                    self.commands.insert(whole.join(" "));
                    self.add(&whole);
                }
            } else if line.trim_start().starts_with('-') {
                // What begins with a dash is an option; what it says of itself comes after two blanks.
                let names = line.trim_start().split("  ").next().unwrap();
                self.options.extend(options_in(names));
            }
            if let Some((_, aliases)) = line.split_once("[alias: ") {
                self.options.extend(options_in(aliases));
            }
        }
    }
}

/// Every `--word`.
fn options_in(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c == '-';
    let begins = text.match_indices("--").filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || matches!(c, '`' | '(' | '[' | '"'))
    });
    let words = begins.map(|(at, _)| text[at..].split(|c| !is_word(c)).next().unwrap_or_default());
    words.filter(|word| word[2..].starts_with(|c: char| c.is_ascii_lowercase())).map(str::to_owned).collect()
}

/// Every Markdown file that belongs to the project.
fn documents(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["docs", "changelog"].iter().map(|name| root.join(name)).collect();
    let mut found = Vec::new();
    let mut look = |folder: &Path, folders: Option<&mut Vec<PathBuf>>| {
        let mut below = Vec::new();
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
        if let Some(folders) = folders {
            folders.extend(below);
        }
    };
    look(root, None);
    while let Some(folder) = folders.pop() {
        look(&folder, Some(&mut folders));
    }
    found
}

/// Targets of links outside of blocks.
fn links(text: &str) -> Vec<String> {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose.match_indices("](").filter_map(|(at, _)| prose[at + 2..].split(')').next()).map(str::to_owned).collect()
}

/// The names by which headings are linked to.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles
        .map(|title| {
            let kept = title.to_lowercase();
            kept.chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[test]
fn what_these_tests_rely_on_holds() {
    assert!(fits("Sound: … packs, …", "Sound: 1 recovery point, 2 packs, 13 blobs"));
    assert!(fits("a  b", "a b") && !fits("a", "ab") && !fits("a … b", "a c"));
    assert_eq!(Vec::from_iter(options_in("`--to DIR`, x--no, [--key-file F] -- cmd")), ["--key-file", "--to"]);
    assert_eq!(links("[a](b.md#c) `x`\n```\n[no](way)\n```\n"), ["b.md#c"]);
    assert!(headings("## What is checked, when reading\n").contains("what-is-checked-when-reading"));
    let text = "```sh exit=3\nfalse\n```\n\n```output\none\n```\n";
    let [example] = examples("x", text).try_into().ok().unwrap();
    assert_eq!((example.exit, example.script.as_str(), example.output.len()), (3, "false", 1));
}
