//! The exchange judges every client, so it is judged first.

mod client;
mod control;
mod face;
mod faults;
mod grids;
mod market;
mod order;
mod paging;
mod plan;
mod pushes;
mod rules;
mod socket;
mod stream;
mod strikes;
