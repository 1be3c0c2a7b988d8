//! The capture half of the files source, through the seam the engine uses.

mod changes;
mod choice;
mod databases;
mod entries;
mod privileged;
mod speed;
mod walk;
