//! Foreign keys of tables that were loaded with triggers switched off: nobody has looked at them, and a constraint that
//! claims to be valid must be.

use super::super::sql::{literal, quote_in};
use super::super::wire::Client;
use super::load::Place;
use super::session::Sessions;
use lastgood_model::{Context, Error, ErrorKind, Result};

/// Tables asked for in one statement.
const BATCH: usize = 500;

/// Each valid foreign key from or to these tables as a question that has no row when the key holds. Keys over periods
/// have other rules; they come with version 18. (Several arrays are syntax and no function, so `unnest` of them has no
/// schema.)
fn keys(tables: &[String]) -> String {
    format!(
        "WITH loaded AS ( \
           SELECT pg_catalog.to_regclass(name) AS oid FROM pg_catalog.unnest(ARRAY[{}]) AS name) \
         SELECT con.conname, \
           pg_catalog.format('SELECT FROM %s%I.%I c WHERE %s AND NOT EXISTS (SELECT FROM %s%I.%I p WHERE %s) LIMIT 1', \
             CASE WHEN child.relkind = 'p' THEN '' ELSE 'ONLY ' END, cn.nspname, child.relname, \
             pg_catalog.string_agg(pg_catalog.format('c.%I IS NOT NULL', ca.attname), ' AND '), \
             CASE WHEN parent.relkind = 'p' THEN '' ELSE 'ONLY ' END, pn.nspname, parent.relname, \
             pg_catalog.string_agg(pg_catalog.format('p.%I OPERATOR(%I.%s) c.%I', \
               pa.attname, opn.nspname, op.oprname, ca.attname), ' AND ')), \
           pg_catalog.format('%I.%I', cn.nspname, child.relname), \
           pg_catalog.format('%I.%I', pn.nspname, parent.relname) \
         FROM pg_catalog.pg_constraint con \
         CROSS JOIN LATERAL unnest(con.conkey, con.confkey, con.conpfeqop) AS k(child, parent, op) \
         JOIN pg_catalog.pg_class child ON child.oid = con.conrelid \
         JOIN pg_catalog.pg_namespace cn ON cn.oid = child.relnamespace \
         JOIN pg_catalog.pg_class parent ON parent.oid = con.confrelid \
         JOIN pg_catalog.pg_namespace pn ON pn.oid = parent.relnamespace \
         JOIN pg_catalog.pg_attribute ca ON ca.attrelid = con.conrelid AND ca.attnum = k.child \
         JOIN pg_catalog.pg_attribute pa ON pa.attrelid = con.confrelid AND pa.attnum = k.parent \
         JOIN pg_catalog.pg_operator op ON op.oid = k.op \
         JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace \
         WHERE con.contype = 'f' AND con.convalidated AND con.conparentid = 0 \
           AND COALESCE(pg_catalog.to_jsonb(con)->>'conperiod', 'false') = 'false' \
           AND EXISTS (SELECT FROM loaded CROSS JOIN LATERAL ( \
               SELECT loaded.oid::pg_catalog.oid AS one \
               UNION ALL SELECT relid::pg_catalog.oid FROM pg_catalog.pg_partition_ancestors(loaded.oid)) above \
             WHERE above.one IN (con.conrelid, con.confrelid)) \
         GROUP BY con.oid, con.conname, cn.nspname, child.relname, child.relkind, pn.nspname, parent.relname, \
           parent.relkind \
         ORDER BY 3, 1",
        tables.join(", ")
    )
}

/// Fails when a row of one of these tables, or one that points to them, points nowhere.
pub(super) fn check(client: &mut Client, sessions: &Sessions, places: &[Place]) -> Result<()> {
    let names: Vec<String> = places.iter().map(|place| literal(&quote_in(&place.schema, &place.name))).collect();
    for batch in names.chunks(BATCH) {
        let mut found = Vec::new();
        client
            .for_each_row(&keys(batch), |row| {
                let text = |at| row.text(at).map(str::to_owned);
                found.push((text(0)?, text(1)?, text(2)?, text(3)?));
                Ok(())
            })
            .context("list foreign keys")?;
        for (name, question, child, parent) in found {
            sessions.check()?;
            let rows = client.query(&question).with_context(|| format!("check foreign key {name} of {child}"))?;
            if !rows.is_empty() {
                let message =
                    format!("rows of {child} refer to rows of {parent} that are not there (constraint {name})");
                return Err(Error::new(ErrorKind::Conflict, message)
                    .with_hint("restore the rows of both tables together, or into a database of their own"));
            }
        }
    }
    Ok(())
}
