/*
 * Several names at once: who puts the tickets of all its names in one transaction waits for nobody who waits for it, and
 * holds them all or none. See docs/model.md for what stands for what.
 *
 * -DTWO_TXNS   the tickets are put one by one
 * -DNO_LOOK    the hold begins when the last name's turn comes, without a look for the other tickets
 * -DKEEP       where one ticket is removed, that one alone queues again
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

byte rev = 0; /* the store's revision */
byte ticket[P * K]; /* create revision of the ticket of a caller for a name, 0 without one */
bool wants[P * K];
bool holds[P];

#define T(p, n) ticket[(p) * K + (n)]
#define W(p, n) wants[(p) * K + (n)]

/* put puts one ticket of the transaction under way, if the name is wanted and has none. */
inline put(p, n) {
	if
	:: W(p, n) && T(p, n) == 0 -> T(p, n) = rev
	:: else
	fi
}

/* first is true where no other ticket of the name is older. */
#define BEFORE(p, q, n) (T(q, n) != 0 && T(q, n) < T(p, n))
#define FIRST(p, n) (!BEFORE(p, 0, n) && !BEFORE(p, 1, n) && (P < 3 || !BEFORE(p, P - 1, n)))
#define GONE(p, n) (W(p, n) && T(p, n) == 0)
#define ANY_GONE(p) (GONE(p, 0) || GONE(p, 1) || (K > 2 && GONE(p, K - 1)))

inline leave(p) {
	atomic { n = 0; do :: n < K -> T(p, n) = 0; n++ :: else -> break od; n = 0 }
}

proctype caller(byte p) {
	byte n, i;
	/* any names, at least one */
	atomic {
		n = 0;
		do
		:: n < K -> if :: W(p, n) = true :: skip fi; n++
		:: else -> break
		od;
		n = 0;
		do :: n < K && !W(p, n) -> n++ :: else -> break od;
		if :: n == K -> W(p, 0) = true :: else fi
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
		do :: n < K -> put(p, n); n++ :: else -> break od
	}
#endif
	/* one name after the other; what was first before is not watched any more */
	i = 0;
	do
	:: i < K && !W(p, i) -> i++
	:: i < K && W(p, i) ->
		if
		:: T(p, i) != 0 && FIRST(p, i) -> i++
		:: ANY_GONE(p) -> goto requeue
		fi
	:: else -> break
	od;
	atomic {
#ifndef NO_LOOK
		if
		:: ANY_GONE(p) -> goto requeue
		:: else
		fi;
#endif
		holds[p] = true;
		n = 0;
		do
		:: n < P ->
			if
			:: n != p && holds[n] -> assert(!((W(p, 0) && W(n, 0)) || (W(p, 1) && W(n, 1)) || (K > 2 && W(p, K - 1) && W(n, K - 1))))
			:: else
			fi;
			n++
		:: else -> break
		od;
		n = 0
	}
	atomic { holds[p] = false; leave(p) }
	goto done;
requeue:
#ifndef KEEP
	leave(p);
#endif
	goto queue;
done:
	skip
}

/* An operator removes tickets of callers that wait. One that holds is told, as of every lock. */
proctype operator() {
	byte k = 0, p, n;
	do
	:: k < REMOVALS ->
		k++;
		atomic {
			select(p : 0 .. P - 1);
			select(n : 0 .. K - 1);
			if
			:: T(p, n) != 0 && !holds[p] -> rev++; T(p, n) = 0
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
