//! Removing recovery points. What they alone needed stays until it is pruned.
