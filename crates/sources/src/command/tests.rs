//! What becomes of the stream, tried with real commands.

use super::*;
use lastgood_model::Node;
use lastgood_model::source::{Entry, TreeDir};
use std::sync::{Arc, Mutex};

/// What became of the one stream.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kept {
    bytes: Vec<u8>,
    finished: Option<String>,
    dropped: bool,
}

#[derive(Default)]
struct MemorySink {
    kept: Arc<Mutex<Kept>>,
    fail_after_bytes: Option<usize>,
    cancel_on_write: Option<Arc<Monitor>>,
}

struct Writer {
    kept: Arc<Mutex<Kept>>,
    fail_after_bytes: Option<usize>,
    cancel_on_write: Option<Arc<Monitor>>,
}

impl Sink for MemorySink {
    fn stream(&self, spec: StreamSpec) -> Result<Box<dyn StreamWriter>> {
        assert_eq!(spec.path, b"out.txt");
        assert_eq!(spec.mode, 0o600);
        Ok(Box::new(Writer {
            kept: self.kept.clone(),
            fail_after_bytes: self.fail_after_bytes,
            cancel_on_write: self.cancel_on_write.clone(),
        }))
    }
    fn tree(&self, _: &[u8], _: Node, _: Vec<Node>, _: Arc<dyn TreeDir>) -> Result<()> {
        panic!("a command has no tree")
    }
    fn entry(&self, _: &[u8], _: Entry, _: Vec<Node>, _: Arc<dyn TreeDir>) -> Result<()> {
        panic!("a command has no entry")
    }
}

impl StreamWriter for Writer {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let mut kept = self.kept.lock().unwrap();
        kept.bytes.extend_from_slice(data);
        if self.fail_after_bytes.is_some_and(|limit| kept.bytes.len() > limit) {
            return Err(Error::new(ErrorKind::NoSpace, "write pack"));
        }
        if let Some(monitor) = &self.cancel_on_write {
            monitor.cancel();
        }
        Ok(())
    }
    fn zeros(&mut self, length: u64) -> Result<()> {
        self.write(&vec![0; length as usize])
    }
    fn finish(self: Box<Self>, verdict: Verdict) -> Result<u64> {
        let mut kept = self.kept.lock().unwrap();
        kept.finished = Some(verdict.evidence);
        Ok(kept.bytes.len() as u64)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kept.lock().unwrap().dropped = true;
    }
}

fn sh(script: &str) -> CommandSource {
    CommandSource::new("dump", vec!["sh".into(), "-c".into(), script.into()], "out.txt")
}

fn capture(source: &CommandSource) -> (Result<Captured>, Kept) {
    let sink = MemorySink::default();
    let result = source.capture(&sink, &Monitor::new());
    let kept = sink.kept.lock().unwrap().clone();
    (result, kept)
}

#[test]
fn the_output_of_a_command_that_succeeded_is_kept_whole() {
    let (result, kept) = capture(&sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"));
    let want: String = (0..3000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(kept.bytes, want.as_bytes());
    assert_eq!(kept.finished.as_deref(), Some("exit status 0"));
    let facts = result.unwrap().facts;
    assert_eq!(facts["bytes"], want.len());
    assert_eq!(facts["empty"], false);
    assert!(!facts.contains_key("stderr"));
}

#[test]
fn a_failed_command_publishes_nothing_whatever_it_had_printed() {
    let (result, kept) = capture(&sh("echo almost all of it; echo disk on fire >&2; exit 3"));
    assert_eq!(kept.bytes, b"almost all of it\n");
    assert_eq!(kept.finished, None);
    assert!(kept.dropped);
    let error = result.unwrap_err();
    assert_eq!(error.chain(), "command \"sh\" ended with exit status 3: disk on fire");
}

#[test]
fn the_verdict_waits_for_the_process_and_not_for_the_end_of_its_output() {
    // Output is closed long before the command fails; a reader that trusts end of file would publish.
    let (result, kept) = capture(&sh("echo all; exec >&-; head -c 3000000 /dev/zero | cksum >/dev/null; exit 9"));
    assert!(result.unwrap_err().chain().contains("exit status 9"));
    assert_eq!(kept.finished, None);
}

#[test]
fn a_command_killed_by_a_signal_is_a_failure() {
    let (result, kept) = capture(&sh("echo half; kill -9 $$"));
    assert_eq!(result.unwrap_err().message(), "command \"sh\" was killed by signal 9");
    assert_eq!(kept.finished, None);
}

#[test]
fn empty_output_is_allowed_and_flagged() {
    let (result, kept) = capture(&sh("true"));
    assert_eq!(result.unwrap().facts["empty"], true);
    assert!(kept.finished.is_some());
}

#[test]
fn only_the_end_of_long_complaints_is_kept_and_they_never_block_the_command() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo \"warning number $i\" >&2; i=$((i+1)); done; printf '\\033[2J' >&2; exit 1";
    let (result, _) = capture(&sh(script));
    let chain = result.unwrap_err().chain();
    assert!(chain.contains("warning number 19999"));
    assert!(!chain.contains("warning number 100\n"));
    assert!(chain.len() < STDERR_KEPT_BYTES_MAX + 1000);
    assert!(!chain.contains('\u{1b}'), "control characters must not reach the terminal");
}

#[test]
fn complaints_of_a_command_that_succeeded_are_kept_as_a_fact() {
    let (result, kept) = capture(&sh("echo data; echo 'skipped one table' >&2"));
    assert_eq!(result.unwrap().facts["stderr"], "skipped one table");
    assert_eq!(kept.bytes, b"data\n");
}

#[test]
fn a_full_target_ends_the_command() {
    let sink = MemorySink { fail_after_bytes: Some(1_000_000), ..MemorySink::default() };
    let error = sh("yes").capture(&sink, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(sink.kept.lock().unwrap().finished, None);
}

/// The pid printed by a script, once nothing with that pid runs any more (a zombie does not run).
fn runs(pid: &str) -> bool {
    fs_stat(pid).is_some_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

fn fs_stat(pid: &str) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    let path = format!("/proc/{}/stat", pid.trim());
    let fd = rustix::fs::open(path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).ok()?;
    std::fs::File::from(fd).read_to_string(&mut text).ok()?;
    Some(text)
}

#[test]
fn a_wish_to_stop_ends_the_command_and_its_children() {
    let monitor = Arc::new(Monitor::new());
    let sink = MemorySink { cancel_on_write: Some(monitor.clone()), ..MemorySink::default() };
    // The child ignores the polite signal, the leader waits for it.
    let source = sh("(trap '' TERM; echo $$; exec sleep 1000) & echo $!; wait");
    let error = source.capture(&sink, &monitor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let kept = sink.kept.lock().unwrap().clone();
    assert_eq!(kept.finished, None);
    let text = String::from_utf8(kept.bytes).unwrap();
    let mut pids = text.lines();
    for pid in pids.by_ref() {
        // The kill has been sent; the kernel may take a moment to carry it out.
        while runs(pid) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_command_that_exceeds_its_time_is_ended_and_not_kept() {
    let mut source = sh("echo begun; echo stuck on a lock >&2; sleep 1000");
    source.timeout = Some(Duration::from_millis(300));
    let (result, kept) = capture(&source);
    let error = result.unwrap_err();
    assert!(error.message().contains("longer than its limit of 300ms"), "{error:?}");
    assert_eq!(kept.finished, None);
}

#[test]
fn output_left_to_a_child_in_the_background_is_waited_for() {
    let (result, kept) = capture(&sh("(head -c 2000000 /dev/zero | cksum; echo late) & exit 0"));
    result.unwrap();
    assert!(kept.bytes.ends_with(b"late\n"));
}

#[test]
fn environment_and_directory_are_as_configured_and_standard_input_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = sh("pwd; echo $SHOP; cat");
    source.cwd = Some(dir.path().canonicalize().unwrap());
    source.env = vec![("SHOP".into(), "kept $(apart)".into())];
    let (result, kept) = capture(&source);
    result.unwrap();
    let want = format!("{}\nkept $(apart)\n", source.cwd.unwrap().display());
    assert_eq!(String::from_utf8(kept.bytes).unwrap(), want);
}

#[test]
fn what_cannot_be_started_says_why_and_begins_no_finished_stream() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    rustix::fs::open(&plain, rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, rustix::fs::Mode::RUSR).unwrap();
    let cases: [(Vec<String>, Option<PathBuf>, ErrorKind); 5] = [
        (vec!["no-such-program-here".into()], None, ErrorKind::Absent),
        (vec![dir.path().join("gone").display().to_string()], None, ErrorKind::Absent),
        (vec![plain.display().to_string()], None, ErrorKind::Denied),
        (vec!["sh".into()], Some(dir.path().join("gone")), ErrorKind::Absent),
        (vec![], None, ErrorKind::Invalid),
    ];
    for (argv, cwd, kind) in cases {
        let mut source = CommandSource::new("dump", argv, "out.txt");
        source.cwd = cwd;
        let findings = source.probe().unwrap();
        assert_eq!(findings[0].level, FindingLevel::Failure, "{findings:?}");
        let (result, kept) = capture(&source);
        assert_eq!(result.unwrap_err().kind(), kind, "{findings:?}");
        assert_eq!(kept.finished, None);
    }
    assert_eq!(sh("true").probe().unwrap()[0].level, FindingLevel::Ok);
}

#[test]
fn a_file_name_that_could_leave_the_folder_is_refused() {
    for bad in ["", "..", "a/b"] {
        let mut source = sh("true");
        source.file_name = bad.into();
        let error = source.capture(&MemorySink::default(), &Monitor::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
    }
}
