package main

import "context"

// A row is one part of the table.
type row struct {
	name  string
	run   func(ctx context.Context, e *env, r *report) error
	where func(e *env) bool
}

func anywhere(*env) bool  { return true }
func idle(e *env) bool    { return !e.busy }
func oneIdle(e *env) bool { return e.members == 1 && !e.busy }

// rows stand in the order of the table. What is counted, or is mostly waiting,
// needs no more than one quiet member.
var rows = []row{
	{"uncontended", uncontended, anywhere},
	{"trylock", tryLock, idle},
	{"readers", readers, idle},
	{"sets", sets, idle},
	{"handoff", handoff, anywhere},
	{"handoff1000", handoff1000, idle},
	{"split", split, oneIdle},
	{"turns", turns, anywhere},
	{"process", process, anywhere},
	{"flat", flat, idle},
	{"history", history, oneIdle},
	{"linger", linger, idle},
	{"trips", trips, oneIdle},
	{"small", small, oneIdle},
	{"takeover", takeover, oneIdle},
	{"many", many, oneIdle},
	{"permits", permits, oneIdle},
}
