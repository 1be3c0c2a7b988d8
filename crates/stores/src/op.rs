//! The calls of a store by name.

use std::fmt;

/// One kind of call to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// `create`
    Create,
    /// `put`
    Put,
    /// `sync`
    Sync,
    /// `get`
    Get,
    /// `get_range`
    GetRange,
    /// `size`
    Size,
    /// `list`
    List,
    /// `remove`
    Remove,
    /// `sweep`
    Sweep,
    /// `put_side`
    PutSide,
    /// `get_side`
    GetSide,
    /// `list_side`
    ListSide,
    /// `remove_side`
    RemoveSide,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Put => "put",
            Self::Sync => "sync",
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::Size => "size",
            Self::List => "list",
            Self::Remove => "remove",
            Self::Sweep => "sweep",
            Self::PutSide => "put_side",
            Self::GetSide => "get_side",
            Self::ListSide => "list_side",
            Self::RemoveSide => "remove_side",
        })
    }
}
