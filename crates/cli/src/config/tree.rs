//! A config as it was written, file and environment laid over one another, with the place of every value.

use std::ops::Range;

/// Where a value or key was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file, at these bytes.
    File(Range<usize>),
    /// In this environment variable.
    Env(String),
    /// Nowhere: it is missing.
    Missing,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A string of the file.
    Text(String),
    /// The text of an environment variable; what type it is follows from who asks.
    Raw(String),
    Bool(bool),
    /// A whole number, if it is one of 64 bits.
    Number(Option<i64>),
    List(Vec<Item>),
    Table(Table),
    /// Any other TOML type, by its name.
    Other(&'static str),
}

impl Value {
    /// The type's name with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "a string",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// Keys and their values, in the order they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<(Key, Item)>,
}

/// A key and its place.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) place: Place,
}

/// Reads TOML. Several errors may be found at once.
pub(super) fn parse(text: &str) -> Result<Table, Vec<toml::de::Error>> {
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    if errors.is_empty() { Ok(from_table(table.into_inner())) } else { Err(errors) }
}

/// Reads a single TOML value, as an environment variable may hold one. Its places are all `place`.
pub(super) fn parse_value(text: &str, place: &Place) -> Option<Item> {
    let value = toml::de::DeValue::parse(text).ok()?;
    let mut item = from_value(value);
    put_at(&mut item, place);
    Some(item)
}

fn put_at(item: &mut Item, place: &Place) {
    item.place = place.clone();
    match &mut item.value {
        Value::List(items) => items.iter_mut().for_each(|item| put_at(item, place)),
        Value::Table(table) => {
            for (key, item) in &mut table.entries {
                key.place = place.clone();
                put_at(item, place);
            }
        }
        _ => {}
    }
}

fn from_table(table: toml::de::DeTable<'_>) -> Table {
    let mut entries: Vec<(Key, Item)> = table
        .into_iter()
        .map(|(key, value)| {
            let place = Place::File(key.span());
            (Key { name: key.into_inner().into_owned(), place }, from_value(value))
        })
        .collect();
    entries.sort_by_key(|(key, _)| match &key.place {
        Place::File(span) => span.start,
        _ => usize::MAX,
    });
    Table { entries }
}

fn from_value(value: toml::Spanned<toml::de::DeValue<'_>>) -> Item {
    use toml::de::DeValue;
    let place = Place::File(value.span());
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Array(items) => Value::List(items.into_iter().map(from_value).collect()),
        DeValue::Table(table) => Value::Table(from_table(table)),
        DeValue::Integer(number) => Value::Number(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Item { value, place }
}

impl Table {
    /// Lays the text of an environment variable over what is there. `path` holds the words of its name.
    /// A table in the way of a value is replaced, and the other way round: the later word counts.
    pub(super) fn lay_over(&mut self, path: &[&str], text: &str, variable: &str) {
        let place = Place::Env(variable.to_owned());
        let [first, rest @ ..] = path else { return };
        let at = self.entries.iter().position(|(key, _)| same_word(&key.name, first)).unwrap_or_else(|| {
            let key = Key { name: first.to_lowercase(), place: place.clone() };
            self.entries.push((key, Item { value: Value::Table(Table::default()), place: place.clone() }));
            self.entries.len() - 1
        });
        let (key, item) = &mut self.entries[at];
        if rest.is_empty() {
            key.place = place.clone();
            *item = Item { value: Value::Raw(text.to_owned()), place };
            return;
        }
        if !matches!(item.value, Value::Table(_)) {
            *item = Item { value: Value::Table(Table::default()), place };
        }
        if let Value::Table(table) = &mut item.value {
            // A secret is named in one way: a new way replaces the one of the file instead of standing beside it.
            if let [way] = rest
                && matches!(key.name.as_str(), "key" | "url")
            {
                table.entries.retain(|(key, _)| same_word(&key.name, way));
            }
            table.lay_over(rest, text, variable);
        }
    }
}

/// Names of variables know neither case nor dashes.
fn same_word(key: &str, word: &str) -> bool {
    key.replace('-', "_").eq_ignore_ascii_case(&word.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_at<'t>(table: &'t Table, path: &[&str]) -> Option<&'t str> {
        let (_, item) = table.entries.iter().find(|(key, _)| key.name == path[0])?;
        match &item.value {
            Value::Table(table) if path.len() > 1 => text_at(table, &path[1..]),
            Value::Text(text) | Value::Raw(text) if path.len() == 1 => Some(text),
            _ => None,
        }
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let mut table = parse("[repository.off-site]\nurl = 'a'\nkey = { file = 'k' }\n[app]\nname = 'x'").unwrap();
        table.lay_over(&["REPOSITORY", "OFF_SITE", "URL"], "b", "V");
        table.lay_over(&["REPOSITORY", "OFF_SITE", "KEY", "ENV"], "SECRET", "V");
        table.lay_over(&["APP", "NAME"], "y", "V");
        table.lay_over(&["NEW", "THING"], "z", "V");
        assert_eq!(text_at(&table, &["repository", "off-site", "url"]), Some("b"));
        assert_eq!(text_at(&table, &["repository", "off-site", "key", "env"]), Some("SECRET"));
        assert_eq!(text_at(&table, &["repository", "off-site", "key", "file"]), None, "one way to name a secret");
        assert_eq!(text_at(&table, &["app", "name"]), Some("y"));
        assert_eq!(text_at(&table, &["new", "thing"]), Some("z"));
    }

    #[test]
    fn keys_stand_in_the_order_of_the_file() {
        let table = parse("[z]\n[b]\n[a]\n").unwrap();
        let names: Vec<_> = table.entries.iter().map(|(key, _)| key.name.as_str()).collect();
        assert_eq!(names, ["z", "b", "a"]);
    }
}
