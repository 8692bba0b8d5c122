//! A screen for which nobody waits: its lines go out on a thread of their own.
//!
//! A terminal that was stopped with Ctrl-S, or a pipe whose reader sleeps, takes no line for as
//! long as it likes, and would hold up whoever logs.

use std::io::{self, Write};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::thread;

/// A burst of lines, and some seconds of DEBUG. What does not fit is left out, and counted.
const LINES_MAX: usize = 1_024;
/// How long the end of the program waits for its last lines to go out.
const FLUSH: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Tell when all before this has gone out.
    Flush(Sender<()>),
}

/// The end of the queue where lines go in.
pub(super) struct Screen {
    lines: Sender<Message>,
    left_out: u64,
}

impl Screen {
    /// Begins to write to `screen`. The thread ends with this value, or with the process.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub(super) fn start(screen: Box<dyn Write + Send>) -> io::Result<Screen> {
        let (lines, queue) = bounded(LINES_MAX);
        // Nobody waits for the end of that thread.
        let (exits, _) = bounded(1);
        thread::spawn("screen", &exits, move || run(screen, &queue))?;
        Ok(Screen { lines, left_out: 0 })
    }
}

fn run(mut screen: Box<dyn Write + Send>, queue: &Receiver<Message>) {
    for message in queue {
        // A screen that is gone, as a closed terminal is, takes nothing any more.
        match message {
            Message::Line(line) => drop(screen.write_all(&line)),
            Message::Flush(done) => {
                let _ = screen.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Write for Screen {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.left_out > 0 {
            let told =
                format!("{} lines were left out here, for want of a reader\n", self.left_out);
            if self.lines.try_send(Message::Line(told.into_bytes())).is_ok() {
                self.left_out = 0;
            }
        }
        if self.lines.try_send(Message::Line(line.to_owned())).is_err() {
            self.left_out += 1;
        }
        Ok(line.len())
    }

    /// Waits until all has gone out, though not for long.
    fn flush(&mut self) -> io::Result<()> {
        let (done, heard) = bounded(1);
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            select! {
                recv(heard) -> _ => {}
                default(FLUSH) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes a line for each word that it is given.
    struct Slow {
        words: Receiver<()>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.words.recv();
            self.seen.lock().unwrap().extend(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_screen_and_what_is_left_out_is_told() {
        let (word, words) = bounded(0);
        let seen = Arc::default();
        let slow = Slow { words, seen: Arc::clone(&seen) };
        let mut screen = Screen::start(Box::new(slow)).unwrap();
        for n in 0..2 * LINES_MAX {
            screen.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        // From now on nothing holds it up.
        drop(word);
        while screen.lines.try_send(Message::Line(Vec::new())).is_err() {}
        screen.flush().unwrap();
        screen.write_all(b"last\n").unwrap();
        screen.flush().unwrap();
        let text = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("0\n1\n2\n"), "{text}");
        assert!(text.contains(" lines were left out here, for want of a reader\nlast\n"), "{text}");
    }
}
