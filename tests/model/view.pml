/*
 * What a waiter concludes of two that are ahead of it, near and far, where there is nobody
 * else. It is told of each deletion by a watch of its own, in any order and as late as they
 * like. The far one holds, and releases; the near one holds after it, or gives up; and an
 * operator may delete everything in one revision, the waiter's own ticket with it.
 *
 * The properties: the waiter is let in when both have gone, and not before; and a hold that
 * its check leaves alone had its ticket when the last of the two went.
 *
 * The model is this file without -D. The others each break one rule.
 */
#define NEAR 0
#define FAR 1
#define OWN 2
byte gone[3];		/* the revision of each deletion, 0: it is there */
byte rev = 1;
bool seen[2];		/* the watch has told */
byte newest;		/* what the check is as of */
bool lost;

active proctype Others() {
	do
	:: d_step { gone[FAR] == 0 -> rev++; gone[FAR] = rev }
	:: d_step { gone[NEAR] == 0 -> rev++; gone[NEAR] = rev }
	:: d_step { gone[OWN] == 0 ->	/* the whole prefix */
		rev++;
		if :: gone[FAR] == 0 -> gone[FAR] = rev :: else fi;
		if :: gone[NEAR] == 0 -> gone[NEAR] = rev :: else fi;
		gone[OWN] = rev }
	:: gone[FAR] != 0 && gone[NEAR] != 0 -> break
	od
}

inline told(x) {
	seen[x] = true;
	if
#ifdef CHECK_AS_OF_LAST		/* broken: what was told last, or what the near one's was */
	:: true -> newest = gone[x]
#else
	:: gone[x] > newest -> newest = gone[x]
	:: else
#endif
	fi
}

active proctype Waiter() {
	do
	:: d_step { gone[NEAR] != 0 && !seen[NEAR] -> told(NEAR) }
	:: d_step { gone[FAR] != 0 && !seen[FAR] -> told(FAR) }
#ifdef NEAR_LETS_IN		/* broken: it may only have given up */
	:: seen[NEAR] -> break
#else
	:: seen[NEAR] && seen[FAR] -> break
#endif
	od;
	assert(gone[NEAR] != 0 && gone[FAR] != 0);
	/* It holds. The check: was the own ticket there as of then? If it went later, that is
	 * the end of a hold like any other. */
	lost = (gone[OWN] != 0 && gone[OWN] <= newest);
	assert(lost || gone[OWN] == 0 || (gone[OWN] > gone[NEAR] && gone[OWN] > gone[FAR]))
}
