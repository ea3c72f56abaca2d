package rocketmqtest

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Faults is a hook that does harm by lot. Its zero value does none.
//
//	faults := &rocketmqtest.Faults{Seed: seed, DropAnswer: 0.1, Duplicate: 0.05}
//	mq.Control(faults.Hook)
//	t.Cleanup(func() { if t.Failed() { t.Log(faults) } })
//
// What befalls a request depends on the seed and on which one it is, the nth of its kind for its message, not on when it
// comes: the same seed does the same to the same requests in every run, however they interleave. What isn't repeatable
// is the rest: how goroutines and sockets interleave, which is what faults make interesting; so a seed that fails fails
// often, not always. And the decisions are only as stable as the names of the messages, see Name, and the number of times
// that a client tries.
type Faults struct {
	Seed uint64

	// How likely each is to befall a request: from 0 to 1, in sum at most 1.
	Drop, DropResponse, Duplicate, Delay, Reorder, ResetBefore, ResetAfter float64

	// MaxDelay is the longest Delay; each is drawn from 0 to this. Default 50 ms.
	MaxDelay time.Duration

	// Match limits the faults to some requests. Default: sends, END_TRANSACTION and CHECK_TRANSACTION_STATE.
	Match func(Request) bool

	// MessageName names the message that a send is about, alike in every run: not by what is drawn anew in each, as unique keys
	// are. Default: its sharding key, else its KEYS. Messages of one name are told apart by their order.
	MessageName func(Request) string

	mu    sync.Mutex
	messages map[string]string // of messages, by unique key: the end of a transaction tells only that
	seen  map[string]int
	injected   []Fault
}

// Fault is what befell a request.
type Fault struct {
	Request string // its code, group, topic and the message's name
	Nth     int    // of its like, from 1
	Action  Action
}

func (f Fault) String() string { return fmt.Sprintf("%s #%d: %v", f.Request, f.Nth, f.Action) }

// Hook is for [Server.Control].
func (f *Faults) Hook(r Request) Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	request := f.identify(r)
	only := f.Match
	if only == nil {
		only = transactional
	}
	if !only(r) {
		return Pass
	}
	if f.seen == nil {
		f.seen = map[string]int{}
	}
	f.seen[request]++
	nth := f.seen[request]
	a := f.draw(request, nth)
	if a.kind != toPass {
		f.injected = append(f.injected, Fault{request, nth, a})
	}
	return a
}

// identify tells which request it is.
func (f *Faults) identify(r Request) string {
	name, known := f.messages[r.Key]
	if strings.HasPrefix(r.Name, "SEND_") {
		switch {
		case f.MessageName != nil:
			name = f.MessageName(r)
		default:
			name = cmp.Or(r.Properties[propertyShardingKey], r.Properties[propertyKeys])
		}
		if !known && r.Key != "" {
			if f.messages == nil {
				f.messages = map[string]string{}
			}
			f.messages[r.Key] = r.Topic + "/" + name
		}
		name = r.Topic + "/" + name
	} else if !known {
		name = r.Topic
	}
	return fmt.Sprintf("%s %s %s", cmp.Or(r.Name, fmt.Sprint(r.Code)), r.Group, name)
}

func (f *Faults) draw(request string, nth int) Action {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s#%d", request, nth)
	lot := rand.New(rand.NewPCG(f.Seed, h.Sum64()))
	u := lot.Float64()
	for _, c := range []struct {
		chance float64
		action func() Action
	}{
		{f.Drop, Drop}, {f.DropResponse, DropResponse}, {f.Duplicate, Duplicate}, {f.ResetBefore, ResetBefore}, {f.ResetAfter, ResetAfter},
		{f.Delay, func() Action {
			return Delay(1 + time.Duration(lot.Int64N(int64(cmp.Or(f.MaxDelay, 50*time.Millisecond)))))
		}},
		{f.Reorder, func() Action { return Reorder(1 + lot.IntN(3)) }},
	} {
		if u -= c.chance; u < 0 {
			return c.action()
		}
	}
	return Pass
}

func transactional(r Request) bool {
	return strings.HasPrefix(r.Name, "SEND_") || r.Name == "END_TRANSACTION" || r.Name == "CHECK_TRANSACTION_STATE"
}

// Injected lists what was done, sorted so that two runs compare.
func (f *Faults) Injected() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(slices.Values(f.injected), func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Request, b.Request), cmp.Compare(a.Nth, b.Nth))
	})
}

// String tells the seed and the faults.
func (f *Faults) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "faults of seed %d:\n", f.Seed)
	for _, fault := range f.Injected() {
		fmt.Fprintf(&b, "  %v\n", fault)
	}
	return b.String()
}
