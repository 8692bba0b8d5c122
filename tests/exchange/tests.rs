//! The exchange judges every client, so it is judged first.

mod client;
mod face;
mod faults;
mod grids;
mod market;
mod paging;
mod rules;
