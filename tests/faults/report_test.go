//go:build unix

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

func TestTableShowsAllSidesOfACaseOnOneLine(t *testing.T) {
	got := table([]impl{ours{}, ours{linger: lingerTime, what: "lingering"}, theirs{}}, []row{
		{experiment: "E", name: "c", impl: "concurrency", trials: 2, violations: 1, figure: "f"},
		{experiment: "E", name: "c", impl: "etcdlock", trials: 3, figure: "g"},
		{experiment: "E", name: "c", impl: "etcdlock, lingering", trials: 5, figure: "i"},
		{experiment: "E", name: "apart", impl: "etcdlock", trials: 4, figure: "h", apart: true},
	})
	require.Contains(t, got, "| E | c | 0 of 3 | g | 0 of 5 | i | 1 of 2 | f |\n")
	require.Contains(t, got, "| E | apart | – of 4 | h |")
	require.Equal(t, 4, strings.Count(got, "\n"))
}

func TestOnlyARunThatEndedWritesItsPage(t *testing.T) {
	const before = "what an earlier run has shown"
	tried := func(violations int) func(context.Context, *suite) error {
		return func(_ context.Context, s *suite) error {
			s.add(row{name: "c", impl: "concurrency", trials: 3, violations: violations})
			return nil
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	for name, c := range map[string]struct {
		ctx   context.Context
		runs  []experiment
		ended bool
		says  string
	}{
		"ended":                     {t.Context(), []experiment{{name: "a", run: tried(0)}}, true, ""},
		"ended and found something": {t.Context(), []experiment{{name: "a", run: tried(2)}}, true, ""},
		"an experiment failed": {t.Context(), []experiment{{name: "a", run: tried(0)}, {name: "b", run: func(context.Context, *suite) error {
			return errors.New("no server")
		}}}, false, "b: no server"},
		"interrupted": {ctx, []experiment{{name: "a", run: tried(0)}, {name: "b", run: func(ctx context.Context, s *suite) error {
			interrupt()
			return tried(1)(ctx, s) // a trial that was cut short, and counted as what it then looked like
		}}}, false, "context canceled"},
		"nothing was tried": {t.Context(), []experiment{{name: "a", run: func(context.Context, *suite) error { return nil }}}, false, "nothing was tried"},
	} {
		t.Run(name, func(t *testing.T) {
			page := filepath.Join(t.TempDir(), "faults.md")
			require.NoError(t, os.WriteFile(page, []byte(before), 0o600))
			s := &suite{impls: []impl{theirs{}}}
			err := s.execute(c.ctx, c.runs, page)
			after, readErr := os.ReadFile(page)
			require.NoError(t, readErr)
			if c.ended {
				require.NoError(t, err)
				require.Contains(t, string(after), "of 3")
				return
			}
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, "did not come to its end")
			require.Equal(t, before, string(after))
		})
	}
}

// answers is a keepalive stream whose answers the test gives.
type answers struct {
	grpc.ClientStream
	next pb.LeaseKeepAliveResponse
}

func (a *answers) SendMsg(any) error { return nil }

func (a *answers) RecvMsg(m any) error {
	r := m.(*pb.LeaseKeepAliveResponse)
	r.ID, r.TTL, r.Header = a.next.ID, a.next.TTL, a.next.Header
	return nil
}

func TestJudgeCountsARenewalFromItsReadUnlessTheTermIsOlder(t *testing.T) {
	w := &wire{leases: map[int64]bounds{}}
	a := &answers{}
	s := &renewals{ClientStream: a, w: w}
	renew := func(term uint64) {
		require.NoError(t, s.SendMsg(nil))
		a.next = pb.LeaseKeepAliveResponse{ID: 7, TTL: 10, Header: &pb.ResponseHeader{RaftTerm: term}}
		require.NoError(t, s.RecvMsg(&pb.LeaseKeepAliveResponse{}))
	}
	read := time.Now().Add(-time.Second)
	w.reads = last(w.reads, answered{sent: read, term: 2})
	renew(2)
	require.Equal(t, read.Add(10*time.Second), w.bounds(7).ruled)
	require.True(t, w.bounds(7).naive.After(w.bounds(7).ruled), "the renewal was sent after the read")

	w.reads = last(w.reads, answered{sent: time.Now(), term: 3})
	renew(2)
	require.Equal(t, read.Add(10*time.Second), w.bounds(7).ruled, "a deposed leader's word does not count")

	renew(3) // the read was sent before it, and the two may have been under way together
	require.True(t, w.bounds(7).ruled.After(read.Add(10*time.Second)))
}
