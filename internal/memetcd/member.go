package memetcd

// This file has members that lag behind the others, or stand still.

// Freeze stops a member: requests to it arrive at its Thaw, and its watches say nothing.
func (s *Server) Freeze(i int) { s.slow(i, func(m *member) { m.frozen = true }) }

// Lag lets a member fall behind: from now on it knows nothing new, so that serializable reads and watches get the past
// from it, and everything else waits, having taken effect, until Thaw.
func (s *Server) Lag(i int) { s.slow(i, func(m *member) { m.lagging = true }) }

func (s *Server) slow(i int, change func(*member)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[i]
	if !m.frozen && !m.lagging {
		m.applied, m.awake = s.rev, make(chan struct{})
	}
	change(m)
}

// Thaw ends Freeze and Lag.
func (s *Server) Thaw(member int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.members[member]
	if !m.frozen && !m.lagging {
		return
	}
	m.frozen, m.lagging = false, false
	close(m.awake)
	for w := range s.streams {
		w.pumpLocked()
	}
}

// appliedLocked is the revision that a member has got to.
func (s *Server) appliedLocked(member int) int64 {
	if m := s.members[member]; m.frozen || m.lagging {
		return m.applied
	}
	return s.rev
}

// awake waits while a member is frozen.
func (s *Server) awake(i int) { s.awaitMember(i, func(m *member) bool { return m.frozen }) }

// caughtUp waits while a member lags.
func (s *Server) caughtUp(i int) {
	s.awaitMember(i, func(m *member) bool { return m.frozen || m.lagging })
}

func (s *Server) awaitMember(i int, slow func(*member) bool) {
	for {
		s.mu.Lock()
		m := s.members[i]
		awake, wait := m.awake, slow(m)
		s.mu.Unlock()
		if !wait {
			return
		}
		select {
		case <-awake:
		case <-s.over:
			return
		}
	}
}

// Elect makes another leader: the term goes up, and every lease gets its full time again.
func (s *Server) Elect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term++
	for _, l := range s.leases {
		s.renewLocked(l)
	}
}
