-- SPDX-License-Identifier: MIT
-- What a program does that keeps its data in SQLite, with its file mapped and a write-ahead log.
PRAGMA temp_store = MEMORY;
PRAGMA journal_mode = WAL;
PRAGMA wal_autocheckpoint = 200;
PRAGMA mmap_size = 268435456;
CREATE TABLE kept(number INTEGER PRIMARY KEY, text TEXT);
INSERT INTO kept WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
	SELECT i, printf('%01000d', i * 7919) FROM n;
INSERT INTO kept SELECT number + 1000, printf('%01000d', number * 31 + 1) FROM kept WHERE number < 1000;
INSERT INTO kept SELECT number + 2000, printf('%01000d', number * 31 + 2) FROM kept WHERE number < 1000;
INSERT INTO kept SELECT number + 3000, printf('%01000d', number * 31 + 3) FROM kept WHERE number < 1000;
INSERT INTO kept SELECT number + 4000, printf('%01000d', number * 31 + 4) FROM kept WHERE number < 1000;
INSERT INTO kept SELECT number + 5000, printf('%01000d', number * 31 + 5) FROM kept WHERE number < 1000;
INSERT INTO kept SELECT number + 6000, printf('%01000d', number * 31 + 6) FROM kept WHERE number < 1000;
INSERT INTO kept SELECT number + 7000, printf('%01000d', number * 31 + 7) FROM kept WHERE number < 1000;
UPDATE kept SET text = printf('%01000d', number * 3) WHERE number % 7 = 0;
SELECT count(*), sum(length(text)) FROM kept;
