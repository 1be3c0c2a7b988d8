//! lastgood repo.
