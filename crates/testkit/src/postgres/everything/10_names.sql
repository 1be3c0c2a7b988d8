-- Names that break what is quoted, split or printed carelessly.
CREATE SCHEMA "Schéma ""odd""" AUTHORIZATION "everything owner";
CREATE SCHEMA "-schema";
CREATE SCHEMA "select";
CREATE SCHEMA U&"new\000Aline \005C 'quoted'";
COMMENT ON SCHEMA "select" IS 'comment on a schema';
COMMENT ON SCHEMA public IS 'the public schema, with another comment than at first';

CREATE TABLE public."MixedCase" ("Id" int PRIMARY KEY, "select" text, "from" text);
INSERT INTO public."MixedCase" VALUES (1, 'a', 'b'), (2, NULL, '');
CREATE TABLE public."table" ("order" int, "group" int, "user" text, "a""b" text, "a'b" text, "a b" text,
    "a\b" text, "%s" text, "$1" text, ":x" text, "-c" text, "{c}" text, "ä" text, "(" text, "," text, ";" text, "--" text,
    U&"tab\0009new\000Aline\000Dreturn" text, "/* c */" text, "\." text, "漢字" text, "🐘" text);
INSERT INTO public."table" SELECT n, -n, 'u' || n FROM generate_series(1, 3) n;
COMMENT ON COLUMN public."table"."a""b" IS 'comment on a column';
COMMENT ON COLUMN public."table"."\." IS E'\\.\n\\.\nend';
CREATE TABLE public."-table" (a int);
INSERT INTO public."-table" VALUES (1);
CREATE TABLE public."%table%s%n" (a int);
INSERT INTO public."%table%s%n" VALUES (2);
CREATE TABLE public."../../etc/passwd" (a int);
INSERT INTO public."../../etc/passwd" VALUES (3);
CREATE TABLE public." " (" " int);
INSERT INTO public." " VALUES (4);
CREATE TABLE public.".tmp.1" (a int);
CREATE TABLE public."a.b" ("c.d" int);
INSERT INTO public."a.b" VALUES (5);
CREATE TABLE public."back\slash" (a int);
CREATE TABLE public.":colon" (a int);
CREATE TABLE U&"new\000Aline \005C 'quoted'".U&"drop\000ADROP TABLE public.\0022table\0022;" (U&"\000A\005C! echo hacked" int);
INSERT INTO U&"new\000Aline \005C 'quoted'".U&"drop\000ADROP TABLE public.\0022table\0022;" VALUES (6);
-- Exactly 63 bytes, the last one ending a letter of two.
CREATE TABLE public."sixty-three bytes which is as long as a name can become here é" (
    "sixty-three bytes which is as long as a name can become here é" int PRIMARY KEY);
INSERT INTO public."sixty-three bytes which is as long as a name can become here é" VALUES (7);
CREATE TABLE "-schema"."-table" ("-a" int CONSTRAINT "-check" CHECK ("-a" > 0));
CREATE INDEX "-index" ON "-schema"."-table" ("-a");
-- The same name twice, apart only in case; and the same name in several schemas.
CREATE TABLE public.mixedcase ("Id" int);
CREATE TABLE "select"."MixedCase" ("Id" text);
INSERT INTO "select"."MixedCase" VALUES ('another table of the same name');
CREATE VIEW "select"."view ""of"" table" AS SELECT "a""b" AS "x""y", "%s", "🐘" FROM public."table";
CREATE FUNCTION public."func ""tion"(IN "in ""put" int DEFAULT 1, OUT "out put" text) LANGUAGE sql
    AS $_$ SELECT 'body with $$ and $body$ and '' and \ ' || $1 $_$;
CREATE FUNCTION public.dollars() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN $$a$$ || $_$b$_$ || $x$c$x$; END';
CREATE FUNCTION public.crlf() RETURNS text LANGUAGE sql AS E'SELECT ''carriage\r\nreturn''::text;\r\n';
CREATE SEQUENCE public."seq ""uence";
SELECT setval('public."seq ""uence"', 42, false);

-- As many columns as make a line of any program long.
SELECT 'CREATE TABLE public.wide (' || string_agg(format('c%s int', n), ', ' ORDER BY n) || ')'
FROM generate_series(1, 1000) n \gexec
INSERT INTO public.wide (c1, c500, c1000) VALUES (1, 500, 1000);
