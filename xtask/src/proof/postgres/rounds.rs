//! One failure after another on one server, and what must hold after each.

use super::Options;
use super::disk::Disk;
use super::harm::{self, Harm, Phase};
use super::proxy::Proxy;
use super::shop::{DATABASE, Shop, Users};
use crate::program::{Lastgood, Point, Source};
use anyhow::{Context, Result, bail};
use lastgood_testkit::postgres::Version;
use lastgood_testkit::restic::Restic;
use lastgood_testkit::rng::Rng;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// The source, and the one beside it that nothing is done to.
const SOURCE: &str = "db";
const BESIDE: &str = "tree";
/// Where points are restored to be judged.
const JUDGED: &str = "judged";
/// Where restores that fail go.
const BACK: &str = "back";
/// What a restore into the place of another makes first.
const SUCCESSOR: &str = "back.lastgood-new";
/// What the one is called whose place it has taken, until it is dropped.
const PREDECESSOR: &str = "back.lastgood-old";
/// A run that a failure has met ends by itself after so long; beyond it, it hangs.
const END_MAX: Duration = Duration::from_secs(60);
/// In five cases so many are restores.
const RESTORES_IN_FIVE: u64 = 2;

/// The proof on one server.
pub(super) struct Proof {
    shop: Shop,
    /// Who use the shop; left before the server goes.
    users: Option<Users>,
    proxy: Proxy,
    lastgood: Lastgood,
    restic: Restic,
    scratch: PathBuf,
    rng: Rng,
    backup_took: Duration,
    restore_took: Duration,
    /// Failures to come in each phase, the next one last.
    to_come: [Vec<Harm>; 2],
    only: Option<Harm>,
    /// Recovery points that have the database.
    pub(super) points: Vec<String>,
    /// Failures that met a run.
    pub(super) done: Vec<(Phase, Harm)>,
}

/// A run that ended, after a failure had met it or without.
struct Met {
    status: ExitStatus,
    is_hit: bool,
    said: String,
}

impl Met {
    fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }
}

impl Proof {
    pub(super) fn begin(
        version: Version,
        scratch: &Path,
        binary: &Path,
        restic: &Path,
        seed: u64,
        options: &Options,
    ) -> Result<Self> {
        let shop = Shop::open(version, options.rows)?;
        let proxy = Proxy::before(shop.server.port())?;
        let tree = scratch.join("files");
        fs_err::create_dir_all(&tree)?;
        fs_err::write(tree.join("cat.jpg"), "a picture")?;
        let repository = scratch.join("repo");
        let sources = sources(&shop, &proxy, &tree)?;
        let lastgood = Lastgood::new(binary, &scratch.join("lastgood"), &repository, &sources)?;
        Shop::give_password(lastgood.home())?;
        lastgood.run(&lastgood.init())?.ok()?;
        let mut proof = Self {
            users: None,
            restic: Restic::with_program(restic, &repository, &lastgood.key),
            scratch: scratch.to_owned(),
            rng: Rng::new(seed ^ 0x7067),
            backup_took: Duration::ZERO,
            restore_took: Duration::ZERO,
            to_come: Default::default(),
            only: options.only,
            points: Vec::new(),
            done: Vec::new(),
            shop,
            proxy,
            lastgood,
        };
        proof.users = Some(proof.shop.users());
        for _ in 0..2 {
            // The first stores everything; the second shows how long the others take.
            proof.acknowledged_backup()?;
        }
        let before = proof.proxy.bytes();
        proof.restore_and_judge(&proof.points[1].clone())?;
        if proof.proxy.bytes() == before {
            bail!("restores do not go through the proxy");
        }
        Ok(proof)
    }

    /// How many failures have met a run.
    pub(super) fn cases(&self) -> u64 {
        self.done.len() as u64
    }

    /// One failure, if it comes in time, and all that must hold after it.
    pub(super) fn round(&mut self, number: u64) -> Result<()> {
        let phase = match self.only {
            Some(Harm::Definitions | Harm::Disk) => Phase::Backup,
            _ if number % 5 < RESTORES_IN_FIVE => Phase::Restore,
            _ => Phase::Backup,
        };
        let harm = self.next(phase);
        let was = self.done.len();
        let result = match (phase, harm) {
            (_, Harm::Disk) => self.fill_disk(),
            (Phase::Backup, _) => self.fail_backup(harm),
            (Phase::Restore, _) => self.fail_restore(harm),
        };
        if self.done.len() == was && result.is_ok() {
            // It came too late; the same again.
            self.to_come[phase as usize].push(harm);
        }
        self.proxy.mend();
        result.with_context(|| format!("PostgreSQL {}, {harm:?} in {phase:?}", self.shop.server.version().major()))
    }

    /// What is to be done next. `--only` leaves one kind.
    fn next(&mut self, phase: Phase) -> Harm {
        if let Some(only) = self.only {
            return only;
        }
        if self.to_come[phase as usize].is_empty() {
            self.to_come[phase as usize] = Harm::some(phase, &mut self.rng);
        }
        self.to_come[phase as usize].pop().unwrap_or(Harm::KillClient)
    }

    /// Everything was read at least once by now, and is read again.
    pub(super) fn end(&mut self) -> Result<()> {
        self.users = None;
        self.lastgood.run(&self.lastgood.verify())?.ok()?;
        self.restic.check_read_data().map_err(|error| anyhow::anyhow!("{}", error.chain()))?;
        let listed: Vec<String> = self.lastgood.points()?.into_iter().map(|point| point.id).collect();
        match self.points.iter().find(|id| !listed.contains(id)) {
            Some(lost) => bail!("the acknowledged recovery point {lost} is no longer listed"),
            None => Ok(()),
        }
    }

    fn fail_backup(&mut self, harm: Harm) -> Result<()> {
        let before = self.lastgood.points()?;
        let words = self.lastgood.backup(false);
        let met = if harm == Harm::Definitions {
            let mut rng = Rng::new(self.rng.next_u64());
            let changers = self.shop.changers(move |bound| rng.below(bound));
            // They need a moment to be there.
            std::thread::sleep(Duration::from_millis(200));
            let (child, log) = self.start(&words)?;
            let status = wait(child, END_MAX * 2)?;
            drop(changers);
            Met { status, is_hit: true, said: fs_err::read_to_string(log)? }
        } else {
            self.meet(harm, &words, self.backup_took)?
        };
        let new: Vec<Point> = self.lastgood.points()?.into_iter().filter(|p| !before.contains(p)).collect();
        self.heal(&[])?;
        self.check_published(&met, harm, &new).with_context(|| format!("lastgood said:\n{}", met.said))?;
        if met.is_hit {
            self.done.push((Phase::Backup, harm));
        }
        for point in new.iter().filter(|point| point.state(SOURCE) == Some("complete")) {
            self.points.push(point.id.clone());
            self.restore_and_judge(&point.id).context("what was published")?;
        }
        // Without any manual step.
        let id = self.acknowledged_backup().context("the next backup after a failure")?;
        self.restore_and_judge(&id)
    }

    /// Nothing of the database may be published by a run that did not succeed, and by one that did, all.
    fn check_published(&self, met: &Met, harm: Harm, new: &[Point]) -> Result<()> {
        let has_database = |point: &Point| point.state(SOURCE) == Some("complete");
        self.check_end(met, harm, "backup")?;
        match (met.status.code(), new) {
            (Some(0), [point]) if has_database(point) && point.is_complete => {}
            (Some(0), _) => bail!("a backup that said 0 left {new:?}"),
            (None, [] | [_]) => {}
            (None, _) => bail!("a backup that was killed has published {new:?}"),
            (Some(code), _) if new.len() > 1 || new.iter().any(has_database) => {
                bail!("a backup that ended with {code} has published {new:?}")
            }
            (Some(_), _) => {}
        }
        for point in new.iter().filter(|point| !has_database(point)) {
            if point.is_complete || point.state(BESIDE) != Some("complete") {
                bail!("a recovery point without the database is {point:?}");
            }
            let listed = self.restic.run(["ls", point.id.as_str()]).map_err(|e| anyhow::anyhow!("{}", e.chain()))?;
            let listed = String::from_utf8_lossy(&listed);
            if let Some(part) = listed.lines().find(|line| line.starts_with(&format!("/{SOURCE}"))) {
                bail!("recovery point {} lacks the database and has {part}", point.id);
            }
        }
        Ok(())
    }

    fn fail_restore(&mut self, harm: Harm) -> Result<()> {
        let id = self.rng.pick(&self.points).clone();
        let into = self.rng.below(3);
        self.drop_restored()?;
        if into > 0 {
            self.shop.server.create_database(BACK);
            self.shop.sql(
                BACK,
                "CREATE TABLE precious (x int); INSERT INTO precious VALUES (1);
                 CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            )?;
        }
        if into == 2 { self.fail_addition(harm, &id) } else { self.fail_whole(harm, &id, into == 1) }
    }

    /// A whole database, into a new one or in the place of another.
    fn fail_whole(&mut self, harm: Harm, id: &str, replaces: bool) -> Result<()> {
        let more: &[&str] = if replaces { &["--overwrite", "--yes"] } else { &[] };
        let words = self.lastgood.restore_to_server(id, SOURCE, &Shop::url(self.proxy.port(), BACK), more);
        let met = self.meet(harm, &words, self.restore_took)?;
        self.heal(&[BACK, SUCCESSOR, PREDECESSOR])?;
        if replaces && !self.shop.databases()?.iter().any(|name| name == BACK) {
            bail!("a database that was to be replaced is gone; lastgood said:\n{}", met.said);
        }
        let is_done = self.check_restored(&met, harm).with_context(|| format!("lastgood said:\n{}", met.said))?;
        if met.is_hit {
            self.done.push((Phase::Restore, harm));
        }
        if !is_done {
            let had_mark = self.shop.comment(BACK)?.starts_with(MARK);
            let again = self.lastgood.run(&words)?.ok().context("the same restore again after a failure")?;
            if had_mark && !again.said.contains("taken away") {
                bail!("it does not say what became of the half that was there:\n{}", again.said);
            }
            self.shop.judge(BACK).context("after the same restore again")?;
            self.check_unmarked()?;
        }
        self.shop.wait_until_clean(&[BACK]).context("after the same restore again")?;
        self.drop_restored()
    }

    /// One table, beside what is in a database.
    fn fail_addition(&mut self, harm: Harm, id: &str) -> Result<()> {
        let url = Shop::url(self.proxy.port(), BACK);
        let words = self.lastgood.restore_to_server(id, SOURCE, &url, &["--table", "item"]);
        let met = self.meet(harm, &words, self.restore_took)?;
        self.heal(&[BACK])?;
        let check = || -> Result<bool> {
            self.check_end(&met, harm, "restore")?;
            let has_item = !self.shop.sql(BACK, "SELECT 1 FROM pg_class WHERE relname = 'item'")?.is_empty();
            let mark =
                self.shop.sql(BACK, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^lastgood unfinished '")?;
            if has_item && mark.is_empty() {
                self.shop.judge_item(BACK).context("a table without a mark")?;
            }
            if met.status.success() && !(has_item && mark.is_empty()) {
                bail!("a restore that said 0 left {mark:?}");
            }
            if !mark.is_empty() {
                // The next one takes away what it has left, or tells of it when that could be somebody else's.
                let again = self.lastgood.run(&words)?;
                if again.code() == Some(0) && again.said.contains("was killed is taken away") {
                    let left = "SELECT nspname FROM pg_namespace WHERE nspname ~ '^lastgood'";
                    let left = self.shop.sql(BACK, left)?;
                    if !left.is_empty() {
                        bail!("the same restore again left {left}");
                    }
                    self.shop.judge_item(BACK).context("after the same restore again")?;
                    return Ok(true);
                }
                if !again.said.contains(&mark) && (has_item || again.code() != Some(0)) {
                    bail!("nothing is told of the half that is there:\n{}", again.said);
                }
                self.shop.sql(BACK, &format!("DROP SCHEMA \"{mark}\"; DROP TABLE IF EXISTS item"))?;
            }
            Ok(has_item && mark.is_empty())
        };
        let is_done = check().with_context(|| format!("lastgood said:\n{}", met.said))?;
        if met.is_hit {
            self.done.push((Phase::Restore, harm));
        }
        if !is_done {
            self.lastgood.run(&words)?.ok().context("the same restore again after a failure")?;
            self.shop.judge_item(BACK).context("after the same restore again")?;
        }
        if self.shop.sql(BACK, "SELECT sum(x) FROM precious")? != "1" {
            bail!("what was there before is gone");
        }
        self.shop.wait_until_clean(&[BACK]).context("after the same restore again")?;
        self.drop_restored()
    }

    /// A run may end in these ways.
    fn check_end(&self, met: &Met, harm: Harm, what: &str) -> Result<()> {
        match met.status.code() {
            Some(0) => Ok(()),
            // It may have been killed between its last deed and its exit.
            None if met.was_killed() && harm == Harm::KillClient => Ok(()),
            Some(101) | None => bail!("the {what} crashed: {}", met.status),
            Some(code) if !met.is_hit => bail!("a {what} to which nothing had happened yet ended with {code}"),
            Some(code) if harm.is_harmless() => bail!("a {what} to which no harm was done ended with {code}"),
            Some(_) => Ok(()),
        }
    }

    /// Judges what a restore has left; true if it is whole. A part must be marked, and one that said 0 is none.
    fn check_restored(&self, met: &Met, harm: Harm) -> Result<bool> {
        let is_there = self.shop.databases()?.iter().any(|name| name == BACK);
        let comment = if is_there { self.shop.comment(BACK)? } else { String::new() };
        let tables = "SELECT string_agg(relname, ' ') FROM pg_class \
                      WHERE relkind IN ('r', 'p') AND oid >= 16384 AND relnamespace = 'public'::regnamespace";
        let tables = if is_there { self.shop.sql(BACK, tables)? } else { String::new() };
        self.check_end(met, harm, "restore")?;
        if met.status.success() {
            self.check_unmarked()?;
            self.shop.judge(BACK).context("a restore that said 0")?;
            return Ok(true);
        }
        if comment.starts_with(MARK) || tables.is_empty() || tables == "precious" {
            return Ok(false);
        }
        // Its last statement may have succeeded, and the answer been lost.
        self.shop.judge(BACK).context("a database without a mark")?;
        Ok(true)
    }

    fn check_unmarked(&self) -> Result<()> {
        let comment = self.shop.comment(BACK)?;
        if !comment.is_empty() {
            bail!("a restore that said 0 left the comment {comment:?}");
        }
        Ok(())
    }

    fn drop_restored(&self) -> Result<()> {
        self.shop.drop_database(BACK)?;
        self.shop.drop_database(SUCCESSOR)?;
        self.shop.drop_database(PREDECESSOR)
    }

    /// A backup into a repository whose disk fills up, and the next one after there is room again.
    fn fill_disk(&mut self) -> Result<()> {
        let folder = self.scratch.join("disk");
        let disk = Disk::new(&folder, 1_000_000 + self.rng.below(9_000_000))?;
        let sources = sources(&self.shop, &self.proxy, &self.scratch.join("files"))?;
        let binary = self.lastgood.binary();
        let lastgood = Lastgood::new(binary, &self.scratch.join("of-disk"), &folder.join("repo"), &sources)?;
        Shop::give_password(lastgood.home())?;
        lastgood.run(&lastgood.init())?.ok()?;
        let ran = lastgood.run(&lastgood.backup(false))?;
        let restic = Restic::with_program(self.restic.command().get_program(), &lastgood.repository, &lastgood.key);
        let usual = (std::mem::replace(&mut self.lastgood, lastgood), std::mem::replace(&mut self.restic, restic));
        let result = (|| {
            let met = Met { status: ran.status, is_hit: true, said: ran.said };
            self.heal(&[])?;
            disk.grow(500_000_000)?;
            if met.status.success() {
                bail!("the whole database fitted into a small disk");
            }
            let new = self.lastgood.points()?;
            self.check_published(&met, Harm::Disk, &new).with_context(|| format!("lastgood said:\n{}", met.said))?;
            self.done.push((Phase::Backup, Harm::Disk));
            let id = self.lastgood.backup_id().context("the next backup, with room")?;
            self.restore_and_judge(&id)
        })();
        (self.lastgood, self.restic) = usual;
        drop(disk);
        fs_err::remove_dir_all(self.scratch.join("of-disk"))?;
        result
    }

    /// A backup that runs to its end.
    fn acknowledged_backup(&mut self) -> Result<String> {
        let started = Instant::now();
        let id = self.lastgood.backup_id()?;
        self.backup_took = started.elapsed();
        self.points.push(id.clone());
        Ok(id)
    }

    fn restore_and_judge(&mut self, id: &str) -> Result<()> {
        self.shop.drop_database(JUDGED)?;
        let started = Instant::now();
        let words = self.lastgood.restore_to_server(id, SOURCE, &Shop::url(self.proxy.port(), JUDGED), &[]);
        self.lastgood.run(&words)?.ok()?;
        self.restore_took = started.elapsed();
        self.shop.judge(JUDGED).with_context(|| format!("recovery point {id}"))?;
        self.shop.drop_database(JUDGED)
    }

    /// All is well again: network, server, and nothing is left of lastgood.
    fn heal(&self, databases: &[&str]) -> Result<()> {
        self.proxy.mend();
        self.shop.wait_until_ready()?;
        self.shop.wait_until_clean(databases)
    }

    fn start(&self, words: &[OsString]) -> Result<(Child, PathBuf)> {
        let log = self.scratch.join("said");
        let out = fs_err::File::create(&log)?.into_parts().0;
        let child = self.lastgood.command(words).stdout(out.try_clone()?).stderr(out).spawn()?;
        Ok((child, log))
    }

    /// Starts a command and has a failure meet it at a moment anywhere in the time it is expected to take.
    fn meet(&mut self, harm: Harm, words: &[OsString], expected: Duration) -> Result<Met> {
        let moment = expected.mul_f64(self.rng.unit());
        let (mut child, log) = self.start(words)?;
        std::thread::sleep(moment);
        let goes_on = child.try_wait()?.is_none();
        let struck =
            goes_on.then(|| harm::strike(harm, &mut child, &mut self.shop, &self.proxy, &mut self.rng)).transpose();
        let status = wait(child, END_MAX)
            .with_context(|| format!("after {:.2} s; lastgood said:\n{}", moment.as_secs_f64(), read(&log)))?;
        Ok(Met { status, is_hit: struck?.unwrap_or(false) || self.proxy.is_felt(), said: read(&log) })
    }
}

/// How the mark of an unfinished restore begins.
const MARK: &str = "lastgood: restore of ";

fn read(log: &Path) -> String {
    fs_err::read_to_string(log).unwrap_or_default()
}

/// As the config names them.
fn sources(shop: &Shop, proxy: &Proxy, tree: &Path) -> Result<[Source; 2]> {
    Ok([
        Source::Postgres { name: SOURCE, url: Shop::url(proxy.port(), DATABASE), bin: shop.bin()?, chunk: "rows" },
        Source::Files { name: BESIDE, paths: vec![tree.to_owned()] },
    ])
}

/// Waits for the end of a run; one that does not end is killed, and is a failure.
fn wait(mut child: Child, limit: Duration) -> Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("it went on for more than {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
