BEGIN TRANSACTION;
CREATE TABLE announced (
        root TEXT NOT NULL, key TEXT NOT NULL, announcer TEXT NOT NULL, how TEXT NOT NULL,
        task TEXT NOT NULL, number INTEGER NOT NULL, task_ids TEXT NOT NULL,
        is_off INTEGER NOT NULL, PRIMARY KEY (root, key, announcer)
    ) WITHOUT ROWID
    ;
CREATE TABLE attempts (
        task_id TEXT PRIMARY KEY, entry TEXT NOT NULL, attempt INTEGER NOT NULL,
        ordinal INTEGER NOT NULL, state TEXT NOT NULL, sent_at TEXT, note TEXT,
        reason TEXT, kind TEXT, verdict TEXT
    , reused_from TEXT) WITHOUT ROWID
    ;
INSERT INTO "attempts" VALUES('t-a','a',1,0,'sent','2026-11-24T15:00:01.123456+00:00',NULL,NULL,'lost','{"verdict":"lost","entry":"a","attempt":1,"sentence":"a lost","mismatches":[]}',NULL);
INSERT INTO "attempts" VALUES('t-a2','a',2,0,'sent','2026-11-24T15:00:03.123456+00:00',NULL,'lost',NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('t-b','b',1,1,'sent','2026-11-24T15:00:01.123456+00:00',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempts" VALUES('t-c','c',1,2,'sent','2026-11-24T15:00:01.123456+00:00',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE corrections (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, entry TEXT NOT NULL, attempt INTEGER,
        was TEXT NOT NULL, kind TEXT NOT NULL, told_at TEXT NOT NULL, corrected_at TEXT NOT NULL
    );
INSERT INTO "corrections" VALUES(1,'b',1,'lost','passed','2026-11-24T15:00:04.123456+00:00','2026-11-24T15:00:07.123456+00:00');
CREATE TABLE descendants (
        task_id TEXT PRIMARY KEY, root TEXT NOT NULL, parent TEXT NOT NULL, task TEXT NOT NULL,
        how TEXT NOT NULL, queue TEXT, fulfils TEXT, spawned_at TEXT, kind TEXT, verdict TEXT
    , chords TEXT, due TEXT, broker TEXT) WITHOUT ROWID
    ;
INSERT INTO "descendants" VALUES('of-a-child','t-c','t-c','t','child',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE handed_on (
        task_id TEXT NOT NULL, execution TEXT NOT NULL, how TEXT NOT NULL, ended_at TEXT,
        next_at TEXT, cost REAL, PRIMARY KEY (task_id, execution)
    ) WITHOUT ROWID
;
INSERT INTO "handed_on" VALUES('t-c','x-t-c-0','retry','2026-11-24T15:00:02.123456+00:00',NULL,NULL);
CREATE TABLE receipts (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, execution TEXT,
        receipt TEXT NOT NULL, arrived_at TEXT NOT NULL
    , newest_attempt INTEGER, after_verdict INTEGER NOT NULL DEFAULT 0);
INSERT INTO "receipts" VALUES(1,'t-a','x-t-a','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":1,"task_id":"t-a","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:04.123456+00:00',2,0);
INSERT INTO "receipts" VALUES(2,'t-a2','x-t-a2','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":2,"task_id":"t-a2","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:05.123456+00:00',2,0);
INSERT INTO "receipts" VALUES(3,'t-b','x-t-b','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"b","attempt":1,"task_id":"t-b","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:06.123456+00:00',1,1);
INSERT INTO "receipts" VALUES(4,'t-c','x-t-c','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"c","attempt":1,"task_id":"t-c","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:02.123456+00:00',1,0);
INSERT INTO "receipts" VALUES(5,'of-a-child','x-of-a-child','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"c","attempt":1,"task_id":"of-a-child","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:08.123456+00:00',NULL,0);
CREATE TABLE run (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "run" VALUES('backend','redis://:***@127.0.0.1:1/0');
INSERT INTO "run" VALUES('broker','redis://:***@127.0.0.1:1/0');
INSERT INTO "run" VALUES('clock','{"boot": "b", "ahead": 1.0, "set_back": 7200.0}');
INSERT INTO "run" VALUES('created_at','2026-11-24T15:00:00+00:00');
INSERT INTO "run" VALUES('emptied','1');
INSERT INTO "run" VALUES('entries','2');
INSERT INTO "run" VALUES('ledger','8');
INSERT INTO "run" VALUES('manifest','/tmp/m.jsonl');
INSERT INTO "run" VALUES('merged','["20261124T150000-11111111", "20261124T150000-22222222"]');
INSERT INTO "run" VALUES('number','0');
INSERT INTO "run" VALUES('own_limits','{"t": 100.0}');
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
INSERT INTO "settled" VALUES(2,'b',1,'passed','{"verdict":"passed","entry":"b","attempt":1,"sentence":"b passed","mismatches":[]}','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"b","attempt":1,"task_id":"t-b","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:07.123456+00:00');
INSERT INTO "settled" VALUES(3,'a',2,'passed','{"verdict":"passed","entry":"a","attempt":2,"sentence":"a passed","mismatches":[]}','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"a","attempt":2,"task_id":"t-a","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:07.123456+00:00');
INSERT INTO "settled" VALUES(4,'c',1,'forged','{"verdict":"forged","entry":"c","attempt":1,"sentence":"c forged","mismatches":[]}','{"receipt":1,"run":"20261124T150000-0123abcd","entry":"c","attempt":1,"task_id":"t-c","task":"t","state":"succeeded","source":"worker","result":null,"error":null,"worker":null,"host":null,"pid":null,"queue":null,"sent_at":null,"received_at":null,"started_at":null,"finished_at":null,"wait":null,"runtime":null,"executions":0,"redelivered":false,"retries":0,"retried":[],"replaced":false,"children":null,"code":null,"args_sha256":null,"result_sha256":null,"log":[],"log_dropped":0,"cpu":null,"max_rss":null,"evidence":{},"execution":null,"signature":null}','2026-11-24T15:00:07.123456+00:00');
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
INSERT INTO "sqlite_sequence" VALUES('receipts',5);
INSERT INTO "sqlite_sequence" VALUES('settled',4);
INSERT INTO "sqlite_sequence" VALUES('corrections',1);
COMMIT;
