//! The password file: lines `host:port:database:user:password`, each of the first four possibly `*`, with `\` before a
//! `:` or `\` that is meant literally. Source: "The Password File" in PostgreSQL's documentation.

use rustix::fs::{Mode, OFlags};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A file larger than this is none of passwords.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What a password file says, or why nothing of it is used.
#[derive(Clone, Default)]
pub(super) struct Passfile {
    lines: Vec<[Zeroizing<String>; 5]>,
    /// Why the file was passed over; for a hint once a server asks for a password.
    pub(super) note: Option<String>,
}

impl Passfile {
    /// Reads the file. A missing one says nothing; one that others may read is not used, as PostgreSQL has it.
    pub(super) fn read(path: &Path) -> Self {
        let note = |why: String| Self { lines: Vec::new(), note: Some(why) };
        // Not blocking: somebody may have put a pipe there.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => fs_err::File::from_parts(fd.into(), PathBuf::from(path)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Self::default(),
            Err(errno) => return note(format!("password file {} cannot be opened: {errno}", path.display())),
        };
        match file.metadata() {
            Ok(facts) if !facts.is_file() => {
                return note(format!("password file {} is no plain file and was not used", path.display()));
            }
            Ok(facts) if facts.permissions().mode() & 0o077 != 0 => {
                return note(format!(
                    "password file {0} can be read by others and was not used: `chmod 0600 {0}`",
                    path.display()
                ));
            }
            Ok(_) => {}
            Err(error) => return note(error.to_string()),
        }
        let mut text = Zeroizing::new(Vec::new());
        if let Err(error) = file.take(FILE_BYTES_MAX).read_to_end(&mut text) {
            return note(error.to_string());
        }
        Self { lines: text.split(|&byte| byte == b'\n').filter_map(line).collect(), note: None }
    }

    /// The password of the first line that fits. `host` is `localhost` for the default socket.
    pub(super) fn find(&self, host: &str, port: u16, database: &str, user: &str) -> Option<&str> {
        let port = port.to_string();
        let wanted = [host, &port, database, user];
        let fits = |line: &&[Zeroizing<String>; 5]| {
            line.iter().zip(wanted).all(|(pattern, value)| **pattern == "*" || unescape(pattern).as_str() == value)
        };
        // An unescaped pattern is compared, so the password is the only field that was unescaped on reading.
        self.lines.iter().find(fits).map(|line| line[4].as_str()).filter(|password| !password.is_empty())
    }
}

/// Cuts a line at its first four unescaped colons; the password is unescaped, the others stay as written, because `\*`
/// is a star and `*` is everything.
fn line(bytes: &[u8]) -> Option<[Zeroizing<String>; 5]> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\r');
    if text.starts_with('#') {
        return None;
    }
    let mut fields: [Zeroizing<String>; 5] = Default::default();
    let mut at = 0;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ':' if at == 4 => break,
            ':' => at += 1,
            '\\' => {
                let next = letters.next();
                if at < 4 || next.is_none() {
                    fields[at].push('\\');
                }
                fields[at].extend(next);
            }
            _ => fields[at].push(letter),
        }
    }
    (at == 4).then_some(fields)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            _ => out.push(letter),
        }
    }
    out
}
