/*
 * Who has a permit of a semaphore of two: one Session counts those ahead of its own. The
 * answer to a put says who is ahead, a watch on deletions who goes, and lists say what the
 * watch may have missed. Answers and lists are under way for as long as they like, the
 * member that is watched may lag, and keys are used again.
 *
 * Tickets 0 and 1 are our Session's, which waits for both. 2 is another's, which comes
 * and goes twice as it likes (who gives up does, so no rule binds it), under the same key.
 * Once, somebody may delete all keys in one revision.
 *
 * The properties: who is granted, holds by the rule, and its own ticket is there as far as
 * the Session has been told; nobody is dropped whose ticket is there; and everybody who
 * waits is granted in the end: without a list if the watch tells, with one if it falls
 * silent (MUTE). That is an end in which a process has not finished.
 *
 * Who is in the queue of other classes is queue.pml's. The broken variants are those
 * of docs/model.md.
 */

#define T 3
#ifndef LIMIT
#define LIMIT 2
#endif
#define REVS 12

/* --- etcd --------------------------------------------------------------- */
byte rev[T];		/* create revision of each ticket, 0: not there */
byte last;		/* the newest revision */
byte gone[REVS];	/* the tickets deleted at each revision, as bits */
bool wiped;		/* somebody has deleted all, in one revision (WIPE) */

/* --- the census ----------------------------------------------------------- */
byte known[T];		/* create revision, 0: not known */
byte kept[T];		/* the last deletion told while an answer was under way */
byte sending, waiting;
byte listed;		/* the revision of the newest list or answer */
byte told;		/* the newest revision that the watch has told of, or began with */

byte next;		/* the revision that the watch tells next, 0: there is no watch */
bool due, listing;	/* a list is to be asked for; is under way */
bool muted, checking;	/* the watch has fallen silent; and that is being found out */
byte mutes;
byte list[T], list_rev;
byte answer[6];		/* of 0, then of 1 */
hidden byte x;

#define GONE(r, k) ((gone[r] >> k) & 1)

inline look(into) {
	x = 0;
	do
	:: x == T -> break
	:: x < T -> into = rev[x]; x++
	od;
	x = 0
}

#ifdef NOT_KEPT			/* broken: what is told before the answer does not count for it */
#define KEPT(x) 0
#else
#define KEPT(x) kept[x]
#endif
#ifdef GENERATION_IGNORED	/* broken: a deletion counts for whoever has the key now */
#define BEFORE(x) true
#else
#define BEFORE(x) (known[x] < next)
#endif

/* A list, as of revision r, of everybody who was there. */
inline take(from, r) {
	x = 0;
	do
	:: x == T -> break
	:: x < T ->
		if
#ifndef STALE_BELIEVED		/* broken: what a newer list did not show comes back */
		:: r < listed ->
			if
			:: from > listed && known[x] < from && kept[x] < from -> known[x] = from
			:: else
			fi
#endif
#ifndef LIST_DROPS_LATER	/* broken: who came after a list is not in it, so he is gone */
		:: r >= listed && known[x] > r
#endif
		:: else -> known[x] = (KEPT(x) < from -> from : 0)
		fi;
		x++
	od;
	x = 0;
	listed = (r > listed -> r : listed)
}

inline cross_off(k) {
	if
	:: GONE(next, k) && BEFORE(k) -> known[k] = 0
	:: else
	fi;
	if
	:: GONE(next, k) && sending > 0 -> kept[k] = next
	:: sending == 0 -> kept[k] = 0
	:: else
	fi
}

#define AHEAD(k) (known[k] != 0 && known[k] < token -> 1 : 0)
#define FITS (1 + AHEAD(0) + AHEAD(1) + AHEAD(2) <= LIMIT)
#define BY_THE_RULE(k) (rev[k] != 0 && rev[k] < token -> 1 : 0)

proctype Contender(byte i) {
	byte token, removed;

	sending++;	/* registered, before the put is sent */
	d_step { look(answer[i*T+x]); last++; rev[i] = last; token = last }
	d_step {
		answer[i*T+i] = token;	/* its own, after all that it reads */
		take(answer[i*T+x], token);
		sending--
	}
	waiting++;
	do
	:: d_step { known[i] == token && FITS ->
		assert(1 + BY_THE_RULE(0) + BY_THE_RULE(1) + BY_THE_RULE(2) <= LIMIT);
		removed = 0; x = token;
		do
		:: x > last -> break
		:: x <= last && GONE(x, i) -> removed = x; break
		:: else -> x++
		od;
		x = 0;
		assert(removed == 0 || removed > told) }
		break
	:: d_step { known[i] != token -> assert(rev[i] != token) }
		break	/* removed: queues again, as another */
	od;
	skip;
	d_step {
		waiting--;
		if
		:: rev[i] == token -> last++; rev[i] = 0; gone[last] = 1 << i
		:: else
		fi;
		token = 0; removed = 0
	}
}

proctype Stranger() {
	byte rounds = 2;

	do
	:: d_step { rounds > 0 && rev[2] == 0 -> rounds--; last++; rev[2] = last }
	:: d_step { rev[2] != 0 -> last++; rev[2] = 0; gone[last] = 1 << 2 }
	:: rounds == 0 && rev[2] == 0 -> break
	od
}

active proctype Watch() {
	byte at = T;

end:	do
	/* Somebody waits: a watch "from now", on a member that may be one revision behind,
	 * and then a list. */
	:: d_step { waiting > 0 && next == 0 && !listing -> next = last + 1; due = true }
	:: d_step { waiting > 0 && next == 0 && !listing && last > 0 -> next = last; due = true }
#ifndef NO_LIST			/* broken: what happened before the watch began is not asked */
	:: d_step { due && next != 0 -> look(list[x]); list_rev = last; listing = true; due = false }
	:: d_step { listing && !checking -> listed = 0; take(list[x], list_rev); told = list_rev; listing = false }
#else
	:: d_step { due && next != 0 -> told = next - 1; due = false }
#endif
#ifdef SPLIT			/* broken: one event at a time; others' are told first */
	:: d_step { next != 0 && !muted && !due && (!listing || checking) && next <= last ->
		at--; cross_off(at); told = (next > told -> next : told);
		if
		:: at == 0 -> at = T; next++
		:: else
		fi }
#else
	:: d_step { next != 0 && !muted && !due && (!listing || checking) && next <= last ->
		at = 0;
		do
		:: at == T -> break
		:: at < T -> cross_off(at); at++
		od;
		told = (next > told -> next : told);
		next++ }
#endif
	:: d_step { waiting == 0 && next != 0 && !listing && at == T -> next = 0; due = false; muted = false }
#ifdef MUTE
	:: d_step { next != 0 && !due && !listing && mutes == 0 -> muted = true; mutes = 1 }
#ifndef NO_CHECK		/* broken: nobody asks whether the watch tells */
	:: d_step { muted && !listing && next != 0 -> look(list[x]); list_rev = last; listing = true; checking = true }
	:: d_step { listing && checking -> take(list[x], list_rev); listing = false; checking = false;
		muted = false; next = 0 }	/* and on another stream, a watch that tells */
#endif
#endif
#ifdef WIPE
	:: d_step { !wiped && last > 0 && rev[0] + rev[1] + rev[2] != 0 ->
		wiped = true; last++; x = 0;
		do
		:: x == T -> break
		:: x < T && rev[x] != 0 -> gone[last] = gone[last] | (1 << x); rev[x] = 0; x++
		:: else -> x++
		od;
		x = 0 }
#endif
	od
}

init {
	atomic {
		run Contender(0); run Contender(1); run Stranger()
	}
}
