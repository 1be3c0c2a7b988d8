-- What every table has, by triggers in the transactions that change it.
CREATE TABLE told (name text PRIMARY KEY, rows bigint NOT NULL, sum numeric NOT NULL);

CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE public.told SET rows = rows - c, sum = sum - s
        FROM (SELECT count(*) AS c, coalesce(pg_catalog.sum(hashtextextended(the_old::text, 0)), 0) AS s FROM old_rows the_old) f
        WHERE name = TG_TABLE_NAME;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE public.told SET rows = rows + c, sum = sum + s
        FROM (SELECT count(*) AS c, coalesce(pg_catalog.sum(hashtextextended(the_new::text, 0)), 0) AS s FROM new_rows the_new) f
        WHERE name = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END $$;

CREATE TABLE account (id int PRIMARY KEY, balance numeric NOT NULL CHECK (balance > -1000000), note text);
CREATE TABLE ledger (
    id bigserial PRIMARY KEY, generation bigint NOT NULL, account int NOT NULL REFERENCES account, amount numeric NOT NULL
);
CREATE INDEX ledger_of ON ledger (account, generation);
CREATE TABLE item (id int PRIMARY KEY, generation bigint NOT NULL, words text NOT NULL, photo bytea);
CREATE INDEX item_words ON item (md5(words));
CREATE INDEX item_generation ON item (generation, id);
CREATE TABLE event (at int NOT NULL, generation bigint NOT NULL, "what ""it"" is" text) PARTITION BY RANGE (at);
CREATE TABLE "event of the morning" PARTITION OF event FOR VALUES FROM (0) TO (1000);
CREATE TABLE event_of_the_evening PARTITION OF event FOR VALUES FROM (1000) TO (2000);
CREATE TABLE generation (n bigint NOT NULL);

DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['account', 'ledger', 'item', 'event', 'generation'] LOOP
        INSERT INTO told VALUES (t, 0, 0);
        EXECUTE format('CREATE TRIGGER tell_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS new_rows EXECUTE FUNCTION tell()', t);
        EXECUTE format('CREATE TRIGGER tell_update AFTER UPDATE ON %I REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows EXECUTE FUNCTION tell()', t);
        EXECUTE format('CREATE TRIGGER tell_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS old_rows EXECUTE FUNCTION tell()', t);
    END LOOP;
END $$;

INSERT INTO generation VALUES (0);
INSERT INTO account SELECT g, 1000, 'account ' || g FROM generate_series(1, :accounts) g;
INSERT INTO item
SELECT g, 0, (SELECT string_agg(md5(g || '.' || k), ' ') FROM generate_series(1, 20) k), decode(repeat(md5(g::text), 6), 'hex')
FROM generate_series(1, :rows) g;
INSERT INTO event SELECT g % 2000, 0, 'event ' || g FROM generate_series(1, 5000) g;

CREATE VIEW debt AS SELECT a.id, a.balance, sum(l.amount) FROM account a JOIN ledger l ON l.account = a.id GROUP BY a.id;
CREATE MATERIALIZED VIEW summary AS SELECT generation % 10 AS digit, count(*) FROM item GROUP BY 1;
CREATE UNIQUE INDEX summary_digit ON summary (digit);

CREATE TABLE picture (lo oid PRIMARY KEY, bytes int NOT NULL, md5 text NOT NULL);
INSERT INTO picture
SELECT lo_from_bytea(0, content), length(content), md5(content)
FROM (SELECT decode(string_agg(md5(k || '/' || g), ''), 'hex') AS content
      FROM generate_series(1, 3) k, generate_series(1, 40000) g GROUP BY k) made;

-- One transfer after another, each seen whole or not at all.
CREATE PROCEDURE live_on(transactions int) LANGUAGE plpgsql AS $$
DECLARE
    g bigint;
    giver int;
    taker int;
    amount numeric;
BEGIN
    FOR i IN 1..transactions LOOP
        UPDATE public.generation SET n = n + 1 RETURNING n INTO g;
        giver := 1 + floor(random() * :accounts);
        taker := 1 + floor(random() * :accounts);
        amount := round((random() * 100)::numeric, 2);
        UPDATE public.account SET balance = balance - amount WHERE id = giver;
        UPDATE public.account SET balance = balance + amount WHERE id = taker;
        INSERT INTO public.ledger (generation, account, amount) VALUES (g, giver, -amount), (g, taker, amount);
        UPDATE public.item SET generation = g, words = md5(g::text) || substr(words, 33)
        WHERE id = 1 + g * 7919 % :rows;
        INSERT INTO public.event VALUES (g % 2000, g, 'event ' || g);
        IF g % 3 = 0 THEN
            DELETE FROM public.event WHERE at = (g * 31) % 2000;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;

-- Whose definitions are changed; what is told of them holds after each change.
CREATE SCHEMA race;
CREATE TABLE race.told (name text PRIMARY KEY, rows bigint NOT NULL);
CREATE TABLE race.t0 (a int, b text);
INSERT INTO race.t0 VALUES (1, 'one');
INSERT INTO race.told VALUES ('t0', 1);
