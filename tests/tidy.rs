//! The house rules that neither the compiler nor clippy knows: who may import whom, how long
//! things may get, which calls are banned and what is used in their place.
//!
//! It reads the sources line by line, as rustfmt leaves them. A violation is told as
//! `file:line: rule, use X`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules at the top of `src`, layer by layer. A file imports its own layer and lower ones.
const LAYERS: [(&str, &[&str]); 7] = [
    (
        "words",
        &[
            "time",
            "span",
            "candle",
            "bar",
            "instrument",
            "page",
            "coverage",
            "latency",
            "meter",
            "snapshot",
            "spelling",
            "analysis",
        ],
    ),
    ("wire", &["wire", "okx"]),
    (
        "brains",
        &[
            "limit",
            "backoff",
            "breaker",
            "mode",
            "plan",
            "control",
            "session",
            "link",
            "feed",
            "keeper",
            "queue",
            "view",
            "request",
            "verification",
        ],
    ),
    (
        "edges",
        &[
            "thread", "http", "socket", "proxy", "roots", "store", "lock", "lines", "board",
            "grants", "audience", "csv",
        ],
    ),
    ("threads", &["poller", "stream", "writer", "auditor", "desk", "signal"]),
    (
        "assembly",
        &[
            "supervisor",
            "crew",
            "engine",
            "daemon",
            "steward",
            "inquiry",
            "config",
            "logging",
            "error",
            "house",
            "draft",
            "export",
            "market",
            "survey",
            "query",
            "hosted",
            "status",
            "sight",
        ],
    ),
    ("faces", &["lib", "local", "cli", "main"]),
];
/// A function that does not fit on a screen does more than one thing.
const FUNCTION_LINES_MAX: usize = 70;
/// The lines of a file without its tests.
const FILE_LINES_MAX: usize = 600;
/// From here on a file is named, so that it can be divided before it has to be.
const FILE_LINES_LONG: usize = 400;
/// The columns of a line; rustfmt leaves long comments and strings alone.
const COLUMNS_MAX: usize = 100;

/// Something that is not written in `src` outside of tests.
struct Ban {
    /// What is not to be found.
    text: &'static str,
    /// What to use in its place.
    instead: &'static str,
    /// Where it is allowed: beginnings of paths.
    except: &'static [&'static str],
}

const fn ban(text: &'static str, instead: &'static str) -> Ban {
    Ban { text, instead, except: &[] }
}

const BANS: [Ban; 20] = [
    ban(".unwrap()", "`?`, or `expect(\"because …\")` for what cannot happen"),
    ban("thread::sleep", "a wait with a deadline on a channel"),
    ban("unbounded(", "`bounded` with a named capacity"),
    ban("unbounded::<", "`bounded` with a named capacity"),
    ban("std::thread::spawn", "`crate::thread::spawn`, whose end is heard of"),
    ban("use std::thread;", "`crate::thread`"),
    Ban {
        text: "Builder::new().name(",
        instead: "`crate::thread::spawn`, whose end is heard of",
        except: &["src/thread.rs"],
    },
    Ban { text: "SystemTime::now", instead: "`crate::time::Clock`", except: &["src/time.rs"] },
    Ban { text: "Instant::now", instead: "`crate::time::Clock`", except: &["src/time.rs"] },
    ban("now_utc()", "`crate::time::Clock`"),
    // A single wait is its own deadline; one in a loop begins anew with each message.
    Ban { text: "recv_timeout(", instead: "`select!` until a deadline", except: &["src/lock.rs"] },
    // They panic when the pipe is closed.
    ban("println!", "the writer that was handed in"),
    ban("print!(", "the writer that was handed in"),
    ban("dbg!", "`log::debug!`"),
    ban("todo!", "code, or an issue"),
    ban("unimplemented!", "code, or an issue"),
    ban("panic!(", "an error, or `expect(\"because …\")`"),
    ban("super::", "`crate::`"),
    ban("allow(", "code that needs no exception"),
    ban("use crate::{", "one `use` for each module"),
];

/// What is found in no source, tests and comments among them. Taken apart here, so that this file
/// may be read by its own rules.
const LEFTOVERS: [(&str, &str); 4] = [
    (concat!("FIX", "ME"), "an issue"),
    (concat!("TO", "DO"), "an issue"),
    (concat!("#[", "ignore"), "a test that always runs"),
    (concat!("should_", "panic"), "a check of what comes out"),
];

/// Collections whose order is chance: it must not reach what a brain decides.
const UNORDERED: [&str; 2] = ["HashMap", "HashSet"];

/// A source file.
struct Source {
    path: String,
    lines: Vec<String>,
    /// Of each line, whether it belongs to tests.
    tests: Vec<bool>,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut tests = vec![!path.starts_with("src/"); lines.len()];
        let mut at = 0;
        while at < lines.len() {
            if lines[at].trim() == "#[cfg(test)]" {
                // Tests are the last thing in a file: clippy refuses items below their module.
                let module = lines[at + 1].contains("mod ") && lines[at + 1].ends_with('{');
                let end = if module { lines.len() - 1 } else { end_of_item(&lines, at + 1) };
                tests[at..=end].fill(true);
                at = end;
            }
            at += 1;
        }
        Source { path: path.to_owned(), lines, tests }
    }

    /// The module at the top of `src`, where it is in one.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        inside.split(['/', '.']).next()
    }

    /// The lines outside of tests that are no comments, with their numbers from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().map(String::as_str).zip(&self.tests).zip(1..);
        let code = lines.filter(|((line, test), _)| !**test && !line.trim().starts_with("//"));
        code.map(|((line, _), number)| (number, line))
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The last line of an item that begins at a line: where its braces close, or where it ends
/// without any.
fn end_of_item(lines: &[String], start: usize) -> usize {
    let depth = indent(&lines[start]);
    if lines[start].ends_with([';', '}']) {
        return start;
    }
    let closes = |line: &String| {
        let here = indent(line) == depth && !line.is_empty();
        here && (line.trim() == "}" || line.ends_with(';') || line.ends_with("{}"))
    };
    let rest = lines.iter().skip(start + 1).position(closes);
    rest.map_or(lines.len() - 1, |rest| start + 1 + rest)
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The modules of the crate that a line names.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).filter_map(|rest| {
        let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        name.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    })
}

fn check_layers(source: &Source, found: &mut Vec<String>) {
    let Some(module) = source.module() else { return };
    let path = &source.path;
    let Some(own) = layer(module) else {
        found.push(format!("{path}:1: `{module}` is in no layer, use LAYERS in tests/tidy.rs"));
        return;
    };
    for (number, line) in source.code() {
        for name in imports(line).filter(|name| *name != module) {
            let Some(other) = layer(name) else { continue };
            let (to, from) = (LAYERS[other].0, LAYERS[own].0);
            if other > own {
                found.push(format!(
                    "{path}:{number}: {from} import `{name}` of the {to}, use a type of a lower \
                     layer"
                ));
            } else if from == "threads" && other == own {
                found.push(format!(
                    "{path}:{number}: a thread imports its sibling `{name}`, use a type of a lower \
                     layer"
                ));
            }
        }
    }
}

fn check_bans(source: &Source, found: &mut Vec<String>) {
    let path = &source.path;
    let brain = source.module().and_then(layer).is_some_and(|layer| LAYERS[layer].0 == "brains");
    for (number, line) in source.code() {
        let banned = BANS.iter().filter(|ban| line.contains(ban.text));
        for ban in banned.filter(|ban| !ban.except.contains(&path.as_str())) {
            if ban.text == "super::" && line.contains("pub(super)") {
                continue;
            }
            found.push(format!("{path}:{number}: {} is banned, use {}", ban.text, ban.instead));
        }
        if line.contains(".expect(\"") && !line.contains(".expect(\"because ") {
            found.push(format!("{path}:{number}: expect without reason, use \"because …\""));
        }
        if brain && UNORDERED.iter().any(|unordered| line.contains(unordered)) {
            found.push(format!("{path}:{number}: chance in a brain, use `BTreeMap`, `BTreeSet`"));
        }
    }
    for (line, number) in source.lines.iter().zip(1..) {
        for (text, instead) in LEFTOVERS.iter().filter(|(text, _)| line.contains(text)) {
            found.push(format!("{path}:{number}: {text} is banned, use {instead}"));
        }
    }
}

fn check_lengths(source: &Source, found: &mut Vec<String>) {
    let path = &source.path;
    if !source.lines.first().is_some_and(|line| line.starts_with("//!")) {
        found.push(format!("{path}:1: the file does not say what it is, use `//!`"));
    }
    let lines = source.tests.iter().filter(|test| !**test).count();
    if lines > FILE_LINES_MAX {
        found.push(format!("{path}:1: {lines} lines, use a file for each noun"));
    }
    for (line, number) in source.lines.iter().zip(1..) {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            found.push(format!("{path}:{number}: {columns} columns, use {COLUMNS_MAX} at most"));
        }
        let words = line.split_whitespace().skip_while(|word| {
            ["const", "unsafe", "async", "extern"].contains(word) || word.starts_with("pub")
        });
        if words.clone().next() == Some("fn") {
            let length = end_of_item(&source.lines, number - 1) + 2 - number;
            if length > FUNCTION_LINES_MAX {
                found.push(format!("{path}:{number}: a function of {length} lines, use several"));
            }
        }
    }
}

/// What `src/lib.rs` exports: names, with the modules at the top of `src` that define them.
fn exports(lib: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for export in lib.split("\npub use crate::").skip(1) {
        let export = export.split(';').next().unwrap_or_default();
        let (module, rest) = export.split_once("::").unwrap();
        let names = rest.rsplit("::").next().unwrap_or_default();
        let names = names.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names = names.filter(|name| !name.is_empty());
        found.extend(names.map(|name| (module.to_owned(), name.to_owned())));
    }
    found
}

/// The exported functions and methods of a file of which the documentation has no example.
fn without_example(source: &Source, exports: &[(String, String)]) -> Vec<String> {
    let is_exported = |name: &str| {
        exports.iter().any(|(module, it)| Some(module.as_str()) == source.module() && it == name)
    };
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let (mut found, mut in_exported) = (Vec::new(), false);
    for (number, line) in source.code() {
        if indent(line) == 0 {
            in_exported = line.strip_prefix("impl ").is_some_and(|rest| is_exported(&name(rest)));
        }
        let item = line.trim().strip_prefix("pub ").map(|item| item.trim_start_matches("const "));
        let Some(function) = item.and_then(|item| item.strip_prefix("fn ")).map(name) else {
            continue;
        };
        let above = source.lines[..number - 1].iter().rev().map(|line| line.trim());
        let above: Vec<&str> = above.take_while(|line| line.starts_with(['/', '#'])).collect();
        let is_shown = if indent(line) == 0 { is_exported(&function) } else { in_exported };
        let sound = above.contains(&"#[doc(hidden)]") || above.contains(&"/// ```");
        if is_shown && !sound {
            let path = &source.path;
            found.push(format!("{path}:{number}: {function} has no example, use a doc-test"));
        }
    }
    found
}

fn check(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    check_layers(source, &mut found);
    check_bans(source, &mut found);
    check_lengths(source, &mut found);
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder and its folders whose names end so, by their path in the repository.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path, ending));
        } else if path.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// All sources. A file that its parent declares under `#[cfg(test)]` is a test from end to end, and
/// so are those below it.
fn sources() -> Vec<Source> {
    let paths = [files("src", ".rs"), files("tests", ".rs")].concat();
    let mut sources: Vec<Source> =
        paths.iter().map(|path| Source::new(path, &read(path))).collect();
    let mut tests = BTreeSet::new();
    for source in &sources {
        for (line, _) in source.lines.iter().zip(&source.tests).filter(|(_, test)| **test) {
            let module = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
            if let (Some((_, name)), Some(folder)) = (module, source.path.strip_suffix(".rs")) {
                tests.insert(format!("{folder}/{name}"));
            }
        }
    }
    let is_test = |path: &str| {
        let folders = path.trim_end_matches(".rs").match_indices('/').map(|(end, _)| &path[..end]);
        folders.chain([path.trim_end_matches(".rs")]).any(|module| tests.contains(module))
    };
    for source in sources.iter_mut().filter(|source| is_test(&source.path)) {
        source.tests.fill(true);
    }
    sources
}

#[test]
fn the_sources_keep_the_house_rules() {
    let sources = sources();
    for source in &sources {
        let lines = source.tests.iter().filter(|test| !**test).count();
        if lines > FILE_LINES_LONG {
            println!("{}: {lines} lines without tests", source.path);
        }
    }
    let found: Vec<String> = sources.iter().flat_map(check).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn what_is_public_is_shown_with_an_example() {
    let (lib, sources) = (read("src/lib.rs"), sources());
    let exports = exports(&lib);
    for module in lib.split("\npub mod ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let hidden = format!("#[doc(hidden)]\npub mod {module};");
        assert!(lib.contains(&hidden), "src/lib.rs shows all of `{module}`, use `pub use`");
    }
    for (module, name) in &exports {
        let own = sources.iter().filter(|source| source.module() == Some(module));
        let kinds = ["struct", "enum", "type", "fn"].map(|kind| format!("pub {kind} {name}"));
        let mut lines = own.flat_map(Source::code);
        let is_there = lines.any(|(_, line)| kinds.iter().any(|kind| line.starts_with(kind)));
        assert!(
            is_there,
            "src/lib.rs exports {name} of `{module}`, use the module that defines it"
        );
    }
    let found: Vec<String> = sources.iter().flat_map(|it| without_example(it, &exports)).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));

    // A check that finds nothing anywhere checks nothing.
    let method = "//!\nimpl Bar {\n    /// Its name.\n    pub fn name(self) {}\n}\n";
    let function = "//!\n/// Reads a time.\n#[must_use]\npub fn parse_time() {}\n";
    for (path, text, expected) in [
        ("src/bar.rs", method, vec!["src/bar.rs:4: name has no example, use a doc-test"]),
        ("src/time.rs", function, vec!["src/time.rs:4: parse_time has no example, use a doc-test"]),
        ("src/plan.rs", method, vec![]),
        ("src/bar.rs", &method.replace("/// Its name.", "#[doc(hidden)]"), vec![]),
        ("src/bar.rs", &method.replace("/// Its name.", "/// ```"), vec![]),
    ] {
        assert_eq!(without_example(&Source::new(path, text), &exports), expected);
    }
}

#[test]
fn every_file_beside_the_sources_is_used() {
    let sources: String =
        sources().iter().flat_map(|s| [s.lines.join("\n"), "\n".into()]).collect();
    let mut unused = Vec::new();
    for path in [files("fixtures", ""), files("src", ".sql")].concat() {
        let name = path.rsplit('/').next().unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        // Tables of tests give the distinguishing part of the name alone.
        let short = stem.strip_prefix("config_bad_").or(stem.strip_prefix("config_"));
        let named = sources.contains(name)
            || short.is_some_and(|short| sources.contains(&format!("\"{short}\"")));
        if !named && name != "README.md" {
            unused.push(path);
        }
    }
    assert!(unused.is_empty(), "no test names them, use or remove them: {unused:?}");
}

#[test]
fn fixtures_say_where_they_come_from() {
    let (readme, mut untold) = (read("fixtures/README.md"), files("fixtures", ""));
    let told = |path: &str| readme.contains(path.rsplit('/').next().unwrap_or_default());
    untold.retain(|path| !told(path) && !path.contains("/config_") && !path.ends_with("README.md"));
    assert!(untold.is_empty(), "fixtures/README.md does not name {untold:?}");
}

#[test]
fn unsafe_code_is_forbidden() {
    assert!(read("Cargo.toml").contains("\nunsafe_code = \"forbid\"\n"));
}

/// What `make audit` holds with a tool of its own; this much can be seen without.
#[test]
fn every_dependency_is_the_registry_s_and_vouched_for() {
    let lock = read("Cargo.lock");
    for package in lock.split("[[package]]").skip(1) {
        let own = package.contains("\nname = \"okx-local-store\"\n");
        let registry = "\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        let vouched = package.contains(registry) && package.contains("\nchecksum = \"");
        assert!(own || vouched, "{package}");
    }
    assert!(read(".deny.toml").contains("\nmultiple-versions = \"deny\"\n"));
}

/// Each rule, broken once: a check that finds nothing anywhere checks nothing.
#[test]
fn each_rule_is_noticed() {
    let long_function = format!("//!\nfn f() {{\n{}}}\n", "    g();\n".repeat(69));
    let long_line = format!("//!\n// {}\n", "ü".repeat(98));
    let cases = [
        ("no layer", "src/new.rs", "//!\n", "in no layer"),
        ("upwards", "src/span.rs", "//!\nuse crate::plan::Plan;\n", "words import `plan`"),
        ("in passing", "src/limit.rs", "//!\nlet x = crate::http::get();\n", "brains import"),
        ("siblings", "src/poller.rs", "//!\nuse crate::writer::Writer;\n", "its sibling `writer`"),
        ("owner", "src/writer.rs", "//!\nuse crate::engine;\n", "threads import `engine`"),
        ("unwrap", "src/okx/rest.rs", "//!\nlet x = y.unwrap();\n", "rest.rs:2: .unwrap() is"),
        ("after a test", "src/bar.rs", "//!\n#[cfg(test)]\nmod t;\ntodo!()\n", "bar.rs:4: todo!"),
        ("expect", "src/bar.rs", "//!\nx.expect(\"an x\");\n", "without reason"),
        ("clock", "src/http.rs", "//!\nlet now = Instant::now();\n", "use `crate::time::Clock`"),
        ("chance", "src/plan.rs", "//!\nuse std::collections::HashMap;\n", "chance in a brain"),
        ("in a test", "tests/a.rs", concat!("//!\n#[", "ignore]\n"), "ignore is banned"),
        ("no words", "src/bar.rs", "use std::fmt;\n", "does not say what it is"),
        ("function", "src/bar.rs", long_function.as_str(), "a function of 71 lines"),
        ("line", "src/bar.rs", long_line.as_str(), "101 columns"),
        ("file", "src/bar.rs", &"//!\n".repeat(601), "601 lines"),
    ];
    for (name, path, text, expected) in cases {
        let found = check(&Source::new(path, text));
        assert!(found.len() == 1 && found[0].contains(expected), "{name}: {found:?}");
    }
    let sound =
        "//!\n/// `x.unwrap()`\npub fn f() {}\n#[cfg(test)]\nmod tests {\n    x.unwrap();\n}\n";
    assert_eq!(check(&Source::new("src/bar.rs", sound)), [""; 0]);
}
