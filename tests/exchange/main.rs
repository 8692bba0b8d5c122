//! `fixture-exchange`: the fixture exchange as a program, for demonstrations and for programs in
//! other languages.

#[path = "mod.rs"]
mod exchange;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use exchange::{Builder, COMMANDS, Exchange, Fault, Listed, Script, Strike, obey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const USAGE: &str = "\
usage: fixture-exchange [OPTION …]

  --listen ADDRESS             where to listen; 127.0.0.1:0 unless told (0 = any free port)
  --series SYMBOL=FILE         an instrument whose 1m or 5m bars are in FILE
  --synthetic SYMBOL[:DAYS]    an endless one, listed DAYS (400) before the start of the clock
  --clock T                    the exchange's time at its start, Unix ms or RFC 3339; unless told
                               half a bar after the newest FILE ends, without a FILE real time
  --speed X                    how fast its time passes; 1 unless told, 0 freezes it
  --latency-ms N               what every answer takes at least
  --faults SEED:RATE           spoil that share of the answers, for example 7:0.1
  --page-cap N                 no page has more rows than N
  --sandbox                    want the header of demo trading
  --push-ms N                  the stream pushes a running bar once in so many ms; 1000 unless told
  --idle-close-ms N            it closes an idle connection after so many ms; 30000 unless told
  --login KEY:SECRET:PHRASE    who may log in to it; nobody unless told
  --strikes SEED:MS            break it once in so many ms
  --port-file FILE             write the port number to FILE once it is open
  --control                    obey commands on stdin, see below
  --until-stdin-closes         end when stdin does; exit 1 if the client broke a rule
  --help                       show this

Prints `listening on URL` and `streaming on URL`, then serves until it is told to end. Broken
rules go to stderr. Commands, with times in whole seconds:

";

/// What `--strikes` plans; at one a second they last for hours.
const STRIKES: usize = 10_000;

/// What the command line asks for beyond the exchange itself.
struct Options {
    builder: Builder,
    port_file: Option<PathBuf>,
    control: bool,
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        print!("{USAGE}{COMMANDS}");
        return ExitCode::SUCCESS;
    }
    match parse(arguments) {
        Ok(options) => run(options),
        Err(why) => {
            eprint!("fixture-exchange: {why}\n\n{USAGE}{COMMANDS}");
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> ExitCode {
    let exchange = match options.builder.loud().try_start() {
        Ok(exchange) => exchange,
        Err(error) => return failed(&format!("cannot listen: {error}")),
    };
    exchange.expect_violations();
    if let Some(path) = &options.port_file
        && let Err(error) = write_port(path, exchange.address().port())
    {
        return failed(&format!("cannot write {}: {error}", path.display()));
    }
    let mut stdout = io::stdout();
    let urls = (exchange.url(), exchange.ws_url());
    let announced = writeln!(stdout, "listening on {}\nstreaming on {}", urls.0, urls.1);
    // Nobody may be reading; the exchange is there all the same.
    drop(announced.and_then(|()| stdout.flush()));
    if options.control {
        take_commands(&exchange);
    } else if options.until_stdin_closes {
        // An error ends the input as surely as its end does.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
    }
    if !options.until_stdin_closes {
        loop {
            thread::park();
        }
    }
    match exchange.violations().len() {
        0 => ExitCode::SUCCESS,
        count => failed(&format!("the client broke {count} rules")),
    }
}

/// Obeys what is written to stdin until that ends.
fn take_commands(exchange: &Exchange) {
    for line in io::stdin().lines().map_while(Result::ok) {
        match obey(exchange, &line) {
            Ok(reply) => {
                let mut stdout = io::stdout();
                // Nobody may be reading; the command was carried out all the same.
                drop(writeln!(stdout, "{reply}").and_then(|()| stdout.flush()));
            }
            Err(why) => eprintln!("fixture-exchange: {why}"),
        }
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("fixture-exchange: {why}");
    ExitCode::FAILURE
}

/// Renamed into place, so that whoever waits for the file never reads half of it.
fn write_port(path: &Path, port: u16) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    fs::write(&unfinished, format!("{port}\n"))?;
    fs::rename(&unfinished, path)
}

fn parse(arguments: Vec<String>) -> Result<Options, String> {
    let mut builder = Exchange::builder();
    let (mut port_file, mut control, mut until_stdin_closes) = (None, false, false);
    let (mut instruments, mut own_clock) = (0, true);
    let mut arguments = arguments.into_iter();
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--until-stdin-closes" => {
                until_stdin_closes = true;
                continue;
            }
            "--control" => {
                control = true;
                continue;
            }
            "--sandbox" => {
                builder = builder.sandbox();
                continue;
            }
            _ => {}
        }
        let value =
            arguments.next().ok_or_else(|| format!("{name} is unknown or lacks a value"))?;
        match name.as_str() {
            "--port-file" => port_file = Some(PathBuf::from(value)),
            _ => builder = apply(builder, &name, &value)?,
        }
        instruments += usize::from(name == "--series" || name == "--synthetic");
        own_clock &= name != "--series" && name != "--clock";
    }
    if instruments == 0 {
        return Err("no instrument: give --series or --synthetic".to_owned());
    }
    if own_clock {
        builder = builder.clock(real_time_ms());
    }
    Ok(Options { builder, port_file, control, until_stdin_closes })
}

/// Applies one option that has a value.
fn apply(builder: Builder, name: &str, value: &str) -> Result<Builder, String> {
    let refuse = || format!("{name} does not take {value:?}");
    Ok(match name {
        "--listen" => builder.listen(value.parse::<SocketAddr>().map_err(|_| refuse())?),
        "--series" => {
            let (symbol, path) = value.split_once('=').ok_or_else(refuse)?;
            builder.file(symbol, path).map_err(|error| error.to_string())?
        }
        "--synthetic" => {
            let (symbol, days) = value.split_once(':').unwrap_or((value, "400"));
            builder.synthetic(symbol, Listed::days(days.parse().map_err(|_| refuse())?))
        }
        "--clock" => builder.clock(time_ms(value).ok_or_else(refuse)?),
        "--speed" => builder.speed(number(value, f64::MAX).ok_or_else(refuse)?),
        "--latency-ms" => builder.latency_ms(value.parse().map_err(|_| refuse())?),
        "--page-cap" => match value.parse() {
            Ok(rows) if rows > 0 => builder.page_cap(rows),
            _ => return Err(refuse()),
        },
        "--push-ms" => builder.push_ms(value.parse().map_err(|_| refuse())?),
        "--idle-close-ms" => builder.idle_close_ms(value.parse().map_err(|_| refuse())?),
        "--login" => match value.splitn(3, ':').collect::<Vec<_>>()[..] {
            [key, secret, passphrase] => builder.credentials(key, secret, passphrase),
            _ => return Err(refuse()),
        },
        "--strikes" => {
            let (seed, every_ms) = value.split_once(':').ok_or_else(refuse)?;
            let seed = seed.parse().map_err(|_| refuse())?;
            let every_ms = every_ms.parse().map_err(|_| refuse())?;
            builder.strikes(Strike::chaos(seed, every_ms, every_ms, STRIKES))
        }
        "--faults" => {
            let (seed, rate) = value.split_once(':').ok_or_else(refuse)?;
            let seed = seed.parse().map_err(|_| refuse())?;
            let rate = number(rate, 1.0).ok_or_else(refuse)?;
            let faults = [Fault::failures(), Fault::oddities()].concat();
            builder.faults(vec![Script::chance(seed, rate, faults)])
        }
        _ => return Err(format!("{name} is unknown")),
    })
}

fn number(text: &str, most: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (0.0..=most).contains(number))
}

/// A time since the epoch; a calendar needs it to be one that people could mean.
fn time_ms(text: &str) -> Option<i64> {
    let written = OffsetDateTime::parse(text, &Rfc3339);
    let ms = match text.parse() {
        Ok(ms) => ms,
        Err(_) => written.ok()?.unix_timestamp().checked_mul(1_000)?,
    };
    (0..4_102_444_800_000).contains(&ms).then_some(ms)
}

fn real_time_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("because it is later than 1970").as_millis() as i64
}
