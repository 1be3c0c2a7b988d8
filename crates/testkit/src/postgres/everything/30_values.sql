-- Values that lose something in careless hands.
CREATE SCHEMA values;
SET extra_float_digits = 3;
SET standard_conforming_strings = on;
SET DateStyle = 'ISO, YMD';
SET IntervalStyle = 'postgres';

CREATE TABLE values.numbers (
    i2 smallint, i4 int, i8 bigint, n numeric, n_scaled numeric(30, 10), n_rounded numeric(3, -2), f4 real, f8 float8,
    m money, b boolean, o oid, lsn pg_lsn, x xid, x8 xid8, c cid, t tid);
INSERT INTO values.numbers (i2, i4, i8, n, n_scaled, n_rounded, f4, f8, m, b, o, lsn, x, x8, c, t) VALUES
    (-32768, -2147483648, -9223372036854775808, 'NaN', -1.0000000001, 12345, '-0', '-0', '-92233720368547758.08', false, 0, '0/0',
     '0', '0', '0', '(0,0)'),
    (32767, 2147483647, 9223372036854775807, 'Infinity', 'NaN', -99900, 'NaN', 'NaN', '92233720368547758.07', true, 4294967295,
     'FFFFFFFF/FFFFFFFF', '4294967295', '18446744073709551615', '4294967295', '(4294967295,65535)'),
    (0, 0, 0, '-Infinity', 0.10, 0, 'Infinity', '-Infinity', '0.00', NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (1, 1, 1, 1e-1000, 1.5, NULL, 1e-45, 4.9406564584124654e-324, '0.01', true, 1, '16/B374D848', '3', '4294967296', '1', '(1,2)'),
    (1, 1, 1, '1.500', 1.5, 100, 3.4028235e38, 1.7976931348623157e308, '1', true, 1, '0/1', '3', '3', '1', '(1,2)'),
    (1, 1, 1, repeat('9', 2000)::numeric + 0.00100, 1.5, 100, 0.1, 0.1, '1', true, 1, '0/1', '3', '3', '1', '(1,2)'),
    (1, 1, 1, 0.00, 1, 100, 0.30000001192092896, 0.30000000000000004, '1', true, 1, '0/1', '3', '3', '1', '(1,2)');

CREATE TABLE values.times (
    d date, t time, t0 time(0), tz timetz, ts timestamp, ts3 timestamp(3), tstz timestamptz, i interval, i_ym interval year to month,
    i0 interval second(0));
INSERT INTO values.times VALUES
    ('infinity', '24:00:00', '23:59:59.9', '00:00:00+15:59:59', 'infinity', 'infinity', 'infinity', '178000000 years', '-1 year',
     '1.6 s'),
    ('-infinity', '00:00:00', '00:00', '24:00:00-15:59:59', '-infinity', '-infinity', '-infinity', '-178000000 years', '0', '0'),
    ('4714-11-24 BC', '23:59:59.999999', '12:00', '12:00:00.000001+05:30', '4714-11-24 00:00:00 BC', '0001-12-31 23:59:59.9994 BC',
     '4714-11-24 00:00:00+00 BC', '-1 mons +2 days -03:04:05.678901', '14 months', '-59 s'),
    ('5874897-12-31', '12:34:56.789', '12:34:56', '12:34:56-03:30', '294276-12-31 23:59:59.999999', '2000-01-01',
     '294276-12-31 23:59:59.999999+00', '1 year 2 mons 3 days 04:05:06', '1-2', '7'),
    ('0044-03-15 BC', NULL, NULL, NULL, '1582-10-15', NULL, '1883-11-18 12:03:58 America/New_York', '-00:00:00.000001', NULL, NULL),
    ('2000-02-29', NULL, NULL, NULL, '2016-12-31 23:59:60', NULL, '1916-07-01 00:00 Europe/Amsterdam', '30 days 24:00', NULL, NULL);

CREATE TABLE values.texts (id int PRIMARY KEY, t text, v varchar(10), c char(5), one "char", n name, b bytea, bits bit(5), vb bit varying);
INSERT INTO values.texts VALUES
    (1, '', '', '', '', '', '', B'00000', B''),
    (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (3, '\N', '\N', '\N', '\', '\N', '\x5c4e', B'11111', B'1'),
    (4, E'tab\there', E'\t', E'a\tb', 'a', 'name', '\x09', B'10101', B'0000000001'),
    (5, E'new\nline\n', E'\n', E'\n', 'b', 'x', '\x0a0d', B'00001', NULL),
    (6, E'carriage\r\nreturn\r', E'\r', E'\r', NULL, NULL, '\x00', NULL, NULL),
    (7, '\.', '\.', '\.', '.', '\.', '\x5c2e', NULL, NULL),
    (8, E'a\n\\.\nb', E'\\.\n', NULL, NULL, NULL, NULL, NULL, NULL),
    (9, E'\\', E'\\\\', E'\\n', NULL, NULL, NULL, NULL, NULL),
    (10, E'\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x1a\x1b[31m\x7f', E'\x1b', NULL, NULL, NULL, NULL, NULL, NULL),
    (11, U&'\FEFF\200B\202E\0301\+01F418\+10FFFF\E000', '日本語', 'ß', NULL, NULL, NULL, NULL, NULL),
    (12, '  spaces  ', '  ', 'x ', ' ', ' ', NULL, NULL, NULL),
    (13, 'NULL', 'null', 'NULL', 'N', 'NULL', NULL, NULL, NULL),
    (14, '"''`$1 %s {} ${x} ; -- /* ', '''', '"', '''', '"', NULL, NULL, NULL);
INSERT INTO values.texts (id, b)
SELECT 20, decode(string_agg(lpad(to_hex(n), 2, '0'), '' ORDER BY n), 'hex') FROM generate_series(0, 255) n;
INSERT INTO values.texts (id, one) SELECT 1000 + n, chr(n)::"char" FROM generate_series(1, 127) n;

CREATE TABLE values.huge (id int PRIMARY KEY, t text, b bytea, a text[]);
ALTER TABLE values.huge ALTER t SET STORAGE EXTERNAL;
INSERT INTO values.huge SELECT 1, string_agg(md5(n::text) || E'\t\\\n', '') FROM generate_series(1, 60000) n;
INSERT INTO values.huge (id, b) SELECT 2, decode(string_agg(md5(n::text), ''), 'hex') FROM generate_series(1, 60000) n;
INSERT INTO values.huge (id, t) VALUES (3, repeat('x', 4000000));
INSERT INTO values.huge (id, a) SELECT 4, array_agg(n || ' "') FROM generate_series(1, 50000) n;

CREATE TABLE values.arrays (
    i int[], t text[], n2 int[][], by bytea[], bl boolean[], d date[], tz timestamptz[], j json[], jb jsonb[], u uuid[], x xml[],
    p point[], bx box[], f float8[], m money[], r int4range[], ine inet[], iv interval[], v int2vector, ov oidvector, na name[],
    ch "char"[], bt bit(3)[], mr int4multirange[]);
INSERT INTO values.arrays (i, t, n2, by, bl, d, tz, j, jb, u, x, p, bx, f, m, r, ine, iv, v, ov, na, ch, bt, mr) VALUES
    ('{1,NULL,-3}', ARRAY['', NULL, 'NULL', 'null', '"', '\', ',', '{}', E'\n', E'\t', ' ', 'a b', '\.'], '{{1,2},{3,NULL}}',
     ARRAY['\x00ff'::bytea, NULL, ''], '{t,f,NULL}', '{infinity,-infinity,"0001-01-01 BC"}', '{infinity,NULL}', ARRAY['{"a": [1]}'::json,
     'null', NULL], ARRAY['{"a": "\"\\"}'::jsonb, 'null', NULL], ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid, NULL],
     ARRAY['<a b="c">,</a>'::xml, NULL], ARRAY['(1,2)'::point, NULL], ARRAY['(1,2),(3,4)'::box, '(5,6),(7,8)'],
     ARRAY['NaN'::float8, '-0', 'Infinity', NULL], ARRAY['1,234.56'::money], ARRAY['[1,2)'::int4range, 'empty', NULL],
     ARRAY['::1/64'::inet, NULL], ARRAY['-1 mon +2 days'::interval], '1 2 3', '4 5', '{a,"b c"}', ARRAY['a'::"char", '\', NULL],
     '{101,NULL}', ARRAY['{[1,2),[5,7)}'::int4multirange, '{}', NULL]),
    ('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '', '', '{}', '{}', '{}',
     '{}'),
    ('[-2:0]={7,8,9}', '[5:5]={five}', '[0:1][-1:0]={{1,2},{3,4}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    ('{{{{{{1}}}}}}', ARRAY[[[['deep']]]], NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL);

CREATE TABLE values.ranges (i4 int4range, i8 int8range, n numrange, ts tsrange, tz tstzrange, d daterange, m4 int4multirange,
    m8 int8multirange, mn nummultirange, mts tsmultirange, mtz tstzmultirange, md datemultirange);
INSERT INTO values.ranges VALUES
    ('[1,10]', '(,5)', '(-1.5,NaN]', '["2000-01-01 00:00:00.000001",infinity)', '(,)', '[-infinity,infinity]', '{[1,2),[3,4)}', '{(,)}',
     '{(1.10,2.20],(3,)}', '{["2000-01-01","2001-01-01")}', '{[-infinity,infinity]}', '{(,2000-01-01),[2001-01-01,)}'),
    ('empty', 'empty', 'empty', 'empty', 'empty', 'empty', '{}', '{}', '{}', '{}', '{}', '{}'),
    (NULL, NULL, '[-Infinity,Infinity]', '[,infinity]', NULL, NULL, '{[-2147483648,2147483647)}', NULL, NULL, NULL, NULL, NULL);

CREATE TABLE values.others (
    id int PRIMARY KEY, j json, jb jsonb, jp jsonpath, x xml, u uuid, ine inet, ci cidr, m macaddr, m8 macaddr8, tv tsvector, tq tsquery,
    snap pg_snapshot, tsnap txid_snapshot, acl aclitem, rc refcursor,
    rclass regclass, rproc regproc, rprocedure regprocedure, roper regoper, roperator regoperator, rtype regtype, rrole regrole,
    rns regnamespace, rcfg regconfig, rdict regdictionary, rcoll regcollation);
INSERT INTO values.others VALUES
    (1, E'{"b": 1,   "a" : [1.0, 1e400, null, true],"b": 2, "\\u0001": "\\\\ \\t"}', '{"b": 1, "a": [1.0, 1e400, null, true], "b": 2, "é": "\"\\ \t"}',
     '$.a[*] ? (@ > 1 && @.b like_regex "^x\\d" flag "i")', '<?xml version="1.0"?><a b="&quot;"><![CDATA[ ]]>é<!-- c --></a>',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '192.168.1.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
     $$'it''s':1A,3B 'back\\slash':2 'a b':16383D$$::text::tsvector, $$('a b' & !'c\\d':*AB) <-> 'e' | 'f' <3> 'g'$$::text::tsquery, '10:20:10,14,15',
     '10:20:10,14,15', '"everything owner"=r*w/postgres', 'a "cursor"', 'public."table"', 'public.dollars', 'public."func ""tion"(int)', 'types.!#',
     'types.!#(NONE,numeric)', 'types.mood[]', '"-rôle"', '"select"', 'types."my search"', 'types."my simple"', 'types."german phone"');
INSERT INTO values.others (id, j, jb, x, u, ine, ci, m8, tv, tq, rclass) VALUES
    (2, '""', '{}', 'no element but text', '00000000-0000-0000-0000-000000000000', '::ffff:1.2.3.4/128', '::/0', 'ff:ff:ff:ff:ff:ff:ff:ff',
     '', '', '-'),
    (3, ' [ ] ', 'null', '<a/><b/>', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '0.0.0.0/0', '2001:db8::/32', NULL, NULL, NULL, '12345678');

CREATE TABLE values.shapes (p point, l line, s lseg, b box, pa path, po polygon, c circle);
INSERT INTO values.shapes VALUES
    ('(0.1,-0)', '{1,-1,0.30000000000000004}', '[(1,2),(3,4)]', '(1,2),(3,4)', '[(1,2),(3,4)]', '((1,2),(3,4),(5,6))', '<(1,2),3>'),
    ('(NaN,Infinity)', '{0,-1,Infinity}', '[(1e300,-1e-300),(0,0)]', '(-Infinity,Infinity),(0,0)', '((1,2),(3,4))', '((0,0))', '<(0,0),0>'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL);
RESET ALL;
