//! `completions`: a script for a shell, which then completes commands, options and their values.
//!
//! It is written from the grammar, so it knows what the program knows. Symbols are those of
//! `okx-store list`, asked for at the key press.

use std::fmt::Write;
use std::str::FromStr;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, SubCommandInfo};

use crate::bar::Bar;
use crate::cli::args::Args;
use crate::cli::check;
use crate::config::RealtimeMode;
use crate::okx::Kind;

/// A shell that can be taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash, 4 and later.
    Bash,
    /// zsh, 5 and later.
    Zsh,
    /// fish, 3 and later.
    Fish,
}

/// Their names.
pub(super) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

impl FromStr for Shell {
    type Err = String;

    fn from_str(text: &str) -> Result<Shell, String> {
        match text {
            "bash" => Ok(Shell::Bash),
            "zsh" => Ok(Shell::Zsh),
            "fish" => Ok(Shell::Fish),
            _ => Err(format!("unknown shell {text:?}: give one of {}", SHELLS.join(", "))),
        }
    }
}

/// What may stand in a place.
enum Values {
    Symbols,
    Words(Vec<&'static str>),
    Files,
    Folders,
    /// Anything that only the user knows.
    Any,
}

impl Values {
    /// Of an option of a command, by its name with dashes, or of a word in its place, by its name
    /// in the help.
    fn of(command: &str, name: &str) -> Values {
        match name {
            "--format" if command == "query" => Values::Words(vec!["table", "json", "csv"]),
            "SYMBOL" => Values::Symbols,
            "TIMEFRAME" | "--timeframes" => Values::Words(Bar::all().map(Bar::name).collect()),
            "OUTPUT" | "--config" => Values::Files,
            "--data-dir" => Values::Folders,
            "--format" => Values::Words(vec!["table", "json", "prometheus"]),
            "--type" => Values::Words(Kind::ALL.map(Kind::as_str).to_vec()),
            "--source" | "--set-mode" => {
                Values::Words(RealtimeMode::ALL.map(RealtimeMode::as_str).to_vec())
            }
            "ACTION" => Values::Words(check::ACTIONS.map(|(name, _)| name).to_vec()),
            "SHELL" => Values::Words(SHELLS.to_vec()),
            _ => Values::Any,
        }
    }
}

/// The script for a shell, to be sourced or put where the shell looks for such.
pub fn script(shell: Shell) -> String {
    let grammar = Args::get_args_info();
    let mut text = String::new();
    // Nothing can fail that is written to a string.
    let _ = match shell {
        Shell::Bash => bash(&grammar, &mut text),
        Shell::Zsh => zsh(&grammar, &mut text),
        Shell::Fish => fish(&grammar, &mut text),
    };
    text
}

/// The words of a command in their places, and whether the last may come again.
fn places(command: &CommandInfoWithArgs) -> (Vec<Values>, bool) {
    let names = command.positionals.iter().flat_map(|positional| positional.name.split(' '));
    // A name of several words stands for as many places; a list of symbols for any number.
    let repeats = command.positionals.iter().any(|positional| {
        positional.optionality == Optionality::Repeating && !positional.name.contains(' ')
    });
    (names.map(|name| Values::of(command.name, name)).collect(), repeats)
}

/// Each option that takes a value, once.
fn valued(grammar: &CommandInfoWithArgs) -> Vec<&str> {
    let own = grammar.commands.iter().flat_map(|command| command.command.flags);
    let all = grammar.flags.iter().chain(own).filter(|flag| flag.kind != FlagInfoKind::Switch);
    let mut names: Vec<&str> = all.map(|flag| flag.long).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn longs(flags: &[FlagInfo<'_>]) -> String {
    flags.iter().map(|flag| flag.long).collect::<Vec<&str>>().join(" ")
}

fn commands(grammar: &CommandInfoWithArgs) -> String {
    grammar.commands.iter().map(|command| command.name).collect::<Vec<&str>>().join(" ")
}

/// The shell command that lists what is configured, one name a line.
const SYMBOLS: &str = r#"okx-store list 2>/dev/null | awk 'NR > 1 { if (!NF) exit; print $1 }'"#;

/// Offers those words that begin as what was typed, if need be in the other case: `1h` means 1H.
const BASH_WORDS: &str = r#"_okx_store_words() {
    local word
    COMPREPLY=($(compgen -W "$1" -- "$cur"))
    [[ $COMPREPLY ]] || for word in $1; do
        if [[ ${word,,} == "${cur,,}"* ]]; then COMPREPLY+=("$word"); fi
    done
}"#;

fn bash(grammar: &CommandInfoWithArgs, out: &mut String) -> std::fmt::Result {
    let reply = |values: &Values| match values {
        Values::Symbols => {
            format!(r#"_okx_store_words "$({SYMBOLS})""#)
        }
        Values::Words(words) => {
            format!(r#"_okx_store_words "{}""#, words.join(" "))
        }
        Values::Files => r#"compopt -o filenames; COMPREPLY=($(compgen -f -- "$cur"))"#.to_owned(),
        Values::Folders => {
            r#"compopt -o filenames; COMPREPLY=($(compgen -d -- "$cur"))"#.to_owned()
        }
        Values::Any => ":".to_owned(),
    };
    writeln!(out, "# bash completion of okx-store\n{BASH_WORDS}")?;
    writeln!(out, "_okx_store() {{")?;
    writeln!(
        out,
        "    local cur=${{COMP_WORDS[COMP_CWORD]}} command= first= list= places=0 i word"
    )?;
    writeln!(out, "    COMPREPLY=()")?;
    writeln!(out, "    for ((i = 1; i < COMP_CWORD; i++)); do")?;
    writeln!(out, "        word=${{COMP_WORDS[i]}}\n        case $word in")?;
    writeln!(out, "            --timeframes) list=1; ((i++)) ;;")?;
    writeln!(out, "            {}) list=; ((i++)) ;;", valued(grammar).join("|"))?;
    writeln!(out, "            -*) list= ;;")?;
    writeln!(out, "            *)  if [[ $list && $word != *[-/]* ]]; then continue; fi; list=")?;
    writeln!(out, "                if [[ -z $command ]]; then command=$word")?;
    writeln!(out, "                else ((places++)); first=${{first:-$word}}; fi ;;")?;
    writeln!(out, "        esac\n    done")?;
    writeln!(out, "    case \"$command ${{COMP_WORDS[COMP_CWORD-1]}}\" in")?;
    for flag in grammar.flags.iter().filter(|flag| flag.kind != FlagInfoKind::Switch) {
        let values = Values::of("", flag.long);
        writeln!(out, "        *' {}') {}; return ;;", flag.long, reply(&values))?;
    }
    for SubCommandInfo { name, command } in &grammar.commands {
        for flag in command.flags.iter().filter(|flag| flag.kind != FlagInfoKind::Switch) {
            let values = Values::of(name, flag.long);
            writeln!(out, "        '{name} {}') {}; return ;;", flag.long, reply(&values))?;
        }
    }
    writeln!(out, "    esac")?;
    let bars = reply(&Values::of("", "--timeframes"));
    writeln!(out, "    if [[ $list && $cur != -* ]]; then {bars}; [[ $COMPREPLY ]] && return; fi")?;
    writeln!(out, "    local options=\"{}\"", longs(grammar.flags))?;
    writeln!(out, "    case $command in")?;
    writeln!(out, "        '') [[ $cur != -* ]] && options=\"{}\" ;;", commands(grammar))?;
    for SubCommandInfo { name, command } in &grammar.commands {
        writeln!(out, "        {name})")?;
        match *name {
            "websocket" => {
                for (action, own) in check::ACTIONS {
                    let own = own.join(" ");
                    writeln!(out, "            [[ $first == {action} ]] && options+=\" {own}\"")?;
                }
            }
            _ => writeln!(out, "            options+=\" {}\"", longs(command.flags))?,
        }
        let (places, repeats) = places(command);
        writeln!(out, "            [[ $cur == -* ]] || case $places in")?;
        for (n, values) in places.iter().enumerate() {
            let place = if repeats && n + 1 == places.len() { "*".into() } else { n.to_string() };
            writeln!(out, "                {place}) {}; return ;;", reply(values))?;
        }
        writeln!(out, "            esac ;;")?;
    }
    writeln!(out, "    esac")?;
    writeln!(out, "    COMPREPLY=($(compgen -W \"$options --help\" -- \"$cur\"))\n}}")?;
    writeln!(out, "complete -F _okx_store okx-store")
}

/// A text in single quotes, as zsh's `_arguments` takes it.
fn zsh_text(text: &str) -> String {
    let mut quoted = String::new();
    for letter in text.chars() {
        match letter {
            '\'' => quoted += "'\\''",
            '[' | ']' | ':' | '\\' => quoted.extend(['\\', letter]),
            _ => quoted.push(letter),
        }
    }
    quoted
}

fn zsh(grammar: &CommandInfoWithArgs, out: &mut String) -> std::fmt::Result {
    let action = |values: &Values| match values {
        Values::Symbols => "_okx_store_symbols".to_owned(),
        Values::Words(words) => format!("_okx_store_words {}", words.join(" ")),
        Values::Files => "_files".to_owned(),
        Values::Folders => "_files -/".to_owned(),
        Values::Any => " ".to_owned(),
    };
    let specs = |command: &str, flags: &[FlagInfo<'_>]| {
        let mut lines = String::new();
        for flag in flags {
            let (long, text) = (flag.long, zsh_text(flag.description));
            let star = if flag.optionality == Optionality::Repeating { "*" } else { "" };
            let value = match flag.kind {
                FlagInfoKind::Switch => String::new(),
                FlagInfoKind::Option { arg_name } => {
                    format!(":{arg_name}:{}", action(&Values::of(command, long)))
                }
            };
            let _ = write!(lines, " \\\n                '{star}{long}[{text}]{value}'");
        }
        lines
    };
    writeln!(out, "#compdef okx-store\n")?;
    writeln!(out, "_okx_store_symbols() {{\n    local -a names")?;
    writeln!(
        out,
        "    names=(${{(f)\"$({SYMBOLS})\"}})\n    compadd -M 'm:{{a-z}}={{A-Z}}' -a names\n}}\n"
    )?;
    writeln!(out, "_okx_store_words() {{ compadd -M 'm:{{a-z}}={{A-Z}}' \"$@\"; }}\n")?;
    writeln!(out, "_okx_store() {{\n    local context state state_descr line")?;
    writeln!(out, "    typeset -A opt_args\n    local -a commands\n    commands=(")?;
    for SubCommandInfo { name, command } in &grammar.commands {
        writeln!(out, "        '{name}:{}'", zsh_text(command.description))?;
    }
    writeln!(out, "    )\n    _arguments -C{} \\", specs("", grammar.flags))?;
    writeln!(out, "                '1:command:->command' '*::word:->words'")?;
    writeln!(out, "    case $state in")?;
    writeln!(out, "        command) _describe command commands ;;")?;
    writeln!(out, "        words) case $words[1] in")?;
    for SubCommandInfo { name, command } in &grammar.commands {
        let (places, repeats) = places(command);
        write!(out, "            {name}) _arguments{}", specs(name, command.flags))?;
        for (n, values) in places.iter().enumerate() {
            let last = repeats && n + 1 == places.len();
            let place = if last { "*".to_owned() } else { (n + 1).to_string() };
            write!(out, " \\\n                '{place}:word:{}'", action(values))?;
        }
        writeln!(out, " ;;")?;
    }
    writeln!(out, "        esac ;;\n    esac\n}}\n")?;
    writeln!(out, "# Sourced, it has to be made known; as a file in $fpath it is called.")?;
    writeln!(out, "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _okx_store \"$@\"")?;
    writeln!(out, "else compdef _okx_store okx-store; fi")
}

fn fish(grammar: &CommandInfoWithArgs, out: &mut String) -> std::fmt::Result {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let arguments = |values: &Values| match values {
        Values::Symbols => " -x -a '(__okx_store_symbols)'".to_owned(),
        Values::Words(words) => format!(" -x -a '{}'", words.join(" ")),
        Values::Files => " -r -F".to_owned(),
        Values::Folders => " -x -a '(__fish_complete_directories)'".to_owned(),
        Values::Any => " -x".to_owned(),
    };
    let flag_line = |command: &str, flag: &FlagInfo<'_>, when: &str, out: &mut String| {
        let long = flag.long.trim_start_matches('-');
        let short = flag.short.map_or(String::new(), |short| format!(" -s {short}"));
        let values = match flag.kind {
            FlagInfoKind::Switch => String::new(),
            FlagInfoKind::Option { .. } => arguments(&Values::of(command, flag.long)),
        };
        let text = quoted(flag.description);
        writeln!(out, "complete -c okx-store{when} -l {long}{short}{values} -d '{text}'")
    };
    writeln!(out, "# fish completion of okx-store\nfunction __okx_store_symbols")?;
    writeln!(out, "    {SYMBOLS}\nend\n")?;
    writeln!(out, "# Whether so many words stand after the command before the cursor.")?;
    writeln!(out, "function __okx_store_place\n    set -l words 0\n    set -l skip 0")?;
    writeln!(out, "    for word in (commandline -opc)[2..]")?;
    writeln!(out, "        if test $skip = 1; set skip 0; continue; end")?;
    writeln!(out, "        switch $word")?;
    writeln!(out, "            case {}; set skip 1", valued(grammar).join(" "))?;
    writeln!(out, "            case '-*'")?;
    writeln!(out, "            case '*'; set words (math $words + 1)")?;
    writeln!(out, "        end\n    end\n    test $words $argv[1] $argv[2]\nend\n")?;
    writeln!(out, "complete -c okx-store -f")?;
    for flag in grammar.flags {
        flag_line("", flag, "", out)?;
    }
    for SubCommandInfo { name, command } in &grammar.commands {
        let text = quoted(command.description);
        writeln!(out, "complete -c okx-store -n __fish_use_subcommand -a {name} -d '{text}'")?;
        let seen = format!("__fish_seen_subcommand_from {name}");
        for flag in command.flags {
            let actions = check::ACTIONS.iter().filter(|_| *name == "websocket");
            let action = actions.filter(|(_, own)| own.contains(&flag.long)).map(|(name, _)| name);
            let below = action.map(|name| format!("; and __fish_seen_subcommand_from {name}"));
            let when = format!(" -n '{seen}{}'", below.collect::<String>());
            flag_line(name, flag, &when, out)?;
        }
        let (places, repeats) = places(command);
        for (n, values) in places.iter().enumerate() {
            let compare = if repeats && n + 1 == places.len() { "-gt" } else { "-eq" };
            let before = if compare == "-gt" { n } else { n + 1 };
            let when = format!("{seen}; and __okx_store_place {compare} {before}");
            writeln!(out, "complete -c okx-store -n '{when}'{}", arguments(values))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_every_command_and_option() {
        let grammar = Args::get_args_info();
        for name in SHELLS {
            let text = script(name.parse().unwrap());
            for SubCommandInfo { name: command, command: info } in &grammar.commands {
                assert!(text.contains(command), "{name}: {command}");
                for flag in info.flags {
                    let long = flag.long.trim_start_matches('-');
                    assert!(text.contains(long), "{name}: {command} {long}");
                }
            }
        }
        assert!("tcsh".parse::<Shell>().unwrap_err().ends_with("give one of bash, zsh, fish"));
    }

    #[test]
    fn bars_modes_and_actions_are_those_of_the_program() {
        let text = script(Shell::Bash);
        for word in [
            "1Dutc",
            "hybrid",
            "SWAP",
            "table json prometheus",
            "table json csv",
            "status test config",
        ] {
            assert!(text.contains(word), "{word}");
        }
    }
}
