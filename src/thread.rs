//! Threads whose end is heard of: by name, with an error or a panic, always.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::Sender;

/// How a thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its work was done.
    Done,
    /// It panicked, which is a bug; these were its words.
    Panicked(String),
}

/// A thread has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Which.
    pub name: String,
    /// How.
    pub end: End,
}

/// Starts a named thread and reports its end to `exits`, which must have room for every thread it
/// was given to: a thread that ends waits for nobody.
pub fn spawn(
    name: impl Into<String>,
    exits: &Sender<Exit>,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (name, exits) = (name.into(), exits.clone());
    Builder::new().name(name.clone()).spawn(move || {
        let end = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(()) => End::Done,
            Err(panic) => End::Panicked(words(panic.as_ref())),
        };
        // Whoever listened may be gone already: then the process is ending anyway.
        let _ = exits.try_send(Exit { name, end });
    })
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_heard_of() {
        let (exits, heard) = crossbeam_channel::bounded(2);
        spawn("calm", &exits, || ()).unwrap().join().unwrap();
        spawn("upset", &exits, || panic!("it broke")).unwrap().join().unwrap();
        let ends: Vec<Exit> = heard.try_iter().collect();
        assert_eq!(ends[0], Exit { name: "calm".into(), end: End::Done });
        assert_eq!(ends[1], Exit { name: "upset".into(), end: End::Panicked("it broke".into()) });
    }
}
