//! What the deterministic campaigns share: a repository to begin with, verbs that are tiny and complete, a stranger that
//! behaves as restic does, and the oracle that knows what must be there.

pub(super) mod base;
pub(super) mod oracle;
pub(super) mod stranger;
pub(super) mod verbs;

pub(super) use base::Base;
pub(super) use oracle::Oracle;
pub(super) use verbs::Hand;
