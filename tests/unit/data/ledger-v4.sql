BEGIN TRANSACTION;
CREATE TABLE announced (
        root TEXT NOT NULL, key TEXT NOT NULL, announcer TEXT NOT NULL, how TEXT NOT NULL,
        task TEXT NOT NULL, number INTEGER NOT NULL, task_ids TEXT NOT NULL,
        is_off INTEGER NOT NULL, PRIMARY KEY (root, key, announcer)
    ) WITHOUT ROWID
    ;
INSERT INTO "announced" VALUES('t-a','g','c1','chord_body','task.body',1,'["c2"]',0);
CREATE TABLE attempts (
        task_id TEXT PRIMARY KEY, entry TEXT NOT NULL, attempt INTEGER NOT NULL,
        ordinal INTEGER NOT NULL, state TEXT NOT NULL, sent_at TEXT, note TEXT,
        reason TEXT, kind TEXT, verdict TEXT
    ) WITHOUT ROWID
    ;
INSERT INTO "attempts" VALUES('t-a','a',1,0,'sent','2026-11-24T15:00:01.000000+00:00',NULL,NULL,NULL,NULL);
CREATE TABLE descendants (
        task_id TEXT PRIMARY KEY, root TEXT NOT NULL, parent TEXT NOT NULL, task TEXT NOT NULL,
        how TEXT NOT NULL, queue TEXT, fulfils TEXT, spawned_at TEXT, kind TEXT, verdict TEXT
    ) WITHOUT ROWID
    ;
INSERT INTO "descendants" VALUES('c1','t-a','t-a','task.c1','call',NULL,NULL,'2026-11-24T15:00:02.000000+00:00','passed','{"verdict":"passed","entry":"a","attempt":1,"sentence":"a passed","mismatches":[]}');
INSERT INTO "descendants" VALUES('c2','t-a','c1','task.c2','call',NULL,NULL,'2026-11-24T15:00:03.000000+00:00',NULL,NULL);
CREATE TABLE handed_on (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, how TEXT NOT NULL, ended_at TEXT,
        next_at TEXT, PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
;
CREATE TABLE receipts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, execution TEXT,
        receipt TEXT NOT NULL, arrived_at TEXT NOT NULL
    );
INSERT INTO "receipts" VALUES(1,'t-a',NULL,'{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"t-a","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":"2026-11-24T15:00:01Z","finished_at":"2026-11-24T15:00:02Z","wait":null,"runtime":1.0,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":1,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{}}','2026-11-28T14:30:58.962003+00:00');
INSERT INTO "receipts" VALUES(2,'c1',NULL,'{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"c1","task":"task.c1","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":1,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":0,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{}}','2026-11-28T14:30:58.977903+00:00');
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "run" VALUES('backend','redis://:***@127.0.0.1:1/0');
INSERT INTO "run" VALUES('broker','redis://:***@127.0.0.1:1/0');
INSERT INTO "run" VALUES('created_at','2026-11-24T15:00:00+00:00');
INSERT INTO "run" VALUES('entries','2');
INSERT INTO "run" VALUES('ledger','4');
INSERT INTO "run" VALUES('manifest','/tmp/m.jsonl');
INSERT INTO "run" VALUES('number','0');
INSERT INTO "run" VALUES('owned','1');
INSERT INTO "run" VALUES('run','20261124T150000-0123abcd');
INSERT INTO "run" VALUES('sha256','0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO "run" VALUES('status','running');
INSERT INTO "run" VALUES('stream_ttl','3600');
INSERT INTO "run" VALUES('workflow','demo');
CREATE TABLE settled (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL UNIQUE, attempt INTEGER,
        kind TEXT NOT NULL, verdict TEXT NOT NULL, receipt TEXT, settled_at TEXT NOT NULL
    );
INSERT INTO "settled" VALUES(1,'a',1,'passed','{"verdict":"passed","entry":"a","attempt":1,"sentence":"a passed","mismatches":[]}','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"t-a","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":"2026-11-24T15:00:01Z","finished_at":"2026-11-24T15:00:02Z","wait":null,"runtime":1.0,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":1,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{}}','2026-11-28T14:30:58.962596+00:00');
CREATE TABLE starts (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, started_at TEXT, retries INTEGER NOT NULL,
        worker TEXT, host TEXT, pid INTEGER, redelivered INTEGER NOT NULL,
        boot TEXT, pid_namespace TEXT,
        hop INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
    ;
CREATE INDEX attempts_by_entry ON attempts (entry, attempt);
CREATE INDEX receipts_by_task ON receipts (task_id);
CREATE INDEX descendants_by_root ON descendants (root, kind);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('receipts',2);
INSERT INTO "sqlite_sequence" VALUES('settled',1);
COMMIT;
