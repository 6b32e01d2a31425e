/*
 * Who holds: tickets in etcd, each waiting for its predecessor alone, with requests that
 * arrive late or twice, names that are used again, contenders that give up, handoffs in
 * memory, and a lease that dies.
 *
 * Contenders 0 and 1 are goroutines of one Session, contender 2 is a Session of its own.
 * Contender 0 locks twice, the others once. Each time a contender is either patient, and
 * waits for ever, or may give up at any moment.
 *
 * Without CLASSES every ticket is exclusive. With CLASSES=2 each is exclusive or a reader,
 * with CLASSES=4 it may also be a permit of a semaphore of 2, of weight 1 or 2. The rule: a
 * ticket holds if and only if all earlier tickets are of its class, and their weights and
 * its own fit the class's limit.
 *
 * The properties: no two hold at once that exclude each other; who holds, does so by the
 * rule, from its first moment to its last, so nobody passes a waiter that excludes it; a
 * token is greater than that of every earlier hold that excludes it; when a hold begins,
 * the guard of no such hold is still true; and every patient waiter gets its turn. For the
 * last, ./check also asks that the model has no cycles: then every run comes to an end,
 * and a waiter left behind is an end in which a process has not finished.
 *
 * With STAYS, an exclusive hold may end so that its place stays taken (a Mutex's
 * UnlockAfter): its ticket moves to a lease of its own, which ends at some moment. Until
 * then that counts as a hold, which nobody has.
 *
 * That a lost lease ends its holds before etcd removes the tickets is shown by lease.pml
 * and taken for granted here.
 *
 * The good model is this file without -D but LATE_PUTS, LOSSES, STAYS and CLASSES, which set its
 * size, and ONE_CLASS_EACH (contender 0 locks twice in one class) or READER_AND_WRITER (0
 * is a reader, 1 is exclusive), which limit what is mixed. The others each break one rule. docs/model.md says which function stands for what.
 */

#ifndef LATE_PUTS
#define LATE_PUTS 1
#endif
#define N 3
#define T 4
#define NONE 9

#define SESSION(i) (i / 2)			/* 0 and 1 share one, 2 has its own */
#define ROUNDS(i) (i == 0 -> 2 : 1)
/* A name is used again when its ticket is known to be gone, unless it is burnt, or its
 * lease is over, or the next ticket is of another class: then contender 0 has a second
 * one. Names: 0, 1; 2; 3. */
#define NAME(i, r) (i != 0 -> i + 1 : \
	(r > 0 && (burnt[0] || (lost[0] && !on_second[0]) || KIND(0) != KIND(1)) -> 1 : 0))
#define SESSION_OF(x) (x / 3)		/* of the ticket's owner */
#define TICKET(i) (i != 0 -> i + 1 : (state[1] == LIVE -> 1 : 0))	/* of one that holds */

/* --- classes ------------------------------------------------------------- */
#define EXCLUSIVE 0
#define READER 1
#define PERMIT 2	/* of a semaphore of 2 */
#define HEAVY 3		/* the same, of weight 2 */
#ifdef CLASSES
byte kind[T];		/* the class stands in the key: a name has it for ever */
#define KIND(x) kind[x]
#else
#define CLASSES 1
#define KIND(x) EXCLUSIVE
#endif
#define CLASS(x) (KIND(x) == HEAVY -> PERMIT : KIND(x))
#define WEIGHT(x) (KIND(x) == HEAVY -> 2 : 1)
#define LIMIT 2
/* What x adds to the weight of y: too much if one of them is exclusive or the classes
 * differ, nothing where there is no limit. */
#define LOAD(x, y) (KIND(y) == EXCLUSIVE || CLASS(x) != CLASS(y) -> LIMIT : \
	(KIND(y) == READER -> 0 : WEIGHT(x)))

/* --- etcd and the network ---------------------------------------------- */
byte rev[T];		/* create revision of each ticket, 0: not there */
byte last;		/* the newest create revision */
bool del_flying[T];	/* a delete of this name is under way ... */
byte del_rev[T];	/* ... if it is of this revision; 0: whatever it is */
bool put_flying[T];	/* an enqueue, or its second copy, is under way */
byte late_puts;		/* so many were, up to LATE_PUTS in one run */
bool doomed[2];		/* the Session's first lease is going to be lost */
bool lost[2];		/* the Session's first lease is past its bound ... */
bool revoked[2];	/* ... and removed by etcd */
bool on_second[T];	/* ticket is on the Session's second lease */

#ifdef STAYS
bool moved[T];		/* on a lease of its own, which is not the Session's */
bool move_flying[T];	/* the request for that is under way ... */
byte move_rev[T];	/* ... for the ticket of this revision */
#define MOVED(x) moved[x]
#else
#define MOVED(x) false
#endif

/* --- what a Session knows ----------------------------------------------- */
#define UNUSED 0
#define LIVE 1		/* queued or holding */
#define HANDED 2	/* held, released, and its guard was never given out */
#define LEFT 3		/* over in any other way */
#define STAYING 4	/* held, released, and its place is kept */
byte state[T];
bool used[T];		/* its ticket is not known to be gone */
bool burnt[T];		/* a put of this name was not answered */
bool holding[N];
byte held_at[T];	/* the token a HANDED ticket held with */
bool guard[T];		/* a guard was given out, and what it compares is still there */

/* --- what the properties need ------------------------------------------- */
byte holders, last_token[CLASSES];	/* a place that is kept counts among the holders */
#ifdef STAYS
byte stays = STAYS;	/* so many may still be kept */
bool kept[T];		/* its place is nobody's: from the hold's end to that of its time */
#endif
hidden byte x, n, ahead, beside, guarded;	/* scratch, zero between steps */

/* Two of this kind hold together. */
#define PAIR(k) (k == READER || k == PERMIT)
/* Hands a hold over in memory to ticket y. */
#define RELAY(x, y) (KIND(x) == EXCLUSIVE && KIND(y) == EXCLUSIVE)

/* --- who is ahead ---------------------------------------------------------- */
#define AHEAD(x) (rev[x] != 0 && rev[x] < token)
/* What a ticket looks at: its gates, the keys of every class but those it can share with.
 * An exclusive ticket looks at all. */
#define GATES(x) !(KIND(t) == READER && KIND(x) == READER)
#ifdef READER_OVERTAKES		/* broken: a reader looks at what holds, not at who waits */
#define LOWEST(x) !(BEFORE(0, x) || BEFORE(1, x) || BEFORE(2, x) || BEFORE(3, x))
#define BEFORE(y, x) (rev[y] != 0 && rev[y] < rev[x])
#define GATE(x) (GATES(x) && (KIND(t) != READER || LOWEST(x)))
#elif defined(FOREIGN_READER_IGNORED)	/* broken: another Session's reader is nobody */
#define GATE(x) (GATES(x) && !(KIND(x) == READER && SESSION_OF(x) != SESSION(i)))
#elif defined(FOREIGN_WORD_IS_OURS)	/* broken: a word that is not known shares with anybody */
#define GATE(x) (GATES(x) && !(KIND(t) == READER && CLASS(x) == PERMIT))
#else
#define GATE(x) GATES(x)
#endif
#define IN_GATE(x) (AHEAD(x) && GATE(x))
#define FAR (IN_GATE(0) + IN_GATE(1) + IN_GATE(2) + IN_GATE(3) > 1)
/* A permit knows all who are ahead, and crosses off who goes. */
#ifdef WEIGHT_IGNORED		/* broken: permits are counted, not weighed */
#define COUNT(x) (CLASS(x) != PERMIT -> LIMIT : 1)
#define OWN_COUNT 1
#else
#define COUNT(x) LOAD(x, t)
#define OWN_COUNT WEIGHT(t)
#endif
#define CENSUS(x) (AHEAD(x) -> COUNT(x) : 0)
#define FITS (OWN_COUNT + CENSUS(0) + CENSUS(1) + CENSUS(2) + CENSUS(3) <= LIMIT)

/* The second nearest: far. */
inline second() {
	x = 0;
	do
	:: x == T -> break
	:: x < T ->
		if
		:: IN_GATE(x) && x != pred && (far == NONE || rev[x] > rev[far]) -> far = x
		:: else
		fi;
		x++
	od;
	far_rev = rev[far]
}

/* The nearest ticket in the gates (NONE if nobody is there: then it is our turn), and
 * whether it is alone there. One that is alone holds, and so it is our turn once it goes. */
inline look() {
	pred = NONE; n = 0; x = 0;
	do
	:: x == T -> break
	:: x < T ->
		if
		:: IN_GATE(x) ->
			n++;
			if
			:: pred == NONE || rev[x] > rev[pred] -> pred = x
			:: else
			fi
		:: else
		fi;
		x++
	od;
	known = (n == 1);
	pred_rev = (pred == NONE -> 0 : rev[pred]);
	far = NONE; far_rev = 0;
	if
#ifdef PART_FOR_WHOLE		/* broken: the two nearest are taken for all there are */
	:: n >= 2 -> second()
#else
	:: n == 2 -> second()	/* the view is whole: there are these two */
#endif
	:: else
	fi;
#if CLASSES > 2
	if
	:: CLASS(t) == PERMIT -> pred = (FITS -> NONE : t); known = false; pred_rev = 0
	:: else
	fi;
#endif
	n = 0; x = 0
}

/* By the rule: all who are ahead in etcd share with us, and fit; or were released in our
 * own Session and handed the hold on in memory. */
inline by_the_rule() {
	ahead = WEIGHT(t); x = 0;
	do
	:: x == T -> break
	:: x < T ->
		if
		:: AHEAD(x) && !(state[x] == HANDED && held_at[x] == rev[x] && RELAY(x, t) &&
			SESSION_OF(x) == SESSION(i)) -> ahead = ahead + LOAD(x, t)
		:: else
		fi;
		x++
	od;
	assert(ahead <= LIMIT);
	ahead = 0; x = 0
}

/* What is not needed any more is zeroed: fewer states. */
inline forget() {
	t = 0; token = 0; pred = NONE; pred_rev = 0; known = false; patient = false; was_lost = false; far = NONE; far_rev = 0
}

inline begin_hold() {
	holders++;
	holding[i] = true;
	beside = WEIGHT(t); x = 0;
	do
	:: x == N -> break
	:: x < N ->
		if
		:: x != i && holding[x] -> beside = beside + LOAD(TICKET(x), t)
		:: else
		fi;
		x++
	od;
#ifdef STAYS
	x = 0;
	do
	:: x == T -> break
	:: x < T ->
		if
		:: kept[x] -> beside = beside + LOAD(x, t)
		:: else
		fi;
		x++
	od;
#endif
	assert(holders == 1 || beside <= LIMIT);
	beside = 0; x = 0;
#ifdef REACH_TOGETHER		/* not a bug: shows that two of this class do hold together */
	assert(CLASS(t) != REACH_TOGETHER || holders == 1);
#endif
#ifdef REACH_SECOND_LEASE	/* not a bug: shows that a hold on the next lease is reached */
	assert(!was_lost);
#endif
#ifndef ONLY_EXCLUSION
	by_the_rule();
	x = 0;
	do
	:: x == CLASSES -> break
	:: x < CLASSES ->
		assert(token > last_token[x] || (x == KIND(t) && PAIR(x)));
		x++
	od;
	last_token[KIND(t)] = (token > last_token[KIND(t)] -> token : last_token[KIND(t)]);
	guarded = WEIGHT(t); x = 0;
	do
	:: x == T -> break
	:: x < T ->	/* a guarded transaction of such a hold would fail now */
		if
		:: x != t && guard[x] -> guarded = guarded + LOAD(x, t)
		:: else
		fi;
		x++
	od;
	assert(guarded <= LIMIT);
	guarded = 0;
#endif
	x = 0; pred = NONE; pred_rev = 0; known = false; patient = false; far = NONE; far_rev = 0
}

inline start(p) {
	t = NAME(i, round); round++;
	state[t] = LIVE; guard[t] = false; held_at[t] = 0; used[t] = true;
	token = 0; pred = NONE; pred_rev = 0; known = false; far = NONE; far_rev = 0;
	was_lost = lost[SESSION(i)];
	on_second[t] = was_lost;
	patient = p
}

/* One Txn puts the ticket, and looks who is ahead. A ticket that is there already was
 * sent twice, now or when the name was last used, so it is ours. */
inline put() {
	if
	:: rev[t] == 0 -> last++; rev[t] = last
	:: else
	fi;
	token = rev[t]
}

inline delete(r) {
	del_flying[t] = true;
#ifndef DELETE_BY_NAME		/* broken: a late one removes the next ticket of that name */
	del_rev[t] = r
#endif
}

inline release(to) {
#ifndef ONLY_EXCLUSION
	assert(rev[t] == token);
	by_the_rule();
#endif
	holding[i] = false; holders--;
	delete(token); state[t] = to;
	if
	:: to == HANDED -> held_at[t] = token
	:: else
	fi;
	forget()
}

/* The ticket stays known, and with it its name in use, until it is gone. */
#ifdef STAY_FORGOTTEN		/* broken: the name is free again once the hold has ended */
#define STAYS_KNOWN used[t] = false; state[t] = STAYING;
#elif defined(STAY_HANDED_OVER)	/* broken: what waits in the same Session takes it for released */
#define STAYS_KNOWN held_at[t] = token; state[t] = HANDED;
#else
#define STAYS_KNOWN state[t] = STAYING;
#endif
inline keep() {
	assert(rev[t] == token);
#ifndef ONLY_EXCLUSION
	by_the_rule();
#endif
	holding[i] = false; stays--;
	kept[t] = true; move_flying[t] = true; move_rev[t] = token; STAYS_KNOWN
	forget()
}
inline kept_no_more(y) {
	if
	:: kept[y] -> kept[y] = false; holders--; state[y] = (state[y] == STAYING -> LEFT : state[y])
	:: else
	fi
}

#ifdef HANDOVER_FROM_WAITER	/* broken: who gave up hands over what it never had */
#define LEAVE_AS HANDED
#define LEAVE_HELD held_at[t] = token;
#else
#define LEAVE_AS LEFT
#define LEAVE_HELD
#endif
#ifdef NAME_NOT_BURNT		/* broken: the put has no revision that its delete could go by */
#define BURN
#else
#define BURN burnt[t] = true;
#endif
#define MAY_START (round < ROUNDS(i) && !used[NAME(i, round)])
#define ALIVE (lost[SESSION(i)] == was_lost)

proctype Contender(byte i) {
	byte round, t, token, pred = NONE, pred_rev, far = NONE, far_rev;
	bool patient, known, was_lost;

again:	/* Register the name, then send the enqueue: it is answered, or is not. */
	if
	:: round == ROUNDS(i) -> goto done
	:: d_step { MAY_START -> start(true); put(); look() }
	:: d_step { MAY_START -> start(false); put(); look() }
	/* The same, and the client sends it twice. */
	:: d_step { MAY_START && late_puts < LATE_PUTS ->
		start(true); put(); look(); put_flying[t] = true; late_puts++ }
	:: d_step { MAY_START && late_puts < LATE_PUTS ->
		start(false); put(); look(); put_flying[t] = true; late_puts++ }
	/* No answer before the context or the lease is over; the request may still come. */
	:: d_step { MAY_START && late_puts < LATE_PUTS ->
		start(false); put_flying[t] = true; late_puts++; delete(0); BURN state[t] = LEFT; forget() }
		goto again
	fi;
	do
	:: d_step { !ALIVE -> state[t] = LEFT; forget() }
		goto again		/* queues anew on the next lease */
	:: d_step { !patient -> state[t] = LEAVE_AS; delete(token); LEAVE_HELD forget() }
		goto again		/* gives up */
	:: d_step { pred == NONE && ALIVE -> begin_hold() }
		goto held
	/* Released by a neighbour in the same Session, both exclusive: it held, so all
	 * before it are gone, and any other contender's revision is higher than ours.
	 * The revision has to be the one it held with: a second copy of its enqueue can
	 * arrive after its deletion and put the same name at the end of the queue. */
	:: d_step { pred != NONE && ALIVE &&
#ifndef HANDOVER_BY_NAME	/* broken: the name alone */
		pred_rev == held_at[pred] &&
#endif
#ifndef HANDOVER_UNASKED	/* broken: the one ahead held, but another reader may hold still */
		RELAY(pred, t) &&
#endif
		state[pred] == HANDED && SESSION_OF(pred) == SESSION(i) ->
#ifdef REACH_HANDOVER		/* not a bug: shows that it happens, the deletion being under way */
		assert(!(del_flying[pred] && rev[pred] != 0));
#endif
		begin_hold() }
		goto held
	/* Gone in etcd. Compared by revision, not by existence. What is seen then
	 * is acted on in a later step. */
	:: d_step { pred != NONE && pred != t && ALIVE && rev[pred] != pred_rev ->
		if
#ifdef NO_RECHECK		/* broken: gone, so it is our turn */
		:: true -> pred = NONE; pred_rev = 0
#else
		:: known -> pred = NONE; pred_rev = 0	/* it held, so we are the lowest */
		:: !known && far != NONE ->		/* it gave up; of two, the other is alone now */
			pred = far; pred_rev = far_rev; known = true; far = NONE; far_rev = 0
		:: !known && far == NONE -> look()
#endif
		fi }
	/* The one before it, the far one, is gone. */
	:: d_step { pred != NONE && pred != t && ALIVE && !known && rev[pred] == pred_rev && !FAR ->
		known = true; far = NONE; far_rev = 0 }
#if CLASSES > 2
	:: d_step { pred == t && ALIVE && FITS -> pred = NONE }
#endif
	od;
held:	/* Release; the guard was given out meanwhile, or was not. Unlock may wait for the
	 * deletion or may not: either way, it goes on. */
	if
#ifdef GUARD_IGNORED		/* broken: hands over though the guard is out */
	:: d_step { holding[i] -> guard[t] = true; release(HANDED) }
#else
	:: d_step { holding[i] -> guard[t] = true; release(LEFT) }
#endif
	:: d_step { holding[i] -> release(HANDED) }
#ifdef STAYS
	:: d_step { holding[i] && stays > 0 && KIND(t) == EXCLUSIVE -> keep() }
	:: d_step { holding[i] && stays > 0 && KIND(t) == EXCLUSIVE -> guard[t] = true; keep() }
#endif
	:: d_step { !holding[i] -> state[t] = LEFT; forget() }	/* lost: not ours to hand over */
	fi;
	goto again;
done:	skip
}

/* Requests arrive in any order, as late as they like. A request
 * that never arrives is one that arrives when nobody looks any more. */
#ifdef STAYS
#define MOVED_NO_MORE(x) ; moved[x] = false
#else
#define MOVED_NO_MORE(x)
#endif
#define REMOVE(x) \
	if \
	:: del_rev[x] == 0 || del_rev[x] == rev[x] -> rev[x] = 0; guard[x] = false MOVED_NO_MORE(x) \
	:: else \
	fi; \
	used[x] = false
#define NET(x) \
	:: d_step { del_flying[x] -> del_flying[x] = false; REMOVE(x); del_rev[x] = 0 } \
	:: d_step { put_flying[x] -> put_flying[x] = false; \
		if \
		:: rev[x] == 0 && (on_second[x] || !revoked[SESSION_OF(x)]) -> \
			last++; rev[x] = last \
		:: else \
		fi }

/* Lists what is there, compares with what is known to be in use, deletes the rest. The
 * deletion goes by the name, so that is burnt first. */
#ifdef SWEPT_NOT_BURNT		/* broken: the deletion finds the next ticket of that name */
#define SWEEP(x)
#else
#define SWEEP(x) burnt[x] = true;
#endif
#ifdef STAY_SWEPT		/* broken: one that stays is taken for a stray */
#define KNOWN(x) (state[x] == LIVE)
#else
#define KNOWN(x) (state[x] == LIVE || state[x] == STAYING)
#endif
#define JANITOR(x) \
	:: d_step { rev[x] != 0 && !KNOWN(x) && !del_flying[x] -> \
		SWEEP(x) del_flying[x] = true; del_rev[x] = 0 }

/* Moves the ticket to a lease of its own, unless that is done, or its own lease is over, or
 * it is another ticket of that name by now. The guard compares a revision that this changes. */
#ifdef STAY_BY_NAME		/* broken: a late one moves the next ticket of that name, which then ends under its holder */
#define SAME(x) true
#else
#define SAME(x) (rev[x] == move_rev[x])
#endif
#define MOVE(x) \
	if \
	:: rev[x] != 0 && SAME(x) && !moved[x] -> moved[x] = true; guard[x] = false \
	:: else \
	fi
#ifdef REACH_END_OF_STAY	/* not a bug: shows that a place is kept to the end of its time, and others wait */
#define REACHED_END(x) assert(!(kept[x] && last > rev[x]));
#else
#define REACHED_END(x)
#endif
/* One copy of the request; the other stays under way. The lease of its own ends. Or the time
 * is over before etcd has answered: then it is deleted. */
#define STAY(x) \
	:: d_step { move_flying[x] && rev[x] != 0 && SAME(x) && !moved[x] -> MOVE(x) } \
	:: d_step { move_flying[x] -> move_flying[x] = false; MOVE(x); move_rev[x] = 0 } \
	:: d_step { moved[x] -> REACHED_END(x) moved[x] = false; rev[x] = 0; used[x] = false; kept_no_more(x) } \
	:: d_step { kept[x] && !moved[x] && !del_flying[x] -> \
		kept_no_more(x); del_flying[x] = true; del_rev[x] = rev[x] }

/* A lease dies: first its holds end, all in one instant because all ask one clock; later
 * etcd removes its tickets, all at one revision. */
inline lose(s) {
	lost[s] = true; x = 0;
	do
	:: x == N -> break
	:: x < N ->
		if
		:: SESSION(x) == s && holding[x] -> holding[x] = false; holders--
		:: else
		fi;
		x++
	od;
#ifdef STAYS
	x = 0;
	do
	:: x == T -> break
	:: x < T ->	/* not moved in time */
		if
		:: SESSION_OF(x) == s && !on_second[x] && kept[x] && !moved[x] -> kept_no_more(x)
		:: else
		fi;
		x++
	od;
#endif
	x = 0
}

inline revoke(s) {
	revoked[s] = true; x = 0;
	do
	:: x == T -> break
	:: x < T ->
		if
		:: SESSION_OF(x) == s && !on_second[x] && !MOVED(x) ->
			rev[x] = 0; guard[x] = false; del_flying[x] = false; del_rev[x] = 0; used[x] = false
		:: else
		fi;
		x++
	od;
	x = 0
}

active proctype Net() {
end:	do
	/* The first copy of a delete; the second stays under way. */
	:: d_step { del_flying[0] && used[0] -> REMOVE(0) }
	NET(0) NET(1) NET(2) NET(3)
#ifndef NO_JANITOR
	JANITOR(0) JANITOR(1) JANITOR(2) JANITOR(3)
#endif
#ifdef STAYS
	STAY(0) STAY(1) STAY(2) STAY(3)
#endif
	:: d_step { doomed[0] && !lost[0] -> lose(0) }
	:: d_step { doomed[1] && !lost[1] -> lose(1) }
	:: d_step { lost[0] && !revoked[0] -> revoke(0) }
	:: d_step { lost[1] && !revoked[1] -> revoke(1) }
	od
}

/* Whether a lease will be lost is settled at the start, and when is not: so that a loss
 * that might still come cannot hide a waiter that is stuck. */
#if CLASSES == 2
#define CHOOSE(x) if :: kind[x] = EXCLUSIVE :: kind[x] = READER fi
#elif CLASSES == 4
#define CHOOSE(x) if :: kind[x] = EXCLUSIVE :: kind[x] = READER :: kind[x] = PERMIT :: kind[x] = HEAVY fi
#endif

init {
	atomic {
#if CLASSES > 1
		CHOOSE(0); CHOOSE(2); CHOOSE(3);
#ifdef READER_AND_WRITER
		kind[0] = READER; kind[2] = EXCLUSIVE;
#endif
#if defined(ONE_CLASS_EACH) || defined(READER_AND_WRITER)
		kind[1] = kind[0];
#else
		CHOOSE(1);
#endif
#endif
		if
		:: true
#ifdef LOSSES
		:: doomed[0] = true
		:: doomed[1] = true
#endif
		fi;
		run Contender(0); run Contender(1); run Contender(2)
	}
}
