//! The daemon, from the lock to the last commit: on the main thread of a process of its own, or on
//! a thread of a program that hosts it.
//!
//! Everything that can be refused is refused before the first thread is started: the configuration,
//! the addresses, a second daemon, a folder that takes no file. From then on losing the exchange is
//! no end, only a mode.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};
use log::{info, warn};

use crate::audience::Audience;
use crate::backoff::Random;
use crate::breaker;
use crate::config::Config;
use crate::control::Control;
use crate::crew::{Crew, Live, TO_AUDIT, Wishes};
use crate::desk::{CALLS_WAITING, Call, Desk};
use crate::engine::{EngineError, Ground, Setup, io_error};
use crate::grants::Grants;
use crate::http::Http;
use crate::keeper::Keeper;
use crate::link::{self, Link};
use crate::lock::Lock;
use crate::okx::stream::STREAM_PATH;
use crate::session;
use crate::snapshot::Snapshot;
use crate::socket::{SocketError, SocketOptions};
use crate::steward::{Reload, Steward};
use crate::supervisor::{Ending, Ports, Supervisor};
use crate::time::Clock;

/// What a daemon starts from.
pub struct Start {
    /// Where and how to fetch.
    pub setup: Setup,
    /// What is configured.
    pub config: Config,
    /// Reads the configuration anew.
    pub reload: Reload,
    /// Whether old history is fetched from the start.
    pub all_history: bool,
    /// Where the wish to stop comes from.
    pub wishes: Wishes,
    /// Who else hears of what is on disk.
    pub audience: Arc<Audience>,
}

/// Why a daemon does not start.
#[derive(Debug)]
pub enum DaemonError {
    /// The configuration says that it may not.
    Disabled,
    /// There is one already.
    Running {
        /// Its process.
        pid: u32,
    },
    /// No file can be made in its data folder.
    Folder {
        /// The folder.
        data_dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The address of the stream, or what is needed to reach it, is none.
    Stream(SocketError),
    /// The engine cannot start.
    Engine(EngineError),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DaemonError::Disabled => f.write_str(
                "enable_auto_sync is false: set it to true in the configuration for a daemon",
            ),
            DaemonError::Running { pid } => {
                write!(f, "a daemon is running here already: process {pid}")
            }
            DaemonError::Folder { data_dir, source } => write!(
                f,
                "{}: no file can be made here: {source}: make the folder writable for the \
                 daemon's user, or choose another data_dir",
                data_dir.display()
            ),
            DaemonError::Stream(error) => error.fmt(f),
            DaemonError::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DaemonError {}

/// A daemon whose threads work, but for the one that leads them.
pub struct Daemon {
    mind: Keeper,
    ports: Ports,
    clock: Arc<Clock>,
    grants: Grants,
    steward: Steward,
    crew: Crew,
    lock: Lock,
}

/// Runs until a signal or a bug ends it. What was acknowledged is on disk then.
pub fn run(start: Start) -> Result<Ending, DaemonError> {
    let (daemon, calls) = Daemon::begin(start)?;
    // Nobody calls but from outside.
    drop(calls);
    Ok(daemon.run())
}

/// How to connect to the stream.
fn socket_options(config: &Config) -> Result<SocketOptions, DaemonError> {
    let url = format!("{}{STREAM_PATH}", config.ws_url());
    let timeout_ms = config.websocket.connection_timeout_ms;
    SocketOptions::new(&url, config.ca_file.as_deref(), timeout_ms).map_err(DaemonError::Stream)
}

impl Daemon {
    /// Starts it; gives beside it where the program around it may put its requests.
    pub fn begin(start: Start) -> Result<(Daemon, Sender<Call>), DaemonError> {
        let Start { setup, config, reload, all_history, wishes, audience } = start;
        if !config.enable_auto_sync {
            return Err(DaemonError::Disabled);
        }
        let socket = socket_options(&config)?;
        if let Some(pid) = running(&setup) {
            return Err(DaemonError::Running { pid });
        }
        let http =
            Http::new(&setup.http).map_err(EngineError::Http).map_err(DaemonError::Engine)?;
        let lock = Lock::take(&setup.data_dir).map_err(EngineError::Lock);
        let lock = lock.map_err(DaemonError::Engine)?;
        lock.sign_as_daemon().map_err(io_error("sign the lock")).map_err(DaemonError::Engine)?;
        Snapshot::try_place(&setup.data_dir)
            .map_err(|source| DaemonError::Folder { data_dir: setup.data_dir.clone(), source })?;
        let instruments = config.instruments.iter().map(|known| &known.instrument);
        let mut ground = Ground::prepare(&setup, instruments).map_err(DaemonError::Engine)?;
        let now = ground.clock.now();
        introduce(&config);

        let (to_audit, audits) = bounded(TO_AUDIT);
        let stream_seed = ground.random.below(u64::MAX);
        let control = Control::new(Vec::new(), setup.workers, ground.budget, ground.random, now);
        let mut mind = Keeper::new(control.endless());
        if !all_history {
            mind = mind.without_old_history();
        }
        let settings = link_settings(&config, &setup);
        let rows_waiting = config.websocket.buffer_size;
        let mut steward = Steward::new(setup.clone(), config, reload, to_audit);
        let (asked, calls) = bounded(CALLS_WAITING);
        let live = Live {
            socket,
            link: Link::new(settings, Random::new(stream_seed)),
            rows_waiting,
            to_audit: steward.configure(&mut mind, now),
            audits,
            desk: open_desk(&setup),
            calls: (asked.clone(), calls),
            audience,
        };
        let (crew, ports) = Crew::start(&setup, &http, &ground.clock, wishes, Some(live))
            .map_err(DaemonError::Engine)?;
        let Ground { clock, grants, .. } = ground;
        Ok((Daemon { mind, ports, clock, grants, steward, crew, lock }, asked))
    }

    /// The clocks, which go on.
    pub fn clock(&self) -> Arc<Clock> {
        self.clock.clone()
    }

    /// Leads it until it is to stop or a bug ends it.
    pub fn run(self) -> Ending {
        let Daemon { mind, ports, clock, grants, mut steward, crew, lock } = self;
        let chores = &mut steward;
        let ending = Supervisor { mind, ports, clock: &clock, grants, chores }.run();
        crew.join(&ending);
        drop(lock);
        info!(target: "daemon", "stopped");
        ending
    }
}

/// The daemon that holds the lock, if one does. A command that holds it ends soon.
pub fn running(setup: &Setup) -> Option<u32> {
    Lock::holder(&setup.data_dir).filter(|holder| holder.is_daemon).map(|holder| holder.pid)
}

fn open_desk(setup: &Setup) -> Option<Desk> {
    Desk::open(&setup.data_dir)
        .inspect_err(|error| {
            warn!(target: "daemon", "{error}; commands that write have to wait for its end");
        })
        .ok()
}

/// Tells once what it works with.
fn introduce(config: &Config) {
    let kept = config.instruments.iter().filter(|known| known.enabled).count();
    info!(
        target: "daemon",
        "okx-store {} keeps what {} says in {}, by {} and {}, instruments: {kept}",
        env!("CARGO_PKG_VERSION"),
        config.file.display(),
        config.data_dir.display(),
        config.rest_url(),
        config.ws_url(),
    );
}

/// How the stream is to be led.
pub fn link_settings(config: &Config, setup: &Setup) -> link::Settings {
    let websocket = &config.websocket;
    link::Settings {
        session: session::Settings {
            credentials: setup.http.credentials.clone(),
            ping_interval_ms: websocket.ping_interval_ms,
            heartbeat_interval_ms: websocket.heartbeat_interval_ms,
        },
        breaker: breaker::Settings {
            failure_threshold: config.circuit_breaker.failure_threshold,
            max_reconnect_attempts: websocket.max_reconnect_attempts,
            recovery_timeout_ms: config.circuit_breaker.recovery_timeout_ms,
            reconnect_delay_base_ms: websocket.reconnect_delay_base_ms,
            reconnect_delay_max_ms: websocket.reconnect_delay_max_ms,
        },
        max_connection_age_ms: websocket.max_connection_age_ms,
    }
}
