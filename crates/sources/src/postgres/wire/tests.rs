//! Real servers, and servers that lie.

mod copy;
mod hostile;
mod liveness;
mod server;
mod session;
mod tls;
