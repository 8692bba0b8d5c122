//! What people and scripts touch.

mod args;
mod argv;
mod check;
pub mod command;
pub mod csv;
pub mod draft;
pub mod export;
pub mod gaps;
pub mod house;
pub mod list;
pub mod outcome;
pub mod overview;
pub mod query;
pub mod status;
mod survey;
pub mod table;
#[cfg(test)]
mod tests;
