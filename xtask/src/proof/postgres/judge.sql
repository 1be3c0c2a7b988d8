SELECT 'balances add up to ' || sum(balance) FROM public.account HAVING sum(balance) <> 1000 * count(*);
SELECT 'account ' || a.id || ' has ' || a.balance || ' and ' || 1000 + coalesce(l.sum, 0) || ' by the ledger'
FROM public.account a
LEFT JOIN (SELECT account, sum(amount) FROM public.ledger GROUP BY account) l ON l.account = a.id
WHERE a.balance <> 1000 + coalesce(l.sum, 0)
LIMIT 3;
SELECT 'generation ' || n || ', the ledger has ' || told FROM public.generation, LATERAL
    (SELECT count(DISTINCT generation) || ' up to ' || coalesce(max(generation), 0) AS told FROM public.ledger) l
WHERE told <> n || ' up to ' || n;
SELECT 'there is no generation' WHERE (SELECT count(*) FROM public.generation) <> 1;
SELECT 'items know generation ' || max(generation) FROM public.item
HAVING max(generation) > (SELECT n FROM public.generation);
SELECT 'the sequence is behind' FROM public.ledger
HAVING max(id) > (SELECT last_value FROM public.ledger_id_seq);
SELECT 'picture ' || lo || ' is another' FROM public.picture WHERE md5(lo_get(lo)) <> md5 OR length(lo_get(lo)) <> bytes;
SELECT 'there are ' || count(*) || ' pictures' FROM public.picture HAVING count(*) <> 3;
SELECT 'the summary is not of these items' WHERE EXISTS (
    SELECT generation % 10, count(*) FROM public.item GROUP BY 1 EXCEPT TABLE public.summary);
SELECT 'race has other tables than told' WHERE ARRAY(
    SELECT relname::text FROM pg_class WHERE relnamespace = 'race'::regnamespace AND relkind = 'r' AND relname <> 'told' ORDER BY 1)
    <> ARRAY(SELECT name FROM race.told ORDER BY 1);
SELECT format('SELECT %L WHERE (SELECT count(*) FROM race.%I) <> %s', 'race.' || name || ' has other rows than told', name, rows)
FROM race.told \gexec
