//! lastgood.
fn main() {}
