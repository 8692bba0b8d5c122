//! What people and scripts touch: the command line and what each command shows.

mod args;
mod argv;
mod check;
pub mod command;
pub mod completions;
pub mod daemon;
pub mod doctor;
pub mod export;
pub mod gaps;
pub mod list;
pub mod outcome;
pub mod overview;
pub mod paint;
pub mod progress;
pub mod query;
pub mod remote;
pub mod service;
pub mod sight;
pub mod status;
pub mod symbols;
pub mod sync;
pub mod table;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod websocket;

use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::cli::command::{Command, Globals, Usage, Which};
use crate::cli::doctor::Doctor;
use crate::cli::gaps::Gaps;
use crate::cli::outcome::{Exit, Failure};
use crate::cli::paint::Paint;
use crate::cli::progress::Screen;
use crate::cli::sight::Sight;
use crate::cli::verify::Verify;
use crate::cli::websocket::WebSocket;
use crate::cli::websocket::trial::Trial;
use crate::config::{Config, Environment, InstrumentConfig};
use crate::engine::Setup;
use crate::house::{House, Household};
use crate::instrument::Series;
use crate::logging;
use crate::okx::Credentials;
use crate::plan::Wanted;
use crate::signal;
use crate::store::query::{EVERYTHING, Selection};
use crate::time::{Clock, Millis};

/// Carries out one command line, the words after the program's name, and gives the exit code.
pub fn run(words: impl Iterator<Item = OsString>) -> Exit {
    let stdout = io::stdout().lock();
    let mut out = BufWriter::with_capacity(64 << 10, stdout);
    let mut notes = io::stderr();
    if let Err(error) = signal::outlive_file_limit() {
        outcome::note(&mut notes, format_args!("okx-store: SIGXFSZ ends it: {error}"));
    }
    let parsed = words
        .map(|word| word.into_string().map_err(|_| Usage::Bad("words must be UTF-8".to_owned())))
        .collect::<Result<Vec<String>, Usage>>()
        .and_then(|words| command::parse(&words));
    let result = match parsed {
        Ok((globals, command)) => Session::open(&globals, &command)
            .and_then(|session| session.carry_out(command, &mut out, &mut notes)),
        Err(Usage::Help(text)) => outcome::finish(print(&mut out, text.trim_end()), &mut out),
        Err(Usage::Version) => {
            let version = concat!("okx-store ", env!("CARGO_PKG_VERSION"));
            outcome::finish(print(&mut out, version), &mut out)
        }
        Err(Usage::Bad(problem)) => {
            outcome::note(&mut notes, format_args!("okx-store: {problem}"));
            return Exit::Usage;
        }
    };
    // A daemon's last lines are still on their way to the screen.
    log::logger().flush();
    result.unwrap_or_else(|failure| {
        outcome::complain(&mut notes, &failure);
        failure.exit()
    })
}

fn print(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    Ok(writeln!(out, "{text}")?)
}

/// What every command works with.
struct Session {
    globals: Globals,
    household: Household,
    environment: Environment,
    screen: Screen,
    /// For what goes to standard output.
    paint: Paint,
}

impl Session {
    fn open(globals: &Globals, command: &Command) -> Result<Session, Failure> {
        let environment = Environment::read();
        let config = load(globals, &environment, command)?;
        let is_daemon = matches!(command, Command::Daemon { .. });
        if config_is_passed_by(globals, &environment, &config) {
            outcome::note(
                &mut io::stderr(),
                format_args!(
                    "okx-store: ./config.json is not taken, it has no key \"instruments\": {}",
                    what_holds(&config)
                ),
            );
        }
        let screen = Screen::default();
        let level = logging::level(config.log_level, globals.verbose);
        let file = match is_daemon {
            true => Some(config.daemon_log_file()),
            false => config.log_file.clone(),
        };
        let options = logging::Options { level, screen: Box::new(screen.clone()), file, is_daemon };
        logging::start(options).map_err(Failure::Log)?;
        let paint = Paint::new(io::stdout().is_terminal() && !environment.is_plain);
        let globals = globals.clone();
        let household = Household::new(config);
        Ok(Session { globals, environment, household, screen, paint })
    }

    fn house(&self) -> House<'_> {
        self.household.house()
    }

    /// The exchange's time as far as it is known without asking.
    fn now(&self) -> Millis {
        Clock::start(self.house().clock_offset_ms()).now().exchange
    }

    /// What fetching needs beyond reading.
    fn setup(&self) -> Result<Setup, Failure> {
        Ok(Setup::new(&self.household.config, self.credentials()?))
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        let keys = self.environment.credentials().map_err(Failure::Config)?;
        let known = keys.map(|(key, secret, phrase)| Credentials::new(&key, &secret, &phrase));
        known.transpose().map_err(Failure::Credentials)
    }

    fn carry_out(
        &self,
        command: Command,
        out: &mut dyn Write,
        notes: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let house = &self.house();
        match command {
            Command::Status(asked) => status::status(house, asked, self.now(), self.paint, out),
            Command::Sync(which) => {
                let wanted = self.which(&which)?;
                sync::sync(&self.setup()?, &wanted, &self.screen, out, notes)
            }
            Command::Backfill { series, selection } => {
                let wanted = self.history(&series, selection);
                sync::sync(&self.setup()?, &[(series, wanted)], &self.screen, out, notes)
            }
            Command::Gaps { asked, fill: false } => {
                gaps::gaps(house, &asked, self.now(), out, notes)
            }
            Command::Gaps { asked, fill: true } => self.fill(&asked, out, notes),
            Command::Verify(asked) => self.verify(&asked, out, notes),
            Command::Query(asked) => query::query(house, &asked, out, notes),
            Command::Export(asked) => {
                // What goes to standard output leaves nothing behind, and ends as programs do.
                let stop = match asked.target {
                    export::Target::Stdout => Arc::default(),
                    export::Target::File(_) => stop_flag()?,
                };
                export::export(house, &asked, self.now(), &stop, out, notes)
            }
            Command::Overview { json } => overview::overview(house, json, self.now(), out, notes),
            Command::AddSymbol(addition) => {
                symbols::add(&self.setup()?, &self.household.config, &addition, out, notes)
            }
            Command::RemoveSymbol { instrument, purge } => symbols::remove(
                &self.setup()?,
                &self.household.config,
                &instrument,
                purge,
                out,
                notes,
            ),
            Command::List { available: Some(kind), json } => {
                symbols::list_available(&self.setup()?, kind, json, out)
            }
            Command::List { available: None, json } => list::list(house, json, out),
            Command::Daemon { no_sync_on_start } => daemon::daemon(
                self.setup()?,
                &self.household.config,
                &self.globals,
                no_sync_on_start,
                notes,
            ),
            Command::WebSocket(wanted) => self.websocket(wanted, out),
            Command::Doctor { json } => {
                let (setup, now) = (&self.setup()?, self.now());
                Doctor { config: &self.household.config, house, setup, now }
                    .examine(json, self.paint, out)
            }
            Command::Service => service::service(&self.household.config, &self.globals, out),
            Command::Completions(shell) => {
                outcome::finish(print(out, completions::script(shell).trim_end()), out)
            }
        }
    }

    fn websocket(&self, wanted: WebSocket, out: &mut dyn Write) -> Result<Exit, Failure> {
        let (config, paint) = (&self.household.config, self.paint);
        match wanted {
            WebSocket::Status { json } => websocket::dashboard::status(config, json, paint, out),
            WebSocket::Test { timeout_ms } => {
                let credentials = self.credentials()?;
                let clock_offset_ms = self.house().clock_offset_ms();
                let trial = Trial { config, credentials, clock_offset_ms, timeout_ms };
                websocket::trial::test(trial, paint, out)
            }
            WebSocket::Config(None) => websocket::settings::show(config, paint, out),
            WebSocket::Config(Some(change)) => websocket::settings::change(config, change, out),
        }
    }

    /// The series of instruments that are named, or of all that are enabled.
    fn which(&self, which: &Which) -> Result<Vec<(Series, Wanted)>, Failure> {
        let known = |name| {
            let missing = || Failure::NotConfigured { instrument: Clone::clone(name) };
            self.household.config.instrument(name).ok_or_else(missing)
        };
        let instruments: Vec<&InstrumentConfig> = match which {
            Which::These(names) => names.iter().map(known).collect::<Result<_, _>>()?,
            Which::All => {
                self.household.config.instruments.iter().filter(|known| known.enabled).collect()
            }
        };
        let wanted = |known: &InstrumentConfig| {
            let days = Wanted::Days(known.max_history_days);
            known.series().map(|series| (series, days)).collect::<Vec<_>>()
        };
        Ok(instruments.into_iter().flat_map(wanted).collect())
    }

    /// Which history a back-fill means; without a word on it, what is configured.
    fn history(&self, series: &Series, selection: Selection) -> Wanted {
        match selection {
            Selection::Days(days) => Wanted::Days(days),
            Selection::Range(span) if span != EVERYTHING => Wanted::Range(span),
            _ => {
                let known = self.household.config.instrument(&series.instrument);
                let new = || InstrumentConfig::new(series.instrument.clone());
                Wanted::Days(known.cloned().unwrap_or_else(new).max_history_days)
            }
        }
    }

    fn verify(
        &self,
        asked: &Verify,
        out: &mut dyn Write,
        notes: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let known = self.household.config.instrument(&asked.series.instrument);
        let known = known.filter(|known| known.timeframes.contains(&asked.series.bar));
        let stop = stop_flag()?;
        let work = verify::Work {
            house: &self.house(),
            setup: &self.setup()?,
            interval_ms: known.map_or(0, |known| known.sync_interval_ms),
            stop: &stop,
            screen: &self.screen,
            paint: self.paint,
        };
        verify::verify(&work, asked, out, notes)
    }

    /// Fetches what is missing, then reports what is left.
    fn fill(
        &self,
        asked: &Gaps,
        out: &mut dyn Write,
        notes: &mut dyn Write,
    ) -> Result<Exit, Failure> {
        let which = match &asked.instrument {
            Some(instrument) => Which::These(vec![instrument.clone()]),
            None => Which::All,
        };
        let mut wanted = self.which(&which)?;
        if let Some(bar) = asked.bar {
            wanted.retain(|(series, _)| series.bar == bar);
        }
        if let (Some(instrument), Some(bar), true) =
            (&asked.instrument, asked.bar, wanted.is_empty())
        {
            let series = Series { instrument: instrument.clone(), bar };
            return Err(Failure::BarNotConfigured { series });
        }
        // What was done is a remark here; what is left is the answer.
        let filled = sync::sync(&self.setup()?, &wanted, &self.screen, notes, &mut io::stderr())?;
        let reported = gaps::gaps(&self.house(), asked, self.now(), out, notes)?;
        Ok(if filled == Exit::Done { reported } else { filled })
    }
}

/// Reads the configuration. One that is refused does not hide a daemon from who only looks at it:
/// it goes on with what held before.
fn load(
    globals: &Globals,
    environment: &Environment,
    command: &Command,
) -> Result<Config, Failure> {
    let (file, data_dir) = (globals.config.as_deref(), globals.data_dir.as_deref());
    let looks =
        matches!(command, Command::Status(_) | Command::WebSocket(WebSocket::Status { .. }));
    let refused = match Config::load_in(environment, file, data_dir) {
        Err(refused) if looks => refused,
        loaded => return loaded.map_err(Failure::Config),
    };
    let salvaged = Config::salvage_in(environment, file, data_dir);
    let seen = salvaged.and_then(|config| Some((Sight::look(&config.data_dir)?, config)));
    let Some((sight, config)) = seen else { return Err(Failure::Config(refused)) };
    outcome::complain(&mut io::stderr(), &refused);
    let instruments = sight.kept(&config);
    Ok(Config { instruments, ..config })
}

/// Whether a file that looks like the configuration is not taken for it: it may be another
/// program's, or ours with a slip in it.
fn config_is_passed_by(globals: &Globals, environment: &Environment, config: &Config) -> bool {
    let here = environment.folder.join("config.json");
    let chosen = globals.config.is_some() || environment.config.is_some();
    !chosen && here.is_file() && config.file != here
}

/// What holds in the place of a file that is not taken.
fn what_holds(config: &Config) -> String {
    if !config.is_builtin {
        return format!("{} holds", config.file.display());
    }
    let names: Vec<&str> =
        config.instruments.iter().map(|known| known.instrument.as_str()).collect();
    format!("the built-in {} hold, in {}", names.join(" and "), config.data_dir.display())
}

/// A flag that SIGINT and SIGTERM raise instead of ending the process, so that the draft of a file
/// is taken away, or what was found so far is told.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).map_err(Failure::Output)?;
    }
    Ok(flag)
}
