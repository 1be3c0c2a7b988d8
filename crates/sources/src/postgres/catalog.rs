//! What a server and a database consist of, as far as rows are concerned, from the system catalogs. The schema itself is
//! described by `pg_dump`.

use super::layout::{Column, TableKind};
use super::pattern::Pattern;
use super::sql::literal;
use super::toc::Text;
use super::wire::{Client, Row};
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::collections::{HashMap, HashSet};

/// OIDs named in one query.
const OID_BATCH: usize = 5_000;

/// A database of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) encoding: String,
    pub(super) collation: String,
    pub(super) ctype: String,
    /// `libc`, `icu` or `builtin`.
    pub(super) provider: String,
    /// The provider's locale, where it is not `collation`.
    pub(super) locale: Option<String>,
    /// What was added to the rules of that locale.
    pub(super) icu_rules: Option<String>,
    pub(super) collation_version: Option<String>,
}

/// All databases that can be connected to and are no templates, by name.
pub(super) fn databases(client: &mut Client) -> Result<Vec<Database>> {
    let version = client.server_version();
    let (provider, collation_version) = match version {
        150_000.. => ("d.datlocprovider", "d.datcollversion"),
        _ => ("'c'", "NULL::pg_catalog.text"),
    };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL::pg_catalog.text",
    };
    let icu_rules = if version >= 160_000 { "d.daticurules" } else { "NULL::pg_catalog.text" };
    let sql = format!(
        "SELECT d.datname, pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, {provider}, {locale}, \
           {collation_version}, {icu_rules} \
         FROM pg_catalog.pg_database d WHERE d.datallowconn AND NOT d.datistemplate \
         ORDER BY d.datname COLLATE \"C\""
    );
    let mut out = Vec::new();
    client
        .for_each_row(&sql, |row| {
            out.push(Database {
                name: row.text(0)?.to_owned(),
                encoding: row.text(1)?.to_owned(),
                collation: row.text(2)?.to_owned(),
                ctype: row.text(3)?.to_owned(),
                provider: match row.text(4)? {
                    "i" => "icu",
                    "b" => "builtin",
                    _ => "libc",
                }
                .to_owned(),
                locale: row.optional(5)?.map(str::to_owned),
                collation_version: row.optional(6)?.map(str::to_owned),
                icu_rules: row.optional(7)?.map(str::to_owned),
            });
            Ok(())
        })
        .context("list databases")?;
    Ok(out)
}

/// Looks whether all names in a database without an encoding are UTF-8; where they are not, the session goes over to
/// text that stands for bytes.
pub(super) fn understand_names(client: &mut Client) -> Result<()> {
    if client.parameter("server_encoding") != Some("SQL_ASCII") || client.text() == Text::Bytes {
        return Ok(());
    }
    // As UTF-8 the server itself would refuse to send them.
    client.batch("SET client_encoding = 'SQL_ASCII'")?;
    let mut all_utf8 = true;
    let sql = "SELECT nspname FROM pg_catalog.pg_namespace UNION ALL SELECT relname FROM pg_catalog.pg_class \
               UNION ALL SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid >= 16384 \
               UNION ALL SELECT typname FROM pg_catalog.pg_type";
    client
        .for_each_row(sql, |row| {
            all_utf8 &= row.bytes(0).is_none_or(|name| std::str::from_utf8(name).is_ok());
            Ok(())
        })
        .context("look at names")?;
    client.set_text(if all_utf8 { Text::Utf8 } else { Text::Bytes })
}

/// An installed extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) version: String,
}

/// Installed extensions, by name.
pub(super) fn extensions(client: &mut Client) -> Result<Vec<Extension>> {
    let mut out = Vec::new();
    client
        .for_each_row("SELECT extname, extversion FROM pg_catalog.pg_extension ORDER BY extname COLLATE \"C\"", |row| {
            out.push(Extension { name: row.text(0)?.to_owned(), version: row.text(1)?.to_owned() });
            Ok(())
        })
        .context("list extensions")?;
    Ok(out)
}

/// Which tables are wanted, as patterns.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) tables: Vec<Pattern>,
    pub(super) exclude_tables: Vec<Pattern>,
    pub(super) schemas: Vec<Pattern>,
    pub(super) exclude_schemas: Vec<Pattern>,
}

impl Choice {
    /// Not the whole database is wanted, so that what is in no table is not either.
    pub(super) fn is_partial(&self) -> bool {
        !self.tables.is_empty() || !self.schemas.is_empty()
    }
}

/// What a [`Choice`] means in one database: OIDs of relations and of schemas. `None` where nothing was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Matches {
    tables: Option<HashSet<u32>>,
    exclude_tables: HashSet<u32>,
    schemas: Option<HashSet<u32>>,
    exclude_schemas: HashSet<u32>,
}

impl Matches {
    /// Whether a relation is chosen, by the rules of `pg_dump`: tables that are named are taken whatever is said of
    /// schemas; what is excluded is excluded.
    fn chooses(&self, relation: u32, schema: u32) -> bool {
        let is_in = match (&self.tables, &self.schemas) {
            (Some(tables), _) => tables.contains(&relation),
            (None, Some(schemas)) => schemas.contains(&schema) && !self.exclude_schemas.contains(&schema),
            (None, None) => !self.exclude_schemas.contains(&schema),
        };
        is_in && !self.exclude_tables.contains(&relation)
    }
}

/// Resolves patterns. A pattern for what is wanted that fits nothing here is an error: it would be missing in silence.
pub(super) fn matches(client: &mut Client, choice: &Choice, needs_rows: bool) -> Result<Matches> {
    let mut wanted = |patterns: &[Pattern], what: &str, excludes: bool| -> Result<HashSet<u32>> {
        let mut all = HashSet::new();
        for pattern in patterns {
            let found = match what {
                "table" => matching_relations(client, pattern),
                _ => matching_schemas(client, pattern),
            }
            .with_context(|| format!("look for {what}s like {:?}", pattern.text))?;
            if found.is_empty() && !excludes {
                return Err(Error::new(ErrorKind::Absent, format!("no {what} is like {:?}", pattern.text)).with_hint(
                    "patterns are those of pg_dump: letters are folded to lower case outside of double quotes, and a \
                     table whose schema is not in the search path needs it named",
                ));
            }
            all.extend(found);
        }
        Ok(all)
    };
    let tables = wanted(&choice.tables, "table", false)?;
    let schemas = wanted(&choice.schemas, "schema", false)?;
    let exclude_tables = wanted(&choice.exclude_tables, "table", true)?;
    let exclude_schemas = wanted(&choice.exclude_schemas, "schema", true)?;
    if needs_rows && !tables.is_empty() {
        refuse_lone_parents(client, &tables)?;
    }
    Ok(Matches {
        tables: (!choice.tables.is_empty()).then_some(tables),
        exclude_tables,
        schemas: (!choice.schemas.is_empty()).then_some(schemas),
        exclude_schemas,
    })
}

/// The rows of a partitioned table are in its partitions. As with `pg_dump`, a pattern for the table does not fit those:
/// nothing of it would be kept.
fn refuse_lone_parents(client: &mut Client, tables: &HashSet<u32>) -> Result<()> {
    let list: Vec<String> = tables.iter().map(u32::to_string).collect();
    let sql = format!(
        "WITH RECURSIVE wanted AS (SELECT pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) AS oid), \
         below AS (SELECT c.oid AS root, i.inhrelid AS oid FROM wanted w JOIN pg_catalog.pg_class c ON c.oid = w.oid \
             JOIN pg_catalog.pg_inherits i ON i.inhparent = c.oid WHERE c.relkind = 'p' \
           UNION SELECT b.root, i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid) \
         SELECT b.root::pg_catalog.regclass FROM below b GROUP BY b.root \
         HAVING NOT pg_catalog.bool_or(b.oid IN (SELECT oid FROM wanted)) ORDER BY 1",
        list.join(",")
    );
    let mut alone = Vec::new();
    client.for_each_row(&sql, |row| {
        alone.push(row.text(0)?.to_owned());
        Ok(())
    })?;
    if alone.is_empty() {
        return Ok(());
    }
    let message =
        format!("{} is partitioned, and no pattern fits any of its partitions, which hold its rows", alone.join(", "));
    Err(Error::new(ErrorKind::Absent, message)
        .with_hint("name its partitions too, such as \"orders*\" for orders and orders_2026; or ask for schema_only"))
}

fn matching_relations(client: &mut Client, pattern: &Pattern) -> Result<Vec<u32>> {
    let is_meant = match &pattern.schema {
        Some(schema) => like("n.nspname", schema),
        None => "pg_catalog.pg_table_is_visible(c.oid)".to_owned(),
    };
    let sql = format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
           ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r','S','v','m','f','p']::pg_catalog.\"char\"[]) \
           AND {} AND {is_meant}",
        like("c.relname", &pattern.name)
    );
    // What can be named without a schema is so in the search path that the role would have, not in our empty one.
    client.batch("RESET search_path")?;
    let found = oids(client, &sql);
    client.batch("SELECT pg_catalog.set_config('search_path', '', false)")?;
    found
}

fn matching_schemas(client: &mut Client, pattern: &Pattern) -> Result<Vec<u32>> {
    oids(client, &format!("SELECT n.oid FROM pg_catalog.pg_namespace n WHERE {}", like("n.nspname", &pattern.name)))
}

fn like(column: &str, expression: &str) -> String {
    format!("{column} OPERATOR(pg_catalog.~) {} COLLATE pg_catalog.default", literal(expression))
}

fn oids(client: &mut Client, sql: &str) -> Result<Vec<u32>> {
    let mut out = Vec::new();
    client.for_each_row(sql, |row| {
        out.push(row.parse(0)?);
        Ok(())
    })?;
    Ok(out)
}

/// A table or a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) oid: u32,
    pub(super) schema: String,
    pub(super) name: String,
    /// `None` for a sequence.
    pub(super) kind: Option<TableKind>,
    pub(super) is_unlogged: bool,
    pub(super) is_populated: bool,
    /// Its rows lie in pages of a heap.
    pub(super) is_heap: bool,
    /// Of an extension that wants the rows kept.
    pub(super) extension: Option<String>,
    /// Which rows it wants kept: `WHERE …`.
    pub(super) condition: Option<String>,
    pub(super) root: Option<(String, String)>,
    pub(super) load_through_root: bool,
    /// The role may read it, but perhaps not find it.
    pub(super) may_select: bool,
    /// The role may find it.
    pub(super) may_use_schema: bool,
}

impl Relation {
    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// Tables and sequences of a database.
#[derive(Clone, Debug, Default)]
pub(super) struct Relations {
    /// By schema and name.
    pub(super) tables: Vec<Relation>,
    /// By schema and name.
    pub(super) sequences: Vec<Relation>,
}

const RELATIONS: &str = "\
WITH config AS (
  SELECT e.extname, pg_catalog.unnest(e.extconfig) AS relation, pg_catalog.unnest(e.extcondition) AS condition
  FROM pg_catalog.pg_extension e
), unsteady AS (
  SELECT p.partrelid FROM pg_catalog.pg_partitioned_table p
  WHERE EXISTS (
    SELECT FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_am m ON m.oid = o.opcmethod
    WHERE o.opcname = 'enum_ops' AND m.amname = 'hash' AND o.oid = ANY (p.partclass::pg_catalog.oid[]))
)
SELECT c.oid, n.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relispopulated, COALESCE(a.amname, '') = 'heap',
  config.extname, config.condition, rn.nspname, r.relname,
  COALESCE(c.relispartition AND EXISTS (
    SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) above JOIN unsteady ON unsteady.partrelid = above.relid), false),
  COALESCE(pg_catalog.has_table_privilege(c.oid, 'SELECT'), true), pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
  owned.refobjid
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
LEFT JOIN config ON config.relation = c.oid
LEFT JOIN pg_catalog.pg_class r ON c.relispartition AND r.oid = pg_catalog.pg_partition_root(c.oid)
LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
LEFT JOIN pg_catalog.pg_depend owned ON c.relkind = 'S' AND owned.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
  AND owned.objid = c.oid AND owned.objsubid = 0 AND owned.deptype IN ('a', 'i')
  AND owned.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
WHERE c.relkind IN ('r', 'p', 'm', 'f', 'S') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (config.relation IS NOT NULL OR NOT EXISTS (
    SELECT FROM pg_catalog.pg_depend d
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.objsubid = 0
      AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'))
ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\"";

/// Lists what is chosen of tables and sequences. Neither temporary ones, nor those of the system, nor those that an
/// extension makes by itself. A sequence that a chosen table owns is chosen.
pub(super) fn relations(client: &mut Client, matches: &Matches) -> Result<Relations> {
    let mut out = Relations::default();
    let mut chosen = HashSet::new();
    let mut owned = Vec::new();
    client
        .for_each_row(RELATIONS, |row| {
            let relation = relation(row)?;
            let is_chosen = matches.chooses(relation.oid, row.parse(1)?);
            let owner: Option<u32> = row.optional(15)?.and_then(|text| text.parse().ok());
            match (relation.kind, owner) {
                (Some(_), _) if is_chosen => {
                    chosen.insert(relation.oid);
                    out.tables.push(relation);
                }
                (None, _) if is_chosen => out.sequences.push(relation),
                (None, Some(owner)) => owned.push((owner, relation)),
                _ => {}
            }
            Ok(())
        })
        .context("list tables")?;
    out.sequences.extend(owned.into_iter().filter(|(owner, _)| chosen.contains(owner)).map(|(_, relation)| relation));
    out.sequences.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(out)
}

fn relation(row: Row<'_>) -> Result<Relation> {
    let text = |at| row.text(at).map(str::to_owned);
    let optional = |at| row.optional(at).map(|text| text.map(str::to_owned));
    Ok(Relation {
        oid: row.parse(0)?,
        schema: text(2)?,
        name: text(3)?,
        kind: match row.text(4)? {
            "r" => Some(TableKind::Table),
            "p" => Some(TableKind::Partitioned),
            "m" => Some(TableKind::MaterializedView),
            "f" => Some(TableKind::Foreign),
            _ => None,
        },
        is_unlogged: row.text(5)? == "u",
        is_populated: row.is_true(6)?,
        is_heap: row.is_true(7)?,
        extension: optional(8)?,
        condition: optional(9)?.filter(|condition| !condition.trim().is_empty()),
        root: optional(10)?.zip(optional(11)?),
        load_through_root: row.is_true(12)?,
        may_select: row.is_true(13)?,
        may_use_schema: row.is_true(14)?,
    })
}

/// How large a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Pages of its own, as they are read one after another.
    pub(super) pages: u64,
    /// Bytes, with long values that are kept aside.
    pub(super) bytes: u64,
    /// A policy hides rows of it from us.
    pub(super) hides_rows: bool,
}

/// Sizes of tables that are locked; asking would else wait for whoever has locked them.
pub(super) fn sizes(client: &mut Client, oids: &[u32]) -> Result<HashMap<u32, Size>> {
    let mut out = HashMap::with_capacity(oids.len());
    for_batches(client, oids, "c.oid", &mut |client, condition| {
        let sql = format!(
            "SELECT c.oid, COALESCE(pg_catalog.pg_relation_size(c.oid), 0) \
               / pg_catalog.current_setting('block_size')::pg_catalog.int8, \
               COALESCE(pg_catalog.pg_table_size(c.oid), 0), \
               c.relrowsecurity AND pg_catalog.row_security_active(c.oid) \
             FROM pg_catalog.pg_class c WHERE {condition}"
        );
        client.for_each_row(&sql, |row| {
            let size = Size { pages: row.parse(1)?, bytes: row.parse(2)?, hides_rows: row.is_true(3)? };
            out.insert(row.parse(0)?, size);
            Ok(())
        })
    })
    .context("look how large tables are")?;
    Ok(out)
}

/// The columns of tables whose values are kept, in the order of their numbers: what was dropped or is generated is not.
pub(super) fn columns(client: &mut Client, oids: &[u32]) -> Result<HashMap<u32, Vec<Column>>> {
    let mut out: HashMap<u32, Vec<Column>> = HashMap::with_capacity(oids.len());
    for_batches(client, oids, "t.attrelid", &mut |client, condition| {
        let sql = format!(
            "SELECT t.attrelid, t.attname, pg_catalog.format_type(t.atttypid, t.atttypmod) \
             FROM pg_catalog.pg_attribute t \
             WHERE {condition} AND t.attnum > 0 AND NOT t.attisdropped AND t.attgenerated = '' \
             ORDER BY t.attrelid, t.attnum"
        );
        client.for_each_row(&sql, |row| {
            let column = Column { name: row.text(1)?.to_owned(), type_name: row.text(2)?.to_owned() };
            out.entry(row.parse(0)?).or_default().push(column);
            Ok(())
        })
    })
    .context("list columns")?;
    Ok(out)
}

/// Of these tables those that this session has locked.
pub(super) fn locked_here(client: &mut Client) -> Result<HashSet<u32>> {
    let sql = "SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l \
               WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessShareLock' \
                 AND l.pid = pg_catalog.pg_backend_pid() AND l.database = \
                   (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())";
    Ok(oids(client, sql).context("look which tables are locked")?.into_iter().collect())
}

/// Whether somebody waits for a table that this session has locked.
pub(super) fn is_waited_for(client: &mut Client) -> Result<bool> {
    let sql = "SELECT l.pid FROM pg_catalog.pg_locks l \
               WHERE NOT l.granted AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(l.pid)) LIMIT 1";
    Ok(!oids(client, sql).context("look who waits for us")?.is_empty())
}

fn for_batches(
    client: &mut Client,
    oids: &[u32],
    column: &str,
    run: &mut dyn FnMut(&mut Client, &str) -> Result<()>,
) -> Result<()> {
    for batch in oids.chunks(OID_BATCH) {
        let list: Vec<String> = batch.iter().map(u32::to_string).collect();
        run(client, &format!("{column} = ANY ('{{{}}}'::pg_catalog.oid[])", list.join(",")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_tables_win_over_schemas_and_exclusions_over_all() {
        let set = |oids: &[u32]| oids.iter().copied().collect::<HashSet<u32>>();
        let all = Matches::default();
        assert!(all.chooses(1, 10));
        let schemas = Matches { schemas: Some(set(&[10])), exclude_tables: set(&[2]), ..Matches::default() };
        assert!(schemas.chooses(1, 10) && !schemas.chooses(2, 10) && !schemas.chooses(3, 11));
        let tables = Matches {
            tables: Some(set(&[1, 2])),
            exclude_tables: set(&[2]),
            exclude_schemas: set(&[10]),
            schemas: None,
        };
        assert!(tables.chooses(1, 10) && !tables.chooses(2, 10) && !tables.chooses(3, 11));
        let excluded = Matches { exclude_schemas: set(&[10]), ..Matches::default() };
        assert!(!excluded.chooses(1, 10) && excluded.chooses(1, 11));
    }
}
