//! The shape of a config file, for editors and people: what `config schema` prints. A test holds it to what is read.

use schemars::JsonSchema;
use std::collections::BTreeMap;

/// lastgood.toml: one application, what to protect of it, and where to.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
pub(super) struct ConfigFile {
    /// The application.
    app: Option<App>,
    /// What `status` asks for.
    policy: Option<Policy>,
    /// What to protect, by name. The name is the folder in recovery points and restores.
    #[schemars(default)]
    source: BTreeMap<String, Source>,
    /// Where to keep recovery points, by name.
    #[schemars(default)]
    repository: BTreeMap<String, Repository>,
}

/// The application that this config protects.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
struct App {
    /// Its name. By default that of the config's folder.
    name: Option<String>,
    /// How old the newest good recovery point may be, such as "6h". `status` goes by it.
    rpo: Option<String>,
}

/// What `status` asks for, and ends with exit code 6 without. What is left out is not asked for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
struct Policy {
    /// Repositories with the newest good state.
    #[schemars(range(min = 1, max = 100))]
    copies: Option<u32>,
    /// Media that they lie on.
    #[schemars(range(min = 1, max = 100))]
    media: Option<u32>,
    /// Of them, in another place.
    #[schemars(range(min = 1, max = 100))]
    offsite: Option<u32>,
    /// Of them, such as nobody can change for now.
    #[schemars(range(min = 1, max = 100))]
    immutable: Option<u32>,
    /// How long ago every byte of each may have been verified, such as "30d".
    verified_within: Option<String>,
}

/// One thing to protect.
#[derive(JsonSchema)]
#[schemars(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum Source {
    /// Folders and files.
    Files {
        /// What to protect. Relative paths are relative to the config's folder.
        #[schemars(length(min = 1))]
        paths: Vec<String>,
        /// What to leave out, in the syntax of .gitignore, anchored at each path.
        #[schemars(default)]
        exclude: Vec<String>,
        /// Files with more such patterns, one a line.
        #[schemars(default)]
        exclude_files: Vec<String>,
        /// Keep mount points as empty folders.
        #[schemars(default)]
        one_file_system: bool,
        /// Leave out the content of folders marked by a CACHEDIR.TAG.
        #[schemars(default)]
        exclude_caches: bool,
        /// Leave out longer files, such as "1GiB".
        exclude_larger_than: Option<String>,
        /// What is kept of it, in place of what the repository says.
        keep: Option<Rules>,
    },
    /// A live SQLite database.
    Sqlite {
        /// The database file. A relative path is relative to the config's folder.
        path: String,
        /// How much the manifest says of its content.
        #[schemars(default)]
        digest: Digest,
        /// What is kept of it, in place of what the repository says.
        keep: Option<Rules>,
    },
    /// Databases of a PostgreSQL server.
    Postgres {
        /// Where the server is: a URL or key=value text without a password, or where the whole of it is. Empty when the
        /// PG* variables say all.
        url: TextOrSecret,
        /// Which databases: names, or "all". By default the one of the URL.
        databases: Option<NamesOrAll>,
        /// Only these tables, by patterns as `pg_dump --table` takes them.
        #[schemars(default)]
        tables: Vec<String>,
        /// Not these tables, as `pg_dump --exclude-table`.
        #[schemars(default)]
        exclude_tables: Vec<String>,
        /// Only these schemas, as `pg_dump --schema`.
        #[schemars(default)]
        schemas: Vec<String>,
        /// Not these schemas, as `pg_dump --exclude-schema`.
        #[schemars(default)]
        exclude_schemas: Vec<String>,
        /// No rows, sequences or large objects.
        #[schemars(default)]
        schema_only: bool,
        /// No schema, roles or tablespaces.
        #[schemars(default)]
        data_only: bool,
        /// How many connections read at once. By default the number of cores, at least 2 and at most 8.
        #[schemars(range(min = 1, max = 64))]
        jobs: Option<u32>,
        /// How rows are cut into blobs.
        #[schemars(default)]
        chunk: Chunk,
        /// How long to wait for a table that somebody changes, such as "30s".
        lock_timeout: Option<String>,
        /// The folder of PostgreSQL's client programs. By default they are searched for.
        bin: Option<String>,
        /// What is kept of it, in place of what the repository says.
        keep: Option<Rules>,
    },
    /// What a command prints.
    Command {
        /// Program and arguments; no shell reads them.
        #[schemars(length(min = 1))]
        command: Vec<String>,
        /// The name of the file to keep it as. By default "output".
        file: Option<String>,
        /// Variables set for it, beside those inherited.
        #[schemars(default)]
        env: BTreeMap<String, String>,
        /// The folder it runs in. By default the config's.
        cwd: Option<String>,
        /// How long it may run, such as "10m". By default without limit.
        timeout: Option<String>,
        /// What is kept of it, in place of what the repository says.
        keep: Option<Rules>,
    },
}

/// How much a manifest says of a database.
#[derive(JsonSchema, Default)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum Digest {
    /// Header values, the schema's digest and the rows of each table.
    Schema,
    /// Also the SHA-256 of the captured file.
    #[default]
    Image,
    /// Also a digest of all rows, independent of how they lie in the file.
    Full,
}

/// A text without a secret, or where the whole of it is.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum TextOrSecret {
    /// The text itself.
    Text(String),
    /// Where it is.
    Secret(Secret),
}

/// Names, or all there are.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum NamesOrAll {
    /// These.
    Names(Vec<String>),
    /// All that can be connected to and are no templates.
    All(All),
}

/// All there are.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum All {
    /// All there are.
    All,
}

/// How rows are cut into blobs.
#[derive(JsonSchema, Default)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum Chunk {
    /// About 64 KiB: least is stored when rows change here and there.
    #[default]
    Rows,
    /// About 1 MiB: a smaller index, for very large databases that mostly grow.
    Files,
}

/// One place for recovery points.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
struct Repository {
    /// A path, or a file://, sftp://, rest:https:// or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix URL,
    /// the last three with parameters after `?`. A relative path is relative to the config's folder. Never holds a secret.
    url: String,
    /// Where the key is.
    key: Option<Secret>,
    /// Where the password of the server's user is: REST and SFTP.
    password: Option<Secret>,
    /// Where the private key is that opens the server: SFTP.
    private_key: Option<Secret>,
    /// Where the private key's passphrase is: SFTP.
    passphrase: Option<Secret>,
    /// The user at the server, when the URL does not name one: REST.
    user: Option<String>,
    /// What carries SFTP: "own" or "openssh", which goes through the system's ssh.
    transport: Option<String>,
    /// A file with the keys of known servers, instead of the user's and the system's: SFTP.
    known_hosts: Option<String>,
    /// The server's public key or its fingerprint, such as "SHA256:…": SFTP.
    host_key: Option<String>,
    /// How long the place may be silent before a call is given up and tried again, such as "30s".
    timeout: Option<String>,
    /// How long a call that fails in passing is tried again, such as "2m".
    patience: Option<String>,
    /// At most so many bytes a second to the repository, such as "10MiB".
    limit_upload: Option<String>,
    /// At most so many bytes a second from the repository.
    limit_download: Option<String>,
    /// The file that the system's ssh reads: SFTP with transport = "openssh".
    ssh_config: Option<String>,
    /// How hard to compress.
    #[schemars(default)]
    compression: Compression,
    /// What `lastgood forget` keeps. Without it, everything.
    keep: Option<Keep>,
    /// Whether it is in another place than what it protects. By default that is told from its URL, where it can be.
    offsite: Option<bool>,
    /// So much it may hold, such as "500GB": `status` and `backup` warn before it is reached. A folder is full when its disk
    /// is.
    quota: Option<String>,
    /// The id of a key of S3. With `secret_access_key`; by default the environment, a profile or the machine's role says
    /// both.
    access_key_id: Option<Secret>,
    /// The secret of a key of S3.
    secret_access_key: Option<Secret>,
    /// The token of a temporary key of S3.
    session_token: Option<Secret>,
    /// The key of an account of Azure.
    account_key: Option<Secret>,
    /// A shared access signature of Azure.
    sas: Option<Secret>,
    /// The JSON of a key of a service account of Google.
    service_account: Option<Secret>,
    /// Lock every object for so long from when it is written, such as "30d". S3 alone; the bucket must allow it.
    lock: Option<String>,
    /// Who may lift such a lock.
    #[schemars(default)]
    lock_mode: LockMode,
    /// A file with certificates, in PEM, of authorities to trust beside the system's.
    ca_file: Option<String>,
}

/// Who may lift the lock of an object before its date.
#[derive(JsonSchema, Default)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum LockMode {
    /// Whoever has the permission to.
    #[default]
    Governance,
    /// Nobody.
    Compliance,
}

/// What is kept in a repository: a recovery point stays when any rule wants it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
struct Keep {
    #[schemars(flatten)]
    rules: Rules,
    /// The zone whose calendar counts, such as "Europe/Berlin". By default that of the machine.
    time_zone: Option<String>,
}

/// What is kept. A recovery point stays when any rule wants it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
struct Rules {
    /// The newest so many.
    #[schemars(range(min = 1, max = 100_000))]
    last: Option<u32>,
    /// One for each of so many hours that have any.
    #[schemars(range(min = 1, max = 100_000))]
    hourly: Option<u32>,
    /// One for each of so many days.
    #[schemars(range(min = 1, max = 100_000))]
    daily: Option<u32>,
    /// One for each of so many ISO weeks.
    #[schemars(range(min = 1, max = 100_000))]
    weekly: Option<u32>,
    /// One for each of so many months.
    #[schemars(range(min = 1, max = 100_000))]
    monthly: Option<u32>,
    /// One for each of so many quarters.
    #[schemars(range(min = 1, max = 100_000))]
    quarterly: Option<u32>,
    /// One for each of so many years.
    #[schemars(range(min = 1, max = 100_000))]
    yearly: Option<u32>,
    /// All that are older than the newest by less than this, such as "30d".
    within: Option<String>,
    /// One for each hour, as far back.
    within_hourly: Option<String>,
    /// One for each day, as far back.
    within_daily: Option<String>,
    /// One for each week, as far back.
    within_weekly: Option<String>,
    /// One for each month, as far back.
    within_monthly: Option<String>,
    /// One for each quarter, as far back.
    within_quarterly: Option<String>,
    /// One for each year, as far back.
    within_yearly: Option<String>,
    /// All with one of these tags; with "a,b" those that have both.
    #[schemars(default)]
    tags: Vec<String>,
}

/// Where a secret is; exactly one way.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", deny_unknown_fields)]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum Secret {
    /// The first line of a file. A relative path is relative to the config's folder.
    File(String),
    /// An environment variable.
    Env(String),
    /// The first line that a program prints.
    Command(Vec<String>),
    /// A credential that systemd passes to the service.
    Systemd(String),
}

/// How hard to compress.
#[derive(JsonSchema, Default)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "read by the schema generator alone")]
enum Compression {
    /// Least work.
    Fast,
    /// A good ratio at the speed of most disks.
    #[default]
    Balanced,
    /// Smallest.
    Max,
    /// None.
    Off,
}

/// The JSON Schema of a config file.
pub(crate) fn json() -> serde_json::Value {
    let mut schema = schemars::schema_for!(ConfigFile).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "lastgood.toml".into());
    }
    schema
}
