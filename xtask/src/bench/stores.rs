//! Repositories on servers of this machine: S3, the same as if it were far away, and SFTP. The first backup and a
//! restore, beside restic.

use super::measure::{Job, Samples, measure as time, prepare, remove};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use super::{Bench, corpus};
use crate::helper::Running;
use crate::program::{Lastgood, Source};
use anyhow::{Context, Result, bail};
use lastgood_testkit::compare;
use lastgood_testkit::s3::{S3Server, url_at};
use lastgood_testkit::sshd::Sshd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the repository is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// A server of S3 on this machine.
    S3,
    /// The same behind a line that delays by 40 ms each way.
    #[value(name = "s3-40ms")]
    S3Far,
    /// OpenSSH's sshd on this machine.
    Sftp,
}

impl Place {
    const ALL: [Self; 3] = [Self::S3, Self::S3Far, Self::Sftp];

    fn name(self) -> &'static str {
        match self {
            Self::S3 => "S3",
            Self::S3Far => "S3, 40 ms away",
            Self::Sftp => "SFTP",
        }
    }
}

const DELAY: Duration = Duration::from_millis(40);

/// A server, and how both programs reach a repository there.
struct Server {
    s3: Option<Running>,
    _line: Option<Running>,
    sshd: Option<Sshd>,
    folder: PathBuf,
    address: std::net::SocketAddr,
}

impl Server {
    fn start(place: Place, scratch: &Path) -> Result<Self> {
        if place == Place::Sftp {
            let sshd = Sshd::start();
            let address = ([127, 0, 0, 1], sshd.port()).into();
            return Ok(Self { s3: None, _line: None, sshd: Some(sshd), folder: scratch.join("sftp"), address });
        }
        let s3 = Running::s3(scratch)?;
        let line = (place == Place::S3Far).then(|| Running::line(s3.address, DELAY, scratch)).transpose()?;
        let address = line.as_ref().map_or(s3.address, |line| line.address);
        let folder = s3.bucket.clone();
        Ok(Self { s3: Some(s3), _line: line, sshd: None, folder, address })
    }

    /// What lastgood's config says of a repository by that name.
    fn ours(&self, name: &str) -> (String, toml::Table) {
        let Some(sshd) = &self.sshd else { return (url_at(self.address, name), toml::Table::new()) };
        let key = toml::Table::from_iter([("file".to_owned(), sshd.client_key().display().to_string().into())]);
        let access = toml::Table::from_iter([
            ("private_key".to_owned(), key.into()),
            ("known_hosts".to_owned(), sshd.known_hosts().display().to_string().into()),
        ]);
        (sshd.url(&self.folder.join(name)), access)
    }

    /// restic's address of a repository by that name, and its further words.
    fn restics(&self, name: &str) -> (String, Vec<String>) {
        match &self.sshd {
            None => (format!("s3:http://{}/bucket/{name}", self.address), Vec::new()),
            Some(sshd) => {
                let url = format!("sftp:{}:{}", Sshd::ALIAS, self.folder.join(name).display());
                (url, vec!["-o".to_owned(), sshd.restic_option()])
            }
        }
    }

    /// With credentials where they are needed.
    fn allow(&self, job: Job) -> Job {
        match self.s3 {
            None => job,
            Some(_) => job
                .env("AWS_ACCESS_KEY_ID", S3Server::KEY_ID)
                .env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET)
                .env("AWS_REGION", "us-east-1"),
        }
    }
}

#[derive(Default)]
struct Steps {
    backup: Samples,
    restore: Samples,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let corpus = corpus::made(&bench.corpus, (bench.options.gb * 1e9) as u64)?;
    eprintln!("{} entries, {:.2} GB", corpus.entries, corpus.bytes as f64 / 1e9);
    let places = bench.options.only.map_or(Place::ALL.to_vec(), |place| vec![place]);
    let mut rows = Vec::new();
    for place in places {
        let (mut ours, mut restics) = (Steps::default(), Steps::default());
        for run in 0..bench.options.runs {
            eprintln!("{}, run {} of {}", place.name(), run + 1, bench.options.runs);
            one(bench, place, &corpus.paths, run == 0, &mut ours, &mut restics)?;
        }
        let row = |what: &str, ours: &Samples, restics: &Samples| {
            Row::time(format!("{}, {what}", place.name()), ours).beside("restic", restics, Some(0.5))
        };
        rows.push(row("first backup", &ours.backup, &restics.backup));
        rows.push(row("restore", &ours.restore, &restics.restore));
    }
    let subject = format!(
        "A made tree of {} entries and {:.2} GB, and an empty repository on a server of this machine: s3s-fs behind S3's \
         protocol, once directly and once through a line that delays by {} ms each way; OpenSSH's sshd. Servers and line are \
         processes of their own and share the processor.",
        corpus.entries,
        corpus.bytes as f64 / 1e9,
        DELAY.as_millis()
    );
    let notes =
        vec!["What lastgood restored was compared with the original, entry by entry, in the first run.".to_owned()];
    Ok(Table { name: "stores", subject, rows, notes, peak_bytes_max: PEAK_BYTES_MAX })
}

fn one(
    bench: &Bench<'_>,
    place: Place,
    paths: &[PathBuf],
    is_compared: bool,
    ours: &mut Steps,
    restics: &mut Steps,
) -> Result<()> {
    let server = Server::start(place, bench.scratch)?;
    let (folder, cache) = (bench.fresh("lastgood")?, bench.fresh("restic-cache")?);
    let target = bench.fresh("restored")?.join("to");
    let source = Source::Files { name: "tree", paths: paths.to_vec() };
    let (url, access) = server.ours("lastgood");
    let lastgood = Lastgood::at(&bench.lastgood, &folder, url, access, &[source])?;
    let (url, more) = server.restics("restic");
    let restic = |words: &[&str]| -> Result<Job> {
        let words: Vec<&str> = words.iter().copied().chain(more.iter().map(String::as_str)).collect();
        Ok(server.allow(bench.restic_at(&url, &cache, &words)?))
    };
    let run = |words| server.allow(bench.lastgood(&lastgood, words));
    let name = place.name();

    prepare(&run(lastgood.init()))?;
    ours.backup.push(time(&format!("lastgood, {name}, backup"), &run(lastgood.backup(false)), bench.scratch, paths)?);
    prepare(&restic(&["init"])?)?;
    let mut words = vec!["backup"];
    words.extend(paths.iter().filter_map(|path| path.to_str()));
    restics.backup.push(time(&format!("restic, {name}, backup"), &restic(&words)?, bench.scratch, paths)?);

    let warm = [server.folder.join("lastgood")];
    let job = run(lastgood.restore("latest", &target));
    ours.restore.push(time(&format!("lastgood, {name}, restore"), &job, bench.scratch, &warm)?);
    if is_compared {
        for path in paths {
            let restored = Lastgood::restored_tree(&target, "tree", path);
            let differences = compare::compare_trees(path, &restored).map_err(|e| anyhow::anyhow!("{}", e.chain()))?;
            if !differences.is_empty() {
                bail!("{} was restored differently:\n{}", path.display(), compare::describe(&differences));
            }
        }
    }
    remove(&target)?;
    let warm = [server.folder.join("restic")];
    let text = target.to_str().context("the scratch folder's path is not text")?;
    let job = restic(&["restore", "latest", "--target", text])?;
    restics.restore.push(time(&format!("restic, {name}, restore"), &job, bench.scratch, &warm)?);
    remove(&target)?;
    remove(&server.folder.join("lastgood"))?;
    remove(&server.folder.join("restic"))
}
