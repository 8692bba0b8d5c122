//! Why a configuration is refused.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::config::environment::CREDENTIALS;

/// The most refusals of one file that are told at once.
const REFUSALS_SHOWN: usize = 10;

/// One thing in a file that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Refusal {
    /// The line, counted from 1; it means nothing where a program has built it.
    pub line: usize,
    /// What is wrong, beginning with the path of the key where there is one.
    pub problem: String,
}

/// A configuration that cannot be used. All are the user's to mend: exit code 2.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that was named by the second is not there.
    NoFile(PathBuf, &'static str),
    /// What the second names is a folder, or something else that is read but once.
    OtherThanFile(PathBuf, &'static str),
    /// No file was named or found, and there is no home folder to fall back on.
    NoHome,
    /// A file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file cannot be written.
    Unwritable(PathBuf, io::Error),
    /// What a file says is refused; the list is not empty, and in the order of its lines.
    Refused(PathBuf, Vec<Refusal>),
    /// What a program has built is refused; the list is not empty.
    Built(Vec<Refusal>),
    /// Parts of the credentials are set, and these variables are not.
    CredentialsMissing(Vec<&'static str>),
    /// This variable has characters that no header can carry.
    CredentialText(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::NoFile(file, by) => {
                write!(f, "{}: no such file, though {by} names it", file.display())
            }
            ConfigError::OtherThanFile(file, by) => {
                write!(f, "{} is no regular file, though {by} names it", file.display())
            }
            ConfigError::NoHome => {
                f.write_str("no configuration found and HOME is not set: give --config FILE")
            }
            ConfigError::Unreadable(file, cause) => {
                write!(f, "{} cannot be read: {cause}", file.display())
            }
            ConfigError::Unwritable(file, cause) => {
                write!(f, "{} cannot be written: {cause}", file.display())
            }
            ConfigError::Refused(file, refusals) => {
                for (n, Refusal { line, problem }) in
                    refusals.iter().take(REFUSALS_SHOWN).enumerate()
                {
                    let gap = if n == 0 { "" } else { "\n" };
                    write!(f, "{gap}{}:{line}: {problem}", file.display())?;
                }
                match refusals.len().saturating_sub(REFUSALS_SHOWN) {
                    0 => Ok(()),
                    more => write!(f, "\n{}: and {more} more", file.display()),
                }
            }
            ConfigError::Built(refusals) => {
                let problems: Vec<&str> =
                    refusals.iter().map(|refusal| refusal.problem.as_str()).collect();
                f.write_str(&problems.join("; "))
            }
            ConfigError::CredentialsMissing(missing) => {
                let verb = if missing.len() == 1 { "is" } else { "are" };
                let all = CREDENTIALS.join(", ");
                write!(f, "{} {verb} not set: set all of {all}, or none", missing.join(" and "))
            }
            ConfigError::CredentialText(name) => {
                write!(f, "{name} has characters other than printable ASCII: set it anew")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable(_, cause) | ConfigError::Unwritable(_, cause) => Some(cause),
            _ => None,
        }
    }
}
