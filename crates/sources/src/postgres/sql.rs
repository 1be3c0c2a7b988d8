//! Just enough of SQL's syntax to work on statements that `pg_dump` wrote: quoting names, and cutting text into tokens
//! the way both server and `psql` do, so that nothing within a literal, a quoted name, a function's body or a comment
//! is ever taken for syntax.

use std::fmt::Write;

/// A name as SQL, always quoted: which words are reserved differs between versions.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name in its schema as SQL; alone when the schema is empty.
pub(crate) fn quote_in(schema: &str, name: &str) -> String {
    if schema.is_empty() { quote(name) } else { format!("{}.{}", quote(schema), quote(name)) }
}

/// Text as a literal that means the same whatever `standard_conforming_strings` is.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    if text.contains('\\') {
        out.push_str(" E");
    }
    out.push('\'');
    for char in text.chars() {
        if matches!(char, '\'' | '\\') {
            out.push(char);
        }
        out.push(char);
    }
    out.push('\'');
    out
}

/// A line of SQL comment; what could end it is left out.
pub(crate) fn comment(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    // Writing to a string cannot fail.
    let _ = write!(out, "-- {}", text.replace(|char: char| char.is_control(), " "));
    out
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A key word or an unquoted name.
    Word,
    /// A name in double quotes.
    Name,
    /// A literal in single quotes or between dollars, or a number.
    Value,
    /// One character of anything else.
    Sign,
    /// A backslash outside of quotes. The server knows no such thing; for `psql` it begins a command.
    Backslash,
    /// The text ends within quotes or a comment.
    Unfinished,
}

/// A token and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// Byte at which it begins.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// Is this key word, which is given in upper case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Is this sign.
    pub(crate) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }

    /// Byte after its last.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// The name it stands for.
    pub(crate) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_lowercase()),
            Kind::Name => self.text.get(1..self.text.len() - 1).map(|text| text.replace("\"\"", "\"")),
            _ => None,
        }
    }
}

/// Cuts SQL into tokens, leaving out space and comments. Never fails; see [`Kind::Unfinished`].
pub(crate) struct Tokens<'a> {
    text: &'a str,
    at: usize,
    standard_strings: bool,
}

impl<'a> Tokens<'a> {
    /// `standard_strings`: a backslash in a plain literal is only a backslash.
    pub(crate) fn new(text: &'a str, standard_strings: bool) -> Self {
        Self { text, at: 0, standard_strings }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Goes behind the next `end`; false when there is none.
    fn skip_past(&mut self, end: &str) -> bool {
        let found = self.text[self.at..].find(end);
        self.at = found.map_or(self.text.len(), |index| self.at + index + end.len());
        found.is_some()
    }

    /// Goes behind the closing quote; false when there is none.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) -> bool {
        while self.at < self.text.len() {
            let byte = self.peek(0);
            self.at += 1;
            if byte == quote {
                if self.peek(0) != quote {
                    return true;
                }
                self.at += 1;
            } else if byte == b'\\' && escapes && self.at < self.text.len() {
                self.at += 1;
            }
        }
        false
    }

    /// Goes behind comments and space; false when a comment has no end.
    fn skip_space(&mut self) -> bool {
        loop {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'-', b'-') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                (b'/', b'*') => {
                    let mut depth = 0usize;
                    loop {
                        match (self.peek(0), self.peek(1)) {
                            (b'/', b'*') => (self.at, depth) = (self.at + 2, depth + 1),
                            (b'*', b'/') => (self.at, depth) = (self.at + 2, depth - 1),
                            _ if self.at >= self.text.len() => return false,
                            _ => self.at += 1,
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
                _ => return true,
            }
        }
    }

    fn skip_word(&mut self) {
        while is_word_start(self.peek(0)) || self.peek(0).is_ascii_digit() || self.peek(0) == b'$' {
            self.at += 1;
        }
    }

    fn dollar_quoted(&mut self) -> Kind {
        let rest = &self.text[self.at + 1..];
        let tag = rest.find('$').map(|end| &rest[..end]).filter(|tag| {
            let mut bytes = tag.bytes();
            bytes.next().is_none_or(is_word_start) && bytes.all(|byte| is_word_start(byte) || byte.is_ascii_digit())
        });
        match tag {
            Some(tag) => {
                let mark = &self.text[self.at..self.at + tag.len() + 2];
                self.at += mark.len();
                if self.skip_past(mark) { Kind::Value } else { Kind::Unfinished }
            }
            None => {
                self.at += 1;
                Kind::Sign
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let before = self.at;
        if !self.skip_space() {
            return Some(Token { kind: Kind::Unfinished, text: &self.text[before..], start: before });
        }
        if self.at >= self.text.len() {
            return None;
        }
        let start = self.at;
        let first = self.peek(0);
        let finished = |kind, is_finished| if is_finished { kind } else { Kind::Unfinished };
        let kind = match first {
            b'\'' => {
                self.at += 1;
                let escapes = !self.standard_strings;
                finished(Kind::Value, self.skip_quoted(b'\'', escapes))
            }
            b'"' => {
                self.at += 1;
                finished(Kind::Name, self.skip_quoted(b'"', false))
            }
            b'$' => self.dollar_quoted(),
            b'0'..=b'9' => {
                while is_word_start(self.peek(0)) || matches!(self.peek(0), b'0'..=b'9' | b'.') {
                    self.at += 1;
                }
                Kind::Value
            }
            b'E' | b'e' if self.peek(1) == b'\'' => {
                self.at += 2;
                finished(Kind::Value, self.skip_quoted(b'\'', true))
            }
            byte if is_word_start(byte) => {
                self.skip_word();
                Kind::Word
            }
            byte => {
                self.at += 1;
                if byte == b'\\' { Kind::Backslash } else { Kind::Sign }
            }
        };
        Some(Token { kind, text: &self.text[start..self.at], start })
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Cuts SQL at the semicolons between statements; each piece keeps its own. A piece without a token is left out. Not
/// for functions, whose bodies may hold semicolons.
pub(crate) fn statements(sql: &str, standard_strings: bool) -> Vec<&str> {
    let mut out = Vec::new();
    let (mut start, mut end, mut depth, mut is_empty) = (0, 0, 0usize, true);
    for token in Tokens::new(sql, standard_strings) {
        if is_empty {
            start = token.start;
        }
        end = token.end();
        is_empty = false;
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => {
                out.push(&sql[start..end]);
                is_empty = true;
            }
            _ => {}
        }
    }
    if !is_empty {
        out.push(&sql[start..end]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        Tokens::new(sql, true).map(|token| token.text).collect()
    }

    #[test]
    fn quotes_bodies_and_comments_are_one_token_or_none() {
        assert_eq!(
            texts("a.\"b;\"\"c\"='x''\\'--\\! no\n/* ; /* */ \\! */E'\\';'$$;$x$\\$$,$x$ $$ $x$$1;é$2"),
            ["a", ".", "\"b;\"\"c\"", "=", "'x''\\'", "E'\\';'", "$$;$x$\\$$", ",", "$x$ $$ $x$", "$", "1", ";", "é$2"]
        );
        assert_eq!(texts("1.5e3 a1$b xe'q'"), ["1.5e3", "a1$b", "xe", "'q'"]);
    }

    #[test]
    fn a_backslash_is_a_command_only_outside_of_quotes() {
        let kinds = |sql, standard| Tokens::new(sql, standard).map(|token| token.kind).collect::<Vec<_>>();
        assert_eq!(kinds("SELECT '\\!'", true), [Kind::Word, Kind::Value]);
        assert_eq!(kinds("'a\\' \\! '", true), [Kind::Value, Kind::Backslash, Kind::Sign, Kind::Unfinished]);
        assert_eq!(kinds("'a\\' \\! '", false), [Kind::Value]);
    }

    #[test]
    fn what_has_no_end_is_told() {
        for sql in ["'a", "\"a", "$$a", "$a$ $b$", "/* /* */", "E'\\'", "'a''"] {
            assert_eq!(Tokens::new(sql, true).last().map(|token| token.kind), Some(Kind::Unfinished), "{sql}");
        }
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_everything() {
        assert_eq!(statements(" a ';'; (b;c) d;\n-- ;\n", true), ["a ';';", "(b;c) d;"]);
        assert_eq!(statements("a", true), ["a"]);
        assert_eq!(statements("-- a", true), [""; 0]);
    }

    #[test]
    fn names_survive_quoting() {
        for name in ["a", "A b", "\"", "\"\"x", "é;--"] {
            let quoted = quote(name);
            let tokens: Vec<_> = Tokens::new(&quoted, true).collect();
            assert_eq!(tokens.len(), 1);
            assert_eq!(tokens[0].name().as_deref(), Some(name));
        }
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\b"), " E'a\\\\b'");
    }

    proptest::proptest! {
        #[test]
        fn tokens_of_any_text_lie_within_it_in_order(text in "\\PC*|[-'\"$\\\\/*;a\n]*", standard: bool) {
            let mut end = 0;
            for token in Tokens::new(&text, standard) {
                proptest::prop_assert!(token.start >= end && token.end() > token.start || token.kind == Kind::Unfinished);
                end = token.end();
                proptest::prop_assert!(end <= text.len());
            }
            statements(&text, standard);
        }
    }
}
