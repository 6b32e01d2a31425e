/*
 * How long a holder may believe: one lease, its renewals, leaders that change,
 * and a holder whose clock, process and network may all be slow.
 *
 * Time is discrete and relative: nothing counts from a zero, every variable
 * counts down to (or up from) an event. So the run has no end and no horizon,
 * and still finitely many states.
 *
 * The property: once etcd removes the lease, and so may give the key to another,
 * a holder that asks "do I still hold?" gets no for an answer.
 *
 * A renewal is a read and a keepalive, each sent when its sender likes, and again
 * when it likes: an answer counts with any answer to the other. Of many copies
 * under way the model follows those whose answers will be looked at, READS and
 * ACKS of them; what the others do is to prolong the lease, which hurts nobody.
 *
 * With -DGIVEN the lease was granted to somebody else, and the holder begins with
 * nothing: the first renewal of its own makes it believe, and nothing else does.
 *
 * The good model is this file without -D, or with -DGIVEN alone. Each -D below breaks one rule, and
 * must make the property fail; ./check runs them all. docs/model.md says which
 * function of the code each part stands for.
 */

#ifndef TTL
#define TTL 12          /* ticks; the margin is one of them (in the code, of 20), and the clock may lose as much */
#endif
#ifndef READS
#define READS 1         /* of each request, how many copies may count */
#define ACKS 1
#endif
#ifndef TERMS
#define TERMS 3         /* leaders there may be, one after another */
#endif
#ifdef NO_MARGIN        /* broken: believe for all of the TTL */
#define MARGIN 0
#else
#define MARGIN 1
#endif

/* --- etcd ------------------------------------------------------------- */
byte term = 1;          /* of the leader that a majority follows */
byte expiry = TTL;      /* ticks until that leader finds the lease expired */
bool proposed;          /* a revocation is on its way through raft */
bool revoked;           /* applied: the key is gone, another may have it */

/* --- the holder ------------------------------------------------------- */
#ifdef GIVEN            /* the lease was granted to somebody else, at any time: nothing is known of it yet */
byte left;
byte known;             /* ticks that it was told are left, less the margin: the bound for its first renewal */
bool begun;             /* a renewal of its own has been acknowledged */
#define BEFORE_THE_FIRST (!begun)
#else
byte left = TTL - MARGIN; /* ticks until its bound, by its own clock */
#define BEFORE_THE_FIRST false
#endif
bool timer_fired;       /* only looked at in BELIEF_BY_TIMER */

#ifdef BELIEF_BY_TIMER  /* broken: a timer says that it is over, if it gets to run */
#define BELIEVES (!timer_fired)
#else                   /* asking consults the clock */
#define BELIEVES (left > 0)
#endif

/* A request is nowhere, under way or answered. Of one kind, the older stands first. */
#define NONE 0
#define SENT 1
#define ANSWERED 2
byte read[READS], ack[ACKS];
byte read_age[READS], ack_age[ACKS];   /* ticks since it was sent, by the holder's clock */
byte read_term[READS], ack_term[ACKS]; /* raft_term in the header of the answer */
#define UNHEARD 0       /* the term of a leader from before the grant: it says that there is no such lease */

byte steady;            /* ticks until the holder's clock may lose one again */
byte i, j;              /* for loops inside one step; always 0 between steps */

inline forget_read(n) {
	read[n] = NONE; read_age[n] = 0; read_term[n] = 0;
#if READS > 1
	if
	:: n == 0 ->
		read[0] = read[1]; read_age[0] = read_age[1]; read_term[0] = read_term[1];
		read[1] = NONE; read_age[1] = 0; read_term[1] = 0
	:: else
	fi
#endif
}

inline forget_ack(n) {
	ack[n] = NONE; ack_age[n] = 0; ack_term[n] = 0;
#if ACKS > 1
	if
	:: n == 0 ->
		ack[0] = ack[1]; ack_age[0] = ack_age[1]; ack_term[0] = ack_term[1];
		ack[1] = NONE; ack_age[1] = 0; ack_term[1] = 0
	:: else
	fi
#endif
}

/* What was sent no later than the S that the bound now counts from can extend nothing. */
#define STALE(age) (age + left >= TTL - MARGIN)

inline forget_stale() {
	if
	:: read[0] != NONE && STALE(read_age[0]) -> forget_read(0)
	:: else
	fi;
	if
	:: ack[0] != NONE && STALE(ack_age[0]) -> forget_ack(0)
	:: else
	fi
#if READS > 1
	;if
	:: read[0] != NONE && STALE(read_age[0]) -> forget_read(0)
	:: else
	fi
#endif
#if ACKS > 1
	;if
	:: ack[0] != NONE && STALE(ack_age[0]) -> forget_ack(0)
	:: else
	fi
#endif
}

inline grow_older() {
	for (i : 0 .. READS-1) {
		if
		:: read[i] != NONE -> read_age[i]++
		:: else
		fi
	}
	for (i : 0 .. ACKS-1) {
		if
		:: ack[i] != NONE -> ack_age[i]++
		:: else
		fi
	}
	i = 0
}

inline holder_tick() {
	if
	:: left > 0 -> left--
	:: else
	fi;
#ifdef GIVEN
	if
	:: known > 0 -> known--
	:: else
	fi;
#endif
	grow_older();
	forget_stale();
#if !defined(BELIEF_BY_TIMER) && !defined(LATE_ACK)
	/* What is over is over: whatever is under way then is of no use. */
	if
	:: left == 0 && !BEFORE_THE_FIRST ->
		for (i : 0 .. READS-1) { read[i] = NONE; read_age[i] = 0; read_term[i] = 0 }
		for (i : 0 .. ACKS-1) { ack[i] = NONE; ack_age[i] = 0; ack_term[i] = 0 }
		i = 0
	:: else
	fi
#endif
}

/* A tick passes for everybody: etcd, and the holder's clock, whether or not its
 * process is stopped or its machine asleep. The holder's clock may be slow by
 * one tick in TTL, which is what the margin is for. */
active proctype Clock() {
end:	do
	:: d_step { !revoked ->
		if
		:: expiry > 0 -> expiry--
		:: else
		fi;
		if
		:: steady > 0 -> steady--
		:: else
		fi;
		holder_tick()
	   }
	:: d_step { !revoked && steady == 0 ->	/* the holder's clock loses this one */
		if
		:: expiry > 0 -> expiry--
		:: else
		fi;
#ifndef CLOCK_TWICE_AS_BAD
		steady = TTL
#else					/* outside the assumption */
		steady = TTL / 2
#endif
	   }
#ifdef SUSPEND_NOT_COUNTED	/* broken: CLOCK_MONOTONIC, which sleeps with the machine */
	:: d_step { !revoked && expiry > 0 -> expiry-- }
#endif
	od
}

active proctype Etcd() {
end:	do
	/* A linearizable read is confirmed by a majority, so it is answered under
	 * the term that rules at some moment after it was sent. */
	:: d_step { read[0] == SENT -> read[0] = ANSWERED; read_term[0] = term }
#ifdef READ_TERM_STALE		/* outside the assumption: the header tells an older term */
	:: d_step { read[0] == SENT && term > 1 -> read[0] = ANSWERED; read_term[0] = term - 1 }
#endif
	/* The leader renews. It does so even when it has already proposed to revoke:
	 * the lessor does not test again, and the revocation still applies. */
	:: d_step { ack[0] == SENT && !revoked -> ack[0] = ANSWERED; ack_term[0] = term; expiry = TTL }
	/* A leader that was deposed while it was frozen answers as if it still led.
	 * Its answer prolongs nothing. */
	:: d_step { ack[0] == SENT && term > 1 -> ack[0] = ANSWERED; ack_term[0] = term - 1 }
	:: d_step { ack[0] == SENT && term > 2 -> ack[0] = ANSWERED; ack_term[0] = term - 2 }
	/* So does one from before the grant, which says that there is no such lease. */
	:: d_step { ack[0] == SENT -> ack[0] = ANSWERED; ack_term[0] = UNHEARD }
#if READS > 1
	:: d_step { read[1] == SENT -> read[1] = ANSWERED; read_term[1] = term }
#endif
#if ACKS > 1
	:: d_step { ack[1] == SENT && !revoked -> ack[1] = ANSWERED; ack_term[1] = term; expiry = TTL }
	:: d_step { ack[1] == SENT && term > 1 -> ack[1] = ANSWERED; ack_term[1] = term - 1 }
	:: d_step { ack[1] == SENT && term > 2 -> ack[1] = ANSWERED; ack_term[1] = term - 2 }
	:: d_step { ack[1] == SENT -> ack[1] = ANSWERED; ack_term[1] = UNHEARD }
#endif
	/* A new leader gives every lease its full TTL, from its own election on. */
	:: d_step { term < TERMS && !revoked ->
		term++; expiry = TTL }
	/* Expired, then revoked: each as late as it likes. */
	:: d_step { expiry == 0 && !proposed -> proposed = true }
	:: d_step { proposed && !revoked -> revoked = true }
#ifdef OLD_LEADER_REVOKES	/* outside the assumption: a thawed leader's revocation gets through */
	:: d_step { term > 1 && !proposed -> proposed = true }
#endif
	od
}

/* How long ago S was, for a read and an acknowledgement. */
#ifdef FROM_RECEIPT		/* broken: the answer's arrival counts */
#define AGE(r, a) 0
#elif defined(S_AFTER_READ)	/* broken: the keepalive's sending counts, also when the read was sent before */
#define AGE(r, a) ack_age[a]
#elif defined(S_AFTER_ACK)	/* broken: the read's sending counts, also when the keepalive was sent before */
#define AGE(r, a) read_age[r]
#elif defined(LATER_S)		/* broken: of a mixed pair, the later sending counts */
#define AGE(r, a) (read_age[r] < ack_age[a] -> read_age[r] : ack_age[a])
#else				/* S is the moment before the earlier of the two was sent */
#define AGE(r, a) (read_age[r] > ack_age[a] -> read_age[r] : ack_age[a])
#endif

#ifdef NO_TERM_RULE		/* broken: whoever answers counts */
#define TERMS_FIT(r, a) true
#else
#define TERMS_FIT(r, a) (ack_term[a] >= read_term[r])
#endif

#if defined(GIVEN) && defined(NOT_ASKED) /* broken: no bound is in force for the first renewal of a given lease */
#define IN_FORCE (left > 0 || BEFORE_THE_FIRST)
#elif defined(GIVEN)		/* it is the end of the time that is left, which etcd was asked for */
#define IN_FORCE (BEFORE_THE_FIRST -> known > 0 : left > 0)
#else
#define IN_FORCE (left > 0)
#endif
#ifdef LATE_ACK			/* broken: an answer after the bound revives the lease */
#define IN_TIME true
#else
#define IN_TIME IN_FORCE
#endif

#ifdef REACH_RENEWED		/* not a bug: shows that renewals under a new leader do count, the keepalive sent first */
#define RENEWED(r, a) assert(!(ack_term[a] == TERMS && read_term[r] == TERMS && read_age[r] < ack_age[a]));
#else
#define RENEWED(r, a)
#endif

/* Both answers are here. They are judged now, or later, or never. */
inline judge(r, a) {
	if
	:: ack_term[a] == UNHEARD ->
#ifdef NEVER_HEARD		/* broken: anybody's word that there is no such lease counts */
		assert(revoked);
#else
		assert(ack_term[a] < read_term[r] || revoked);
#endif
		forget_ack(a)
	:: else ->
		if
		:: TERMS_FIT(r, a) && IN_TIME && AGE(r, a) < TTL - MARGIN ->
			if	/* the greatest deadline counts */
			:: TTL - MARGIN - AGE(r, a) > left -> left = TTL - MARGIN - AGE(r, a)
			:: else
			fi;
#ifdef GIVEN
			begun = true; known = 0;
#endif
			RENEWED(r, a)
			forget_stale()
		:: else
		fi
	fi
}

active proctype Holder() {
end:	do
	/* A read is sent, or a keepalive, or both: no time passes in between if the
	 * clock does not tick. */
	:: d_step { (left > 0 || BEFORE_THE_FIRST) && read[0] == NONE -> read[0] = SENT }
	:: d_step { (left > 0 || BEFORE_THE_FIRST) && ack[0] == NONE -> ack[0] = SENT }
#ifdef GIVEN			/* how much is left? The answer counts from the sending: here the two are one moment */
	:: d_step { BEFORE_THE_FIRST && known == 0 && expiry > MARGIN && !proposed -> known = expiry - MARGIN }
#endif
#ifdef TRUSTED_AS_FOUND		/* broken: a given lease is relied on as if it had been granted now */
	:: d_step { BEFORE_THE_FIRST -> left = TTL - MARGIN; begun = true }
#endif
#ifdef TRUSTED_IF_THERE		/* broken: a read shows that it is there, and that is taken for a renewal */
	:: d_step { BEFORE_THE_FIRST && read[0] == ANSWERED && !revoked -> left = TTL - MARGIN - read_age[0]; begun = true }
#endif
#if READS > 1
	:: d_step { (left > 0 || BEFORE_THE_FIRST) && read[0] != NONE && read[1] == NONE -> read[1] = SENT }
#endif
#if ACKS > 1
	:: d_step { (left > 0 || BEFORE_THE_FIRST) && ack[0] != NONE && ack[1] == NONE -> ack[1] = SENT }
#endif
#ifdef NO_READ			/* broken: a keepalive alone, S when it is sent */
	:: d_step { ack[0] == ANSWERED && ack_term[0] != UNHEARD && left > 0 && ack_age[0] < TTL - MARGIN ->
		left = TTL - MARGIN - ack_age[0]; forget_ack(0) }
#endif
	:: d_step { read[0] == ANSWERED && ack[0] == ANSWERED -> judge(0, 0) }
#if READS > 1
	:: d_step { read[1] == ANSWERED && ack[0] == ANSWERED -> judge(1, 0) }
#endif
#if ACKS > 1
	:: d_step { read[0] == ANSWERED && ack[1] == ANSWERED -> judge(0, 1) }
#endif
#if READS > 1 && ACKS > 1
	:: d_step { read[1] == ANSWERED && ack[1] == ANSWERED -> judge(1, 1) }
#endif
	/* A request is lost, or given up, or its answer is dropped for a later one. */
	:: d_step { read[0] != NONE -> forget_read(0) }
	:: d_step { ack[0] != NONE -> forget_ack(0) }
#if READS > 1
	:: d_step { read[1] != NONE -> forget_read(1) }
#endif
#if ACKS > 1
	:: d_step { ack[1] != NONE -> forget_ack(1) }
#endif
#ifdef BELIEF_BY_TIMER
	:: d_step { left == 0 && !timer_fired -> timer_fired = true }
#endif
	od
}

/* The holder asks. It may ask at any moment, so at every moment it must be right. */
active proctype Asker() {
end:	d_step { revoked && BELIEVES -> assert(false) }
}
