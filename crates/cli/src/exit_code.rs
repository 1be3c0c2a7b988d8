//! Exit codes: the whole list, in one place. `docs/exit-codes.md` says the same for scripts; a test keeps them equal.

use lastgood_model::ErrorKind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Done, with nothing to report.
    Ok = 0,
    /// It failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line or the config cannot be used. Nothing was done.
    Usage = 2,
    /// Finished with problems: the recovery point is incomplete, or some entries were not restored as they were.
    Problems = 3,
    /// Refused before anything was changed.
    Refused = 4,
    /// Damage was found: a check, a verification or a proof failed, or a restore met damaged data.
    Damage = 5,
    /// Something is missing that the policy asks for.
    Policy = 6,
    /// There is no repository at that place.
    NoRepository = 10,
    /// Another process holds a lock that excludes this.
    Locked = 11,
    /// The key does not open this repository, or there is no key.
    WrongKey = 12,
    /// The store or database could not be reached; the same command may succeed later.
    Retry = 13,
    /// There is no such recovery point or path.
    Absent = 14,
    /// Permission was denied.
    Denied = 15,
    /// Stopped by a signal.
    Interrupted = 130,
}

impl ExitCode {
    /// Every code, with what it means.
    #[cfg(test)]
    pub(crate) const ALL: [(Self, &str); 14] = [
        (Self::Ok, "done"),
        (Self::Failed, "failed"),
        (Self::Usage, "usage or config"),
        (Self::Problems, "finished with problems"),
        (Self::Refused, "refused before anything changed"),
        (Self::Damage, "damage found"),
        (Self::Policy, "policy not met"),
        (Self::NoRepository, "no repository"),
        (Self::Locked, "locked"),
        (Self::WrongKey, "wrong key"),
        (Self::Retry, "unreachable, safe to retry"),
        (Self::Absent, "no such recovery point or path"),
        (Self::Denied, "denied"),
        (Self::Interrupted, "interrupted"),
    ];

    /// The number the shell sees.
    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    /// The worse of two endings, for a command that did several things: damage before problems before anything else.
    pub(crate) fn or(self, other: Self) -> Self {
        fn rank(code: ExitCode) -> u8 {
            match code {
                ExitCode::Ok => 0,
                ExitCode::Interrupted => 255,
                ExitCode::Damage => 200,
                ExitCode::Problems => 1,
                code => 100 - code.number(),
            }
        }
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<ErrorKind> for ExitCode {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Conflict => Self::Refused,
            ErrorKind::Corrupt => Self::Damage,
            ErrorKind::NoRepository => Self::NoRepository,
            ErrorKind::Locked => Self::Locked,
            ErrorKind::WrongKey => Self::WrongKey,
            ErrorKind::Retry => Self::Retry,
            ErrorKind::Absent => Self::Absent,
            ErrorKind::Denied | ErrorKind::Held => Self::Denied,
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_for_scripts_lists_every_code() {
        let page = include_str!("../../../docs/exit-codes.md");
        for (code, meaning) in ExitCode::ALL {
            let row = format!("| {} | {meaning}", code.number());
            assert!(page.contains(&row), "docs/exit-codes.md has no row beginning {row:?}");
        }
    }

    #[test]
    fn of_several_endings_the_worst_is_told() {
        use ExitCode::*;
        assert_eq!(Ok.or(Problems), Problems);
        assert_eq!(Problems.or(Failed), Failed);
        assert_eq!(Damage.or(Failed), Damage);
        assert_eq!(Interrupted.or(Damage), Interrupted);
    }
}
