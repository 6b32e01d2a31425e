package queue

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/task"
)

func TestATicketIdlesOnlyIfNobodyWantsItAndItIsThere(t *testing.T) {
	for name, spoil := range map[string]func(t *Ticket, o *others){
		"":                                     nil,
		"the mirror is not sure":               func(_ *Ticket, o *others) { o.sure = false },
		"another Session waits":                func(_ *Ticket, o *others) { o.count = 1 },
		"its own Session waits":                func(t *Ticket, _ *others) { t.group.refs++ },
		"its check is due: it may be phantom":  func(t *Ticket, _ *others) { t.checking = time.NewTimer(time.Hour) },
		"another idles: one of the two is one": func(t *Ticket, _ *others) { t.group.idle = new(Ticket) },
		"it was removed":                       func(t *Ticket, _ *others) { t.state = gone },
	} {
		q := &Tickets{tasks: task.New(), log: slog.New(slog.DiscardHandler), linger: time.Hour}
		o := &others{sure: true, idling: time.NewTimer(time.Hour)}
		held := &Ticket{group: &group{q: q, refs: 1, others: o}, kind: &Kind{Class: Exclusive, Handoff: true}, state: held}
		if spoil != nil {
			spoil(held, o)
		}
		require.Equal(t, spoil == nil, held.lingers(), name)
	}
}
