//! Large objects: what `lo_create` and its sisters keep in one table of the system.
//!
//! That table is read as such where it may be, which a superuser may and from 14 on a member of `pg_read_all_data`: then
//! what was never written stays a hole. Others read each object through `lo_get`, for which they need SELECT on it.

use super::rows::RowDigest;
use super::sql::{literal, quote};
use super::stream::Streams;
use super::wire::Client;
use lastgood_model::{Context, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// Bytes of an object in one row, when it is read through `lo_get`.
const PIECE_BYTES: u32 = 131_072;

/// What was captured of large objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many there are.
    pub objects: u64,
    /// Length of `large-objects.copy`.
    pub bytes: u64,
    /// Rows and digest of `large-objects.copy`.
    #[serde(flatten)]
    pub total: RowDigest,
}

/// How many there are under the open transaction's snapshot.
pub(super) fn count(client: &mut Client) -> Result<u64> {
    let rows = client.query("SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata");
    rows.context("count large objects")?.only()?.parse(0)
}

/// Writes the statements that make them, without content: one a line, in the order of their OIDs.
pub(super) fn script(client: &mut Client, streams: &Streams<'_>, path: String) -> Result<u64> {
    let sql = "SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner), m.lomacl IS NOT NULL, \
                 pg_catalog.obj_description(m.oid, 'pg_largeobject') \
               FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid";
    let acl = "SELECT m.oid, CASE WHEN x.grantee <> 0 THEN pg_catalog.pg_get_userbyid(x.grantee) END, x.privilege_type, \
                 x.is_grantable \
               FROM pg_catalog.pg_largeobject_metadata m CROSS JOIN LATERAL pg_catalog.aclexplode(m.lomacl) x \
               ORDER BY m.oid, 2 NULLS FIRST, 3, 4";
    streams.file(path, |file| {
        let mut objects = 0;
        client
            .for_each_row(sql, |row| {
                objects += 1;
                let (oid, owner) = (row.text(0)?, quote(row.text(1)?));
                let mut lines =
                    format!("SELECT pg_catalog.lo_create('{oid}');\nALTER LARGE OBJECT {oid} OWNER TO {owner};\n");
                if let Some(comment) = row.optional(3)? {
                    lines.push_str(&format!("COMMENT ON LARGE OBJECT {oid} IS {};\n", literal(comment)));
                }
                if row.is_true(2)? {
                    // What was granted follows below, the owner's own rights among it.
                    lines.push_str(&format!("REVOKE ALL ON LARGE OBJECT {oid} FROM {owner};\n"));
                }
                file.put_text(&lines)
            })
            .context("list large objects")?;
        client
            .for_each_row(acl, |row| {
                let (oid, privilege) = (row.text(0)?, row.text(2)?);
                let grantee = row.optional(1)?.map_or_else(|| "PUBLIC".to_owned(), quote);
                let option = if row.is_true(3)? { " WITH GRANT OPTION" } else { "" };
                file.put_text(&format!("GRANT {privilege} ON LARGE OBJECT {oid} TO {grantee}{option};\n"))
            })
            .context("list who may use large objects")?;
        Ok(objects)
    })
}

/// Writes their content as rows of OID, byte offset and bytes, in this order.
pub(super) fn rows(client: &mut Client, streams: &Streams<'_>, path: String) -> Result<(u64, RowDigest)> {
    let may_read = client
        .query("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')")
        .context("look whether large objects may be read")?
        .only()?
        .is_true(0)?;
    // Rows are wanted in their order, and the index has them in it.
    client.batch("SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on")?;
    let result = streams.copy(client, &if may_read { pages_sql() } else { pieces_sql() }, path);
    result.context("read large objects").map_err(|error| match error.kind() {
        ErrorKind::Denied => error.with_hint(
            "make the role a member of pg_read_all_data (from PostgreSQL 14 on), or GRANT SELECT ON \
             pg_catalog.pg_largeobject to it, or GRANT SELECT ON LARGE OBJECT … for each",
        ),
        _ => error,
    })
}

/// A page of an object holds a quarter of a block.
fn pages_sql() -> String {
    "COPY (SELECT l.loid, l.pageno::pg_catalog.int8 * (pg_catalog.current_setting('block_size')::pg_catalog.int8 / 4), \
       l.data FROM pg_catalog.pg_largeobject l \
     WHERE EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = l.loid) ORDER BY l.loid, l.pageno) \
     TO STDOUT WITH (ENCODING 'UTF8')"
        .to_owned()
}

/// Opens each (262144 is for reading), looks where it ends, and closes it before the next.
fn pieces_sql() -> String {
    format!(
        "COPY (SELECT m.oid, piece.at, pg_catalog.lo_get(m.oid, piece.at, {PIECE_BYTES}) \
           FROM (SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid) m \
           CROSS JOIN LATERAL ( \
             SELECT pg_catalog.lo_lseek64(opened.fd, 0, 2) + pg_catalog.lo_close(opened.fd) AS bytes \
             FROM (SELECT pg_catalog.lo_open(m.oid, 262144) AS fd OFFSET 0) opened) length \
           CROSS JOIN LATERAL pg_catalog.generate_series(0, length.bytes - 1, {PIECE_BYTES}) piece(at)) \
         TO STDOUT WITH (ENCODING 'UTF8')"
    )
}
