//! A configuration as it is written: JSON with comments, its values by name, and a list of what is
//! wrong with them, each with its line.
//!
//! All that is wrong is collected, so that a file is mended in one go.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use jsonc_parser::ast::{Object, ObjectProp, Value};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use crate::config::error::{ConfigError, Refusal};
use crate::spelling::{nearest, printable};
use crate::time::{Millis, SECOND};

/// The largest file that is read; ten thousand instruments fit.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// What some editors write before the text, and nobody sees.
const MARK: &[u8] = "\u{feff}".as_bytes();
/// More refusals than anybody reads: a file that has them is no configuration.
const REFUSALS_MAX: usize = 1_000;
/// How much of a refused value is shown.
const SHOWN_MAX: usize = 40;
/// Parts of the names of keys that would hold a secret.
const SECRETS: [&str; 5] = ["apikey", "secret", "passphrase", "password", "token"];

/// JSON with comments and trailing commas; nothing else that the parser could be talked into.
pub(super) const SYNTAX: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads the text of a file.
pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable(file.to_owned(), cause);
    let refused = |line, problem: String| {
        ConfigError::Refused(file.to_owned(), vec![Refusal { line, problem }])
    };
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(1, format!("the file is larger than {FILE_BYTES_MAX} bytes")));
    }
    if bytes.starts_with(MARK) {
        // To read past it would be easy, to keep it in every edit would not.
        return Err(refused(
            1,
            "the text begins with a byte order mark: save it without".to_owned(),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + sound.iter().filter(|&&byte| byte == b'\n').count();
        refused(line, "the text is not UTF-8".to_owned())
    })
}

/// Whether a `config.json` that merely lies about is a configuration of this program: it has the
/// key `instruments`. One that is broken is taken for ours if it speaks of them, so that a slip
/// in it is told, and not answered by silently taking another file.
pub(super) fn is_ours(text: &str) -> bool {
    match parse_to_ast(text, &CollectOptions::default(), &SYNTAX).map(|parsed| parsed.value) {
        Ok(Some(Value::Object(object))) => object.get("instruments").is_some(),
        Ok(_) => false,
        Err(_) => text.contains("\"instruments\""),
    }
}

/// Parses a text and hands its outermost object, if it has one, to `check`. What that returns is
/// sound only if nothing was refused; else it has defaults in the place of what was.
pub(super) fn checked<T>(
    text: &str,
    check: impl FnOnce(&Sheet, &Object) -> T,
) -> (Option<T>, Vec<Refusal>) {
    let sheet = Sheet::new(text);
    let parsed = parse_to_ast(text, &CollectOptions::default(), &SYNTAX);
    let done = match parsed.map(|parsed| parsed.value) {
        Ok(Some(Value::Object(object))) => Some(check(&sheet, &object)),
        Ok(other) => {
            let start = other.map_or(0, |value| value.start());
            sheet.refuse(start, "the file holds no object: give { … }".to_owned());
            None
        }
        Err(error) => {
            let kind = error.kind().to_string();
            let column = error.column_display();
            sheet.refuse(error.range().start, format!("column {column}: {}", lower_first(&kind)));
            None
        }
    };
    let mut refusals = sheet.refusals.into_inner();
    refusals.sort();
    (done, refusals)
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A text under examination.
pub(super) struct Sheet<'a> {
    text: &'a str,
    /// Where its lines end.
    ends: Vec<usize>,
    refusals: RefCell<Vec<Refusal>>,
}

impl<'a> Sheet<'a> {
    fn new(text: &'a str) -> Sheet<'a> {
        let ends = text.bytes().enumerate().filter_map(|(at, byte)| (byte == b'\n').then_some(at));
        Sheet { text, ends: ends.collect(), refusals: RefCell::default() }
    }

    fn refuse(&self, at: usize, problem: String) {
        if !self.is_full() {
            let line = self.line(at);
            self.refusals.borrow_mut().push(Refusal { line, problem });
        }
    }

    /// Whether no more refusals are taken, so that none need be put into words.
    fn is_full(&self) -> bool {
        self.refusals.borrow().len() >= REFUSALS_MAX
    }

    fn line(&self, at: usize) -> usize {
        1 + self.ends.partition_point(|&end| end < at)
    }
}

/// An object in it, whose keys have been checked against the known ones.
pub(super) struct Section<'a> {
    sheet: &'a Sheet<'a>,
    path: String,
    object: Option<&'a Object<'a>>,
}

impl<'a> Section<'a> {
    /// Takes an object and refuses the keys in it that are not `known` or come twice.
    pub(super) fn new(
        sheet: &'a Sheet<'a>,
        path: &str,
        object: &'a Object<'a>,
        known: &[&'static str],
    ) -> Section<'a> {
        let section = Section { sheet, path: path.to_owned(), object: Some(object) };
        let mut seen = BTreeMap::new();
        for property in object.properties.iter().take_while(|_| !sheet.is_full()) {
            let name = property.name.as_str();
            let first = *seen.entry(name).or_insert(property.name.start());
            if first != property.name.start() {
                let line = sheet.line(first);
                section.refuse_key(property, &format!("given twice, first in line {line}"));
            } else if !known.contains(&name) {
                section.refuse_key(property, &unknown(name, known));
            }
        }
        section
    }

    fn refuse_key(&self, property: &ObjectProp, problem: &str) {
        let path = self.path_of(&shown(property.name.as_str()));
        self.sheet.refuse(property.name.start(), format!("{path}: {problem}"));
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a key, if it has one.
    pub(super) fn get(&self, key: &str) -> Option<Slot<'a>> {
        let value = &self.object?.get(key)?.value;
        Some(Slot { sheet: self.sheet, path: self.path_of(key), value })
    }

    /// The value of a key for which `null` stands for leaving it out.
    pub(super) fn get_unless_null(&self, key: &str) -> Option<Slot<'a>> {
        self.get(key).filter(|slot| !matches!(slot.value, Value::NullKeyword(_)))
    }

    /// Reads the value of a key, or takes the default where it is absent (or refused, when the
    /// result will not be used).
    pub(super) fn read<T>(
        &self,
        key: &str,
        default: T,
        how: impl FnOnce(&Slot<'a>) -> Option<T>,
    ) -> T {
        self.get(key).and_then(|slot| how(&slot)).unwrap_or(default)
    }

    /// The object under a key; one without keys where it is absent.
    pub(super) fn section(&self, key: &str, known: &[&'static str]) -> Section<'a> {
        let found = self.get(key).and_then(|slot| slot.section(known));
        found.unwrap_or(Section { sheet: self.sheet, path: self.path_of(key), object: None })
    }

    /// Refuses the section as a whole.
    pub(super) fn refuse(&self, problem: &str) {
        let start = self.object.map_or(0, |object| object.start());
        self.sheet.refuse(start, format!("{}: {problem}", self.path));
    }
}

fn unknown(name: &str, known: &[&'static str]) -> String {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    if SECRETS.iter().any(|secret| letters.to_ascii_lowercase().contains(secret)) {
        return "secrets come from the environment alone: take it out and set OKX_API_KEY, \
                OKX_API_SECRET and OKX_PASSPHRASE"
            .to_owned();
    }
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown key, did you mean {near}?"),
        None => format!("unknown key: known are {}", known.join(", ")),
    }
}

/// A value in it, with the path that names it.
pub(super) struct Slot<'a> {
    sheet: &'a Sheet<'a>,
    path: String,
    value: &'a Value<'a>,
}

impl<'a> Slot<'a> {
    /// Refuses the value without repeating it.
    pub(super) fn refuse(&self, problem: &str) {
        self.sheet.refuse(self.value.start(), format!("{}: {problem}", self.path));
    }

    /// Refuses the value: says what it is, and what to give instead.
    pub(super) fn refuse_for<T>(&self, rule: &str) -> Option<T> {
        let is = match self.value {
            Value::Object(_) => "an object".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            literal => shown(literal.text(self.sheet.text)),
        };
        self.refuse(&format!("{is} is refused: {rule}"));
        None
    }

    /// The line it stands in.
    pub(super) fn line(&self) -> usize {
        self.sheet.line(self.value.start())
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match self.value {
            Value::BooleanLit(literal) => Some(literal.value),
            _ => self.refuse_for("give true or false"),
        }
    }

    /// Any text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::StringLit(literal) => Some(&literal.value),
            _ => self.refuse_for("give a text in quotes"),
        }
    }

    /// A text that `T` can read; its error is the rule.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        let text = self.text()?;
        if text.chars().nth(SHOWN_MAX).is_some() {
            return self.refuse_for("nothing known here is so long");
        }
        text.parse::<T>().map_err(|error| self.refuse(&error.to_string())).ok()
    }

    /// A number without a fraction, within bounds.
    pub(super) fn whole<T: TryFrom<i64>>(&self, bounds: RangeInclusive<i64>) -> Option<T> {
        let number = match self.value {
            Value::NumberLit(literal) => literal.value.parse().ok(),
            _ => None,
        };
        match number.filter(|number| bounds.contains(number)).map(T::try_from) {
            Some(Ok(number)) => Some(number),
            _ => {
                let (least, most) = (bounds.start(), bounds.end());
                self.refuse_for(&format!("give a whole number from {least} to {most}"))
            }
        }
    }

    /// Seconds, with a fraction or without, within bounds, which are in milliseconds as the
    /// result is.
    pub(super) fn seconds(&self, bounds: RangeInclusive<Millis>) -> Option<Millis> {
        let number = match self.value {
            Value::NumberLit(literal) => literal.value.parse::<f64>().ok(),
            _ => None,
        };
        let length_ms = number.map(|seconds| (seconds * SECOND as f64).round() as Millis);
        match length_ms.filter(|length_ms| bounds.contains(length_ms)) {
            Some(length_ms) => Some(length_ms),
            None => {
                let seconds = |length_ms: &Millis| *length_ms as f64 / SECOND as f64;
                let (least, most) = (seconds(bounds.start()), seconds(bounds.end()));
                self.refuse_for(&format!("give seconds from {least} to {most}"))
            }
        }
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> Option<Vec<Slot<'a>>> {
        let Value::Array(array) = self.value else { return self.refuse_for("give a list [ … ]") };
        let slots = array.elements.iter().enumerate().map(|(n, value)| Slot {
            sheet: self.sheet,
            path: format!("{}[{n}]", self.path),
            value,
        });
        Some(slots.collect())
    }

    /// An object.
    pub(super) fn section(&self, known: &[&'static str]) -> Option<Section<'a>> {
        match self.value {
            Value::Object(object) => Some(Section::new(self.sheet, &self.path, object, known)),
            _ => self.refuse_for("give an object { … }"),
        }
    }
}

/// A piece of the file for one line of a terminal: short, and without control characters.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN_MAX).collect();
    let more = if text.chars().nth(SHOWN_MAX).is_some() { "…" } else { "" };
    format!("{}{more}", printable(&start))
}
