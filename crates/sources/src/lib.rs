//! What lastgood can protect. Each module is one kind of source: it looks at a thing on this machine, captures it at one
//! consistent moment through [`lastgood_model::source::Source`], and can put it back. Sources know nothing of
//! repositories, stores or one another's business, with one exception told in [`files`]: a tree that holds a live SQLite
//! database has [`sqlite`] read it.

pub mod command;
pub mod files;
mod held;
pub mod postgres;
pub mod sqlite;
