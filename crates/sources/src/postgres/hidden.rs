//! What `pg_dump` leaves out for want of rights without failing: only superusers are shown all of the catalog. What is
//! so left out is named, so that no recovery point passes for more than it is.

use super::grants::some_of;
use super::wire::Client;
use lastgood_model::{Context, Result};

/// Something of a database's definition that the role is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden {
    /// What is missing, for messages.
    pub(super) what: String,
    /// Why, and what to do.
    pub(super) why: &'static str,
}

const SUBSCRIPTIONS: &str = "SELECT s.subname FROM pg_catalog.pg_subscription s \
     JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database() \
     ORDER BY s.subname COLLATE \"C\"";

/// Mappings of users whose options the view does not show, by the view's own conditions.
const MAPPINGS: &str = "SELECT m.umid, \
       CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE COALESCE(m.usename::pg_catalog.text, m.umuser::pg_catalog.text) END, \
       m.srvname \
     FROM pg_catalog.pg_user_mappings m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.srvid \
     WHERE m.umoptions IS NULL AND NOT (CASE WHEN m.umuser = 0 THEN pg_catalog.pg_has_role(s.srvowner, 'USAGE') \
       ELSE m.usename = current_user \
         AND (pg_catalog.pg_has_role(s.srvowner, 'USAGE') OR pg_catalog.has_server_privilege(s.oid, 'USAGE')) END)";

/// What a description of the whole database would lack. Nothing for a superuser.
pub(super) fn look(client: &mut Client) -> Result<Vec<Hidden>> {
    let rows = client.query(
        "SELECT pg_catalog.current_setting('is_superuser') = 'on', \
           pg_catalog.has_table_privilege('pg_catalog.pg_user_mapping', 'SELECT')",
    )?;
    let row = rows.only()?;
    let (is_superuser, may_read_mappings) = (row.is_true(0)?, row.is_true(1)?);
    let mut out = Vec::new();
    if is_superuser {
        return Ok(out);
    }
    let subscriptions =
        names(client, SUBSCRIPTIONS, |row| Ok(row.text(0)?.to_owned())).context("list subscriptions")?;
    if !subscriptions.is_empty() {
        out.push(Hidden {
            what: format!("subscriptions {}", some_of(&subscriptions)),
            why: "their definitions are shown to superusers only, and are not kept: capture as a superuser, or keep \
                  their CREATE SUBSCRIPTION elsewhere",
        });
    }
    // Whoever may read the table itself can tell those that have no options.
    let condition = match may_read_mappings {
        true => {
            " AND EXISTS (SELECT FROM pg_catalog.pg_user_mapping u WHERE u.oid = m.umid AND u.umoptions IS NOT NULL)"
        }
        false => "",
    };
    let sql = format!("{MAPPINGS}{condition} ORDER BY 3, 2");
    let mappings = names(client, &sql, |row| Ok(format!("of {} for server {}", row.text(1)?, row.text(2)?)));
    let mappings = mappings.context("list user mappings")?;
    if !mappings.is_empty() {
        out.push(Hidden {
            what: format!("options of user mappings: {}", some_of(&mappings)),
            why: "they are shown to superusers only, and the mappings are kept without: capture as a superuser, or set \
                  them anew after a restore",
        });
    }
    Ok(out)
}

fn names(
    client: &mut Client,
    sql: &str,
    mut name: impl FnMut(super::wire::Row<'_>) -> Result<String>,
) -> Result<Vec<String>> {
    let mut out = Vec::new();
    client.for_each_row(sql, |row| {
        out.push(name(row)?);
        Ok(())
    })?;
    Ok(out)
}
