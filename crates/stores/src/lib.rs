//! lastgood stores.
