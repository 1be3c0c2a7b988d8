//! How a server is reached, and PostgreSQL's own clients at work on it.

use super::{PASSWORD, PgServer, SUPERUSER, finish};
use std::process::Command;

impl PgServer {
    /// The URL of a database over TCP, as the superuser, with its password.
    pub fn url(&self, database: &str) -> String {
        let (user, password) = (percent_encoded(SUPERUSER), percent_encoded(PASSWORD));
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{}", self.port, percent_encoded(database))
    }

    /// The URL of a database over the Unix socket, as the superuser, who is trusted there.
    pub fn socket_url(&self, database: &str) -> String {
        let (user, folder) = (percent_encoded(SUPERUSER), percent_encoded(&self.socket_folder().to_string_lossy()));
        format!("postgresql://{user}@/{}?host={folder}&port={}", percent_encoded(database), self.port)
    }

    /// As [`socket_url`](Self::socket_url), in the other form that PostgreSQL's programs take: names and values. It
    /// goes where they take the name of a database.
    pub fn conninfo(&self, database: &str) -> String {
        let quote = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
        let folder = self.socket_folder().to_string_lossy().into_owned();
        format!(
            "host={} port={} user={SUPERUSER} dbname={} connect_timeout=30",
            quote(&folder),
            self.port,
            quote(database)
        )
    }

    /// One of the version's programs that is told a database by `--dbname`, without the tester's own settings; its
    /// arguments can be added.
    #[track_caller]
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin(program));
        without_settings(&mut command);
        command.arg("--dbname").arg(self.conninfo(database));
        command
    }

    /// Runs SQL, or commands of psql, as the superuser; gives back rows as lines, columns parted by `|`, without the
    /// last line break. Any error fails the test with the server's message.
    #[track_caller]
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = self.client("psql", database);
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-"]);
        let output = finish(&mut command, Some(sql)).stdout;
        let text = String::from_utf8_lossy(&output);
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    /// Makes an empty database of any name.
    #[track_caller]
    pub fn create_database(&self, name: &str) {
        self.psql("postgres", &format!("CREATE DATABASE {} TEMPLATE template0", quote_identifier(name)));
    }

    /// Removes a database, ending its connections.
    #[track_caller]
    pub fn drop_database(&self, name: &str) {
        self.psql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", quote_identifier(name)));
    }

    /// What pg_dump makes of a database as SQL, without what differs from run to run.
    #[track_caller]
    pub fn pg_dump_text(&self, database: &str) -> String {
        self.pg_dump_text_with(database, &[])
    }

    /// The same with more arguments, such as those that leave something out.
    #[track_caller]
    pub fn pg_dump_text_with(&self, database: &str, more: &[&str]) -> String {
        let mut dump = self.client("pg_dump", database);
        dump.args(more);
        // These win over what the database sets for itself, and pg_dump leaves them as they are.
        let same = ["TimeZone=UTC", "bytea_output=hex", "standard_conforming_strings=on", "quote_all_identifiers=off"];
        dump.env("PGOPTIONS", same.map(|setting| format!("-c {setting} ")).concat());
        let output = finish(&mut dump, None).stdout;
        without_run(&String::from_utf8_lossy(&output))
    }

    /// What pg_dumpall makes of roles and tablespaces as SQL, without what differs from run to run.
    #[track_caller]
    pub fn globals_text(&self) -> String {
        let output = finish(self.client("pg_dumpall", "postgres").arg("--globals-only"), None).stdout;
        without_run(&String::from_utf8_lossy(&output))
    }

    /// Dumps a database with pg_dump in its custom format and restores that with pg_restore into a new database,
    /// properties and grants of the database itself left out.
    #[track_caller]
    pub fn copy_by_dump(&self, from: &str, to: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut dump = self.client("pg_dump", from);
        finish(dump.args(["--format=custom", "--compress=1", "--file"]).arg(file.path()), None);
        self.create_database(to);
        finish(self.client("pg_restore", to).arg("--exit-on-error").arg(file.path()), None);
    }
}

/// A name as SQL takes it whatever it holds.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it, whatever it holds and whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Nothing of the tester's own settings for PostgreSQL's programs.
pub(super) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C.UTF-8").env("PGAPPNAME", "lastgood test");
    // Colours, history, settings below the home folder.
    command.env_remove("PSQL_PAGER").env("HOME", "/nonexistent");
}

/// Everything but letters, digits and four marks as `%` and hexadecimal digits, as URLs have it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A plain dump without its lines `\restrict` and `\unrestrict`, which hold a random word, as newer versions write them
/// against hostile dumps.
fn without_run(dump: &str) -> String {
    let is_kept = |line: &&str| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict ");
    dump.split_inclusive('\n').filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_lines_are_left_out_of_dumps_and_others_are_not() {
        assert_eq!(
            without_run("a\n\\restrict xY1\nb \\restrict c\n\\unrestrict xY1\n\\.\n"),
            "a\nb \\restrict c\n\\.\n"
        );
    }

    #[test]
    fn names_in_urls_are_encoded() {
        assert_eq!(percent_encoded("a/b c%ä"), "a%2Fb%20c%25%C3%A4");
    }
}
