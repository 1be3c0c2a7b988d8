//! The plan of a restore: what was saved, what is at the target, and what follows from both. Changes nothing.

use super::super::conninfo::Conninfo;
use super::super::layout::TableRecord;
use super::super::plan::{self, Options, Pattern, Plan, Rename, What};
use super::super::sql::{quote, quote_in};
use super::super::toc::{Text, Toc};
use super::super::tools::Version;
use super::RestoreOptions;
use super::creation::Creation;
use super::globals::{Globals, owners_in, roles_in};
use super::large_objects::{self, Wishes};
use super::load::Place;
use super::making::Prepare;
use super::obstacles::{self, Needs};
use super::saved::{self, SavedDatabase};
use super::sequences::Sequence;
use super::session;
use super::summary::{DatabaseFate, Obstacle, RestoreSummary};
use super::target::{self, Server, State, Target};
use super::unfinished::{self, Left};
use lastgood_model::saved::SavedFiles;
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A restore as a value.
pub struct DatabaseRestorePlan {
    pub(super) info: Conninfo,
    pub(super) options: RestoreOptions,
    pub(super) saved: SavedDatabase,
    pub(super) server: Server,
    pub(super) target: Target,
    pub(super) prepare: Prepare,
    pub(super) creation: Creation,
    pub(super) plan: Plan,
    pub(super) places: Vec<Place>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) has_large_objects: bool,
    pub(super) globals: Option<Globals>,
    pub(super) roles_made: BTreeSet<String>,
    pub(super) jobs: usize,
    pub(super) rename: Option<Rename>,
    /// What killed restores have left in the database, which is taken away first.
    pub(super) left: Vec<Left>,
    /// Tables that are emptied first.
    pub(super) emptied: Vec<String>,
    pub(super) summary: RestoreSummary,
}

impl std::fmt::Debug for DatabaseRestorePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseRestorePlan").field("summary", &self.summary).finish_non_exhaustive()
    }
}

impl DatabaseRestorePlan {
    /// What it would do, and what stands in the way.
    pub fn summary(&self) -> &RestoreSummary {
        &self.summary
    }

    /// Why it would refuse: all obstacles in one error, of the kind of the first.
    pub fn refusal(&self) -> Option<Error> {
        let obstacles = &self.summary.obstacles;
        let first = obstacles.first()?;
        let join = |of: fn(&Obstacle) -> &str| obstacles.iter().map(of).collect::<Vec<_>>().join("; ");
        let error = Error::new(first.kind.error_kind(), join(|one| &one.message));
        Some(error.with_hint(join(|one| &one.hint)))
    }

    pub(super) fn wishes(&self) -> Wishes {
        Wishes { no_owner: self.options.no_owner, no_acl: self.options.no_acl }
    }

    /// Something that is not an unfinished restore's would be taken away.
    pub fn is_destructive(&self) -> bool {
        let empties = self.options.data_only && self.options.overwrite;
        empties || self.prepare == Prepare::Swap
    }

    /// Something is added to a database that somebody may use.
    pub(super) fn is_addition(&self) -> bool {
        self.prepare == Prepare::Add
    }
}

/// Plans a restore into the database that `target` names.
///
/// # Errors
/// [`ErrorKind::Absent`] when there is no such database or table in the recovery point, [`ErrorKind::Invalid`] for options
/// that contradict each other, those of the connection, and those of `files`. What stands in the way on the server is
/// no error but an [`Obstacle`].
pub fn plan(files: &dyn SavedFiles, target: &Conninfo, options: &RestoreOptions) -> Result<DatabaseRestorePlan> {
    let wishes = read_options(options)?;
    let name = saved::choose(files, options.database.as_deref())?;
    let saved = SavedDatabase::open(files, &name)?;
    let (server, mut found) = target::look(target)?;
    doubt(target, &saved, &mut found)?;
    let is_selective = !wishes.tables.is_empty() || !wishes.schemas.is_empty();
    let prepare = match &found.state {
        State::Absent => Prepare::Make,
        State::Ours(_, None) if !options.data_only => Prepare::Replace,
        _ if options.data_only || options.rename.is_some() => Prepare::Add,
        State::Empty => Prepare::Use,
        State::Ours(..) => Prepare::Swap,
        State::Occupied(..) if is_selective => Prepare::Add,
        State::Occupied(..) => Prepare::Swap,
    };
    let others = match prepare {
        Prepare::Add => unfinished::look(&mut session::connect(target)?)?,
        _ => unfinished::Others::default(),
    };
    for schema in others.left.iter().flat_map(|left| &left.schemas) {
        found.schemas.remove(schema);
    }
    // In a database that is made there are the schemas that every new one has.
    let schemas = if prepare == Prepare::Add { found.schemas.clone() } else { BTreeSet::from(["public".to_owned()]) };
    let populated = saved.tables.iter().filter(|table| table.populated).map(|table| table.oid).collect();
    let choice = Options {
        existing_schemas: schemas,
        brings_needs: (prepare != Prepare::Add).then(|| server.extensions.keys().cloned().collect()),
        populated: Some(populated),
        no_tablespace: false,
        ..wishes
    };
    let toc = match &saved.toc {
        Some(toc) => toc.clone(),
        None if options.data_only => described_by_tables(&saved),
        None => {
            return Err(Error::new(ErrorKind::Unsupported, "the recovery point holds only rows of this database")
                .with_hint("restore them with --data-only into a database that has its tables"));
        }
    };
    let (toc, lost) = without_lost_tablespaces(toc, &server);
    let mut steps = plan::plan(&toc, &choice)?;
    check_text(&steps, found.encoding.as_deref().filter(|_| matches!(prepare, Prepare::Add | Prepare::Use)))?;
    let standard_strings = !steps.session.iter().any(|setting| setting == "SET standard_conforming_strings = off;");
    let mut creation = Creation::of(saved.toc.as_ref(), standard_strings, options.no_owner, options.no_acl);

    let mut notes = std::mem::take(&mut steps.notes);
    if options.data_only {
        // They tell of definitions, and none are made.
        notes = unrefreshed(&toc);
    }
    notes.extend(
        lost.iter().map(|name| {
            format!("the server has no tablespace {}: what was there goes to the default one", quote(name))
        }),
    );
    let is_new = !options.data_only;
    let places = places(&saved, &steps, &choice, is_new, &mut notes);
    let by_name: HashMap<(&str, &str), &str> = sequence_places(&saved, &steps);
    let sequences = moved_sequences(&saved, &by_name, &choice);
    let has_large_objects = !is_selective && !options.schema_only;
    let large_objects = match has_large_objects {
        true => large_objects::look(
            files,
            &saved.folder,
            saved.text,
            Wishes { no_owner: options.no_owner, no_acl: options.no_acl },
        )?,
        false => large_objects::Wanted::default(),
    };

    let (mut roles, mut owners) = (large_objects.roles.clone(), BTreeSet::new());
    for step in steps.pre.iter().chain(&steps.post) {
        roles_in(&step.sql, standard_strings, &mut roles);
        owners_in(&step.sql, standard_strings, &mut owners);
    }
    // Those of the database itself.
    let mut own = BTreeSet::new();
    if matches!(prepare, Prepare::Make | Prepare::Replace | Prepare::Swap) {
        own.extend(creation.owner.clone());
        creation.after(&found.name, None).iter().for_each(|sql| roles_in(sql, standard_strings, &mut own));
    }
    let globals = saved::globals(files)?;
    if is_selective {
        // Whoever wants a part of it does not ask for them.
        let makes = globals.as_ref().filter(|_| options.roles).map(|globals| globals.to_make(&own, &server.roles));
        let is_there = |role: &String| server.roles.contains(role) || makes.iter().any(|made| made.contains(role));
        let lacking: BTreeSet<String> = own.iter().filter(|role| !is_there(role)).cloned().collect();
        for role in lacking {
            notes.push(format!(
                "what role {} may do with the database itself is left out: it is not there",
                quote(&role)
            ));
            creation.leave_out(&role);
            own.remove(&role);
        }
    }
    roles.extend(own);
    let roles_made = match &globals {
        Some(globals) if options.roles => globals.to_make(&roles, &server.roles),
        _ => BTreeSet::new(),
    };
    let missing_roles: Vec<String> =
        roles.into_iter().filter(|role| !server.roles.contains(role) && !roles_made.contains(role)).collect();
    let extensions = extensions(saved.toc.as_ref(), &steps, &server);

    let mut plan = DatabaseRestorePlan {
        jobs: jobs(options.jobs),
        summary: RestoreSummary {
            source: saved.name.clone(),
            source_version: saved.toc.as_ref().map(|toc| toc.server_version.clone()).unwrap_or_default(),
            server: target.host_shown(),
            server_version: server.version_text.clone(),
            database: found.name.clone(),
            fate: match prepare {
                Prepare::Make => DatabaseFate::Made,
                Prepare::Use => DatabaseFate::Used,
                Prepare::Replace | Prepare::Swap => DatabaseFate::Replaced,
                Prepare::Add => DatabaseFate::AddedTo,
            },
            replaces: None,
            tables: places.len() as u64,
            rows: places.iter().filter_map(|place| saved.tables[place.table].total).map(|total| total.rows).sum(),
            bytes: places.iter().map(|place| saved.tables[place.table].bytes()).sum(),
            sequences: sequences.len() as u64,
            large_objects: large_objects.oids.len() as u64,
            steps: (steps.pre.len() + steps.post.iter().filter(|step| !step.sql.is_empty()).count()) as u64,
            jobs: jobs(options.jobs),
            roles_made: roles_made.iter().cloned().collect(),
            extensions: extensions.there,
            notes,
            meanwhile: Vec::new(),
            warnings: others.told,
            obstacles: Vec::new(),
        },
        info: target.clone(),
        options: options.clone(),
        saved,
        server,
        target: found,
        prepare,
        creation,
        plan: steps,
        places,
        sequences,
        has_large_objects: !large_objects.oids.is_empty(),
        globals,
        roles_made,
        emptied: Vec::new(),
        left: others.left,
        rename: choice.rename,
    };
    owners.retain(|role| plan.server.roles.contains(role) && !plan.server.may_become.contains(role));
    let needs = Needs {
        missing_roles,
        foreign_owners: owners.into_iter().collect(),
        missing_extensions: extensions.missing,
        large_objects: large_objects.oids,
        is_selective,
    };
    obstacles::find(&mut plan, &needs)?;
    Ok(plan)
}

/// A database that a restore has left unfinished is taken away without a word only when nobody has added to it.
fn doubt(target: &Conninfo, saved: &SavedDatabase, found: &mut Target) -> Result<()> {
    let State::Ours(_, doubt @ None) = &mut found.state else { return Ok(()) };
    let entries = saved.toc.iter().flat_map(|toc| &toc.entries);
    let known = entries.map(|entry| (entry.namespace.as_deref().unwrap_or_default(), entry.tag.as_str()));
    let stranger = target::stranger(target, &known.collect())?;
    *doubt = stranger.map(|name| format!("it holds {name}, which the recovery point has not"));
    Ok(())
}

/// Materialized views that are not filled again.
fn unrefreshed(toc: &Toc) -> Vec<String> {
    let views = toc.entries.iter().filter(|entry| entry.desc == "MATERIALIZED VIEW DATA");
    let names: Vec<String> =
        views.map(|entry| quote_in(entry.namespace.as_deref().unwrap_or_default(), &entry.tag)).collect();
    match names.as_slice() {
        [] => Vec::new(),
        names => vec![format!(
            "materialized views stay as they are; REFRESH MATERIALIZED VIEW fills them from the rows that come: {}",
            names.join(", ")
        )],
    }
}

pub(super) fn jobs(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
        wanted => wanted,
    }
}

fn read_options(options: &RestoreOptions) -> Result<Options> {
    if options.schema_only && options.data_only {
        return Err(Error::invalid("only definitions and only rows cannot both be wanted"));
    }
    let patterns = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>>>();
    let mut tables = patterns(&options.tables)?;
    let mut rename = None;
    if let Some((from, to)) = &options.rename {
        if options.data_only {
            return Err(Error::invalid("a new name is of no use when only rows are restored"));
        }
        if tables.is_empty() {
            tables.push(from.parse()?);
        }
        rename = Some(new_name(to)?);
    }
    Ok(Options {
        tables,
        schemas: patterns(&options.schemas)?,
        exclude: patterns(&options.exclude_tables)?,
        what: match (options.schema_only, options.data_only) {
            (true, _) => What::Schema,
            (_, true) => What::Data,
            _ => What::All,
        },
        no_owner: options.no_owner,
        no_acl: options.no_acl,
        rename,
        ..Options::default()
    })
}

/// `name` or `schema.name`; what is within double quotes is taken as it stands.
fn new_name(text: &str) -> Result<Rename> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => {
                parts.last_mut().into_iter().for_each(|p| p.push('"'))
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            char => parts.last_mut().into_iter().for_each(|part| part.push(char)),
        }
    }
    let invalid = || Error::invalid(format!("{text:?} is no name for a table")).with_hint("write name or schema.name");
    if is_quoted || parts.iter().any(String::is_empty) {
        return Err(invalid());
    }
    match (parts.pop(), parts.pop(), parts.pop()) {
        (Some(_), Some(schema), None) if schema.starts_with("pg_") || schema == "information_schema" => {
            Err(Error::invalid(format!("schema {schema} is the server's own")).with_hint("name another schema"))
        }
        (Some(name), schema, None) => Ok(Rename { schema, name }),
        _ => Err(invalid()),
    }
}

/// Text that is not UTF-8 cannot be sent.
/// Text in no encoding fits only a database that has none. `encoding` is that of the target, when it is there.
fn check_text(plan: &Plan, encoding: Option<&str>) -> Result<()> {
    let Some(encoding) = encoding.filter(|encoding| *encoding != "SQL_ASCII") else { return Ok(()) };
    let step = plan.pre.iter().chain(&plan.post).find(|step| plan.text == Text::Bytes && !step.sql.is_ascii());
    match step {
        None => Ok(()),
        Some(step) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} has text that is not UTF-8, and the database has the encoding {encoding}", step.what),
        )
        .with_hint("restore into a new database, which is made without an encoding (SQL_ASCII), as the old one is")),
    }
}

/// Objects of tablespaces that the server lacks go to the default one.
fn without_lost_tablespaces(mut toc: Toc, server: &Server) -> (Toc, BTreeSet<String>) {
    let mut lost = BTreeSet::new();
    for entry in &mut toc.entries {
        if let Some(name) = &mut entry.tablespace
            && !name.is_empty()
            && !server.tablespaces.contains(name.as_str())
        {
            lost.insert(std::mem::take(name));
        }
    }
    (toc, lost)
}

/// Just enough of a table of contents to choose rows from, when no schema was saved.
fn described_by_tables(saved: &SavedDatabase) -> Toc {
    use super::super::toc::{Entry, Section};
    let entry = |(number, table): (usize, &TableRecord)| Entry {
        dump_id: number as u32 + 1,
        desc: "TABLE".to_owned(),
        namespace: Some(table.schema.clone()),
        tag: table.name.clone(),
        section: Section::PreData,
        relkind: Some(if table.total.is_some() { 'r' } else { 'p' }),
        oid: table.oid,
        ..Entry::default()
    };
    Toc {
        text: saved.text,
        archive: 16,
        server_version: String::new(),
        dump_version: String::new(),
        database: saved.name.clone(),
        entries: saved.tables.iter().enumerate().map(entry).collect(),
    }
}

/// Where the rows of each table go that the plan loads.
fn places(saved: &SavedDatabase, plan: &Plan, choice: &Options, is_new: bool, notes: &mut Vec<String>) -> Vec<Place> {
    let targets: HashMap<u32, &plan::DataTarget> = plan.data.iter().map(|target| (target.oid, target)).collect();
    let is_whole = choice.tables.is_empty() && choice.schemas.is_empty();
    let mut out = Vec::new();
    for (table, record) in saved.tables.iter().enumerate() {
        let target = targets.get(&record.oid).map(|target| (&target.schema, &target.name));
        // An extension makes its tables itself, so that no plan has them; rows that somebody added are ours.
        let is_excluded = choice.exclude.iter().any(|pattern| pattern.fits(&record.schema, &record.name));
        let of_extension = (record.extension.is_some() && is_whole && choice.what != What::Schema && !is_excluded)
            .then_some((&record.schema, &record.name));
        let Some((schema, name)) = target.or(of_extension) else { continue };
        match (&record.total, &record.left_out) {
            (Some(_), _) => out.push(Place {
                table,
                schema: schema.clone(),
                name: name.clone(),
                is_new,
                is_alone: plan.is_partition_alone,
            }),
            (None, Some(why)) => notes.push(format!("rows of {}.{} are not there: {why}", record.schema, record.name)),
            (None, None) => {}
        }
    }
    out
}

/// The schemas in which sequences end up, by schema and name as they were.
fn sequence_places<'a>(saved: &'a SavedDatabase, plan: &'a Plan) -> HashMap<(&'a str, &'a str), &'a str> {
    let mut out = HashMap::new();
    let chosen: BTreeMap<u32, &plan::DataTarget> =
        plan.data.iter().filter(|target| target.is_sequence).map(|target| (target.oid, target)).collect();
    for entry in saved.toc.iter().flat_map(|toc| &toc.entries).filter(|entry| entry.desc == "SEQUENCE") {
        if let Some(target) = chosen.get(&entry.oid) {
            let was = (entry.namespace.as_deref().unwrap_or_default(), entry.tag.as_str());
            out.insert(was, target.schema.as_str());
        }
    }
    out
}

fn moved_sequences(saved: &SavedDatabase, places: &HashMap<(&str, &str), &str>, choice: &Options) -> Vec<Sequence> {
    if choice.what == What::Schema {
        return Vec::new();
    }
    let fits = |patterns: &[Pattern], sequence: &Sequence| {
        patterns.iter().any(|pattern| pattern.fits(&sequence.schema, &sequence.name))
    };
    let is_whole = choice.tables.is_empty() && choice.schemas.is_empty();
    let known: BTreeSet<(&str, &str)> = saved
        .toc
        .iter()
        .flat_map(|toc| &toc.entries)
        .filter(|entry| entry.desc == "SEQUENCE")
        .map(|entry| (entry.namespace.as_deref().unwrap_or_default(), entry.tag.as_str()))
        .collect();
    let moved = |sequence: &Sequence| {
        let key = (sequence.schema.as_str(), sequence.name.as_str());
        match places.get(&key) {
            Some(schema) => Some(Sequence { schema: (*schema).to_owned(), ..sequence.clone() }),
            // Of an extension, or of a recovery point without a schema.
            None if !known.contains(&key) => {
                let is_wanted = is_whole
                    || fits(&choice.tables, sequence)
                    || choice.schemas.iter().any(|pattern| pattern.fits_name(&sequence.schema));
                (is_wanted && !fits(&choice.exclude, sequence)).then(|| sequence.clone())
            }
            None => None,
        }
    };
    saved.sequences.iter().filter_map(moved).collect()
}

struct Extensions {
    there: Vec<(String, String)>,
    missing: Vec<String>,
}

fn extensions(toc: Option<&Toc>, plan: &Plan, server: &Server) -> Extensions {
    let made: BTreeSet<&str> = plan.pre.iter().map(|step| step.what.as_str()).collect();
    let mut out = Extensions { there: Vec::new(), missing: Vec::new() };
    for entry in toc.into_iter().flat_map(|toc| &toc.entries) {
        if entry.desc == "EXTENSION" && made.contains(entry.label().as_str()) {
            match server.extensions.get(&entry.tag) {
                Some(version) => out.there.push((entry.tag.clone(), version.clone())),
                None => out.missing.push(entry.tag.clone()),
            }
        }
    }
    out
}

/// The version of a server in its own words, such as `15.18 (Debian …)`.
pub(super) fn version_of(said: &str) -> Option<Version> {
    Version::parse(&format!("(PostgreSQL) {said}"))
}

/// A name for people and SQL alike.
pub(super) fn shown(schema: &str, name: &str) -> String {
    format!("{}.{}", quote(schema), quote(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_read_with_and_without_schema_and_quotes() {
        for text in ["pg_catalog.t", "\"pg_toast\".t", "information_schema.t", "pg_temp.t"] {
            assert!(new_name(text).unwrap_err().message().contains("the server's own"), "{text}");
        }
        let read = |text: &str| new_name(text).map(|rename| (rename.schema, rename.name)).ok();
        assert_eq!(read("orders_old"), Some((None, "orders_old".into())));
        assert_eq!(read("a.b"), Some((Some("a".into()), "b".into())));
        assert_eq!(read("\"A.b\".\"c\"\"d\""), Some((Some("A.b".into()), "c\"d".into())));
        for bad in ["", "a.", ".a", "a.b.c", "\"a"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn wishes_that_contradict_each_other_are_refused() {
        let both = RestoreOptions { schema_only: true, data_only: true, ..RestoreOptions::default() };
        assert_eq!(read_options(&both).unwrap_err().kind(), ErrorKind::Invalid);
        let rename = Some(("t".to_owned(), "u".to_owned()));
        let renamed = RestoreOptions { data_only: true, rename: rename.clone(), ..RestoreOptions::default() };
        assert!(read_options(&renamed).is_err());
        let renamed = RestoreOptions { rename, ..RestoreOptions::default() };
        assert_eq!(read_options(&renamed).unwrap().tables.len(), 1);
    }

    #[test]
    fn versions_are_read_as_servers_say_them() {
        assert_eq!(version_of("15.18 (Debian 15.18-0+deb12u1)").map(Version::major), Some(15));
        assert_eq!(version_of("9.6.24").map(Version::major), Some(906));
        assert_eq!(version_of(""), None);
    }
}
