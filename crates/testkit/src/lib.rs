//! lastgood testkit.
