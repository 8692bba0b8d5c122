//! From the words of a command line to the order in which argh takes them.
//!
//! argh knows neither `--opt=value`, nor an option of several values, nor an option before its
//! command. So the words are sorted by the grammar first, and what does not fit it is refused
//! here, in one line each.

use std::iter::Peekable;
use std::slice::Iter;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs, Optionality};

use crate::cli::args::Args;
use crate::cli::command::Usage;
use crate::spelling::nearest;

/// The program's name in help and hints.
const PROGRAM: &str = "okx-store";

/// Parses the words after the program's name.
pub(super) fn parse(argv: &[String]) -> Result<Args, Usage> {
    let grammar = Args::get_args_info();
    let options_end = argv.iter().position(|word| word == "--").unwrap_or(argv.len());
    let has = |wanted: &str| argv[..options_end].iter().any(|word| word == wanted);
    // These two are answered whatever else is wrong.
    if has("--version") {
        return Err(Usage::Version);
    }
    if has("--help") || has("-h") || argv.first().is_some_and(|word| word == "help") {
        let command = |word: &&String| grammar.commands.iter().any(|known| known.name == *word);
        return Err(Usage::Help(help(argv.iter().find(command))));
    }
    let sorted = sort(argv, &grammar).map_err(Usage::Bad)?;
    let words: Vec<&str> = sorted.iter().map(String::as_str).collect();
    Args::from_args(&[PROGRAM], &words).map_err(|exit| Usage::Bad(one_line(&exit.output)))
}

fn help(command: Option<&String>) -> String {
    let mut words: Vec<&str> = command.map(String::as_str).into_iter().collect();
    words.push("--help");
    let text =
        Args::from_args(&[PROGRAM], &words).err().map_or_else(String::new, |exit| exit.output);
    // A command without arguments has a blank in their place.
    text.lines().map(str::trim_end).collect::<Vec<&str>>().join("\n")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<&str>>().join(" ")
}

/// The words of a command line, told apart.
#[derive(Default)]
struct Words<'a> {
    options: Vec<Given<'a>>,
    others: Vec<&'a str>,
}

/// An option and its value, if it takes one.
struct Given<'a> {
    flag: &'a FlagInfo<'a>,
    value: Option<&'a str>,
}

/// Sorts: global options, the command, its options, `--`, all other words.
fn sort(argv: &[String], grammar: &CommandInfoWithArgs) -> Result<Vec<String>, String> {
    let words = scan(argv, grammar)?;
    let Some((&name, positionals)) = words.others.split_first() else {
        return Err(format!("give a command: {PROGRAM} --help lists them"));
    };
    let names = || grammar.commands.iter().map(|command| command.name);
    let Some(command) = grammar.commands.iter().find(|command| command.name == name) else {
        return Err(match nearest(name, names()) {
            Some(near) => format!("unknown command {name:?}, did you mean {near}?"),
            None => format!("unknown command {name:?}: {PROGRAM} --help lists them"),
        });
    };
    check_options(&words.options, grammar, &command.command)?;
    check_positionals(positionals, &command.command)?;

    let (global, own): (Vec<&Given>, Vec<&Given>) =
        words.options.iter().partition(|given| holds(grammar, given.flag));
    let spelt = |given: &Given| {
        let value = given.value.map(str::to_owned);
        [given.flag.long.to_owned()].into_iter().chain(value).collect::<Vec<String>>()
    };
    let mut sorted: Vec<String> = global.into_iter().flat_map(spelt).collect();
    sorted.push(name.to_owned());
    sorted.extend(own.into_iter().flat_map(spelt));
    sorted.push("--".to_owned());
    sorted.extend(positionals.iter().map(|&word| word.to_owned()));
    Ok(sorted)
}

/// Every option of the program and its commands.
fn all_flags<'a>(grammar: &'a CommandInfoWithArgs) -> impl Iterator<Item = &'a FlagInfo<'a>> {
    let own = grammar.commands.iter().flat_map(|command| command.command.flags);
    grammar.flags.iter().chain(own)
}

fn holds(command: &CommandInfoWithArgs, flag: &FlagInfo) -> bool {
    command.flags.iter().any(|own| own.long == flag.long)
}

fn is_repeating(flag: &FlagInfo) -> bool {
    flag.optionality == Optionality::Repeating
}

/// The flags that may be meant, those of the command first: `--check` takes a value in one command
/// and none in another.
struct Flags<'a> {
    grammar: &'a CommandInfoWithArgs,
    command: Option<&'a CommandInfoWithArgs>,
}

impl<'a> Flags<'a> {
    /// The command is the first word that names one and is no value of an option.
    fn of(argv: &'a [String], grammar: &'a CommandInfoWithArgs) -> Flags<'a> {
        let takes_value = |word: &String| {
            let flag = all_flags(grammar).find(|flag| flag.long == word);
            flag.is_some_and(|flag| flag.kind != FlagInfoKind::Switch)
        };
        let before = std::iter::once(None).chain(argv.iter().map(Some));
        let words = argv.iter().zip(before).take_while(|(word, _)| *word != "--");
        let mut free = words.filter(|(_, before)| !before.is_some_and(takes_value));
        let command = free.find_map(|(word, _)| {
            let known = grammar.commands.iter().find(|command| command.name == word)?;
            Some(&known.command)
        });
        Flags { grammar, command }
    }

    fn all(&self) -> impl Iterator<Item = &'a FlagInfo<'a>> + use<'a> {
        let own = self.command.into_iter().flat_map(|command| command.flags);
        own.chain(all_flags(self.grammar))
    }
}

/// Tells options with their values from other words.
fn scan<'a>(argv: &'a [String], grammar: &'a CommandInfoWithArgs) -> Result<Words<'a>, String> {
    let flags = &Flags::of(argv, grammar);
    let mut words = Words::default();
    let mut rest = argv.iter().peekable();
    while let Some(word) = rest.next() {
        if word == "--" {
            words.others.extend(rest.map(String::as_str));
            break;
        }
        if !word.starts_with('-') || word == "-" {
            words.others.push(word);
            continue;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        let flag = find(name, flags)?;
        if flag.kind == FlagInfoKind::Switch {
            if attached.is_some() {
                return Err(format!("{name} takes no value"));
            }
            words.options.push(Given { flag, value: None });
            continue;
        }
        let values = values(flag, attached, &mut rest, flags);
        if values.iter().any(|value| value.is_empty()) {
            return Err(format!("{name}: a value is missing"));
        }
        words.options.extend(values.into_iter().map(|value| Given { flag, value: Some(value) }));
    }
    Ok(words)
}

fn find<'a>(name: &str, flags: &Flags<'a>) -> Result<&'a FlagInfo<'a>, String> {
    let short = name.strip_prefix('-').and_then(|short| short.parse::<char>().ok());
    let is_meant = |flag: &&FlagInfo| flag.long == name || short.is_some() && flag.short == short;
    flags.all().find(is_meant).ok_or_else(|| {
        match nearest(name, flags.all().map(|flag| flag.long)) {
            Some(near) => format!("unknown option {name:?}, did you mean {near}?"),
            None => {
                let command = flags.command.map_or("COMMAND", |command| command.name);
                format!("unknown option {name:?}: {PROGRAM} {command} --help lists them")
            }
        }
    })
}

/// The value of an option: attached, or the next word, even one such as `-3`, which is refused
/// as a value. An option of several takes words up to one that can only be an instrument, a
/// command or an option; commas part values too. An empty one stands for none.
fn values<'a>(
    flag: &FlagInfo,
    attached: Option<&'a str>,
    rest: &mut Peekable<Iter<'a, String>>,
    flags: &Flags<'_>,
) -> Vec<&'a str> {
    let is_option = |word: &str| word.starts_with("--") || find(word, flags).is_ok();
    let first = attached.or_else(|| rest.next_if(|next| !is_option(next)).map(String::as_str));
    let first = first.unwrap_or_default();
    if !is_repeating(flag) {
        return vec![first];
    }
    let mut values: Vec<&str> = first.split(',').collect();
    let commands = &flags.grammar.commands;
    let is_command = |word: &str| commands.iter().any(|command| command.name == word);
    while let Some(next) = rest.next_if(|next| !next.contains(['-', '/']) && !is_command(next)) {
        values.extend(next.split(','));
    }
    values
}

fn check_options(
    options: &[Given],
    grammar: &CommandInfoWithArgs,
    command: &CommandInfoWithArgs,
) -> Result<(), String> {
    for (n, Given { flag, value }) in options.iter().enumerate() {
        let (name, long) = (command.name, flag.long);
        if !holds(grammar, flag) && !holds(command, flag) {
            return Err(format!("{name} has no option {long}: see {PROGRAM} {name} --help"));
        }
        let twice = options[..n].iter().any(|other| other.flag.long == long);
        if twice && value.is_some() && !is_repeating(flag) {
            return Err(format!("{long} is given twice"));
        }
    }
    Ok(())
}

fn check_positionals(words: &[&str], command: &CommandInfoWithArgs) -> Result<(), String> {
    let (name, known) = (command.name, command.positionals);
    let missing: Vec<&str> = known
        .iter()
        .skip(words.len())
        .filter(|positional| positional.optionality == Optionality::Required)
        .map(|positional| positional.name)
        .collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(format!("{name}: give {missing}: see {PROGRAM} {name} --help"));
    }
    let repeats = known.iter().any(|positional| positional.optionality == Optionality::Repeating);
    match words.get(known.len()) {
        Some(word) if !repeats => {
            Err(format!("{name}: {word:?} is one word too many: see {PROGRAM} {name} --help"))
        }
        _ => Ok(()),
    }
}
