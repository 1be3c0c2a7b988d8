//! lastgood sources.
