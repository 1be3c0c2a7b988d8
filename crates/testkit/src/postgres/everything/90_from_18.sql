-- What version 15 does not have.
ALTER EVENT TRIGGER z_no_more DISABLE;
CREATE SCHEMA newer;
CREATE TABLE newer.virtual (a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL, stored int GENERATED ALWAYS AS (a * 3) STORED, b text);
INSERT INTO newer.virtual (a, b) VALUES (1, 'x'), (NULL, 'y');
CREATE TABLE newer.only_virtual (a int GENERATED ALWAYS AS (1 + 1));
INSERT INTO newer.only_virtual SELECT FROM generate_series(1, 2);
CREATE TABLE newer.temporal (id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS));
CREATE TABLE newer.temporal_child (id int, during daterange, FOREIGN KEY (id, PERIOD during) REFERENCES newer.temporal (id, PERIOD during));
INSERT INTO newer.temporal VALUES (1, '[2020-01-01,2020-06-01)'), (1, '[2020-06-01,2021-01-01)');
INSERT INTO newer.temporal_child VALUES (1, '[2020-05-01,2020-07-01)');
CREATE TABLE newer.not_enforced (a int, b int, CONSTRAINT unchecked CHECK (a > 0) NOT ENFORCED,
    CONSTRAINT dangling FOREIGN KEY (b) REFERENCES keys.parent NOT ENFORCED);
INSERT INTO newer.not_enforced VALUES (-1, 999);
CREATE TABLE newer.not_nulls (a int CONSTRAINT "a is 'there" NOT NULL, b int, c int CONSTRAINT own NOT NULL NO INHERIT);
INSERT INTO newer.not_nulls VALUES (1, NULL, 3);
ALTER TABLE newer.not_nulls ADD CONSTRAINT b_later NOT NULL b NOT VALID;
COMMENT ON CONSTRAINT "a is 'there" ON newer.not_nulls IS 'comment on a not-null constraint';
CREATE TABLE newer.uuids (id uuid DEFAULT uuidv7() PRIMARY KEY, i interval, one "char");
INSERT INTO newer.uuids VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', 'infinity'), ('01890a5d-ac96-774b-bcce-b302099a8058', '-infinity');
-- The rest of "char", which is no character. Older versions print bytes that nothing reads back.
INSERT INTO newer.uuids (id, one) SELECT lpad(to_hex(n + 200), 32, '0')::uuid, n::"char" FROM generate_series(-128, -1) n;
CREATE TABLE newer.parts (id int GENERATED ALWAYS AS IDENTITY, k int, EXCLUDE USING gist (k WITH =)) PARTITION BY RANGE (k);
CREATE TABLE newer.parts_all PARTITION OF newer.parts FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
INSERT INTO newer.parts (k) VALUES (7), (8);
CREATE TABLE newer.other_heap_parts (a int) PARTITION BY RANGE (a) USING "heap two";
CREATE COLLATION newer.built_in (PROVIDER = builtin, LOCALE = 'C.UTF-8');
CREATE COLLATION newer.with_rules (PROVIDER = icu, LOCALE = 'und', RULES = '&V << w <<< W');
CREATE TABLE newer.json (j jsonb, CHECK (j IS JSON OBJECT WITH UNIQUE KEYS));
INSERT INTO newer.json VALUES ('{"a": 1}');
CREATE VIEW newer.json_view AS
    SELECT t.* FROM newer.json, JSON_TABLE(j, '$' COLUMNS (a int PATH '$.a' DEFAULT 5 ON EMPTY)) AS t
    WHERE JSON_EXISTS(j, '$.a') AND JSON_VALUE(j, '$.a' RETURNING int) > 0;
CREATE PUBLICATION with_generated FOR TABLE newer.virtual WITH (publish_generated_columns = stored);
GRANT MAINTAIN ON newer.virtual TO "select";
ALTER DEFAULT PRIVILEGES FOR ROLE "-rôle" GRANT SELECT ON LARGE OBJECTS TO "select";
GRANT "select" TO "everything owner" WITH INHERIT FALSE, SET FALSE;
CREATE FUNCTION newer.on_login() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN NULL; END $$;
CREATE EVENT TRIGGER on_login ON login EXECUTE FUNCTION newer.on_login();
-- An extension whose rows belong to the user.
CREATE EXTENSION lastgood_config SCHEMA ext;
INSERT INTO ext.config VALUES ('theirs', 'it''s mine', true), ('another', 'not to be dumped', false);
UPDATE ext.config SET value = 'changed, but of the script' WHERE key = 'shipped';
SELECT nextval('ext.config_seq') \g /dev/null
ALTER EVENT TRIGGER z_no_more ENABLE;
