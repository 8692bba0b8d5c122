//! The simulation: the program's own minds in a world that is all model, on one thread, from one
//! seed, in virtual time. It is the proof that a store becomes equal to the exchange, whatever
//! happens on the way.
//!
//! # What is real and what is not
//!
//! Real are all that decide: `keeper` with `control`, `plan`, `feed` and `mode`; `link` with
//! `session`, `breaker` and its capacity; `queue`, `limit`, `backoff`; the wire's readers and
//! writers; what a page proves (`page`), what the ledger makes of it (`coverage`), the rule of
//! finality (`candle`), and how the exchange's clock is learnt (`time::Offset`).
//!
//! | of the program | here | |
//! |---|---|---|
//! | supervisor, pollers | `process` | shells that do what the threads' loops do |
//! | stream, with the real outbox | `stream` | |
//! | writer | `writer` | |
//! | files | `store` | rows and coverage in memory; held against real files by a test |
//! | the machine's clocks | `machine` | a calendar that steps, a monotonic clock that drifts |
//! | the exchange | `exchange`, `floor` | market, rules and conversation of the fixture exchange |
//! | network, threads, channels | `stage` | a heap of events by (time, number) |
//!
//! What goes wrong, when, and how often is drawn from the seed in `weather`. After a while
//! everything is well again, and the store has bounded time to heal. `judge` looks at each step and
//! compares at the end; the exchange fails a run whose client breaks its rules.
//!
//! **Always true**: a closed bar is never replaced by an unclosed one; each closed bar that is
//! stored has, or once had, these values on the exchange; spans claim nothing that is not stored;
//! at most four pages of a series are in flight, none twice; modes change along the drawn lines;
//! the exchange's limits and the user's own are kept; nothing waits without a deadline, and no
//! deadline stays due; what waits in queues and channels is bounded.
//!
//! **After healing**: each closed bar that the exchange has is stored with its values, none is
//! missing, none is foreign; the plan in memory counts what the store has; who may stream streams,
//! and what is left to the stream is subscribed. One run in eight has no daemon but one command
//! after the other: there the first that began after all faults, and ends well, has to leave it so.
//!
//! **Not simulated**: sockets, TLS, HTTP and SQLite, which have tests of their own against real
//! ones; threads, whose races the heap only draws; a stop in good order; a second process that
//! asks the exchange at the same time; bars of seconds and those longer than an hour, of which a
//! run would have too many or too few. Three absences in a row that the exchange denies are
//! believed for a week, by design, so it denies a range twice at the most.
//!
//! `planted` holds bugs, one a patch, that `make planted` puts into a copy of the program: each has
//! to be noticed. Not everything can be: where one part makes good what another misses, as the
//! plan's repairs do for a series that joins too early, the store is equal all the same.
//!
//! # To find out why a seed fails
//!
//! `make sim SEED=7` makes the run again and prints it: first all that the seed decided, then one
//! line for each thing that happened, with the exchange's time and who did it: `weather`,
//! `supervisor`, `exchange`, `writer`, `stream`. `look` lines say what is not yet as it should be
//! once everything is well; the last one says what never came to be. The cause is most often the
//! last thing that happened to the named series before its bars stop coming: search for its name
//! backwards. A seed that has found something goes into `seeds.txt` with a word on what it was.

#[allow(dead_code)]
#[path = "../exchange/dice.rs"]
mod dice;
#[allow(dead_code)]
#[path = "../exchange/file.rs"]
mod file;
#[allow(dead_code)]
#[path = "../exchange/grid.rs"]
mod grid;
#[allow(dead_code)]
#[path = "../exchange/listing.rs"]
mod listing;
#[allow(dead_code)]
#[path = "../exchange/market.rs"]
mod market;
#[allow(dead_code)]
#[path = "../exchange/row.rs"]
mod row;
#[allow(dead_code)]
#[path = "../exchange/rules.rs"]
mod rules;
#[allow(dead_code)]
#[path = "../exchange/synthetic.rs"]
mod synthetic;
#[allow(dead_code)]
mod talk;

mod exchange;
mod floor;
mod judge;
mod machine;
mod process;
mod runs;
mod stage;
mod store;
mod stream;
mod weather;
mod world;
mod writer;
