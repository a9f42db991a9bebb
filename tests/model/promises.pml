/* The promises of a run (docs/evidence/promises.md), for Spin to explore whole.
 *
 * An entry's life from its plan to its verdict: ledger, broker, two workers, the stream of receipts,
 * and pytest, which sends, looks for what is missing, judges, may be killed, and is started again.
 * Each atomic step here is one commit, one command to a server, or one thing that a worker does; all
 * else that may happen between two of them does happen here, in every order, as often as the budgets
 * below allow it.
 *
 *   make model          explores this, then each broken rule, and prints the table
 *
 * ENTRIES, SESSIONS, WORKERS    how many there are; sessions are pytest's, of which all but the first resume
 * RULE=n            breaks rule n, to see that its promise fails: BROKEN(n) marks the place
 * TRUST=n           drops an assumption, to see that it is needed: TRUSTED(n) marks the place
 * ALIKE             no entry is idempotent, or acknowledged late
 * WHOLE_LOOKS       a look is one step
 * CRASHES, PAUSES, REDELIVERIES, FLUSHES, REFUSALS, KILLS, OUTAGES    how often each may happen
 * ORDERS            how many commands an operator may give: cancel, requeue, pause, resume (of one entry)
 */

#ifndef ENTRIES
#define ENTRIES 1
#endif
#ifndef RULE
#define RULE 0
#endif
#ifndef TRUST
#define TRUST 0
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef PAUSES
#define PAUSES 0
#endif
#ifndef REDELIVERIES
#define REDELIVERIES 0
#endif
#ifndef FLUSHES
#define FLUSHES 0
#endif
#ifndef REFUSALS
#define REFUSALS 0
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef OUTAGES
#define OUTAGES 0
#endif
#ifndef ORDERS
#define ORDERS 0
#endif
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef SESSIONS
#define SESSIONS 1
#endif

#define BROKEN(n) (RULE == n)
#define TRUSTED(n) (TRUST != n)

#define ATTEMPTS 2                  /* sendings that an entry may come to */
#define TASKS (ENTRIES * ATTEMPTS)  /* task ids: 2e is the first attempt of entry e, 2e + 1 the second */
#define COPIES (TASKS * 2)          /* of each message there may be a second one: a redelivery */
#define TASK(c) ((c) / 2)
#define ENTRY(t) ((t) / 2)
#define TWIN(c) ((c) ^ 1)
#define OTHER(t) ((t) ^ 1)
#define EACH_TASK(t) t : 0 .. TASKS - 1
#define EACH_COPY(c) c : 0 .. COPIES - 1
#define EACH_ENTRY(e) e : 0 .. ENTRIES - 1

/* ---- What there is -------------------------------------------------------------------------- */

/* Where a copy of a message is. The order is that in which it moves. */
#define NOWHERE 0
#define WIRE 1    /* pytest has written it to its connection, and the broker has not read it */
#define QUEUED 2
#define AIR 3     /* the broker has handed it out, and its worker has not noted it as taken */
#define HELD 4    /* a worker has reserved it */
#define GIVEN 5   /* to a process of the pool; acknowledged now, if that is early */
#define RUNS 6    /* its start is in the stream, its body was entered */
#define ENDED 7   /* its receipt is in the stream; its worker has not heard of the end */
#define ORPHAN 8  /* kept by the broker for a worker that is dead */

typedef Copy {
    unsigned place : 4;
    bit by;       /* the worker that has it */
    bit kept;     /* the broker keeps it, as it is not acknowledged */
    bit seen;     /* the first look saw it kept; gone when this delivery is over */
    bit stays;    /* it has been in WIRE or AIR since the first look */
}
Copy copy[COPIES];

bit up[2], silent[2];               /* workers: a process that lives; one that neither works nor answers */
#define WORKS(w) (up[w] && !silent[w])
#define SOMEBODY_SILENT ((up[0] && silent[0]) || (up[1] && silent[1]))

/* The run's stream in the result store: what is unread of it, for each task id. */
typedef Stream { unsigned starts : 2; unsigned ends : 2; bit refused; }
Stream stream[TASKS];
bit mark;                           /* the first record of the stream is there: it was not emptied */
bit store_up;

/* The ledger, which outlives every process. */
#define NONE 0
#define PLANNED 1
#define INTENT 2
#define SENT 3
#define UNCERTAIN 4
mtype = { open, passed, duplicated, lost, crashed, unknown, timed_out, turned_away, cancelled };
typedef Attempt { unsigned state : 3; unsigned starts : 2; unsigned ends : 2; bit refused; }
Attempt ledger[TASKS];
mtype verdict[ENTRIES];             /* `open`: the entry has none */
bit emptied;                        /* the store was emptied once: no silence proves anything any more */
bit begun;                          /* a first session has been there: the next one resumes */
bit lock;
bit looking;                        /* between the two looks: no visibility timeout is as short as that */

#if ORDERS
/* What an operator has asked for, in the ledger: the command that is not answered, and the next one. */
#define CANCEL 1
#define REQUEUE 2
#define PAUSE 3
#define RESUME 4
byte order[2], orders = ORDERS;
bit dropped;                        /* by the facts: cancelled, and not asked for again since */
bit noted;                          /* the fact of the unanswered command is there */
bit revoked[TASKS];                 /* a worker may have heard that it is not to begin this */
#define ASKED_FOR (order[1] == REQUEUE || (order[0] == REQUEUE && order[1] != CANCEL))
#define WANTED ((!dropped || ASKED_FOR) && (order[0] != CANCEL || order[1] == REQUEUE) && order[1] != CANCEL)
#define PAUSED paused
#else
#define WANTED true
#define dropped false
#define noted false
#define PAUSED false
#endif

/* Chosen at the beginning. */
bit idempotent[ENTRIES];            /* it may run twice, and may be sent twice */
bit late[ENTRIES];                  /* its task is acknowledged when it has ended */
bit moves;                          /* pytest may put back what a dead worker had (its own stack, --manifest-repair) */

/* Time: of an entry, of the run. They pass at any moment. */
bit entry_over[ENTRIES], run_over;

/* What may yet break. */
byte crashes = CRASHES, pauses = PAUSES, redeliveries = REDELIVERIES, flushes = FLUSHES;
byte refusals = REFUSALS, kills = KILLS, outages = OUTAGES;
byte sessions;                      /* that have begun */
bit kill[2];                        /* kill -9 of a pytest is on its way */

/* The truth, for the promises alone: nothing above may look at it. */
byte ran[TASKS];            /* how often the body was entered */
bit done[TASKS];                    /* an execution has succeeded */
bit called_lost[TASKS];             /* `lost`, of what no worker was known to have begun */
bit insisted[ENTRIES];              /* the user had it sent although it may have run */
bit tried[ENTRIES];                 /* it was sent, or tried, so that its deadline counts */
byte told[ENTRIES];         /* how often this session has told its first verdict */
bit corrected;                      /* this session has changed a `passed` that it had told */
#if ORDERS
bit off;                            /* a cancel took effect, or was answered, and no requeue since */
bit repeated;                       /* the second attempt is an operator's */
bit still;                          /* a pause was answered in this session, and no resume since */
#endif
bit fails;                          /* this session exits with an error for it */

/* n: its number on the page. ONLY=n holds the run to that one, so that it is seen red by itself. */
#ifndef ONLY
#define ONLY 0
#endif
#define PROMISE(n, x) assert((ONLY != 0 && ONLY != n) || (x))

/* ---- The broker and the workers ------------------------------------------------------------- */

hidden byte i, j;

inline lose(c) { copy[c].place = NOWHERE; copy[c].by = 0; copy[c].kept = 0; copy[c].seen = 0; copy[c].stays = 0 }

/* A body is entered: this is the moment that the promises are about. */
inline enter(c) {
    copy[c].place = RUNS;
    PROMISE(2, idempotent[ENTRY(TASK(c))] || insisted[ENTRY(TASK(c))] || !ran[OTHER(TASK(c))]);
    PROMISE(3, !called_lost[TASK(c)]);
    if :: ran[TASK(c)] < 2 -> ran[TASK(c)]++ :: else fi;
}

#define BROKER_AND_WORKERS(c) \
    :: d_step { copy[c].place == WIRE -> \
        copy[c].place = QUEUED; copy[c].stays = 0 } \
    :: d_step { copy[c].place == QUEUED && WORKS(0) -> copy[c].place = AIR; copy[c].by = 0 } \
    :: d_step { copy[c].place == QUEUED && WORKS(1) -> copy[c].place = AIR; copy[c].by = 1 } \
    :: d_step { copy[c].place == AIR && WORKS(copy[c].by) -> \
        copy[c].place = HELD; copy[c].kept = 1; copy[c].stays = 0 } \
    :: d_step { copy[c].place == HELD && WORKS(copy[c].by) -> \
        copy[c].place = GIVEN; \
        if :: !late[ENTRY(TASK(c))] -> copy[c].kept = 0; copy[c].seen = 0 :: else fi; i = 0 } \
    :: d_step { copy[c].place == GIVEN && WORKS(copy[c].by) && store_up -> \
        if :: stream[TASK(c)].starts < 2 -> stream[TASK(c)].starts++ :: else fi; enter(c); i = 0 } \
    :: d_step { !TRUSTED(3) && copy[c].place == GIVEN && WORKS(copy[c].by) && !store_up -> enter(c); i = 0 } \
    :: d_step { copy[c].place == RUNS && WORKS(copy[c].by) && store_up -> \
        if :: stream[TASK(c)].ends < 2 -> stream[TASK(c)].ends++ :: else fi; \
        done[TASK(c)] = 1; copy[c].place = ENDED } \
    :: d_step { copy[c].place == ENDED && WORKS(copy[c].by) -> lose(c); i = 0 } \
    :: d_step { refusals && copy[c].place == HELD && WORKS(copy[c].by) && store_up -> \
        refusals--; stream[TASK(c)].refused = 1; lose(c); i = 0 } /* revoked by somebody, say: it says so */ \
    :: d_step { redeliveries && copy[c].kept && copy[TWIN(c)].place == NOWHERE && (copy[c].seen || !looking || !TRUSTED(2)) -> \
        redeliveries--; /* the visibility timeout is over */ \
        copy[c].kept = 0; copy[c].seen = 0; copy[TWIN(c)].place = QUEUED; \
        if :: copy[c].place == ORPHAN -> lose(c) :: else fi; i = 0 }

inline die(w) { /* with all its processes; what it has not acknowledged stays at the broker */
    up[w] = 0; silent[w] = 0;
    for (EACH_COPY(i)) {
        if
        :: copy[i].place >= AIR && copy[i].place <= ENDED && copy[i].by == w ->
            if
            :: copy[i].kept -> copy[i].place = ORPHAN; copy[i].by = 0
            :: else -> lose(i)
            fi
        :: else
        fi
    }
}

inline flush_broker() {
    for (EACH_COPY(i)) {
        copy[i].kept = 0; copy[i].seen = 0;
        if :: copy[i].place == QUEUED || copy[i].place == ORPHAN -> lose(i) :: else fi
    }
}

inline flush_store() {
    mark = 0;
    for (EACH_TASK(i)) { stream[i].starts = 0; stream[i].ends = 0; stream[i].refused = 0 }
}

#define WORKER(w) \
    :: d_step { pauses && WORKS(w) -> pauses--; silent[w] = 1 } \
    :: d_step { silent[w] -> silent[w] = 0 }

#if ORDERS
#define GIVE(what) :: d_step { orders && !order[1] -> orders--; \
    if :: !order[0] -> order[0] = what :: else -> order[1] = what fi }
#define DROPS(c) :: d_step { revoked[TASK(c)] && copy[c].place == HELD && WORKS(copy[c].by) && store_up -> \
    stream[TASK(c)].refused = 1; lose(c); i = 0 }
#endif

active proctype World()
{
    do
#if ORDERS
    GIVE(CANCEL) GIVE(REQUEUE) GIVE(PAUSE) GIVE(RESUME)
    DROPS(0) DROPS(1) DROPS(2) DROPS(3)
#endif
    BROKER_AND_WORKERS(0) BROKER_AND_WORKERS(1) BROKER_AND_WORKERS(2) BROKER_AND_WORKERS(3)
#if ENTRIES > 1
    BROKER_AND_WORKERS(4) BROKER_AND_WORKERS(5) BROKER_AND_WORKERS(6) BROKER_AND_WORKERS(7)
#endif
    WORKER(0) WORKER(1)
    :: d_step { crashes && up[0] -> crashes--; die(0); i = 0 } /* the workers are alike: one crash tells of both */
    :: d_step { !up[0] -> up[0] = 1 }
    :: d_step { flushes -> flushes--; flush_broker(); i = 0 }
    :: d_step { flushes -> flushes--; flush_store(); i = 0 }
    :: d_step { flushes -> flushes--; flush_broker(); flush_store(); i = 0 }
    :: d_step { outages && store_up -> outages--; store_up = 0 }
    :: d_step { !store_up -> store_up = 1 }
    :: d_step { kills && sessions == 1 && lock -> kills--; kill[0] = 1; kill[1] = 1 }
    od
}

/* Time passes, whatever else does: for liveness it needs a process of its own. */
active proctype Clock()
{
    do
    :: d_step { tried[0] && !entry_over[0] -> entry_over[0] = 1 }
#if ENTRIES > 1
    :: d_step { tried[1] && !entry_over[1] -> entry_over[1] = 1 }
#endif
#ifdef LIVENESS
    :: d_step { lock && !run_over -> run_over = 1 }
#endif
    od
}

/* ---- pytest --------------------------------------------------------------------------------- */

/* The newest attempt of an entry. */
#define NEWEST(t) (ledger[t].state != NONE && ((t) % 2 == 1 || ledger[OTHER(t)].state == NONE))
#define OUT(t) (ledger[t].state >= INTENT)
#define INFERRED(v) (v == cancelled || v == lost || v == crashed || v == unknown || v == timed_out)
#define FINAL(v) (v != open && v != unknown)

/* Commit a verdict, then tell it. `reported`: it follows from a report, which may be late. */
inline give(e, v, reported) {
    if
    :: verdict[e] == open -> verdict[e] = v; told[e]++
    :: else ->
        if
        :: verdict[e] != v ->
            PROMISE(5, reported);
            if
            :: verdict[e] == passed -> corrected = 1; fails = !BROKEN(20)
            :: else
            fi;
            verdict[e] = v
        :: else
        fi
    fi;
    PROMISE(6, told[e] <= 1)
}

/* Judge an attempt by its receipt; it must be the entry's newest. */
inline by_receipt(t) {
    if
    :: ledger[t].starts > 1 && !BROKEN(12) -> give(ENTRY(t), duplicated, 1)
    :: else ->
        PROMISE(4, done[t] && NEWEST(t) && ledger[t].starts <= 1);
        give(ENTRY(t), passed, 1)
    fi;
    waits[t] = 0
}

/* Read all that is in the stream, and judge by it: one commit. */
inline read_stream() {
    for (EACH_TASK(i)) {
        ledger[i].starts = (ledger[i].starts + stream[i].starts > 2 -> 2 : ledger[i].starts + stream[i].starts);
        ledger[i].ends = (ledger[i].ends + stream[i].ends > 2 -> 2 : ledger[i].ends + stream[i].ends);
        ledger[i].refused = ledger[i].refused || stream[i].refused;
        news[i] = stream[i].starts || stream[i].ends || stream[i].refused;
        stream[i].starts = 0; stream[i].ends = 0; stream[i].refused = 0
    }
    for (EACH_TASK(i)) {
        if
        :: !news[i] -> skip
        :: !NEWEST(i) && !BROKEN(21) ->  /* of what was sent again since; its entry's verdict is another one's */
            skip
        :: else ->
            if
            :: ledger[i].ends -> by_receipt(i)
            :: ledger[i].refused && (waits[i] || INFERRED(verdict[ENTRY(i)])) ->
                give(ENTRY(i), turned_away, 1); waits[i] = 0
            :: else
            fi
        fi;
        news[i] = 0
    }
}

/* Plan the entry's next attempt, whose deadline counts anew. */
inline send_anew(t) {
    ledger[OTHER(t)].state = PLANNED; scheduled[OTHER(t)] = 1;
    tried[ENTRY(t)] = 0; entry_over[ENTRY(t)] = 0
}

/* Plan another attempt where the entry allows one; else the entry has its verdict. */
inline infer(t, v) {
    waits[t] = 0;
    if
    :: (v == lost || v == crashed || v == unknown) && idempotent[ENTRY(t)] && t % 2 == 0 && (!dropped || BROKEN(27)) ->
        send_anew(t)
    :: else ->
        if
        :: v == lost && !ledger[t].starts ->
            PROMISE(3, !ran[t]);
            called_lost[t] = 1
        :: else
        fi;
        give(ENTRY(t), v, 0)
    fi
}

/* Which nodes are silent: one whose process is gone counts as gone, one that lives answers or is asked again. */
#define SILENT (SOMEBODY_SILENT && !BROKEN(9))

#define KEPT(t) (copy[2 * (t)].kept || copy[2 * (t) + 1].kept)
#define STILL_KEPT(t) ((copy[2 * (t)].kept && copy[2 * (t)].seen) || (copy[2 * (t) + 1].kept && copy[2 * (t) + 1].seen))
#define IN_QUEUE(t) (copy[2 * (t)].place == QUEUED || copy[2 * (t) + 1].place == QUEUED)
#define ANSWERS(c) (copy[c].place >= HELD && copy[c].place <= ENDED && WORKS(copy[c].by))
#define WITH_WORKER(t) (ANSWERS(2 * (t)) || ANSWERS(2 * (t) + 1))

/* What two looks have shown of a task id. */
#define L_MISSING 1
#define L_ORPHAN 2
#define L_THERE 3   /* it waits, a worker has it, or that cannot be told */

inline clear_looks() {
    for (EACH_COPY(i)) { copy[i].seen = 0; copy[i].stays = 0 }
    for (EACH_TASK(i)) { in_first[i] = 0; had_first[i] = 0; queued[i] = 0; in_second[i] = 0; found[i] = 0 }
    silent_first = 0; silent_second = 0; looking = 0
}

#if ENTRIES > 1
#define ALL_ARRIVED !copy[0].stays && !copy[1].stays && !copy[2].stays && !copy[3].stays && !copy[4].stays && !copy[5].stays && !copy[6].stays && !copy[7].stays
#define ALL_ON_WIRE_ARRIVED copy[0].place != WIRE && copy[2].place != WIRE && copy[4].place != WIRE && copy[6].place != WIRE
#define ALL_DECIDED verdict[0] != open && verdict[1] != open
#define ANY_WAITS (waits[0] || waits[1] || waits[2] || waits[3])
#define ANY_SCHEDULED (scheduled[0] || scheduled[1] || scheduled[2] || scheduled[3])
#else
#define ALL_ARRIVED !copy[0].stays && !copy[1].stays && !copy[2].stays && !copy[3].stays
#define ALL_ON_WIRE_ARRIVED copy[0].place != WIRE && copy[2].place != WIRE
#define ALL_DECIDED verdict[0] != open
#define ANY_WAITS (waits[0] || waits[1])
#define ANY_SCHEDULED (scheduled[0] || scheduled[1])
#endif

/* The parts of a look are steps of their own; WHOLE_LOOKS makes one of them, where much else may happen. */
#ifdef WHOLE_LOOKS
#define ONE_LOOK atomic
#else
#define ONE_LOOK
#endif

/* Both looks, in the order in which a job moves: queues and what is kept, then the workers, then once
 * more the queues, for what went back meanwhile. */
inline look_twice() {
    /* What was sent less than a gap ago may be on its way yet. Who resumes waits for that; else this
     * look says nothing of it. */
    if
    :: !resuming || ALL_ON_WIRE_ARRIVED || BROKEN(23) || !TRUSTED(1)
    fi;
    ONE_LOOK {
        d_step {
            clear_looks(); looking = 1;
            for (EACH_TASK(i)) {
                asked[i] = waits[i] && (copy[2 * i].place != WIRE || BROKEN(23) || !TRUSTED(1));
                in_first[i] = IN_QUEUE(i) || KEPT(i)
            }
            for (EACH_COPY(i)) { copy[i].seen = copy[i].kept };
            i = 0 }
        d_step {
            for (EACH_TASK(i)) { had_first[i] = WITH_WORKER(i); in_first[i] = in_first[i] || had_first[i] }
            silent_first = SILENT }
        d_step {
            for (EACH_TASK(i)) { in_first[i] = in_first[i] || IN_QUEUE(i) || KEPT(i) }
            /* The gap: what is on its way at this moment has arrived before the second look. */
            for (EACH_COPY(i)) { copy[i].stays = copy[i].place == WIRE || (copy[i].place == AIR && !silent[copy[i].by]) };
            i = 0 }
    };
    if
    :: ALL_ARRIVED || !TRUSTED(1) || BROKEN(3)
    :: run_over -> goto looked /* the run's time is over before the second look */
    fi;
    ONE_LOOK {
        d_step {
            for (EACH_TASK(i)) { queued[i] = IN_QUEUE(i) && !BROKEN(3); in_second[i] = queued[i] || KEPT(i) };
            i = 0 }
        d_step {
            for (EACH_TASK(i)) {
                if
                :: WITH_WORKER(i) && !BROKEN(3) -> queued[i] = 1; in_second[i] = 1 /* as good as queued */
                :: else
                fi
            }
            silent_second = SILENT }
        d_step {
            for (EACH_TASK(i)) {
                in_second[i] = (in_second[i] || IN_QUEUE(i) || KEPT(i)) && !BROKEN(3);
                if
                :: queued[i] || !asked[i] -> found[i] = L_THERE
                :: STILL_KEPT(i) && !queued[i] && asked[i] ->
                    found[i] = (!had_first[i] && !silent_first && !silent_second -> L_ORPHAN : L_THERE)
                :: else ->
                    found[i] = (in_first[i] || in_second[i] || silent_first || silent_second -> L_THERE : L_MISSING)
                fi
            };
            for (EACH_TASK(i)) { in_first[i] = 0; had_first[i] = 0; queued[i] = 0; in_second[i] = 0 };
            silent_first = 0; silent_second = 0;
            i = 0 }
    }
}

/* Put back what a dead worker had and had not begun; take out what it had begun. */
inline requeue(t) {
    if
    :: found[t] != L_ORPHAN -> skip
    :: found[t] == L_ORPHAN && ledger[t].starts && !BROKEN(7) ->
        if
        :: moves ->
            took_out = 0;
            for (j : 0 .. 1) {
                if
                :: copy[2 * t + j].seen && copy[2 * t + j].kept && copy[2 * t + j].place == ORPHAN -> lose(2 * t + j); took_out = 1
                :: else
                fi
            }
            j = 0;
            found[t] = (took_out -> L_ORPHAN : L_THERE)
        :: else -> skip /* it stays with the broker, which gives it back one day; its process is dead */
        fi
    :: else ->
        if
        :: moves && !(emptied && !idempotent[ENTRY(t)]) ->
            for (j : 0 .. 1) {
                if
                :: copy[2 * t + j].seen && copy[2 * t + j].kept && copy[2 * t + j].place == ORPHAN ->
                    PROMISE(2, idempotent[ENTRY(t)] || !ran[t]);
                    lose(2 * t + j); copy[2 * t + j].place = QUEUED
                :: else
                fi
            }
            j = 0
        :: else -> skip
        fi;
        found[t] = L_THERE
    fi
}

/* Judge what is missing or was taken out. A store that was emptied once may have held the end of
 * any attempt, so that of none it can be told what became of it. */
inline give_up(t, is_emptied) {
    if
    :: !waits[t] || found[t] == L_THERE -> skip
    :: waits[t] && found[t] == L_ORPHAN -> infer(t, (is_emptied || emptied -> unknown : crashed))
    :: else ->
        if
        :: !ledger[t].starts && !is_emptied && unsure[t] && !again[t] && (!emptied || idempotent[ENTRY(t)]) && (!dropped || BROKEN(27)) ->
            again[t] = 1; unsure[t] = 0; waits[t] = 0; scheduled[t] = 1 /* the same attempt once more */
        :: else ->
            if
            :: is_emptied || emptied -> infer(t, unknown)
            :: else -> infer(t, (ledger[t].starts -> crashed : lost))
            fi
        fi
    fi
}

#if ORDERS
inline answer() { order[0] = order[1]; order[1] = 0; noted = 0 }
#define HAS_BEGUN(c) (copy[c].place >= GIVEN && copy[c].place <= ENDED)
#endif

/* What a resumed run does about an entry whose newest attempt this is. */
inline decide(t) {
    if
    :: !NEWEST(t) || (verdict[ENTRY(t)] == passed) -> waits[t] = 0
    :: NEWEST(t) && verdict[ENTRY(t)] != passed && !OUT(t) && !(WANTED || BROKEN(26)) ->
        waits[t] = 0;
        if :: verdict[ENTRY(t)] == open -> give(ENTRY(t), unknown, 0) :: else fi
    :: NEWEST(t) && verdict[ENTRY(t)] != passed && !OUT(t) && (WANTED || BROKEN(26)) ->
        verdict[ENTRY(t)] = open; scheduled[t] = 1; tried[ENTRY(t)] = 0; entry_over[ENTRY(t)] = 0
    :: else ->
        if
        :: asked[t] && waits[t] && verdict[ENTRY(t)] != turned_away && (found[t] == L_THERE || (found[t] == L_ORPHAN && !moves)) ->
            verdict[ENTRY(t)] = open /* and is waited for */
        :: asked[t] && verdict[ENTRY(t)] == turned_away && (found[t] == L_THERE || (found[t] == L_ORPHAN && !moves)) ->
            waits[t] = 0; /* another copy of it is under way: left, until that has come to its end */
            if :: BROKEN(25) -> verdict[ENTRY(t)] = open :: else fi
        :: else ->
            waits[t] = 0;
            may_have_run = ledger[t].starts || ledger[t].ends || (emptied && !ledger[t].refused);
            if
            :: t % 2 == 0 && (idempotent[ENTRY(t)] || !may_have_run || unsafe) && (WANTED || BROKEN(26)) ->
                insisted[ENTRY(t)] = insisted[ENTRY(t)] || (may_have_run && unsafe);
                verdict[ENTRY(t)] = open; send_anew(t)
            :: else -> /* left */
                if
                :: verdict[ENTRY(t)] != open -> skip
                :: else ->
                    if
                    :: ledger[t].starts && !emptied -> give(ENTRY(t), crashed, 0)
                    :: else -> give(ENTRY(t), unknown, 0)
                    fi
                fi
            fi
        fi
    fi;
    may_have_run = 0
}

/* A second message of a task id goes out only where there is no first one, and none has run. */
#define IS_GONE(t) (!ran[t] && copy[2 * (t)].place == NOWHERE && copy[2 * (t) + 1].place == NOWHERE)

#if ORDERS
#define IS_OUT(t) (copy[2 * (t)].place != NOWHERE || copy[2 * (t) + 1].place != NOWHERE)
#define PROMISE_TO_OPERATORS(n) PROMISE(8, !off && !still && !(repeated && n == 1 && IS_OUT(0)))
#else
#define PROMISE_TO_OPERATORS(n) skip
#endif
#define SESSION_OVER goto ended
#define ENTRY_OVER(t) \
    :: d_step { waits[t] && entry_over[ENTRY(t)] && store_up && IN_TIME -> \
        read_stream(); if :: waits[t] -> infer(t, timed_out) :: else fi; i = 0 } \
    :: d_step { scheduled[t] && entry_over[ENTRY(t)] && IN_TIME && !BROKEN(16) -> \
        scheduled[t] = 0; give(ENTRY(t), timed_out, 0); i = 0 }
#define SEND(n) \
    :: d_step { IN_TIME && TO_SEND(n) && !PAUSED -> \
        PROMISE(7, !entry_over[ENTRY(n)]); PROMISE_TO_OPERATORS(n); tried[ENTRY(n)] = 1; scheduled[n] = 0; t = n; \
        ledger[n].state = (BROKEN(1) -> PLANNED : INTENT) } -> goto send
#ifdef LIVENESS
#define IN_TIME (!run_over || BROKEN(15))
#define RUN_OVER (run_over && !BROKEN(15))
#else
#define IN_TIME true     /* without fairness, that time is over is one more thing that may happen */
#define RUN_OVER true
#endif
#define TO_SEND(t) (scheduled[t] && (!entry_over[ENTRY(t)] || BROKEN(16)))

proctype Pytest(bit me)
{
    /* What dies with it. */
    bit waits[TASKS];               /* it is sent, and its receipt is awaited */
    bit scheduled[TASKS];           /* it is to be sent */
    bit unsure[TASKS];              /* its message may have got lost on its way to the broker */
    bit again[TASKS];               /* it was published a second time */
    bit in_first[TASKS], had_first[TASKS], in_second[TASKS], queued[TASKS], asked[TASKS], news[TASKS];
    byte found[TASKS];
    bit silent_first, silent_second, took_out, unsafe, may_have_run, resuming, gone;
    byte t;
#if ORDERS
    bit paused, gone_by_look;
#endif

session:
    atomic {
        sessions < SESSIONS && (BROKEN(2) || !lock) ->
        lock = 1; sessions++; run_over = 0; corrected = 0; fails = 0;
        for (EACH_ENTRY(i)) { told[i] = 0 }
        }
    {
        if
        :: d_step { !begun -> begun = 1; for (EACH_TASK(i)) { scheduled[i] = ledger[i].state == PLANNED }; i = 0 }
        :: else -> goto resume
        fi;

work:
        do
        :: d_step { !ANY_WAITS && !ANY_SCHEDULED && !noted -> skip } -> SESSION_OVER
#if ORDERS
        :: order[0] && IN_TIME -> goto obey
#endif

        /* Send: the intent, the message, and what came of it: three steps, between which it may die. */
        SEND(0) SEND(1)
#if ENTRIES > 1
        SEND(2) SEND(3)
#endif

        /* Poll. */
        :: d_step { store_up && IN_TIME -> read_stream(); i = 0 }

        /* Look for what is awaited, and act on it. */
        :: ANY_WAITS && IN_TIME -> goto look

        /* An entry's own time is over, whether it is out or the broker did not take it. */
        ENTRY_OVER(0) ENTRY_OVER(1)
#if ENTRIES > 1
        ENTRY_OVER(2) ENTRY_OVER(3)
#endif

        /* The run's time is over, whatever is up or away. */
        :: d_step { RUN_OVER && !noted -> /* a session obeys before it looks at the time */
            if :: store_up -> read_stream() :: else fi;
            for (EACH_ENTRY(i)) {
                if
                :: BROKEN(13) || (verdict[i] == open && (!BROKEN(14) || waits[2 * i] || waits[2 * i + 1])) -> give(i, timed_out, 0)
                :: else
                fi
            }
            for (EACH_TASK(i)) { waits[i] = 0; scheduled[i] = 0 }; i = 0 } -> SESSION_OVER
        od;

send:
        if
        :: d_step { /* the broker takes it, and says so */
            PROMISE(1, IS_GONE(t));
            copy[2 * t].place = QUEUED };
            d_step { ledger[t].state = SENT; waits[t] = 1; t = 0 }
        :: d_step { /* the connection breaks: it will arrive, or it will not */
            PROMISE(1, IS_GONE(t));
            copy[2 * t].place = WIRE } -> goto uncertain
        :: true -> goto uncertain
        :: d_step { /* the broker cannot be reached */
            ledger[t].state = PLANNED; scheduled[t] = 1; t = 0 }
        fi;
        goto work;
uncertain: skip;
        d_step {
            ledger[t].state = UNCERTAIN; unsure[t] = 1; waits[t] = 1;
            if :: BROKEN(4) && !again[t] -> again[t] = 1; waits[t] = 0; scheduled[t] = 1 :: else fi;
            t = 0 }
        goto work;

#if ORDERS
obey: skip;
        /* The first command that has no answer. The fact comes before the effect, the answer after. */
        d_step { t = (ledger[1].state != NONE) };
        if
        :: order[0] == PAUSE -> paused = 1
        :: order[0] == RESUME -> paused = 0
        :: order[0] == CANCEL && BROKEN(29) -> d_step { answer(); off = 1; i = 0 } -> goto cancel
        :: order[0] == CANCEL && !BROKEN(29) -> goto cancel
        :: order[0] == REQUEUE -> goto repeat
        fi;
        d_step { still = paused; answer(); t = 0; i = 0 }
        goto work;
cancel: skip;
        d_step { /* the fact; what is not sent has its verdict with it */
            if
            :: verdict[0] == passed -> skip
            :: else ->
                dropped = 1; noted = !BROKEN(29); off = 1;
                if
                :: scheduled[t] -> scheduled[t] = 0; give(0, cancelled, 0)
                :: !scheduled[t] && !waits[t] && !OUT(t) -> verdict[0] = cancelled
                :: else
                fi
            fi;
            i = 0 }
        if :: waits[t] -> d_step { revoked[t] = 1 } :: else fi;
        d_step { /* our own broker's queue gives it back */
            if
            :: waits[t] && moves ->
                for (j : 0 .. 1) { if :: copy[2 * t + j].place == QUEUED -> lose(2 * t + j) :: else fi };
                j = 0
            :: else
            fi;
            i = 0 }
        if
        :: d_step { store_up && !SOMEBODY_SILENT && waits[t] && mark ->
            read_stream();
            if
            :: waits[t] && !ledger[t].starts && !HAS_BEGUN(2 * t) && !HAS_BEGUN(2 * t + 1) -> waits[t] = 0; give(0, cancelled, 0)
            :: else
            fi;
            i = 0 }
        :: true -> skip /* it is judged by what is reported of it */
        fi;
        d_step { if :: BROKEN(29) -> skip :: else -> answer() fi; t = 0; i = 0 }
        goto work;
repeat: skip;
        d_step { /* what has no end that was reported is looked for, twice */
            gone_by_look = BROKEN(28) || ledger[t].state == PLANNED || ledger[t].ends || ledger[t].refused || (!IS_OUT(t) && !SOMEBODY_SILENT) }
        if
        :: d_step { store_up -> /* and what is reported by then is read */
            if :: !BROKEN(30) -> read_stream() :: else fi;
            if :: !mark -> emptied = 1 :: else fi;
            may_have_run = ledger[t].starts || ledger[t].ends || emptied;
            if
            :: verdict[0] == open || verdict[0] == passed || !gone_by_look || (may_have_run && !idempotent[0]) || (OUT(t) && t == 1) -> skip /* refused */
            :: else ->
                dropped = 0; noted = 1; off = 0; told[0] = 0; verdict[0] = open;
                if
                :: OUT(t) -> repeated = 1; send_anew(t)
                :: else -> scheduled[t] = 1; tried[0] = 0; entry_over[0] = 0
                fi
            fi;
            may_have_run = 0; gone_by_look = 0; i = 0 }
        :: !store_up -> gone_by_look = 0 /* refused, with that as its reason */
        fi;
        d_step { answer(); t = 0; i = 0 }
        goto work;
#endif

look:
        look_twice();
        if :: resuming -> goto resolve :: else fi;

        if
        :: d_step { store_up -> /* what was told by the second look, and whether all of that was there */
            if :: !BROKEN(8) -> read_stream() :: else fi;
            gone = !mark && !BROKEN(10) && !BROKEN(18) && !BROKEN(19);
            emptied = emptied || gone;
            i = 0 }
        :: !store_up -> goto looked /* later */
        fi;
        d_step { for (EACH_TASK(i)) { requeue(i) }; i = 0 }
        d_step {
            gone = gone || ((BROKEN(18) || BROKEN(19)) && !mark && store_up);
            emptied = emptied || gone;
            for (EACH_TASK(i)) { give_up(i, gone) };
            gone = 0;
            i = 0 }
looked: skip;
        d_step { clear_looks(); i = 0 }
        if :: resuming -> goto cleanup :: else fi;
        goto work;

resume: skip;
        /* Read, look twice, read again, and decide on each entry by all that: one commit. */
        if :: d_step { store_up -> read_stream(); i = 0 } :: !store_up -> goto cleanup fi; /* refused */
        d_step { for (EACH_TASK(i)) { waits[i] = NEWEST(i) && OUT(i) && (verdict[ENTRY(i)] == open || INFERRED(verdict[ENTRY(i)]) || (verdict[ENTRY(i)] == turned_away && !BROKEN(17))) }; i = 0 }
        resuming = 1;
        if
        :: BROKEN(5) -> d_step { for (EACH_TASK(i)) { found[i] = L_MISSING }; i = 0 }
        :: else -> goto look
        fi;
resolve: skip;
        d_step { if :: BROKEN(24) -> for (EACH_TASK(i)) { requeue(i) } :: else fi; i = 0 }
        if
        :: d_step { store_up ->
            read_stream();
            if :: !mark && !BROKEN(6) -> emptied = 1 :: else fi;
            for (EACH_TASK(i)) { requeue(i) }; i = 0 }
        :: !store_up -> goto cleanup
        fi;
        if :: unsafe = 0 :: unsafe = 1 fi;
        d_step {
            for (EACH_TASK(i)) { decide(i) }
            i = 0;
#if ORDERS
            /* A requeue that was kept is carried out by that, or refused; a cancel before it comes to nothing. */
            if
            :: ASKED_FOR ->
                if
                :: scheduled[0] || scheduled[1] ->
                    repeated = repeated || scheduled[1]; dropped = 0; off = 0;
                    if :: order[0] == CANCEL -> order[0] = 0 :: else fi
                :: else
                fi;
                if :: order[1] == REQUEUE -> order[1] = 0 :: else -> order[0] = order[1]; order[1] = 0 fi;
                noted = 0
            :: order[0] == REQUEUE && order[1] == CANCEL -> answer() /* it was cancelled since */
            :: order[0] == PAUSE || order[0] == RESUME -> answer() /* of a session that has ended */
            :: else
            fi;
#endif
            mark = mark || emptied /* a stream that begins anew is marked, and the ledger knows why */
        }
        d_step { clear_looks(); resuming = 0 }
        goto work
    } unless { kill[me] };
    goto cleanup;

ended: skip;
#if ORDERS
    d_step { PROMISE(8, !noted) };
#endif
    d_step { PROMISE(6, (ALL_DECIDED)); PROMISE(5, !corrected || fails); i = 0 };
cleanup: skip;
    d_step {
        kill[0] = 0; kill[1] = 0; lock = 0;
        for (EACH_TASK(i)) { waits[i] = 0; scheduled[i] = 0; unsure[i] = 0; again[i] = 0; asked[i] = 0; news[i] = 0 }
#if ORDERS
        paused = 0; still = 0; gone_by_look = 0;
#endif
        clear_looks(); took_out = 0; unsafe = 0; may_have_run = 0; resuming = 0; gone = 0; t = 0
    }
    goto session
}

#ifdef LIVENESS
/* L1: a session that has begun ends; then promise 6 says that every entry has its verdict. */
ltl ends { [] (lock -> <> !lock) }
#endif

init
{
    atomic {
        for (EACH_ENTRY(i)) {
            verdict[i] = open; ledger[2 * i].state = PLANNED;
#ifndef ALIKE
            if :: idempotent[i] = 0 :: idempotent[i] = 1 fi;
            if :: late[i] = 0 :: late[i] = 1 fi
#endif
        }
        i = 0;
        if :: moves = 0 :: moves = 1 fi;
        mark = 1; store_up = 1; up[0] = 1; up[1] = WORKERS > 1;
        run Pytest(0);
#if SESSIONS > 1
        run Pytest(1);
#endif
    }
}
