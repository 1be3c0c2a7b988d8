//! Real servers, and servers that lie.

mod copy;
mod hostile;
mod server;
mod session;
mod tls;
