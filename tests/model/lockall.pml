/*
 * Several names at once: who puts the tickets of all its names in one transaction waits for nobody who waits for it, and
 * holds them all or none. See docs/model.md for what stands for what.
 *
 * -DTWO_TXNS     the tickets are put one by one
 * -DNO_CHECK     nobody asks for the tickets after the grant
 * -DCHECK_OLDER  they are asked for as of the revision at which the first of them had its turn
 * -DCHECK_ONE    the one whose turn came last is asked for, and no other
 * -DKEEP         where one ticket is removed, that one alone queues again
 */
#ifndef P
#define P 3 /* callers */
#endif
#ifndef K
#define K 3 /* names */
#endif
#ifndef REMOVALS
#define REMOVALS 1
#endif

#define GRANTED 1 /* it believes that it holds; nobody has asked for its tickets */
#define SURE 2    /* they were there as of the last turn */

byte rev = 0; /* the store's revision */
byte ticket[P * K]; /* create revision of the ticket of a caller for a name, 0 without one */
byte place[P * K]; /* the same, also when somebody has removed it */
byte removed[P * K]; /* the revision of that */
byte freed[P * K]; /* the revision at which the last one ahead of it went */
bool wants[P * K];
byte holds[P];

#define T(p, n) ticket[(p) * K + (n)]
#define PLACE(p, n) place[(p) * K + (n)]
#define REMOVED(p, n) removed[(p) * K + (n)]
#define FREED(p, n) freed[(p) * K + (n)]
#define W(p, n) wants[(p) * K + (n)]

/* put puts one ticket of the transaction under way, if the name is wanted and has none. */
inline put(p, n) {
	if
	:: W(p, n) && T(p, n) == 0 -> T(p, n) = rev; PLACE(p, n) = rev; REMOVED(p, n) = 0; FREED(p, n) = 0
	:: else
	fi
}

/* FIRST is true where no other ticket of the name is older. It says nothing of the own one: who sees the one ahead go does not
 * see whether the own is there. */
#define BEFORE(p, q, n) (T(q, n) != 0 && T(q, n) < PLACE(p, n))
#define FIRST(p, n) (!BEFORE(p, 0, n) && !BEFORE(p, 1, n) && (P < 3 || !BEFORE(p, P - 1, n)))
#define GONE(p, n) (W(p, n) && PLACE(p, n) != 0 && T(p, n) == 0)
#define ANY_GONE(p) (GONE(p, 0) || GONE(p, 1) || (K > 2 && GONE(p, K - 1)))
#define TURN(p, n) (!W(p, n) || T(p, n) != 0 && FIRST(p, n))
#define ALL_FIRST(p) (TURN(p, 0) && TURN(p, 1) && (K < 3 || TURN(p, K - 1)))
#define SHARE(p, q) ((W(p, 0) && W(q, 0)) || (W(p, 1) && W(q, 1)) || (K > 2 && W(p, K - 1) && W(q, K - 1)))

/* drop deletes one ticket in the transaction under way. */
inline drop(p, n, q) {
	q = 0;
	do
	:: q < P -> if :: T(p, n) != 0 && PLACE(q, n) > T(p, n) -> FREED(q, n) = rev :: else fi; q++
	:: else -> break
	od;
	q = 0; T(p, n) = 0
}

inline leave(p) {
	atomic {
		rev++; n = 0;
		do
		:: n < K -> drop(p, n, q); PLACE(p, n) = 0; REMOVED(p, n) = 0; FREED(p, n) = 0; n++
		:: else -> break
		od;
		n = 0
	}
}

/* alone: of two that share a name and believe that they hold, one has lost a ticket before its turn, and has not asked yet. */
inline alone(p) {
	n = 0;
	do
	:: n < P ->
		assert(n == p || !holds[n] || !SHARE(p, n) ||
			holds[p] == GRANTED && ANY_GONE(p) || holds[n] == GRANTED && ANY_GONE(n));
		n++
	:: else -> break
	od;
	n = 0
}

proctype caller(byte p) {
	byte n, q, i, at;
	bool lost;
	/* any names, at least one */
	atomic {
		n = 0;
		do
		:: n < K -> if :: W(p, n) = true :: skip fi; n++
		:: else -> break
		od;
		n = 0;
		do :: n < K && !W(p, n) -> n++ :: else -> break od;
		if :: n == K -> W(p, 0) = true :: else fi;
		n = 0
	}
queue:
#ifdef TWO_TXNS
	n = 0;
	do
	:: n < K -> atomic { rev++; put(p, n) }; n++
	:: else -> break
	od;
#else
	atomic {
		rev++; n = 0;
		do :: n < K -> put(p, n); n++ :: else -> break od;
		n = 0
	}
#endif
	/* all wait at once; who is first stays so, so the order in which it is seen is nothing to anybody */
	i = 0;
	do
	:: i < K && !W(p, i) -> i++
	:: i < K && W(p, i) ->
		if
		:: FIRST(p, i) -> i++
		:: ANY_GONE(p) -> goto requeue
		fi
	:: else -> break
	od;
	i = 0;
	/* granted, by the last turn */
	atomic {
		holds[p] = GRANTED;
		alone(p)
	}
	/* the check, as of that turn's revision */
	atomic {
		at = FREED(p, 0); i = 0; n = 1;
		do
#ifdef CHECK_OLDER
		:: n < K -> if :: W(p, n) && FREED(p, n) < at -> at = FREED(p, n) :: else fi; n++
#else
		:: n < K -> if :: FREED(p, n) > at -> at = FREED(p, n); i = n :: else fi; n++
#endif
		:: else -> break
		od;
		n = 0; lost = false;
		do
#ifdef CHECK_ONE
		:: n < K -> if :: n == i && GONE(p, n) && REMOVED(p, n) <= at -> lost = true :: else fi; n++
#else
		:: n < K -> if :: GONE(p, n) && REMOVED(p, n) <= at -> lost = true :: else fi; n++
#endif
		:: else -> break
		od;
		n = 0; at = 0; i = 0;
#ifdef NO_CHECK
		lost = false;
#endif
		if
		:: lost -> lost = false
		:: else -> holds[p] = SURE; alone(p)
		fi
	}
	/* lost or released */
	atomic { holds[p] = 0; leave(p) }
	goto done;
requeue:
	i = 0;
#ifndef KEEP
	leave(p);
#endif
	goto queue;
done:
	skip
}

/* An operator removes tickets of callers that wait for one of their turns, or have lost another ticket before. One that has
 * all its turns holds, and is told, as of every lock. */
proctype operator() {
	byte k = 0, p, n, q;
	do
	:: k < REMOVALS ->
		k++;
		atomic {
			select(p : 0 .. P - 1);
			select(n : 0 .. K - 1);
			if
			:: T(p, n) != 0 && !ALL_FIRST(p) -> rev++; drop(p, n, q); REMOVED(p, n) = rev
			:: else
			fi;
			p = 0; n = 0
		}
	:: break
	od
}

init {
	atomic {
		byte p = 0;
		do :: p < P -> run caller(p); p++ :: else -> break od;
		run operator()
	}
}
