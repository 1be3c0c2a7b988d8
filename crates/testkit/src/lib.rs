//! What tests share: the odd tree, its comparison, and the programs of others that judge what lastgood wrote. Only for
//! development; nothing that is shipped depends on it.

pub mod azurite;
pub mod compare;
pub mod garage;
pub mod line;
pub mod memory_sink;
pub mod postgres;
pub mod proxy;
pub mod rest_server;
pub mod restic;
pub mod rng;
pub mod rustic;
#[cfg(feature = "s3")]
pub mod s3;
mod server;
pub mod sim;
pub mod sshd;
pub mod store_suite;
pub mod tools;
pub mod tree_fixture;
