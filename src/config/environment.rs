//! What the process is told by its surroundings, and where a configuration is looked for in them.
//!
//! **Invariant:** this is the only file that reads environment variables. Everything else is
//! handed an [`Environment`], so that it can be tried with any.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::error::ConfigError;
use crate::config::raw;

/// The variables of the three parts of a credential: key, secret, passphrase.
pub(super) const CREDENTIALS: [&str; 3] = ["OKX_API_KEY", "OKX_API_SECRET", "OKX_PASSPHRASE"];
/// The folder in the user's home that holds the configuration and the data of last resort.
const HOME_FOLDER: &str = ".okx_local_store";
/// The name of a configuration where none is given.
const FILE: &str = "config.json";

/// The surroundings of a process. An empty variable counts as one that is not set.
#[derive(Default)]
pub struct Environment {
    /// The folder it was started in.
    pub folder: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// `OKX_STORE_CONFIG`: the configuration to take.
    pub config: Option<PathBuf>,
    /// `SSL_CERT_FILE`: roots of trust instead of the built-in ones, in PEM form.
    pub ca_file: Option<PathBuf>,
    /// Whether the user or the terminal wants no colours: `NO_COLOR`, or `TERM` is `dumb`.
    /// Source: <https://no-color.org>.
    pub is_plain: bool,
    /// `OKX_API_KEY`, `OKX_API_SECRET` and `OKX_PASSPHRASE`.
    pub credentials: [Option<OsString>; 3],
}

impl fmt::Debug for Environment {
    /// Shows which parts of the credentials are set, never what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("folder", &self.folder)
            .field("home", &self.home)
            .field("config", &self.config)
            .field("ca_file", &self.ca_file)
            .field("is_plain", &self.is_plain)
            .field("credentials", &self.credentials.each_ref().map(Option::is_some))
            .finish()
    }
}

/// Which file to read, or that there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is there.
    File(PathBuf),
    /// There is none; the first edit writes it here.
    Nowhere(PathBuf),
}

impl Environment {
    /// The surroundings of this process.
    pub fn read() -> Environment {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        Environment {
            // A folder deleted under the process leaves relative paths, which fail by name.
            folder: env::current_dir().unwrap_or_default(),
            home: env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            config: set("OKX_STORE_CONFIG").map(PathBuf::from),
            ca_file: set("SSL_CERT_FILE").map(PathBuf::from),
            is_plain: set("NO_COLOR").is_some() || set("TERM").is_some_and(|name| name == "dumb"),
            credentials: CREDENTIALS.map(set),
        }
    }

    /// Key, secret and passphrase, where all three are set; nothing where none is.
    ///
    /// # Errors
    ///
    /// Some are set and others not, or one has characters that no header can carry. The message
    /// names the variable and never its value.
    pub fn credentials(&self) -> Result<Option<(String, String, String)>, ConfigError> {
        if self.credentials.iter().all(Option::is_none) {
            return Ok(None);
        }
        let mut missing = Vec::new();
        let mut values = Vec::new();
        for (name, value) in CREDENTIALS.into_iter().zip(&self.credentials) {
            match value.as_deref().map(|value| value.to_str()) {
                None => missing.push(name),
                Some(Some(text)) if text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') => {
                    values.push(text.to_owned());
                }
                Some(_) => return Err(ConfigError::CredentialText(name)),
            }
        }
        let [key, secret, passphrase] =
            values.try_into().map_err(|_| ConfigError::CredentialsMissing(missing))?;
        Ok(Some((key, secret, passphrase)))
    }

    /// The configuration in the user's home.
    pub(super) fn last_resort(&self) -> Result<PathBuf, ConfigError> {
        let home = self.home.as_ref().ok_or(ConfigError::NoHome)?;
        Ok(home.join(HOME_FOLDER).join(FILE))
    }

    /// Finds the configuration: the one named by `--config`, else by `OKX_STORE_CONFIG`, else
    /// `./config.json` if it is one of ours, else the one in the user's home.
    pub(super) fn find(&self, named: Option<&Path>) -> Result<Place, ConfigError> {
        let by_option = named.map(|path| (path, "--config"));
        let by_variable = self.config.as_deref().map(|path| (path, "OKX_STORE_CONFIG"));
        if let Some((path, by)) = by_option.or(by_variable) {
            let file = self.folder.join(path);
            return match fs::metadata(&file) {
                Ok(found) if found.is_file() => Ok(Place::File(file)),
                Ok(_) => Err(ConfigError::OtherThanFile(file, by)),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    Err(ConfigError::NoFile(file, by))
                }
                Err(error) => Err(ConfigError::Unreadable(file, error)),
            };
        }
        let here = self.folder.join(FILE);
        if here.is_file() && raw::is_ours(&raw::read(&here)?) {
            return Ok(Place::File(here));
        }
        let file = self.last_resort()?;
        Ok(if file.is_file() { Place::File(file) } else { Place::Nowhere(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(values: [&str; 3]) -> Environment {
        let credentials = values.map(|value| (!value.is_empty()).then(|| value.into()));
        Environment { credentials, ..Environment::default() }
    }

    #[test]
    fn credentials_are_whole_or_absent() {
        assert_eq!(credentials(["", "", ""]).credentials().unwrap(), None);
        let found = credentials(["k", "s", "p p"]).credentials().unwrap();
        assert_eq!(found, Some(("k".into(), "s".into(), "p p".into())));
        for (values, words) in [
            (["k3y", "", ""], &["OKX_API_SECRET and OKX_PASSPHRASE are not set"][..]),
            (["", "s3cret", "p4ss"], &["OKX_API_KEY is not set"]),
            (["k3y", "s3cret\n", "p4ss"], &["OKX_API_SECRET"]),
            (["k3y", "sécret", "p4ss"], &["OKX_API_SECRET"]),
        ] {
            let environment = credentials(values);
            let text = environment.credentials().unwrap_err().to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            let shown = format!("{text} {environment:?}");
            assert!(!values.iter().any(|v| !v.is_empty() && shown.contains(v.trim())), "{shown}");
        }
    }

    #[test]
    fn a_configuration_is_found_where_it_was_put_first() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), text).unwrap();
        };
        let here =
            Environment { folder: at("here"), home: Some(at("home")), ..Environment::default() };
        let found = |environment: &Environment| environment.find(None).unwrap();
        let home = at("home/.okx_local_store/config.json");

        assert_eq!(found(&here), Place::Nowhere(home.clone()));
        write("home/.okx_local_store/config.json", "{}");
        assert_eq!(found(&here), Place::File(home.clone()));
        write("here/config.json", r#"{ "compilerOptions": {} }"#);
        assert_eq!(found(&here), Place::File(home), "another program's file is passed by");
        write("here/config.json", "// ours\n{ \"instruments\": [] }");
        assert_eq!(found(&here), Place::File(at("here/config.json")));
        write("variable.json", "{}");
        let named = Environment { config: Some(at("variable.json")), ..here };
        assert_eq!(found(&named), Place::File(at("variable.json")));
        write("here/option.json", "{}");
        let by_option = named.find(Some(Path::new("option.json"))).unwrap();
        assert_eq!(by_option, Place::File(at("here/option.json")));
    }

    #[test]
    fn a_named_configuration_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = Environment { folder: folder.path().into(), ..Environment::default() };
        let text = |found: Result<Place, ConfigError>| found.unwrap_err().to_string();
        for (name, words) in [(".", "is no regular file, though --config names it"), ("x/y", "x/y")]
        {
            fs::write(folder.path().join("x"), "").unwrap();
            let told = text(nowhere.find(Some(Path::new(name))));
            assert!(told.contains(words) && !told.contains("no such file"), "{told}");
        }
        let by_option = text(nowhere.find(Some(Path::new("nope.json"))));
        assert!(by_option.contains("nope.json") && by_option.contains("--config"), "{by_option}");
        assert!(text(nowhere.find(None)).contains("HOME"));
        let named = Environment { config: Some("nope.json".into()), ..nowhere };
        assert!(text(named.find(None)).contains("OKX_STORE_CONFIG"));
    }

    #[test]
    fn our_own_broken_file_is_not_passed_by() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        fs::write(&file, "{ \"instruments\": [ }").unwrap();
        let here = Environment { folder: folder.path().into(), ..Environment::default() };
        assert_eq!(here.find(None).unwrap(), Place::File(file));
    }
}
