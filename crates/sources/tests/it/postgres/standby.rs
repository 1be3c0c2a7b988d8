//! Captures from a standby.

use super::server::Server;
use super::{rows, table};
use lastgood_model::Monitor;
use lastgood_model::manifest::ProblemKind;
use lastgood_model::source::{FindingLevel, Source};
use lastgood_sources::postgres::{Facts, PostgresSource, Role};
use lastgood_testkit::memory_sink::MemorySink;

#[test]
fn a_standby_gives_all_but_unlogged_rows_and_says_so() {
    let primary = Server::start();
    primary.psql(
        "postgres",
        "CREATE TABLE t (a serial); INSERT INTO t SELECT FROM generate_series(1, 3);
         CREATE UNLOGGED SEQUENCE passing; SELECT nextval('passing');
         CREATE UNLOGGED TABLE fleeting (a int); INSERT INTO fleeting VALUES (1); SELECT lo_from_bytea(70001, 'large')",
    );
    let standby = primary.standby();
    let source = PostgresSource::new("db", standby.info("postgres"));
    let monitor = Monitor::new();
    let sink = MemorySink::new();
    let captured = source.capture(&sink, &monitor).unwrap();
    let facts = Facts::from_map(&captured.facts).unwrap();
    assert_eq!(facts.role, Role::Standby);
    assert_ne!(captured.position.as_deref(), Some("0/0"));
    assert_eq!(rows(&sink, "postgres", &table(&sink, "postgres", "t")), b"1\n2\n3\n");
    let fleeting = table(&sink, "postgres", "fleeting");
    assert!(fleeting.total.is_none() && fleeting.left_out.is_some());
    let problems = monitor.problems().0;
    assert_eq!((problems.len(), problems[0].what), (2, ProblemKind::Unsupported));
    assert!(problems[0].path.contains("public.fleeting"));
    assert!(problems[1].path.contains("sequence public.passing"), "{problems:?}");
    let sequences = sink.stream_at("postgres/sequences.sql").unwrap().content;
    assert!(String::from_utf8(sequences).unwrap().contains("'\"public\".\"t_a_seq\"', 3, true"));
    let findings = source.probe().unwrap();
    assert!(findings.iter().any(|f| f.level == FindingLevel::Warning && f.message.contains("waits for a reader")));
    assert!(findings.iter().all(|f| f.level != FindingLevel::Failure), "{findings:?}");
}
