-- Roles and tablespaces belong to the whole server: made once, though several of its databases are filled.
\set QUIET on
SET client_min_messages = warning;
SET allow_in_place_tablespaces = on;

SELECT format('CREATE ROLE %I %s', name, options) FROM (VALUES
    ('everything owner', 'LOGIN CREATEDB CREATEROLE PASSWORD ''it''''s a "secret" \ %'''),
    ('Everything Reader', 'NOLOGIN NOINHERIT'),
    (E'role "with"\n''all'' \\ of it', 'LOGIN CONNECTION LIMIT 3 VALID UNTIL ''2038-01-19 03:14:08+00'''),
    ('-rôle', 'NOLOGIN BYPASSRLS'),
    ('%role', 'NOLOGIN REPLICATION'),
    ('select', 'LOGIN PASSWORD NULL'),
    (repeat('ß', 31) || 'r', 'NOLOGIN')
) AS roles (name, options) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

GRANT "Everything Reader" TO "everything owner" WITH ADMIN OPTION;
GRANT "-rôle", "%role" TO "Everything Reader";
GRANT pg_read_all_settings TO "select";
ALTER ROLE "Everything Reader" SET search_path = 'no such schema', "$user", public;
ALTER ROLE "select" SET work_mem = '5MB';
COMMENT ON ROLE "-rôle" IS E'comment on a role: ''"\\\n\t%s é';
GRANT SET ON PARAMETER log_min_duration_statement TO "Everything Reader";

SELECT $$CREATE TABLESPACE "a ""tablespace""" OWNER "everything owner" LOCATION '' WITH (random_page_cost = 1.5)$$
WHERE NOT EXISTS (SELECT FROM pg_tablespace WHERE spcname = 'a "tablespace"') \gexec
COMMENT ON TABLESPACE "a ""tablespace""" IS 'comment on a tablespace';
GRANT CREATE ON TABLESPACE "a ""tablespace""" TO "Everything Reader";

-- The database itself: settings that a program must not be led astray by.
ALTER DATABASE :"DBNAME" SET DateStyle = 'SQL, DMY';
ALTER DATABASE :"DBNAME" SET IntervalStyle = 'sql_standard';
ALTER DATABASE :"DBNAME" SET extra_float_digits = -8;
ALTER DATABASE :"DBNAME" SET bytea_output = 'escape';
ALTER DATABASE :"DBNAME" SET TimeZone = 'Asia/Kolkata';
ALTER DATABASE :"DBNAME" SET search_path = 'Schéma "odd"', "$user", public;
ALTER DATABASE :"DBNAME" SET standard_conforming_strings = off;
ALTER DATABASE :"DBNAME" SET backslash_quote = 'safe_encoding';
ALTER DATABASE :"DBNAME" SET quote_all_identifiers = on;
ALTER DATABASE :"DBNAME" SET array_nulls = on;
ALTER DATABASE :"DBNAME" SET statement_timeout = '10min';
ALTER ROLE "Everything Reader" IN DATABASE :"DBNAME" SET work_mem = '7MB';
ALTER DATABASE :"DBNAME" CONNECTION LIMIT 55;
COMMENT ON DATABASE :"DBNAME" IS E'comment on a database: ''"\\\n%';
GRANT CREATE, TEMPORARY ON DATABASE :"DBNAME" TO "Everything Reader" WITH GRANT OPTION;
REVOKE TEMPORARY ON DATABASE :"DBNAME" FROM PUBLIC;
