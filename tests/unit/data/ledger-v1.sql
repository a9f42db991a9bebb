BEGIN TRANSACTION;
CREATE TABLE attempts (
    task_id TEXT PRIMARY KEY, entry TEXT NOT NULL, attempt INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, state TEXT NOT NULL, sent_at TEXT, note TEXT
) WITHOUT ROWID;
INSERT INTO "attempts" VALUES('t-a','a',1,0,'sent','2026-11-24T15:00:01.123456+00:00',NULL);
INSERT INTO "attempts" VALUES('t-b','b',1,1,'sent','2026-11-24T15:00:01.123456+00:00',NULL);
INSERT INTO "attempts" VALUES('t-c','c',1,2,'uncertain','2026-11-24T15:00:01.123456+00:00','connection reset');
INSERT INTO "attempts" VALUES('t-d','d',1,3,'withheld',NULL,'unknown task ''nö''');
CREATE TABLE receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, execution TEXT,
    receipt TEXT NOT NULL, arrived_at TEXT NOT NULL
);
INSERT INTO "receipts" VALUES(1,'t-a','x1','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"t-a","task":"t","state":"succeeded","source":"worker","result":{"n":1,"text":"it''s\nö"},"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"replaced":false,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{}}','2026-11-24T15:00:02.000000+00:00');
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "run" VALUES('backend','redis://:***@127.0.0.1:1/0');
INSERT INTO "run" VALUES('broker','redis://:***@127.0.0.1:1/0');
INSERT INTO "run" VALUES('created_at','2026-11-24T15:00:00+00:00');
INSERT INTO "run" VALUES('entries','4');
INSERT INTO "run" VALUES('ledger','1');
INSERT INTO "run" VALUES('manifest','/tmp/m.jsonl');
INSERT INTO "run" VALUES('owned','1');
INSERT INTO "run" VALUES('position','1-0');
INSERT INTO "run" VALUES('run','20261124T150000-0123abcd');
INSERT INTO "run" VALUES('sha256','0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "run" VALUES('status','running');
INSERT INTO "run" VALUES('stream_ttl','3600');
INSERT INTO "run" VALUES('workflow','demo');
CREATE TABLE settled (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL UNIQUE, attempt INTEGER,
    kind TEXT NOT NULL, verdict TEXT NOT NULL, receipt TEXT, settled_at TEXT NOT NULL
);
INSERT INTO "settled" VALUES(1,'a',1,'passed','{"verdict":"passed","entry":"a","attempt":1,"sentence":"a passed","mismatches":[]}','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"t-a","task":"t","state":"succeeded","source":"worker","result":{"n":1,"text":"it''s\nö"},"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"replaced":false,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{}}','2026-11-24T15:00:02.000000+00:00');
INSERT INTO "settled" VALUES(2,'b',1,'pending','{"verdict":"pending","entry":"b","attempt":1,"sentence":"b pending","mismatches":[]}',NULL,'2026-11-24T15:00:02.000000+00:00');
INSERT INTO "settled" VALUES(3,'d',NULL,'unknown_task','{"verdict":"unknown_task","entry":"d","attempt":null,"sentence":"d unknown_task","mismatches":[]}',NULL,'2026-11-24T15:00:02.000000+00:00');
CREATE TABLE starts (
    task_id TEXT NOT NULL, execution TEXT NOT NULL, started_at TEXT, retries INTEGER NOT NULL,
    worker TEXT, host TEXT, pid INTEGER, redelivered INTEGER NOT NULL,
    PRIMARY KEY (task_id, execution)
) WITHOUT ROWID;
INSERT INTO "starts" VALUES('t-a','x1','2026-11-24T15:00:01.123456+00:00',0,'w@h','h',1,0);
INSERT INTO "starts" VALUES('t-b','x2',NULL,1,NULL,NULL,NULL,1);
CREATE INDEX attempts_by_entry ON attempts (entry, attempt);
CREATE INDEX receipts_by_task ON receipts (task_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('receipts',1);
INSERT INTO "sqlite_sequence" VALUES('settled',3);
COMMIT;
