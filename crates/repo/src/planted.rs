//! Mistakes that can be planted on purpose.
//!
//! The campaigns that try the engine's crashes and races (`cargo xtask proof crash`, `races`) must find each of these, so
//! that finding nothing means something. They can be planted only where the feature `planted-bugs` was asked for, which nothing that
//! is shipped does; elsewhere `Repository::has` is `false` for the compiler, too.

use crate::repository::Repository;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Packs are removed although the list of doomed packs was not published.
    DeleteBeforePublishing,
    /// The sweep does not follow recovery points that came since the mark.
    IgnoreNewSnapshots,
    /// A list that may be stale is taken for the truth.
    TrustStaleLists,
    /// A lock is judged by its age alone: whoever holds one never looks whether it is still there.
    LocksByAgeAlone,
    /// Old index files are removed before the new one is durable.
    OldIndexFirst,
    /// The snapshot is written before the packs' names are durable.
    SnapshotBeforePacks,
    /// A list that an earlier run left is carried out without looking again.
    ResumeBlindly,
    /// Writers do not ask which packs are doomed.
    IgnoreDoomed,
    /// Packs are removed while index files still name them.
    PacksFirst,
    /// Packs are removed before the removal of index files that name them is durable.
    PacksBeforeSync,
}

impl Planted {
    /// All of them, with the names by which they are asked for.
    pub const ALL: [(&'static str, Self); 10] = [
        ("delete-before-publishing", Self::DeleteBeforePublishing),
        ("ignore-new-snapshots", Self::IgnoreNewSnapshots),
        ("trust-stale-lists", Self::TrustStaleLists),
        ("locks-by-age-alone", Self::LocksByAgeAlone),
        ("old-index-first", Self::OldIndexFirst),
        ("snapshot-before-packs", Self::SnapshotBeforePacks),
        ("resume-blindly", Self::ResumeBlindly),
        ("ignore-doomed", Self::IgnoreDoomed),
        ("packs-first", Self::PacksFirst),
        ("packs-before-sync", Self::PacksBeforeSync),
    ];
}

impl Repository {
    /// Whether this mistake is to be made.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has(&self, mistake: Planted) -> bool {
        self.options.planted == Some(mistake)
    }

    /// No mistake is made on purpose.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) const fn has(&self, _: Planted) -> bool {
        false
    }

    /// The name of the host that works on it.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn hostname(&self) -> String {
        self.options.host.clone().unwrap_or_else(crate::lock::hostname)
    }

    /// This host's name.
    #[cfg(not(feature = "planted-bugs"))]
    pub(crate) fn hostname(&self) -> String {
        crate::lock::hostname()
    }
}

#[cfg(feature = "planted-bugs")]
impl Repository {
    /// What a lock says; for the campaigns' stranger, which keeps restic's protocol by itself.
    pub fn lock_file(&self, id: lastgood_model::Id) -> lastgood_model::Result<crate::format::LockFile> {
        crate::format::LockFile::decode(&self.get_unpacked(lastgood_model::store::ObjectKind::Lock, id)?)
    }
}
