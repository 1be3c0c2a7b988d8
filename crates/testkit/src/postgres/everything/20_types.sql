-- Types of one's own, and what belongs to them.
CREATE SCHEMA types;
CREATE TYPE types.mood AS ENUM ('sad', 'ok', 'it''s "happy"', '', 'a b', 'schön', E'new\nline');
ALTER TYPE types.mood ADD VALUE 'before sad' BEFORE 'sad';
CREATE TYPE types.no_values AS ENUM ();
CREATE TYPE types.pair AS (x int, "y ""q" text COLLATE "C", z numeric(10, 2)[]);
CREATE TYPE types.nested AS (p types.pair, ps types.pair[], m types.mood);
CREATE TYPE types.no_fields AS ();
CREATE DOMAIN types.positive AS int DEFAULT 7 CONSTRAINT "is positive" CHECK (VALUE > 0) CHECK (VALUE < 1000000);
CREATE DOMAIN types.small AS types.positive NOT NULL CHECK (VALUE < 100);
CREATE DOMAIN types.texts AS text[] CHECK (array_length(VALUE, 1) IS DISTINCT FROM 5);
CREATE DOMAIN types.point AS types.pair CHECK (VALUE IS NULL OR (VALUE).x IS NOT NULL);
CREATE DOMAIN types.loose AS text;
CREATE TABLE types.of_loose (a types.loose);
INSERT INTO types.of_loose VALUES ('breaks the rule that came later');
ALTER DOMAIN types.loose ADD CONSTRAINT later CHECK (VALUE <> 'breaks the rule that came later') NOT VALID;
CREATE FUNCTION types.text_diff(a text, b text) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT
    AS $$ SELECT length(a)::float8 - length(b)::float8 $$;
CREATE TYPE types.text_range AS RANGE (SUBTYPE = text, SUBTYPE_DIFF = types.text_diff, COLLATION = "C",
    MULTIRANGE_TYPE_NAME = types.many_texts);
CREATE TYPE types.shell_only;
-- A base type of one's own, as functions in C are at hand without building any.
CREATE TYPE types.base;
CREATE FUNCTION types.base_in(cstring) RETURNS types.base LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION types.base_out(types.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE types.base (INPUT = types.base_in, OUTPUT = types.base_out, INTERNALLENGTH = variable, STORAGE = extended,
    CATEGORY = 'X', PREFERRED = true, DEFAULT = 'as it is', DELIMITER = ';', COLLATABLE = true);
COMMENT ON TYPE types.mood IS 'comment on a type';
COMMENT ON DOMAIN types.positive IS 'comment on a domain';
COMMENT ON CONSTRAINT "is positive" ON DOMAIN types.positive IS 'comment on a domain''s constraint';
COMMENT ON COLUMN types.pair.x IS 'comment on a field';
ALTER TYPE types.mood OWNER TO "everything owner";

CREATE TABLE types.own (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mood types.mood DEFAULT 'ok', moods types.mood[], pair types.pair, pairs types.pair[], nested types.nested,
    positive types.positive, small types.small, texts types.texts, point types.point, points types.point[],
    text_range types.text_range, many_texts types.many_texts, ranges types.text_range[], base types.base,
    bases types.base[], whole_row public."MixedCase");
INSERT INTO types.own (mood, moods, pair, pairs, nested, positive, small, texts, point, points, text_range, many_texts,
    ranges, base, bases, whole_row)
VALUES
    ('before sad', '{"it''s \"happy\"","",NULL,"new
line"}', '(1,"a ""q"", \\ b","{1.10,NULL}")', ARRAY[ROW(1, NULL, NULL), NULL, ROW(NULL, '', '{}')]::types.pair[],
     ROW(ROW(1, 'x', '{2.5}'), ARRAY[ROW(3, '(),"', NULL)]::types.pair[], 'sad')::types.nested, 1, 99, '{a,NULL,"NULL",""}',
     ROW(5, 'y', NULL)::types.pair, ARRAY[ROW(6, 'z', NULL)::types.pair::types.point], '["a","b c")', '{["a","b"),["x","y"]}',
     ARRAY['[a,b)', 'empty', '(,)']::types.text_range[], E'base\\\t', '{a;"b;c"}', ROW(1, 'in', NULL)),
    (NULL, '{}', ROW(NULL, NULL, NULL), '{}', ROW(NULL, NULL, NULL), NULL, 1, '{}', NULL, NULL, 'empty', '{}', '{}', '', '{}',
     NULL);

-- A column whose composite type lost and gained fields.
CREATE TYPE types.changed AS (a int, b text, c int);
CREATE TABLE types.of_changed (v types.changed);
INSERT INTO types.of_changed VALUES (ROW(1, 'gone', 3));
ALTER TYPE types.changed DROP ATTRIBUTE b CASCADE;
ALTER TYPE types.changed ADD ATTRIBUTE d date CASCADE;
INSERT INTO types.of_changed VALUES (ROW(4, 5, '2020-02-29'));
CREATE TABLE types.typed OF types.changed (a PRIMARY KEY, c WITH OPTIONS DEFAULT 9);
INSERT INTO types.typed (a) VALUES (1);

-- Operators, classes, families, casts, aggregates.
CREATE FUNCTION types.pair_cmp(a types.pair, b types.pair) RETURNS int LANGUAGE sql IMMUTABLE STRICT
    AS $$ SELECT coalesce(sign(a.x - b.x)::int, 0) $$;
CREATE FUNCTION types.pair_lt(a types.pair, b types.pair) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT a.x < b.x';
CREATE FUNCTION types.pair_le(a types.pair, b types.pair) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT a.x <= b.x';
CREATE FUNCTION types.pair_eq(a types.pair, b types.pair) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT a.x = b.x';
CREATE FUNCTION types.pair_ge(a types.pair, b types.pair) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT a.x >= b.x';
CREATE FUNCTION types.pair_gt(a types.pair, b types.pair) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS 'SELECT a.x > b.x';
CREATE OPERATOR types.<# (FUNCTION = types.pair_lt, LEFTARG = types.pair, RIGHTARG = types.pair, COMMUTATOR = OPERATOR(types.>#),
    NEGATOR = OPERATOR(types.>=#), RESTRICT = scalarltsel, JOIN = scalarltjoinsel);
CREATE OPERATOR types.<=# (FUNCTION = types.pair_le, LEFTARG = types.pair, RIGHTARG = types.pair);
CREATE OPERATOR types.=# (FUNCTION = types.pair_eq, LEFTARG = types.pair, RIGHTARG = types.pair, COMMUTATOR = OPERATOR(types.=#),
    RESTRICT = eqsel, JOIN = eqjoinsel, MERGES);
CREATE OPERATOR types.>=# (FUNCTION = types.pair_ge, LEFTARG = types.pair, RIGHTARG = types.pair);
CREATE OPERATOR types.># (FUNCTION = types.pair_gt, LEFTARG = types.pair, RIGHTARG = types.pair);
CREATE OPERATOR types.!# (FUNCTION = numeric_uminus, RIGHTARG = numeric);
COMMENT ON OPERATOR types.!# (NONE, numeric) IS 'comment on an operator';
CREATE OPERATOR FAMILY types."pair ops" USING btree;
CREATE OPERATOR CLASS types.pair_class FOR TYPE types.pair USING btree FAMILY types."pair ops" AS
    OPERATOR 1 types.<#, OPERATOR 2 types.<=#, OPERATOR 3 types.=#, OPERATOR 4 types.>=#, OPERATOR 5 types.>#,
    FUNCTION 1 types.pair_cmp(types.pair, types.pair);
COMMENT ON OPERATOR CLASS types.pair_class USING btree IS 'comment on an operator class';
COMMENT ON OPERATOR FAMILY types."pair ops" USING btree IS 'comment on an operator family';
CREATE INDEX own_pair ON types.own (pair types.pair_class DESC NULLS LAST);
CREATE OPERATOR FAMILY types.across USING btree;
ALTER OPERATOR FAMILY types.across USING btree ADD FUNCTION 1 (int4, int8) btint48cmp(int4, int8),
    OPERATOR 1 < (int4, int8);
CREATE FUNCTION types.to_pair(int) RETURNS types.pair LANGUAGE sql IMMUTABLE AS $$ SELECT ROW($1, '', NULL)::types.pair $$;
CREATE CAST (int AS types.pair) WITH FUNCTION types.to_pair(int) AS ASSIGNMENT;
CREATE CAST (types.base AS text) WITHOUT FUNCTION AS IMPLICIT;
CREATE CAST (types.pair AS json) WITH INOUT;
COMMENT ON CAST (int AS types.pair) IS 'comment on a cast';
CREATE AGGREGATE types.product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1', PARALLEL = SAFE,
    COMBINEFUNC = numeric_mul);
CREATE AGGREGATE types.moving(float8) (SFUNC = float8pl, STYPE = float8, INITCOND = '0', MSFUNC = float8pl, MINVFUNC = float8mi,
    MSTYPE = float8, MINITCOND = '0');
CREATE AGGREGATE types."last ""one"(anycompatible) (SFUNC = array_append, STYPE = anycompatiblearray);
CREATE AGGREGATE types.percentile(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal,
    FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA);
CREATE AGGREGATE types.ranked(VARIADIC "any" ORDER BY VARIADIC "any") (SFUNC = ordered_set_transition_multi, STYPE = internal,
    FINALFUNC = rank_final, FINALFUNC_EXTRA, HYPOTHETICAL);
COMMENT ON AGGREGATE types.product(numeric) IS 'comment on an aggregate';

-- Collations, conversions, a language, a transform, an access method.
CREATE COLLATION types."german phone" (PROVIDER = icu, LOCALE = 'de-u-co-phonebk');
CREATE COLLATION types.without_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE COLLATION types.like_c (PROVIDER = libc, LC_COLLATE = 'C', LC_CTYPE = 'C');
CREATE COLLATION types.copied FROM "C";
COMMENT ON COLLATION types."german phone" IS 'comment on a collation';
CREATE TABLE types.collated (a text COLLATE types."german phone", b text COLLATE types.without_case UNIQUE, c text COLLATE "POSIX");
INSERT INTO types.collated VALUES ('Ärger', 'A', 'a'), ('Aerger', 'ä', 'B');
CREATE INDEX collated_other ON types.collated (a COLLATE types.like_c, (a || b) COLLATE "C" text_pattern_ops DESC);
CREATE CONVERSION types."my conversion" FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE DEFAULT CONVERSION types.default_conversion FOR 'UTF8' TO 'LATIN2' FROM utf8_to_iso8859;
COMMENT ON CONVERSION types."my conversion" IS 'comment on a conversion';
CREATE FUNCTION types.call_handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION types.inline_handler(internal) RETURNS void LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION types.validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE TRUSTED PROCEDURAL LANGUAGE "pl other" HANDLER types.call_handler INLINE types.inline_handler VALIDATOR types.validator;
COMMENT ON LANGUAGE "pl other" IS 'comment on a language';
CREATE FUNCTION types.in_other() RETURNS int LANGUAGE "pl other" AS 'BEGIN RETURN 1; END';
CREATE TRANSFORM FOR types.pair LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal));
COMMENT ON TRANSFORM FOR types.pair LANGUAGE sql IS 'comment on a transform';
CREATE ACCESS METHOD "heap two" TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD "heap two" IS 'comment on an access method';
CREATE TABLE types.in_other_heap (a int) USING "heap two";
INSERT INTO types.in_other_heap VALUES (1);

-- Text search.
CREATE TEXT SEARCH DICTIONARY types."my simple" (TEMPLATE = pg_catalog.simple, STOPWORDS = 'english', ACCEPT = false);
CREATE TEXT SEARCH CONFIGURATION types."my search" (PARSER = pg_catalog."default");
ALTER TEXT SEARCH CONFIGURATION types."my search" ADD MAPPING FOR asciiword, word WITH types."my simple", english_stem;
CREATE TEXT SEARCH PARSER types.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype,
    HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE types.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
COMMENT ON TEXT SEARCH DICTIONARY types."my simple" IS 'comment on a dictionary';
COMMENT ON TEXT SEARCH CONFIGURATION types."my search" IS 'comment on a search configuration';
COMMENT ON TEXT SEARCH PARSER types.parser IS 'comment on a parser';
COMMENT ON TEXT SEARCH TEMPLATE types.template IS 'comment on a template';
