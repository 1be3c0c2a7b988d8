-- Extensions, foreign data, replication, large objects, who may do what.
CREATE SCHEMA ext;
CREATE EXTENSION hstore SCHEMA ext;
CREATE EXTENSION citext SCHEMA public;
CREATE EXTENSION pgcrypto SCHEMA "Schéma ""odd""";
CREATE EXTENSION pg_trgm SCHEMA ext;
CREATE EXTENSION ltree SCHEMA ext;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION file_fdw SCHEMA ext;
COMMENT ON EXTENSION hstore IS 'comment on an extension';
CREATE TABLE ext.used (h ext.hstore, c citext UNIQUE, t ext.ltree, key text DEFAULT encode("Schéma ""odd""".digest('x', 'sha256'), 'hex'));
INSERT INTO ext.used VALUES ('"a b"=>"it''s \"\\", n=>NULL, ""=>""', 'MiXed', 'a.b.c');
CREATE INDEX used_trgm ON ext.used USING gin (key ext.gin_trgm_ops);
CREATE INDEX used_h ON ext.used USING gist (h);
GRANT EXECUTE ON FUNCTION ext.hstore(text, text) TO "Everything Reader";
REVOKE EXECUTE ON FUNCTION ext.hstore(text, text) FROM PUBLIC;
-- Something else put into an extension is none of its script's.
CREATE FUNCTION ext.depends() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION ext.depends() DEPENDS ON EXTENSION hstore;

CREATE FOREIGN DATA WRAPPER "hollow ""fdw" OPTIONS (debug 'it''s', "opt ion" '\');
CREATE SERVER "hollow server" TYPE 'ty''pe' VERSION '1.0' FOREIGN DATA WRAPPER "hollow ""fdw" OPTIONS ("ho st" 'a "b"');
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'none', use_remote_estimate 'false');
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE USER MAPPING FOR "everything owner" SERVER remote OPTIONS (user 'them', password 'it''s secret');
CREATE USER MAPPING FOR PUBLIC SERVER "hollow server" OPTIONS (a 'b');
CREATE USER MAPPING FOR CURRENT_USER SERVER remote;
CREATE FOREIGN TABLE ext.foreign_table (a int OPTIONS (column_name 'A "x'), b text COLLATE "C" DEFAULT 'd' NOT NULL, CHECK (a > 0))
    SERVER remote OPTIONS (schema_name 'it''s', table_name 'some"table');
CREATE FOREIGN TABLE ext.hollow_table (a int) SERVER "hollow server";
CREATE FOREIGN TABLE parts.foreign_part PARTITION OF parts.with_foreign DEFAULT SERVER remote;
COMMENT ON FOREIGN DATA WRAPPER "hollow ""fdw" IS 'comment on a wrapper';
COMMENT ON SERVER remote IS 'comment on a server';
COMMENT ON FOREIGN TABLE ext.foreign_table IS 'comment on a foreign table';

CREATE PUBLICATION "all ""tables" FOR ALL TABLES WITH (publish = 'insert, truncate', publish_via_partition_root = true);
CREATE PUBLICATION chosen FOR TABLE keys.parent (id, "third "), TABLE ONLY inherit.base WHERE (a > 5 AND b <> 'it''s');
CREATE PUBLICATION "of schema" FOR TABLES IN SCHEMA "-schema", tables;
CREATE PUBLICATION nothing WITH (publish = '');
COMMENT ON PUBLICATION chosen IS 'comment on a publication';
SELECT format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION "all ""tables", chosen WITH (connect = false, enabled = false, slot_name = NONE, binary = true, streaming = true)',
    'sub "scription" ' || current_database(), 'host=127.0.0.1 port=1 password=''it is secret''') \gexec
SELECT format('COMMENT ON SUBSCRIPTION %I IS %L', 'sub "scription" ' || current_database(), 'comment on a subscription') \gexec

-- Large objects, by chosen ids: bytes of every kind, none, with holes, an id beyond what a signed number holds.
SELECT lo_from_bytea(424201, (SELECT b FROM values.texts WHERE id = 20)) \g /dev/null
SELECT lo_create(424202) \g /dev/null
SELECT lo_create(424203) \g /dev/null
SELECT lo_put(424203, 0, 'first'), lo_put(424203, 2500000, decode(repeat('00ff', 3000), 'hex')), lo_put(424203, 5242879, '\x7a') \g /dev/null
SELECT lo_from_bytea(4294967290, repeat('0123456789', 1000)::bytea) \g /dev/null
ALTER LARGE OBJECT 424201 OWNER TO "everything owner";
COMMENT ON LARGE OBJECT 424201 IS E'comment on a large object: ''"\\\n';
GRANT SELECT ON LARGE OBJECT 424202 TO "Everything Reader" WITH GRANT OPTION;
GRANT UPDATE ON LARGE OBJECT 424203 TO PUBLIC;
CREATE TABLE ext.refers_to_objects (id oid);
INSERT INTO ext.refers_to_objects VALUES (424201), (424203), (4294967290);

-- Owners and grants.
ALTER TABLE keys.parent OWNER TO "everything owner";
ALTER SCHEMA keys OWNER TO "everything owner";
ALTER SEQUENCE tables.fresh OWNER TO "-rôle";
ALTER FUNCTION code.no_body() OWNER TO U&"role \0022with\0022\000A'all' \005C of it";
GRANT USAGE ON SCHEMA keys TO PUBLIC;
GRANT CREATE ON SCHEMA keys TO "Everything Reader" WITH GRANT OPTION;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT SELECT ON keys.parent TO "Everything Reader" WITH GRANT OPTION;
SET ROLE "Everything Reader";
GRANT SELECT ON keys.parent TO "select", PUBLIC;
RESET ROLE;
GRANT SELECT (id, "third "), UPDATE ("third ") ON keys.parent TO "%role";
GRANT SELECT ("a""b") ON public."table" TO PUBLIC;
GRANT INSERT, TRUNCATE, TRIGGER, REFERENCES ON public."table" TO U&"role \0022with\0022\000A'all' \005C of it";
REVOKE INSERT ON public."table" FROM postgres;
GRANT ALL ON ALL TABLES IN SCHEMA tables TO "-rôle";
REVOKE DELETE ON tables.empty FROM "-rôle";
GRANT USAGE ON SEQUENCE tables.advanced TO "select";
REVOKE EXECUTE ON FUNCTION code.overloaded(int) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE code.proc TO "select";
REVOKE ALL ON TYPE types.mood FROM PUBLIC;
GRANT USAGE ON TYPE types.mood TO "select" WITH GRANT OPTION;
GRANT USAGE ON DOMAIN types.positive TO "select";
GRANT USAGE ON LANGUAGE "pl other" TO "select";
REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON FOREIGN DATA WRAPPER "hollow ""fdw" TO "select";
GRANT USAGE ON FOREIGN SERVER remote TO "select" WITH GRANT OPTION;
GRANT SELECT ON code.mat, code.simple TO "select";
GRANT SELECT (relname) ON pg_catalog.pg_class TO "select";
REVOKE EXECUTE ON FUNCTION pg_catalog.pg_sleep(float8) FROM PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "Everything Reader";
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "everything owner" IN SCHEMA keys, "-schema" GRANT USAGE ON SEQUENCES TO "select" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE "-rôle" GRANT USAGE ON TYPES TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "-rôle" GRANT CREATE ON SCHEMAS TO "select";

-- Event triggers come last, as they fire on what is made from here on.
CREATE FUNCTION code.on_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE FUNCTION code.no_more() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing is made any more'; END $$;
CREATE EVENT TRIGGER "event ""trigger" ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION code.on_event();
CREATE EVENT TRIGGER event_off ON sql_drop EXECUTE FUNCTION code.on_event();
ALTER EVENT TRIGGER event_off DISABLE;
CREATE EVENT TRIGGER event_always ON table_rewrite EXECUTE FUNCTION code.on_event();
ALTER EVENT TRIGGER event_always ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER "event ""trigger" IS 'comment on an event trigger';
-- Refuses every later table, so it must come back after all else.
CREATE EVENT TRIGGER z_no_more ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'CREATE VIEW', 'CREATE INDEX') EXECUTE FUNCTION code.no_more();
