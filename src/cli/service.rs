//! `service`: a unit by which systemd runs the daemon for a user.

use std::io::Write;
use std::path::Path;

use crate::cli::command::Globals;
use crate::cli::outcome::{Exit, Failure, finish};
use crate::config::Config;

/// Prints the unit for this program and the configuration in use.
///
/// # Errors
///
/// The program's own path, or the current folder, is not to be had.
pub fn service(config: &Config, globals: &Globals, out: &mut dyn Write) -> Result<Exit, Failure> {
    let program = std::env::current_exe().map_err(Failure::Output)?;
    let file = std::path::absolute(&config.file).map_err(Failure::Output)?;
    // Built-in defaults are found again without a file, and with the first that is written.
    let config = if config.is_builtin { None } else { Some(file.as_path()) };
    let data_dir = globals.data_dir.as_deref().map(std::path::absolute).transpose();
    let data_dir = data_dir.map_err(Failure::Output)?;
    finish(write(&program, config, data_dir.as_deref(), out), out)
}

fn write(
    program: &Path,
    config: Option<&Path>,
    data_dir: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut command = quoted(program);
    for (option, path) in [("--config", config), ("--data-dir", data_dir)] {
        if let Some(path) = path {
            command += &format!(" {option} {}", quoted(path));
        }
    }
    // A restart after bad usage or a bad configuration would only fail again.
    Ok(write!(
        out,
        "\
[Unit]
Description=OKX candles, kept fresh by okx-store
Documentation=man:systemd.service(5)

[Service]
ExecStart={command} daemon
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
TimeoutStopSec=30
LimitNOFILE=8192
# Credentials are optional; where they are used, they stand in a file that only you can read:
# EnvironmentFile=%h/.config/okx-store.env

[Install]
WantedBy=default.target
"
    )?)
}

/// A path as one word of a command line in a unit. Source: systemd.service(5), "Command lines":
/// quotes hold words together, a percent sign and a dollar sign are doubled to stand for
/// themselves.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@~".contains(letter);
    if text.chars().all(plain) {
        return text;
    }
    let mut word = String::from("\"");
    for letter in text.chars() {
        match letter {
            '%' | '$' => word.extend([letter, letter]),
            '"' | '\\' => word.extend(['\\', letter]),
            _ => word.push(letter),
        }
    }
    word.push('"');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words_whatever_is_in_them() {
        for (path, word) in [
            ("/home/me/candles/config.json", "/home/me/candles/config.json"),
            ("/home/me/my data", "\"/home/me/my data\""),
            ("/100%/$x/\"y\\z", "\"/100%%/$$x/\\\"y\\\\z\""),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
        let mut out = Vec::new();
        let (config, data) = (Path::new("/c c/config.json"), Path::new("/d"));
        write(Path::new("/bin/okx-store"), Some(config), Some(data), &mut out).unwrap();
        let line = "ExecStart=/bin/okx-store --config \"/c c/config.json\" --data-dir /d daemon\n";
        assert!(String::from_utf8(out).unwrap().contains(line));
    }
}
