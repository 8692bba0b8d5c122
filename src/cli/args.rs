//! The grammar of the command line: commands, options and their help, as texts. What the texts
//! mean is checked one step later.
//!
//! This is the one list of what there is: [`crate::cli::argv`] reads from it which options take
//! values and which words are commands.

use argh::{ArgsInfo, FromArgs};

/// Mirrors OKX candlesticks into SQLite files, complete and equal to the exchange.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    help_triggers("-h", "--help"),
    usage = "[--config FILE] [--data-dir DIR] [-v] COMMAND …",
    example = "okx-store add-symbol SOL-USDT --timeframes 1m 1h
okx-store sync --all
okx-store query SOL-USDT 1h --count 5
okx-store export SOL-USDT 1m sol.csv --start 2024-05-01
nohup okx-store daemon &",
    note = "Options may stand before or after the command, as --opt value or --opt=value.
okx-store COMMAND --help tells more about a command.",
    note = "Without --config the first of these is taken: $OKX_STORE_CONFIG, ./config.json
if it has the key \"instruments\", ~/.okx_local_store/config.json.",
    note = "Exit codes: 0 done, 1 failed (network, storage, nothing found), 2 bad usage or
configuration, 70 a bug."
)]
pub(super) struct Args {
    /// the configuration FILE to take
    #[argh(option)]
    pub config: Option<String>,
    /// the folder DIR of the database files, instead of the configured one
    #[argh(option)]
    pub data_dir: Option<String>,
    /// log every page and decision
    #[argh(switch, short = 'v')]
    pub verbose: bool,
    /// print the version
    #[argh(switch, long = "version")]
    pub _version: bool,
    #[argh(subcommand)]
    pub command: Word,
}

/// The commands, in the order in which they are listed.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand)]
pub(super) enum Word {
    Status(Status),
    Sync(Sync),
    Backfill(Backfill),
    Gaps(Gaps),
    Verify(Verify),
    Query(Query),
    Export(Export),
    Overview(Overview),
    AddSymbol(AddSymbol),
    RemoveSymbol(RemoveSymbol),
    List(List),
    Daemon(Daemon),
    WebSocket(WebSocket),
    Doctor(Doctor),
    Service(Service),
    Completions(Completions),
}

/// Show the daemon, and newest bar, lag, rows, coverage and gaps of each series.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "status",
    help_triggers("-h", "--help"),
    usage = "[--json | --format table|json|prometheus]
                        [--check MAX_LAG]",
    example = "okx-store status --json
okx-store status --check 5m || echo 'candles are late' | mail -s okx-store me
okx-store status --format prometheus > okx.new && mv okx.new okx.prom",
    note = "Reads files alone, never the network. One that it cannot read is named, and it
exits with 1; to Prometheus it is told as failed.
With --check it tells of late series alone and exits with 1 if there is one; a
bar that the exchange does not have makes none late."
)]
pub(super) struct Status {
    /// table, json or prometheus (table)
    #[argh(option)]
    pub format: Option<String>,
    /// exit with 1 if a series lags by more: 90s, 5m, 2h or 1d
    #[argh(option)]
    pub check: Option<String>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Fetch all that is missing of the configured history.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "sync",
    help_triggers("-h", "--help"),
    usage = "SYMBOL … | --all",
    example = "okx-store sync BTC-USDT ETH-USDT
okx-store sync --all",
    note = "The newest bars of every series come first, then the older ones. It may be
stopped at any time: the next sync goes on where it ended."
)]
pub(super) struct Sync {
    /// configured instruments
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbols: Vec<String>,
    /// every instrument that is configured and enabled
    #[argh(switch)]
    pub all: bool,
}

/// Fetch what is missing of one series in a range, however old.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "backfill",
    help_triggers("-h", "--help"),
    usage = "SYMBOL TIMEFRAME [--days N | [--start T] [--end T]]",
    example = "okx-store backfill BTC-USDT 1m --days 30
okx-store backfill BTC-USDT 1Dutc --start 2019-01-01 --end 2020-01-01",
    note = "Without a range: the configured history.
T is a date (2024-05-01), a time in UTC (2024-05-01T12:00), RFC 3339 or Unix
ms. Ranges run from --start up to, without, --end."
)]
pub(super) struct Backfill {
    /// an instrument such as BTC-USDT
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbol: String,
    /// a bar such as 1m, 1h, 1D or 1Dutc
    #[argh(positional, arg_name = "TIMEFRAME")]
    pub timeframe: String,
    /// the last N days, 1 to 10000
    #[argh(option)]
    pub days: Option<String>,
    /// from the time T (the oldest bar)
    #[argh(option)]
    pub start: Option<String>,
    /// up to the time T (now)
    #[argh(option)]
    pub end: Option<String>,
}

/// Show which bars are missing, and which the exchange itself does not have.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "gaps",
    help_triggers("-h", "--help"),
    usage = "[SYMBOL [TIMEFRAME]] [--fill] [--check] [--json]",
    example = "okx-store gaps BTC-USDT 1m
okx-store gaps --fill
okx-store gaps --check > /dev/null || echo 'bars are missing'",
    note = "Without --fill it reads files alone, never the network."
)]
pub(super) struct Gaps {
    /// an instrument, and one of its bars; all without
    #[argh(positional, arg_name = "SYMBOL TIMEFRAME")]
    pub series: Vec<String>,
    /// fetch what is missing
    #[argh(switch)]
    pub fill: bool,
    /// exit with 1 if bars are missing that two polls have passed by, and name the
    /// series
    #[argh(switch)]
    pub check: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Read closed bars from the exchange once more and compare them with the store.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "verify",
    help_triggers("-h", "--help"),
    usage = "SYMBOL TIMEFRAME [--days N] [--sample P]
                        [--repair] [--json]",
    example = "okx-store verify BTC-USDT 1m --days 7
okx-store verify BTC-USDT 1m --sample 5
okx-store verify BTC-USDT 1m --repair",
    note = "Without --days: the configured history. It exits 0 where all is equal, and
1 where bars differ: missing (only the exchange has it), different (other
values) or foreign (only the store has it). It works beside a daemon or sync,
within one budget with them.",
    note = "--repair fetches what is missing or different once more and verifies it
again; the old values stay in the table revisions, and foreign rows are moved
there that lie where no bar opens. Any other foreign bar may have existed: it
is reported and left, and the command exits 1."
)]
pub(super) struct Verify {
    /// an instrument such as BTC-USDT
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbol: String,
    /// a bar such as 1m, 1h, 1D or 1Dutc
    #[argh(positional, arg_name = "TIMEFRAME")]
    pub timeframe: String,
    /// the last N days, 1 to 10000
    #[argh(option)]
    pub days: Option<String>,
    /// read P per cent of the pages, spread evenly (100)
    #[argh(option)]
    pub sample: Option<String>,
    /// have the exchange's bars stored where they differ
    #[argh(switch)]
    pub repair: bool,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Print candles, the newest last.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "query",
    help_triggers("-h", "--help"),
    usage = "SYMBOL TIMEFRAME
                       [--count N | --days N | [--start T] [--end T]]
                       [--format table|json|csv]",
    example = "okx-store query BTC-USDT 1h --count 24
okx-store query BTC-USDT 1m --start 2024-05-01 --format csv",
    note = "Reads files alone, never the network.
T is a date (2024-05-01), a time in UTC (2024-05-01T12:00), RFC 3339 or Unix
ms. Ranges run from --start up to, without, --end."
)]
pub(super) struct Query {
    /// an instrument such as BTC-USDT
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbol: String,
    /// a bar such as 1m, 1h, 1D or 1Dutc
    #[argh(positional, arg_name = "TIMEFRAME")]
    pub timeframe: String,
    /// the newest N rows, 1 to 10000000 (10)
    #[argh(option)]
    pub count: Option<String>,
    /// the last N days before the newest closed bar, 1 to 10000
    #[argh(option)]
    pub days: Option<String>,
    /// from the time T (the oldest bar)
    #[argh(option)]
    pub start: Option<String>,
    /// up to the time T (the newest bar)
    #[argh(option)]
    pub end: Option<String>,
    /// table, json or csv (table)
    #[argh(option)]
    pub format: Option<String>,
    /// the same as --format json
    #[argh(switch)]
    pub json: bool,
}

/// Write the closed candles of one series to a CSV file.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "export",
    help_triggers("-h", "--help"),
    usage = "SYMBOL TIMEFRAME OUTPUT|-
                        [--days N | [--start T] [--end T]]
                        [--unconfirmed] [--complete]",
    example = "okx-store export BTC-USDT 1m btc.csv --days 30
okx-store export BTC-USDT 1h - --start 2024-01-01 --end 2025-01-01 | head",
    note = "Reads files alone, never the network. Without a range: all that is stored.
The file appears once it is whole.
T is a date (2024-05-01), a time in UTC (2024-05-01T12:00), RFC 3339 or Unix
ms. Ranges run from --start up to, without, --end."
)]
pub(super) struct Export {
    /// an instrument such as BTC-USDT
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbol: String,
    /// a bar such as 1m, 1h, 1D or 1Dutc
    #[argh(positional, arg_name = "TIMEFRAME")]
    pub timeframe: String,
    /// the file to write, in a folder that is there; - for standard output
    #[argh(positional, arg_name = "OUTPUT")]
    pub output: String,
    /// the last N days before the newest closed bar, 1 to 10000
    #[argh(option)]
    pub days: Option<String>,
    /// from the time T (the oldest bar)
    #[argh(option)]
    pub start: Option<String>,
    /// up to the time T (the newest bar)
    #[argh(option)]
    pub end: Option<String>,
    /// bars that are not closed too, with a column that says so
    #[argh(switch)]
    pub unconfirmed: bool,
    /// fail, without a file, if bars are missing
    #[argh(switch)]
    pub complete: bool,
}

/// Show the newest price and the change of each instrument.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "overview",
    help_triggers("-h", "--help"),
    usage = "[--json]",
    example = "okx-store overview",
    note = "Reads files alone, never the network."
)]
pub(super) struct Overview {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Add an instrument to the configuration, or bars to one that is there.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "add-symbol",
    help_triggers("-h", "--help"),
    usage = "SYMBOL [--timeframes BAR …] [--interval S]
                            [--history-days N] [--source MODE]",
    example = "okx-store add-symbol SOL-USDT --timeframes 1m 1h 1Dutc --history-days 90",
    note = "An instrument that is there keeps its bars and gets the new ones beside them;
it is enabled if it was not. Comments in the file stay."
)]
pub(super) struct AddSymbol {
    /// an instrument such as BTC-USDT or BTC-USDT-SWAP
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbol: String,
    /// one or more bars (1m 5m 1H 1D)
    #[argh(option)]
    pub timeframes: Vec<String>,
    /// seconds between two polls, 1 to 86400 (60)
    #[argh(option)]
    pub interval: Option<String>,
    /// how far back to fetch: N days, 1 to 10000 (365)
    #[argh(option)]
    pub history_days: Option<String>,
    /// how fresh bars come: websocket, polling, hybrid or auto (hybrid)
    #[argh(option)]
    pub source: Option<String>,
}

/// Take an instrument out of the configuration.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "remove-symbol",
    help_triggers("-h", "--help"),
    usage = "SYMBOL [--purge]",
    example = "okx-store remove-symbol SOL-USDT",
    note = "Its database file stays, unless --purge is given."
)]
pub(super) struct RemoveSymbol {
    /// the instrument
    #[argh(positional, arg_name = "SYMBOL")]
    pub symbol: String,
    /// delete its database file, which cannot be undone
    #[argh(switch)]
    pub purge: bool,
}

/// List the instruments that are configured, or that the exchange offers.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "list",
    help_triggers("-h", "--help"),
    usage = "[--available [--type KIND]] [--json]",
    example = "okx-store list --available --type SWAP"
)]
pub(super) struct List {
    /// ask the exchange what it offers
    #[argh(switch)]
    pub available: bool,
    /// of this kind: SPOT, SWAP, FUTURES, OPTION or MARGIN (SPOT)
    #[argh(option, long = "type")]
    pub kind: Option<String>,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Keep every configured instrument fresh, by the stream and by polling.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "daemon",
    help_triggers("-h", "--help"),
    usage = "[--no-sync-on-start]",
    example = "okx-store daemon
nohup okx-store daemon &",
    note = "It notices a changed configuration within 5 s, and at once on SIGHUP.
SIGTERM and SIGINT end it once all is stored; a second one waits no longer for
the network. It logs to stderr and to logs/okx-store.log beside the config,
unless log_file names another; the stream's part is in websocket.log, too."
)]
pub(super) struct Daemon {
    /// leave older history for the first interval; the newest bars come at once
    #[argh(switch)]
    pub no_sync_on_start: bool,
}

/// Show, try or configure the stream.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "websocket",
    help_triggers("-h", "--help"),
    usage = "status [--json]
                           | test [--timeout S]
                           | config [--enable | --disable | --set-mode MODE]",
    example = "okx-store websocket status
okx-store websocket test --timeout 30
okx-store websocket config --set-mode hybrid",
    note = "status shows the daemon's connection; it never touches the network.
test connects by itself, beside a daemon or without one, and tells each step.
config shows the settings, or edits the file; comments in it stay."
)]
pub(super) struct WebSocket {
    /// status, test or config
    #[argh(positional, arg_name = "ACTION")]
    pub action: String,
    /// status: print JSON
    #[argh(switch)]
    pub json: bool,
    /// test: seconds for all steps together, 1 to 600 (10)
    #[argh(option)]
    pub timeout: Option<String>,
    /// config: let the stream be used
    #[argh(switch)]
    pub enable: bool,
    /// config: poll only
    #[argh(switch)]
    pub disable: bool,
    /// config: websocket, polling, hybrid or auto, for all instruments that do not
    /// say otherwise
    #[argh(option)]
    pub set_mode: Option<String>,
}

/// Examine configuration, disk, clock, exchange and daemon, and say what to do.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "doctor",
    help_triggers("-h", "--help"),
    usage = "[--json]",
    example = "okx-store doctor",
    note = "It exits 0 where all is well or nearly so, 1 where something fails, and 2
where the configuration is wrong. It stores no candle and takes no lock, so
it may run beside a daemon. Its few requests come out of one budget with a
daemon's, recorded in the data folder, which it makes if there is none."
)]
pub(super) struct Doctor {
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Print a unit that lets systemd run the daemon for this user.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "service",
    help_triggers("-h", "--help"),
    usage = "",
    example = "okx-store service > ~/.config/systemd/user/okx-store.service
systemctl --user enable --now okx-store
loginctl enable-linger",
    note = "The unit names this program and the configuration in use by their full paths.
loginctl, once, lets it go on after you have logged out."
)]
pub(super) struct Service {}

/// Print a script that completes commands, options, symbols and bars.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "completions",
    help_triggers("-h", "--help"),
    usage = "bash|zsh|fish",
    example = "okx-store completions fish > ~/.config/fish/completions/okx-store.fish
echo 'source <(okx-store completions bash)' >> ~/.bashrc
echo 'source <(okx-store completions zsh)' >> ~/.zshrc   # after compinit"
)]
pub(super) struct Completions {
    /// bash, zsh or fish
    #[argh(positional, arg_name = "SHELL")]
    pub shell: String,
}
