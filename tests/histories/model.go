package main

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// lockState is the whole of a lock: who holds, by token, of which class and how much of it; the last token there was, the
// last before those of this class took their turns, and whose tenure it is if that is a Session that lingers.
type lockState struct {
	holders      string // " 12  15 ", sorted: the order in which they came makes no difference
	class        string
	weight       int64
	last, before int64
	tenant       string
}

// step is one operation of the model.
type step struct {
	op     string // "acquire", "proof" or "end"
	token  int64
	class  string
	by     string
	tenant string // a Session that lingers, else empty
}

// lockModel is a lock with tokens and classes. It knows no names of calls: whatever took the lock, waited, lost it or gave
// it back, it held from some moment within its acquisition to some moment within its end, nobody that it excludes did
// meanwhile, and its token was higher than those of all before that it excludes. A token is the place in the queue, so this
// is first come, first served too.
//
// A Session that lingers may hold again with the token that it had, as long as nobody has held since.
var lockModel = porcupine.Model{
	Init: func() any { return lockState{} },
	Step: func(state, input, _ any) (bool, any) {
		s, in := state.(lockState), input.(step)
		me := fmt.Sprintf(" %d ", in.token)
		weight, limit := share(in.class)
		switch in.op {
		case "acquire":
			if s.holders == "" {
				again := in.token == s.last && in.tenant != "" && in.tenant == s.tenant
				if limit == 1 || !same(in.class, s.class) { // the turn of others
					s.before, s.class = s.last, in.class
				}
				if again {
					s.before = in.token - 1
				}
			}
			fits := s.holders == "" || same(in.class, s.class) && (limit == 0 || s.weight+weight <= limit)
			ok := fits && in.token > s.before && !strings.Contains(s.holders, me)
			s.holders, s.weight, s.last, s.tenant = with(s.holders, me), s.weight+weight, max(s.last, in.token), in.tenant
			return ok, s
		case "proof":
			return strings.Contains(s.holders, me), s
		}
		ok := strings.Contains(s.holders, me)
		s.holders, s.weight = strings.Replace(s.holders, me, "", 1), s.weight-weight
		return ok, s
	},
	DescribeOperation: func(input, _ any) string {
		in := input.(step)
		return fmt.Sprintf("%s %d %s by %s", in.op, in.token, in.class, in.by)
	},
}

// with adds a holder to others. All tokens of a run have about the same length, and the order need only be always the same.
func with(holders, me string) string {
	at := 0
	for at < len(holders) && holders[at:] < me {
		at += 1 + strings.IndexByte(holders[at+1:], ' ') + 1
	}
	return holders[:at] + me + holders[at:]
}

// share is how much a hold of a class takes, and of how much; 0 is any number.
func share(class string) (weight, limit int64) {
	switch class {
	case "":
		return 1, 1
	case "read":
		return 1, 0
	}
	_, _ = fmt.Sscanf(class, "%d of %d", &weight, &limit)
	return weight, limit
}

// same reports whether two classes take their turns together.
func same(a, b string) bool {
	_, limit := share(a)
	_, other := share(b)
	return limit == other
}

// excludes reports whether two holds may never be at once.
func (x *hold) excludes(y *hold) bool {
	wx, limit := share(x.class)
	wy, other := share(y.class)
	return limit != other || limit > 0 && wx+wy > limit
}

// operations turns a hold into what the model sees of it.
func (x *hold) operations() []porcupine.Operation {
	op := func(what string, call, ret int64) porcupine.Operation {
		return porcupine.Operation{Input: step{what, x.token, x.class, x.worker, x.tenant}, Call: call, Return: max(call, ret)}
	}
	ops, begun := []porcupine.Operation{op("acquire", x.call, x.ret)}, max(x.endCall, x.ret)
	for _, p := range x.proofs {
		ops, begun = append(ops, op("proof", p[0], p[1])), max(begun, p[1])
	}
	// When it ended may not be known. The earliest moment suits all others best, so there is no need to try later ones than
	// those by which it must have begun and been seen.
	return append(ops, op("end", x.endCall, min(x.endRet, begun)))
}

// segmentLength keeps the checker's memory small, which grows with the square of what it is given at once.
const segmentLength = 500

// segments cuts a history, in the order of the tokens, where that changes nothing: at places where every operation of
// the left part began before any of the right part had ended. Since the model accepts no other order than that of the
// tokens, what is left of such a place can be linearized before what is right of it whenever each part can by itself.
func segments(holds []*hold) [][]porcupine.Operation {
	sort.SliceStable(holds, func(i, j int) bool { return holds[i].token < holds[j].token })
	firstReturn := make([]int64, len(holds)+1) // of everything from here on
	firstReturn[len(holds)] = never
	for i := len(holds) - 1; i >= 0; i-- {
		firstReturn[i] = firstReturn[i+1]
		for _, op := range holds[i].operations() {
			firstReturn[i] = min(firstReturn[i], op.Return)
		}
	}
	var all [][]porcupine.Operation
	var part []porcupine.Operation
	lastCall := int64(0)
	for i, x := range holds {
		for _, op := range x.operations() {
			part, lastCall = append(part, op), max(lastCall, op.Call)
		}
		end := i+1 == len(holds)
		if end || len(part) >= segmentLength && lastCall <= firstReturn[i+1] && x.token < holds[i+1].token {
			all, part = append(all, part), nil
		}
	}
	return all
}

// verdict is what the model says of one name.
type verdict struct {
	result porcupine.CheckResult
	detail string
	ops    []porcupine.Operation // that it objects to
}

func checkLock(holds []*hold) verdict {
	for _, ops := range segments(holds) {
		// Time limits make an answer Unknown, which is no answer: it counts as a failure.
		switch result := porcupine.CheckOperationsTimeout(lockModel, ops, time.Minute); result {
		case porcupine.Ok:
		default:
			return verdict{result, conflict(holds), ops}
		}
	}
	return verdict{result: porcupine.Ok}
}

// conflict looks for the first pair of holds that explains an objection, for people to read.
func conflict(holds []*hold) string {
	var out []string
	for i, x := range holds {
		for _, y := range holds[i+1 : min(len(holds), i+50)] {
			if !x.excludes(y) && x.token != y.token {
				continue
			}
			if x.token == y.token && x.tenant == y.tenant && x.tenant != "" && (x.endCall <= y.ret || y.endCall <= x.ret) {
				continue
			}
			if x.token == y.token {
				out = append(out, fmt.Sprintf("token %d twice: %s and %s", x.token, x.worker, y.worker))
			} else if y.ret < x.endCall {
				out = append(out, fmt.Sprintf("token %d of %s was still held %.3f ms after %s had got it with token %d",
					x.token, x.worker, float64(x.endCall-y.ret)/1e6, y.worker, y.token))
			}
			if len(out) == 5 {
				break
			}
		}
	}
	if len(out) == 0 {
		return "no single pair explains it"
	}
	return strings.Join(out, "\n      ")
}
