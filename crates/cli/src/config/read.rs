//! Takes a config apart, key by key. Whoever asks for a key thereby makes it known; what nobody asked for is unknown.
//! Everything that is wrong is collected, and everything that is right is noted with the place it came from.

use super::diagnostic::{Diagnostic, SourceText};
use super::suggest::nearest;
use super::tree::{Item, Key, Place, Table, Value, parse_value};
use std::cell::RefCell;

/// Everything that is wrong, and everything that is set.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) wrong: Vec<Diagnostic>,
    pub(super) set: Vec<Setting>,
}

/// One effective value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Setting {
    /// Such as `source.db.path`.
    pub(crate) key: String,
    /// As TOML, with secrets left out.
    pub(crate) value: String,
    /// Where it came from, in words.
    pub(crate) origin: String,
}

const ORIGIN_VARIABLE: &str = "environment variable ";

impl Setting {
    /// One that an environment variable makes.
    pub(super) fn of_variable(key: String, value: String, variable: &str) -> Self {
        Self { key, value, origin: format!("{ORIGIN_VARIABLE}{variable}") }
    }

    /// True when an environment variable made it.
    pub(super) fn is_of_variable(&self) -> bool {
        self.origin.starts_with(ORIGIN_VARIABLE)
    }
}

/// The path of a key, as TOML writes it.
pub(super) fn path_of(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| if is_bare(w) { (*w).to_owned() } else { quoted(w) }).collect();
    words.join(".")
}

/// What is being read, and what was found so far.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) source: &'a SourceText,
    pub(super) found: RefCell<Findings>,
}

impl Reading<'_> {
    /// Notes something wrong.
    pub(super) fn wrong(&self, place: &Place, message: impl Into<String>, hint: Option<String>) {
        let diagnostic = Diagnostic { place: place.clone(), message: message.into(), hint, is_secret: false };
        self.found.borrow_mut().wrong.push(diagnostic);
    }

    /// Notes something wrong on a line that may hold a secret.
    pub(super) fn wrong_secret(&self, place: &Place, message: impl Into<String>, hint: Option<String>) {
        let diagnostic = Diagnostic { place: place.clone(), message: message.into(), hint, is_secret: true };
        self.found.borrow_mut().wrong.push(diagnostic);
    }

    fn set(&self, key: String, value: String, place: Option<&Place>) {
        let origin = match place {
            Some(Place::File(span)) => {
                let (line, _) = self.source.position(span.start);
                format!("{}:{line}", self.source.name)
            }
            Some(Place::Env(variable)) => format!("{ORIGIN_VARIABLE}{variable}"),
            Some(Place::Missing) | None => "default".to_owned(),
        };
        self.found.borrow_mut().set.push(Setting { key, value, origin });
    }
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// One table being taken apart.
pub(super) struct Section<'a> {
    reading: &'a Reading<'a>,
    /// Such as `source.db`; empty at the top.
    pub(super) path: String,
    /// Where the table is.
    pub(super) place: Place,
    left: Vec<(Key, Item)>,
    known: Vec<&'static str>,
    /// Keys that were there, usable or not.
    present: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn new(reading: &'a Reading<'a>, path: &str, table: Table, place: Place) -> Self {
        Self { reading, path: path.to_owned(), place, left: table.entries, known: Vec::new(), present: Vec::new() }
    }

    /// The path of a key in this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        let key = if is_bare(key) { key.to_owned() } else { quoted(key) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<Item> {
        self.known.push(key);
        let at = self.left.iter().position(|(k, _)| k.name == key)?;
        self.present.push(key);
        Some(self.left.remove(at).1)
    }

    fn mistyped(&self, key: &str, want: &str, item: &Item) {
        let hint = Some(format!("write {want}"));
        let message = format!("`{}` is {}, but must be {want}", self.path_of(key), item.value.type_name());
        self.reading.wrong(&item.place, message, hint);
    }

    fn note(&self, key: &str, value: String, place: Option<&Place>) {
        self.reading.set(self.path_of(key), value, place);
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Found<String>> {
        let item = self.take(key)?;
        let found = self.as_text(key, item, "a string in quotes")?;
        self.note(key, quoted(&redact_url(&found.value)), Some(&found.place));
        Some(found)
    }

    fn as_text(&self, key: &str, item: Item, want: &str) -> Option<Found<String>> {
        match item.value {
            Value::Text(value) | Value::Raw(value) => Some(Found { value, place: item.place }),
            _ => {
                self.mistyped(key, want, &item);
                None
            }
        }
    }

    /// A string that something else is read from; `want` says what it must look like.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        want: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Found<T>> {
        let item = self.take(key)?;
        let text = self.as_text(key, item, want)?;
        match parse(&text.value) {
            Some(value) => {
                self.note(key, quoted(&text.value), Some(&text.place));
                Some(Found { value, place: text.place })
            }
            None => {
                let message = format!("`{}` is {:?}, but must be {want}", self.path_of(key), text.value);
                self.reading.wrong(&text.place, message, None);
                None
            }
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<Found<T>> {
        let item = self.take(key)?;
        let words: Vec<String> = choices.iter().map(|(word, _)| quoted(word)).collect();
        let text = self.as_text(key, item, &format!("one of {}", words.join(", ")))?;
        match choices.iter().find(|(word, _)| *word == text.value) {
            Some((word, value)) => {
                self.note(key, quoted(word), Some(&text.place));
                Some(Found { value: *value, place: text.place })
            }
            None => {
                let hint = match nearest(&text.value, choices.iter().map(|(word, _)| *word)) {
                    Some(word) => format!("did you mean {}?", quoted(word)),
                    None => format!("it can be {}", words.join(", ")),
                };
                let message = format!("`{}` cannot be {}", self.path_of(key), quoted(&text.value));
                self.reading.wrong(&text.place, message, Some(hint));
                None
            }
        }
    }

    /// True or false, when it is there.
    pub(super) fn maybe(&mut self, key: &'static str) -> Option<bool> {
        let before = self.reading.found.borrow().set.len();
        let value = self.flag(key);
        // A value that cannot be used was told, and noted nothing.
        (self.reading.found.borrow().set.len() > before).then_some(value)
    }

    /// True or false; false when it is not there.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        let Some(item) = self.take(key) else { return false };
        let value = match &item.value {
            Value::Bool(value) => Some(*value),
            Value::Raw(text) => match text.as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        match value {
            Some(value) => self.note(key, value.to_string(), Some(&item.place)),
            None => self.mistyped(key, "true or false, without quotes", &item),
        }
        value.unwrap_or(false)
    }

    /// A whole number from 1 to `max`.
    pub(super) fn number(&mut self, key: &'static str, max: u32) -> Option<Found<u32>> {
        let item = self.take(key)?;
        let number = match &item.value {
            Value::Number(number) => *number,
            Value::Raw(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.and_then(|number| u32::try_from(number).ok()).filter(|number| (1..=max).contains(number)) {
            Some(value) => {
                self.note(key, value.to_string(), Some(&item.place));
                Some(Found { value, place: item.place })
            }
            None => {
                let message = format!("`{}` must be a whole number from 1 to {max}, without quotes", self.path_of(key));
                self.reading.wrong(&item.place, message, None);
                None
            }
        }
    }

    /// A string that may hold no secret, or a table that says where the whole of it is. `secret` tells of a string
    /// whether a secret stands in it; then it is not shown, and `instead` is said.
    pub(super) fn text_or_table(
        &mut self,
        key: &'static str,
        secret: impl Fn(&str) -> bool,
        instead: &str,
    ) -> Option<Result<Found<String>, Section<'a>>> {
        let item = self.take(key)?;
        let item = match &item.value {
            Value::Raw(text) if text.trim_start().starts_with('{') => parse_value(text, &item.place).unwrap_or(item),
            _ => item,
        };
        match item.value {
            Value::Table(table) => Some(Err(Section::new(self.reading, &self.path_of(key), table, item.place))),
            Value::Text(value) | Value::Raw(value) if secret(&value) => {
                let message = format!("`{}` must not hold a password itself, but say where it is", self.path_of(key));
                self.reading.wrong_secret(&item.place, message, Some(instead.to_owned()));
                None
            }
            Value::Text(value) | Value::Raw(value) => {
                self.note(key, quoted(&value), Some(&item.place));
                Some(Ok(Found { value, place: item.place }))
            }
            _ => {
                self.mistyped(key, "a string in quotes, or a table that says where it is", &item);
                None
            }
        }
    }

    /// A list of strings, or one word in its place: `None` for that.
    pub(super) fn list_or(&mut self, key: &'static str, word: &str) -> Option<Found<Option<Vec<String>>>> {
        let Some(at) = self.left.iter().position(|(k, _)| k.name == key) else {
            self.known.push(key);
            return None;
        };
        let item = &self.left[at].1;
        match &item.value {
            Value::Text(text) | Value::Raw(text) if text == word => {
                let place = item.place.clone();
                self.take(key);
                self.note(key, quoted(word), Some(&place));
                Some(Found { value: None, place })
            }
            Value::Text(text) => {
                let message = format!("`{}` cannot be {}", self.path_of(key), quoted(text));
                let hint =
                    format!("write {} for every one, or a list of names such as [{}]", quoted(word), quoted(text));
                let place = item.place.clone();
                self.take(key);
                self.reading.wrong(&place, message, Some(hint));
                None
            }
            _ => self.list(key, Show::All).map(|found| Found { value: Some(found.value), place: found.place }),
        }
    }

    /// A list of strings. A variable may hold a TOML list, or one string.
    pub(super) fn list(&mut self, key: &'static str, show: Show) -> Option<Found<Vec<String>>> {
        const WANT: &str = "a list of strings, such as [\"a\", \"b\"]";
        let item = self.take(key)?;
        let item = match &item.value {
            Value::Raw(text) if text.trim_start().starts_with('[') => parse_value(text, &item.place).unwrap_or(item),
            _ => item,
        };
        let place = item.place.clone();
        let values = match item.value {
            Value::Raw(text) => vec![text],
            Value::List(items) => {
                let mut values = Vec::with_capacity(items.len());
                for item in items {
                    let Value::Text(text) = item.value else {
                        self.mistyped(key, WANT, &item);
                        return None;
                    };
                    values.push(text);
                }
                values
            }
            _ => {
                self.mistyped(key, WANT, &item);
                return None;
            }
        };
        let shown = match (show, values.split_first()) {
            (Show::FirstOnly, Some((first, rest))) if !rest.is_empty() => {
                let hidden = crate::text::counted(rest.len() as u64, "argument");
                format!("[{}, \"({hidden} not shown)\"]", quoted(first))
            }
            _ => format!("[{}]", values.iter().map(|v| quoted(v)).collect::<Vec<_>>().join(", ")),
        };
        self.note(key, shown, Some(&place));
        Some(Found { value: values, place })
    }

    /// Names and strings; the strings may be secret and are not noted.
    pub(super) fn pairs(&mut self, key: &'static str) -> Vec<(String, String)> {
        let Some(table) = self.table(key, None) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (name, item) in table.left {
            match item.value {
                Value::Text(value) | Value::Raw(value) => {
                    self.reading.set(
                        format!("{}.{}", self.path_of(key), name.name),
                        "\"(not shown)\"".into(),
                        Some(&item.place),
                    );
                    pairs.push((name.name, value));
                }
                _ => self.reading.wrong_secret(
                    &item.place,
                    format!("`{}.{}` must be a string in quotes", self.path_of(key), name.name),
                    None,
                ),
            }
        }
        pairs
    }

    /// A table. `instead`, when given, is said of anything else, without showing it: it may be a secret in clear.
    pub(super) fn table(&mut self, key: &'static str, instead: Option<&str>) -> Option<Section<'a>> {
        let item = self.take(key)?;
        let item = match &item.value {
            Value::Raw(text) if text.trim_start().starts_with('{') => parse_value(text, &item.place).unwrap_or(item),
            _ => item,
        };
        match (item.value, instead) {
            (Value::Table(table), _) => Some(Section::new(self.reading, &self.path_of(key), table, item.place)),
            (_, Some(hint)) => {
                let message = format!("`{}` must not hold the secret itself, but say where it is", self.path_of(key));
                self.reading.wrong_secret(&item.place, message, Some(hint.to_owned()));
                None
            }
            (value, None) => {
                self.mistyped(key, "a table", &Item { value, place: item.place });
                None
            }
        }
    }

    /// The tables of a table, such as `[source.NAME]`, with their names.
    pub(super) fn named_tables(&mut self, key: &'static str) -> Vec<(Key, Section<'a>)> {
        let Some(outer) = self.table(key, None) else { return Vec::new() };
        let mut tables = Vec::new();
        let path = outer.path.clone();
        for (name, item) in outer.left {
            let inner = if is_bare(&name.name) {
                format!("{path}.{}", name.name)
            } else {
                format!("{path}.{}", quoted(&name.name))
            };
            match item.value {
                Value::Table(table) => {
                    let place = name.place.clone();
                    tables.push((name, Section::new(self.reading, &inner, table, place)));
                }
                _ => {
                    let hint = format!("write [{path}.NAME] with a name of your choice, and `{}` below it", name.name);
                    let message = format!("`{inner}` must be a table: [{path}] holds one table for each {key}");
                    self.reading.wrong(&name.place, message, Some(hint));
                }
            }
        }
        tables
    }

    /// The same for a key of a table that is not there at all.
    pub(super) fn default_below(&self, table: &str, key: &str, value: &str) {
        self.reading.set(format!("{}.{key}", self.path_of(table)), value.to_owned(), None);
    }

    /// Notes the value that holds because nothing was written.
    pub(super) fn default(&self, key: &str, value: &str) {
        self.note(key, value.to_owned(), None);
    }

    /// Notes that a key is missing; or, where something like it is there, that this is what was meant. To be called when
    /// all other keys were asked for. One that is there and unusable was told before.
    pub(super) fn missing(&mut self, key: &str, example: &str) {
        if self.present.contains(&key) {
            return;
        }
        let slip = self.left.iter().position(|(k, _)| nearest(&k.name, [key]).is_some());
        if let Some(at) = slip {
            let (written, _) = self.left.remove(at);
            let message = format!("unknown key `{}` in [{}]", written.name, self.path);
            self.reading.wrong(&written.place, message, Some(format!("did you mean `{key}`?")));
            return;
        }
        let message = format!("`{key}` is missing in [{}]", self.path);
        self.reading.wrong(&self.place, message, Some(format!("add a line such as `{key} = {example}`")));
    }

    /// True when a key was there, usable or not. It must have been asked for.
    pub(super) fn is_present(&self, key: &str) -> bool {
        self.present.contains(&key)
    }

    /// Notes something wrong with a value of this section.
    pub(super) fn wrong(&self, place: &Place, message: impl Into<String>, hint: Option<String>) {
        self.reading.wrong(place, message, hint);
    }

    /// The same, where the line may hold a secret.
    pub(super) fn wrong_secret(&self, place: &Place, message: impl Into<String>, hint: Option<String>) {
        self.reading.wrong_secret(place, message, hint);
    }

    /// Every key that nobody asked for is an error. `elsewhere` may know what it means elsewhere, or later.
    pub(super) fn close(self, elsewhere: impl Fn(&str) -> Option<(String, String)>) {
        for (key, _) in &self.left {
            let home = if self.path.is_empty() {
                "at the top of the config".to_owned()
            } else {
                format!("in [{}]", self.path)
            };
            let (message, hint) = match elsewhere(&key.name) {
                Some((message, hint)) => (message, Some(hint)),
                None => {
                    let hint = match nearest(&key.name, self.known.iter().copied()) {
                        Some(word) => format!("did you mean `{word}`?"),
                        None => format!("known keys here: {}", self.known.join(", ")),
                    };
                    (format!("unknown key `{}` {home}", key.name), Some(hint))
                }
            };
            self.reading.wrong(&key.place, message, hint);
        }
    }
}

/// How much of a list may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Everything.
    All,
    /// The first string: later ones may be secrets.
    FirstOnly,
}

/// A string as TOML.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A URL without user and password.
fn redact_url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{}", &rest[end..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_left_out() {
        assert_eq!(redact_url("s3://key:secret@host/b?x=1"), "s3://…@host/b?x=1");
        assert_eq!(redact_url("/srv/a@b"), "/srv/a@b");
        assert_eq!(redact_url("file:///srv/a@b"), "file:///srv/a@b");
    }

    #[test]
    fn strings_are_quoted_so_that_toml_reads_them_back() {
        let text = "a\"b\\c\nd\u{1}é";
        let parsed: toml::Table = toml::from_str(&format!("x = {}", quoted(text))).unwrap();
        assert_eq!(parsed["x"].as_str(), Some(text));
    }
}
