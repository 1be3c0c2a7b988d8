//! Every connection parameter that PostgreSQL's own library knows up to version 18, with its environment variable.
//! Source: "Database Connection Control Functions" and "Environment Variables" in its documentation.

use lastgood_model::{Error, Result};

/// One parameter.
pub(super) struct Keyword {
    /// As written in URLs and service files.
    pub(super) name: &'static str,
    /// The variable that gives its value when nothing else does.
    pub(super) variable: Option<&'static str>,
    /// Never shown.
    pub(super) is_secret: bool,
}

const fn plain(name: &'static str) -> Keyword {
    Keyword { name, variable: None, is_secret: false }
}

const fn with(name: &'static str, variable: &'static str) -> Keyword {
    Keyword { name, variable: Some(variable), is_secret: false }
}

const fn secret(name: &'static str, variable: Option<&'static str>) -> Keyword {
    Keyword { name, variable, is_secret: true }
}

/// All of them. Whether a value can be honoured is judged where it is used, so that nothing that matters for safety is
/// passed over in silence.
pub(super) const KEYWORDS: &[Keyword] = &[
    with("service", "PGSERVICE"),
    plain("servicefile"),
    with("user", "PGUSER"),
    secret("password", Some("PGPASSWORD")),
    with("passfile", "PGPASSFILE"),
    with("channel_binding", "PGCHANNELBINDING"),
    with("connect_timeout", "PGCONNECT_TIMEOUT"),
    with("dbname", "PGDATABASE"),
    with("host", "PGHOST"),
    with("hostaddr", "PGHOSTADDR"),
    with("port", "PGPORT"),
    with("client_encoding", "PGCLIENTENCODING"),
    with("options", "PGOPTIONS"),
    with("application_name", "PGAPPNAME"),
    plain("fallback_application_name"),
    plain("keepalives"),
    plain("keepalives_idle"),
    plain("keepalives_interval"),
    plain("keepalives_count"),
    plain("tcp_user_timeout"),
    with("sslmode", "PGSSLMODE"),
    with("sslnegotiation", "PGSSLNEGOTIATION"),
    with("sslcompression", "PGSSLCOMPRESSION"),
    with("sslcert", "PGSSLCERT"),
    with("sslkey", "PGSSLKEY"),
    with("sslcertmode", "PGSSLCERTMODE"),
    secret("sslpassword", None),
    with("sslrootcert", "PGSSLROOTCERT"),
    with("sslcrl", "PGSSLCRL"),
    with("sslcrldir", "PGSSLCRLDIR"),
    with("sslsni", "PGSSLSNI"),
    with("requirepeer", "PGREQUIREPEER"),
    with("require_auth", "PGREQUIREAUTH"),
    with("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    with("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    with("min_protocol_version", "PGMINPROTOCOLVERSION"),
    with("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    with("gssencmode", "PGGSSENCMODE"),
    with("krbsrvname", "PGKRBSRVNAME"),
    with("gsslib", "PGGSSLIB"),
    with("gssdelegation", "PGGSSDELEGATION"),
    plain("replication"),
    with("target_session_attrs", "PGTARGETSESSIONATTRS"),
    with("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    secret("scram_client_key", None),
    secret("scram_server_key", None),
    plain("sslkeylogfile"),
    plain("oauth_issuer"),
    plain("oauth_client_id"),
    secret("oauth_client_secret", None),
    plain("oauth_scope"),
];

/// The parameter called `name`, or an error that proposes the nearest one.
pub(super) fn find(name: &str) -> Result<&'static Keyword> {
    if let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) {
        return Ok(keyword);
    }
    let error = Error::invalid(format!("unknown connection parameter {name:?}"));
    let nearest = KEYWORDS.iter().map(|keyword| (distance(name, keyword.name), keyword.name)).min();
    Err(match (name, nearest) {
        ("database" | "db", _) => error.with_hint("did you mean \"dbname\"?"),
        ("username", _) => error.with_hint("did you mean \"user\"?"),
        (_, Some((steps, nearest))) if steps <= 3 && steps < nearest.len() => {
            error.with_hint(format!("did you mean {nearest:?}?"))
        }
        _ => error.with_hint("the parameters are those of PostgreSQL's own tools, such as sslmode or connect_timeout"),
    })
}

/// How many letters must be put in, taken out or changed to get from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // A name far longer than any of ours is no misspelling, and must not cost time.
    if a.len() > 64 {
        return a.len();
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}
