//! Putting a restored database in the place of the old one.
//!
//! Invariants, whatever moment it is interrupted at:
//! - the new file stands under the database's name only when no log or journal of the old one stands beside it (SQLite
//!   would play those into it and damage it)
//! - before anything of the old set is taken away from its name, the whole old set (file, log, journal) exists under
//!   names that belong together, so that it opens as a database with every commit it had
//!
//! The order that keeps them: hard links of the old set are made under new names (`shop.db.before-…`, with `-wal` and
//! `-journal` appended), that of the database itself last, and made durable; where the name is found, the set is whole. Where nothing lies beside the old file, the new one is then renamed over it: at
//! every moment there is a whole database under the name. Where a log or journal lies there (its application crashed), the
//! old name is removed first, then its sidecars, then the new file is renamed in. Interrupted within those last
//! steps there is no database under the name; planning again finishes the swap, or the kept set can be renamed back.
//!
//! Nobody may use the old file meanwhile. That is tried from two sides: no process may have it open, and a POSIX lock on
//! the whole file, which every lock of SQLite conflicts with, is held during the swap. It is taken on the file and not
//! through a SQLite connection, since SQLite would recover or checkpoint the old database on the way, and could not
//! open a damaged one at all.

use super::aside;
use super::guest::sidecar;
use super::users::{self, User};
use super::verify::{self, VerifyReport};
use super::{Facts, Users};
use crate::held::{self, Descriptor};
use lastgood_model::{Context, Error, ErrorKind, Result, Time};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What lies beside a database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// How often a lock that somebody holds is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// How a swap is done.
#[derive(Clone, Debug)]
pub struct SwapOptions {
    /// Compare the new file with these before anything is touched.
    pub facts: Option<Facts>,
    /// Go on although processes have the database open. They keep the old file under its new name; SQLite refuses their
    /// further writes where it notices, and they must be restarted.
    pub force: bool,
    /// Go on although the new file is damaged or differs from the facts.
    pub accept_damaged: bool,
    /// How long to wait for a short transaction of somebody.
    pub busy_timeout: Duration,
    /// The moment that names the old set; now when not given.
    pub now: Option<Time>,
}

impl Default for SwapOptions {
    fn default() -> Self {
        Self { facts: None, force: false, accept_damaged: false, busy_timeout: Duration::from_secs(5), now: None }
    }
}

/// One step of a swap, in words by its `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Copies the new file beside the destination, because it lies on another file system.
    CopyBeside {
        /// The new file.
        from: PathBuf,
        /// Its copy.
        to: PathBuf,
    },
    /// Gives the new file the owner and mode of the old one.
    TakeAccess {
        /// The old database.
        from: PathBuf,
        /// The new file.
        to: PathBuf,
    },
    /// Makes the new file's content durable.
    Sync(PathBuf),
    /// Gives an old file a second name; where the file system has no links, makes a copy of that name.
    Keep {
        /// The old name.
        from: PathBuf,
        /// The name it is kept under.
        to: PathBuf,
    },
    /// Makes the names in a folder durable.
    SyncFolder(PathBuf),
    /// Takes away an old name; the file was kept under another.
    Remove(PathBuf),
    /// Renames the new file to the database's name.
    Put {
        /// The new file.
        from: PathBuf,
        /// The database.
        to: PathBuf,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CopyBeside { from, to } => write!(f, "copy {} to {}", from.display(), to.display()),
            Self::TakeAccess { from, to } => {
                write!(f, "give {} the owner and mode of {}", to.display(), from.display())
            }
            Self::Sync(file) => write!(f, "make {} durable", file.display()),
            Self::Keep { from, to } => write!(f, "keep {} as {}", from.display(), to.display()),
            Self::SyncFolder(folder) => write!(f, "make the names in {} durable", folder.display()),
            Self::Remove(file) => write!(f, "remove the name {}", file.display()),
            Self::Put { from, to } => write!(f, "rename {} to {}", from.display(), to.display()),
        }
    }
}

/// A swap that can be shown and then done. It was checked when it was made; what can change since is checked again.
#[derive(Clone, Debug)]
pub struct SwapPlan {
    /// The database's place.
    pub destination: PathBuf,
    /// What will be done, in order.
    pub steps: Vec<Step>,
    /// Where the old set will be kept, the database first.
    pub kept: Vec<PathBuf>,
    /// What was found in the new file.
    pub verified: VerifyReport,
    /// Who has the old database open.
    pub users: Users,
    options: SwapOptions,
}

impl fmt::Display for SwapPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the new file: {}", self.verified.summary())?;
        for user in &self.users.found {
            writeln!(f, "in use by {user}")?;
        }
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "{}. {step}", i + 1)?;
        }
        if let Some(kept) = self.kept.first() {
            writeln!(
                f,
                "should this be interrupted, the old database is whole as {}; swap again to finish",
                kept.display()
            )?;
        }
        Ok(())
    }
}

/// A finished swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapReport {
    /// The database, now the new file.
    pub destination: PathBuf,
    /// The old set, the database first; empty when there was none.
    pub kept: Vec<PathBuf>,
    /// What was found in the new file before it was put in place.
    pub verified: VerifyReport,
    /// Things that should be known: processes that still use the old file, access that could not be taken over.
    pub warnings: Vec<String>,
}

/// Plans and does the replacement of the database at `destination` by `new_file`, with default options.
pub fn swap_in(new_file: &Path, destination: &Path) -> Result<SwapReport> {
    plan_swap(new_file, destination, SwapOptions::default())?.execute()
}

/// Checks `new_file` and plans its way to `destination`. Changes nothing.
pub fn plan_swap(new_file: &Path, destination: &Path, options: SwapOptions) -> Result<SwapPlan> {
    let act = || format!("replace {}", destination.display());
    let new_meta = fs_err::metadata(new_file).with_context(act)?;
    if !new_meta.is_file() {
        return Err(Error::invalid(format!("{} is not a file", new_file.display())));
    }
    let (destination, old_meta) = real_destination(destination)?;
    if old_meta.as_ref().is_some_and(|m| (m.dev(), m.ino()) == (new_meta.dev(), new_meta.ino())) {
        return Err(Error::invalid(format!("{} is the database itself", new_file.display())));
    }
    let verified = verify::examine(new_file, options.facts.as_ref(), &|| false).with_context(act)?;
    if !verified.is_ok() && !options.accept_damaged {
        return Err(Error::corrupt(act())
            .with_source(format!("{} is not what was captured: {}", new_file.display(), verified.summary()))
            .with_hint("nothing was changed; restore another recovery point, or accept the damage explicitly"));
    }

    let folder = destination.parent().unwrap_or(Path::new("/")).to_owned();
    let beside: Vec<PathBuf> =
        SIDECARS.iter().map(|suffix| sidecar(&destination, suffix)).filter(|file| exists(file)).collect();
    let kept_base = free_name(&destination, options.now.unwrap_or_else(now));
    let mut steps = Vec::new();
    let mut kept = Vec::new();

    let folder_device = fs_err::metadata(&folder).with_context(act)?.dev();
    let incoming = if new_meta.dev() == folder_device {
        new_file.to_owned()
    } else {
        let beside = sidecar(&kept_base, ".incoming");
        steps.push(Step::CopyBeside { from: new_file.to_owned(), to: beside.clone() });
        beside
    };
    if old_meta.is_some() {
        steps.push(Step::TakeAccess { from: destination.clone(), to: incoming.clone() });
    }
    steps.push(Step::Sync(incoming.clone()));
    // The database's own name last: where it is found, the set is whole.
    for file in &beside {
        let suffix = SIDECARS.iter().find(|suffix| sidecar(&destination, suffix) == *file).copied().unwrap_or_default();
        let to = sidecar(&kept_base, suffix);
        kept.push(to.clone());
        steps.push(Step::Keep { from: file.clone(), to });
    }
    if old_meta.is_some() {
        kept.insert(0, kept_base.clone());
        steps.push(Step::Keep { from: destination.clone(), to: kept_base });
    }
    if !kept.is_empty() {
        steps.push(Step::SyncFolder(folder.clone()));
    }
    if !beside.is_empty() {
        if old_meta.is_some() {
            steps.push(Step::Remove(destination.clone()));
        }
        steps.extend(beside.into_iter().map(Step::Remove));
        steps.push(Step::SyncFolder(folder.clone()));
    }
    steps.push(Step::Put { from: incoming, to: destination.clone() });
    steps.push(Step::SyncFolder(folder));
    let users = users::of(&destination);
    Ok(SwapPlan { destination, steps, kept, verified, users, options })
}

impl SwapPlan {
    /// Does it. Fails with [`ErrorKind::Locked`] before anything is changed when somebody uses the old database, unless
    /// forced; with [`ErrorKind::Conflict`] when files came or went since the plan was made.
    pub fn execute(self) -> Result<SwapReport> {
        let act = format!("replace {}", self.destination.display());
        let users = users::of(&self.destination);
        if !users.found.is_empty() && !self.options.force {
            return Err(in_use(&self.destination, &users.found).context(act));
        }
        let old_keys: Vec<(u64, u64)> =
            fs_err::metadata(&self.destination).map(|m| (m.dev(), m.ino())).into_iter().collect();
        // Copying the old file closes a descriptor on it, which must not drop the lock taken next.
        let holds: Vec<_> = old_keys.iter().map(|(device, inode)| held::hold(*device, *inode)).collect();
        let lock = lock_out(&self.destination, &self.options).map_err(|e| e.context(act.clone()))?;
        let mut warnings = Vec::new();
        if lock.is_none() && exists(&self.destination) {
            warnings.push("the old database could not be locked; it was replaced all the same, as asked".to_owned());
        }
        self.still_holds().map_err(|e| e.context(act.clone()))?;
        for step in &self.steps {
            step.run(&mut warnings).map_err(|e| self.explain_failure(e).context(act.clone()))?;
        }
        drop(lock);
        drop(holds);

        let late = users::by_inode(&old_keys).found;
        if !late.is_empty() {
            warnings.push(format!("{} still use the old database: restart them now", list(&late)));
        }
        match users.hidden {
            Some(0) => {}
            Some(n) => warnings.push(format!("{n} processes of other users could not be looked into")),
            None => warnings.push("this system does not tell who has files open".to_owned()),
        }
        Ok(SwapReport { destination: self.destination, kept: self.kept, verified: self.verified, warnings })
    }

    /// Does only the first `count` steps, without lock and checks, to show what an interruption leaves. For tests.
    #[doc(hidden)]
    pub fn execute_steps(&self, count: usize) -> Result<()> {
        self.steps.iter().take(count).try_for_each(|step| step.run(&mut Vec::new()))
    }

    /// Fails when what lies at the destination is not what the plan was made for.
    fn still_holds(&self) -> Result<()> {
        let planned = |file: &Path| self.steps.iter().any(|s| matches!(s, Step::Keep { from, .. } if from == file));
        let changed =
            |what: String| Error::new(ErrorKind::Conflict, what).with_hint("nothing was changed; make the plan again");
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let file = sidecar(&self.destination, suffix);
            match (planned(&file), exists(&file)) {
                (true, false) => return Err(changed(format!("{} is gone since the plan was made", file.display()))),
                (false, true) => return Err(changed(format!("{} came since the plan was made", file.display()))),
                _ => {}
            }
        }
        match self.kept.iter().find(|file| exists(file)) {
            Some(file) => Err(changed(format!("{} came since the plan was made", file.display()))),
            None => Ok(()),
        }
    }

    fn explain_failure(&self, error: Error) -> Error {
        match self.kept.iter().find(|file| exists(file)) {
            Some(kept) if !exists(&self.destination) => error.with_hint(format!(
                "the old database is whole as {}; repair the cause and swap again, or rename it back together with its \
                 -wal and -journal",
                kept.display()
            )),
            _ => error.with_hint(format!("{} is still the old database", self.destination.display())),
        }
    }
}

impl Step {
    fn run(&self, warnings: &mut Vec<String>) -> Result<()> {
        let act = || self.to_string();
        match self {
            Self::CopyBeside { from, to } => fs_err::copy(from, to).with_context(act).map(drop),
            Self::TakeAccess { from, to } => {
                let meta = fs_err::metadata(from).with_context(act)?;
                let now = fs_err::metadata(to).with_context(act)?;
                // The owner first: changing it clears some mode bits.
                let (is, was) = ((now.uid(), now.gid()), (meta.uid(), meta.gid()));
                if is != was
                    && let Err(e) = std::os::unix::fs::chown(to, Some(was.0), Some(was.1))
                {
                    let text = format!("the new database belongs to {}:{} and not to {}:{}", is.0, is.1, was.0, was.1);
                    warnings.push(format!("{text} as the old one did: {e}"));
                }
                let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777);
                fs_err::set_permissions(to, mode).with_context(act)
            }
            Self::Sync(file) => fs_err::File::open(file).and_then(|f| f.sync_all()).with_context(act),
            Self::SyncFolder(folder) => fs_err::File::open(folder).and_then(|f| f.sync_all()).with_context(act),
            Self::Keep { from, to } => match fs_err::hard_link(from, to) {
                Ok(()) => Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(e).with_context(act),
                // A file system without links, or one that forbids them.
                Err(_) => keep_copy(from, to).map_err(|e| e.context(act())),
            },
            Self::Remove(file) => match fs_err::remove_file(file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(act),
                _ => Ok(()),
            },
            Self::Put { from, to } => fs_err::rename(from, to).with_context(act),
        }
    }
}

/// A durable copy with the original's mode, and its owner where that is allowed.
fn keep_copy(from: &Path, to: &Path) -> Result<()> {
    let act = || format!("copy {}", from.display());
    aside::copy_file(from, to)?;
    let meta = fs_err::metadata(from).with_context(act)?;
    // Only root may give files away; a copy owned by whoever swaps still opens for them.
    let _ = std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid()));
    let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777);
    fs_err::set_permissions(to, mode).with_context(act)?;
    fs_err::File::open(to).and_then(|f| f.sync_all()).with_context(act)
}

/// The place SQLite would use for this path: links are followed, for the sidecars lie beside the real file.
fn real_destination(destination: &Path) -> Result<(PathBuf, Option<std::fs::Metadata>)> {
    let act = || format!("replace {}", destination.display());
    match fs_err::canonicalize(destination) {
        Ok(real) => {
            let meta = fs_err::metadata(&real).with_context(act)?;
            if !meta.is_file() {
                return Err(Error::invalid(format!("{} is not a database file", destination.display())));
            }
            Ok((real, Some(meta)))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let name = destination.file_name().ok_or_else(|| Error::invalid(act()))?;
            let folder = destination.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok((fs_err::canonicalize(folder).with_context(act)?.join(name), None))
        }
        Err(e) => Err(e).with_context(act),
    }
}

/// A lock on the whole old file; `None` when there is no file, or when the lock was refused and force is on.
fn lock_out(destination: &Path, options: &SwapOptions) -> Result<Option<Descriptor>> {
    let act = || format!("lock {}", destination.display());
    let fd = match rustix::fs::open(destination, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Descriptor::new(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(_) if options.force => return Ok(None),
        Err(e) => return Err(Error::io(act(), e.into())),
    };
    let begun = Instant::now();
    loop {
        match rustix::fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(fd)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) if begun.elapsed() < options.busy_timeout => {
                std::thread::sleep(LOCK_RETRY);
            }
            Err(_) if options.force => return Ok(None),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                return Err(in_use(destination, &users::of(destination).found));
            }
            Err(e) => return Err(Error::io(act(), e.into())),
        }
    }
}

fn in_use(destination: &Path, users: &[User]) -> Error {
    let who = if users.is_empty() { "another program".to_owned() } else { list(users) };
    Error::new(ErrorKind::Locked, format!("{} is in use by {who}", destination.display()))
        .with_hint("nothing was changed; stop the application first, or force the swap and restart it at once")
}

fn list(users: &[User]) -> String {
    users.iter().map(User::to_string).collect::<Vec<_>>().join(", ")
}

/// `<database>.before-<time>`, with a number when that is taken.
fn free_name(destination: &Path, now: Time) -> PathBuf {
    let time: String = Time::new(now.secs, 0).to_string().chars().filter(|c| !matches!(c, '-' | ':')).collect();
    let taken = |base: &Path| {
        exists(base) || SIDECARS.iter().chain(&[".incoming"]).any(|suffix| exists(&sidecar(base, suffix)))
    };
    let mut base = sidecar(destination, &format!(".before-{time}"));
    let mut number = 1;
    while taken(&base) {
        number += 1;
        base = sidecar(destination, &format!(".before-{time}-{number}"));
    }
    base
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), 0)
}

fn exists(file: &Path) -> bool {
    fs_err::symlink_metadata(file).is_ok()
}
