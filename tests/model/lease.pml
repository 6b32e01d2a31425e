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
 * The good model is this file without -D. Each -D below breaks one rule, and
 * must make the property fail; ./check runs them all. docs/model.md says which
 * function of the code each part stands for.
 */

#ifndef TTL
#define TTL 20          /* ticks; the margin is one of them: TTL/20 */
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
byte left = TTL - MARGIN; /* ticks until its bound, by its own clock */
byte age;               /* ticks since S, the start of the present attempt */
bool timer_fired;       /* only looked at in BELIEF_BY_TIMER */

#ifdef BELIEF_BY_TIMER  /* broken: a timer says that it is over, if it gets to run */
#define BELIEVES (!timer_fired)
#else                   /* asking consults the clock */
#define BELIEVES (left > 0)
#endif

/* One attempt at a time. An attempt given up is ignored for ever after, because
 * each has its own stream; its requests can only prolong the lease. */
mtype = { idle, read_sent, read_answered, renew_sent, renew_acked };
mtype attempt = idle;
byte read_term, ack_term; /* raft_term in the headers of the two answers */

byte steady;            /* ticks until the holder's clock may lose one again */

inline holder_tick() {
	if
	:: left > 0 -> left--
	:: else
	fi;
	if
	:: attempt != idle && age < TTL -> age++
	:: else
	fi;
#if !defined(BELIEF_BY_TIMER) && !defined(LATE_ACK)
	/* What is over is over: an attempt under way then is of no use. */
	if
	:: left == 0 -> attempt = idle; age = 0; read_term = 0; ack_term = 0
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
	:: d_step { attempt == read_sent ->
		attempt = read_answered; read_term = term }
#ifdef READ_TERM_STALE		/* outside the assumption: the header tells an older term */
	:: d_step { attempt == read_sent && term > 1 ->
		attempt = read_answered; read_term = term - 1 }
#endif
	/* The leader renews. It does so even when it has already proposed to revoke:
	 * the lessor does not test again, and the revocation still applies. */
	:: d_step { attempt == renew_sent && !revoked ->
		attempt = renew_acked; ack_term = term; expiry = TTL }
	/* A leader that was deposed while it was frozen answers as if it still led.
	 * Its answer prolongs nothing. */
	:: d_step { attempt == renew_sent && term > 1 ->
		attempt = renew_acked; ack_term = term - 1 }
	:: d_step { attempt == renew_sent && term > 2 ->
		attempt = renew_acked; ack_term = term - 2 }
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

active proctype Holder() {
end:	do
	/* S is now, before the read is sent. */
#ifdef NO_READ			/* broken: a keepalive alone, S when it is sent */
	:: d_step { attempt == idle && left > 0 ->
		attempt = renew_sent; age = 0; read_term = 0 }
#else
	:: d_step { attempt == idle && left > 0 ->
		attempt = read_sent; age = 0 }
#endif
	:: d_step { attempt == read_answered ->
#ifdef FROM_KEEPALIVE		/* broken: S is when the keepalive was sent */
		age = 0;
#endif
		attempt = renew_sent }
	/* An answer arrives, as late as it likes, and is judged. */
	:: d_step { attempt == renew_acked ->
#ifdef FROM_RECEIPT		/* broken: the answer's arrival counts */
		age = 0;
#endif
		if
#ifdef NO_TERM_RULE		/* broken: whoever answers counts */
		:: left > 0 && age < TTL - MARGIN
#else
#ifdef LATE_ACK			/* broken: an answer after the bound revives the lease */
		:: ack_term >= read_term && age < TTL - MARGIN
#else
		:: ack_term >= read_term && left > 0 && age < TTL - MARGIN
#endif
#endif
			-> left = TTL - MARGIN - age;
#ifdef REACH_RENEWED		/* not a bug: shows that renewals under a new leader do count */
			   assert(!(ack_term == TERMS && read_term == TERMS && age > 0))
#endif
		:: else
		fi;
		attempt = idle; age = 0; read_term = 0; ack_term = 0 }
	/* An attempt runs into its time limit, or its connection breaks. */
	:: d_step { attempt != idle ->
		attempt = idle; age = 0; read_term = 0; ack_term = 0 }
#ifdef BELIEF_BY_TIMER
	:: d_step { left == 0 && !timer_fired -> timer_fired = true }
#endif
	od
}

/* The holder asks. It may ask at any moment, so at every moment it must be right. */
active proctype Asker() {
end:	d_step { revoked && BELIEVES -> assert(false) }
}
