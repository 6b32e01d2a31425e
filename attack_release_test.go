package etcdlock

import (
	"errors"
	"fmt"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// This file judges what Unlock, Resign and Verify say.

// judgeRelease compares what a release has said.
func (w *world) judgeRelease(b *belief, what string, err error) {
	closed := w.closed(b.slot)
	w.mu.Lock()
	defer w.mu.Unlock()
	removed := w.fateLocked(b.id()).removed
	// The late release of a Session that had the ticket before is another's: see Mutex.Resume.
	ours := removed != nil && (removed.Cause == memetcd.ByRequest && removed.Client == b.client.id || removed.Cause == memetcd.ByRevoke)
	lingers := b.mutex && b.slot.linger > 0
	// Something happened to its deletion, or it was carried in a request that nobody waited for to the end, or the answer was
	// late because the machine slept.
	unsure := !w.unclean[b.key].Before(b.ended) || !w.leftEarly[b.slot.id].Before(b.ended) || !w.asleep.Before(b.ended)
	kv := w.etcd.Key(b.key) // the log may be late with what the store has done
	there := kv != nil && kv.CreateRevision == b.token
	text := fmt.Sprintf("%s of %v (alive: %v): %v; removed: %v", what, b, b.live, err, removed)
	if b.set != nil && errors.Is(err, ErrLost) { // of which one name was
		for _, o := range *b.set {
			if r := w.fateLocked(o.id()).removed; r != nil && r.Cause != memetcd.ByRequest && r.Cause != memetcd.ByRevoke {
				return
			}
			unsure = unsure || !w.unclean[o.key].Before(o.ended)
		}
	}
	switch {
	case err == nil && !b.live:
		w.violateLocked("released and was lost", "%s", text)
	case err == nil && !lingers && there && w.stays[b.id()] == nil:
		w.violateLocked("released and is there", "%s", text)
	case err == nil && !lingers && removed != nil && !ours && !unsure && w.stays[b.id()] == nil:
		w.violateLocked("released and others had removed it", "%s", text)
	case errors.Is(err, ErrLost) && b.live && ours && removed.Cause == memetcd.ByRevoke:
		w.violateLocked("lost by Close", "%s", text)
	case errors.Is(err, ErrLost) && b.live && ours && unsure:
		w.violateLocked("lost by a repetition", "%s", text)
	case errors.Is(err, ErrLost) && b.live && (removed == nil || ours) && !lingers && w.asleep.Before(b.ended):
		w.violateLocked("lost and was not", "%s", text)
	case errors.Is(err, ErrNotHeld), errors.Is(err, ErrNotLeader):
		w.violateLocked("not held and was", "%s", text)
	case errors.Is(err, ErrClosed) && !closed:
		w.violateLocked("closed and was not", "%s", text)
	}
}

// judgeVerify compares what Verify has said.
func (w *world) judgeVerify(b *belief, c *call, err error) {
	over := b.ctx.Err() != nil
	w.mu.Lock()
	defer w.mu.Unlock()
	removed := w.fateLocked(b.id()).removed
	switch {
	case err == nil && removed != nil && removed.At.Before(c.began):
		w.violateLocked("verified and was gone", "%v: removed %v", b, removed)
	case errors.Is(err, ErrLost) && !over:
		w.violateLocked("verified as lost and goes on", "%v", b)
	}
}
