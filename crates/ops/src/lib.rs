//! lastgood ops.
