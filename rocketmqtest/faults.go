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

// Faults injects random faults into requests, reproducible by Seed. The zero value injects none. It is safe for concurrent
// use once the hook is added; its fields must not change then.
//
//	faults := &rocketmqtest.Faults{Seed: seed, DropResponse: 0.1, Duplicate: 0.05}
//	mq.Control(faults.Hook)
//	t.Cleanup(func() { if t.Failed() { t.Log(faults) } })
//
// The fault of a request depends on the seed and on its identity, which is its code, group, topic, message and number of
// repetition. It does not depend on when the request arrives. So one seed injects the same faults into the same requests in
// every run, whatever their order. The interleaving of goroutines and sockets is not reproducible: a seed that fails, fails
// often but not always. The faults are only as stable as the names of the messages, see MessageName, and the number of
// attempts of the client.
type Faults struct {
	// Seed selects the faults.
	Seed uint64

	// Drop, DropResponse, Duplicate, Delay, Reorder, ResetBefore and ResetAfter are the probabilities of the actions of these
	// names, each from 0 to 1. Their sum is at most 1.
	Drop, DropResponse, Duplicate, Delay, Reorder, ResetBefore, ResetAfter float64

	// MaxDelay is the maximum of Delay. Each delay is a random part of it.
	// Defaults to 50 ms.
	MaxDelay time.Duration

	// Match selects the requests that may get a fault.
	// Defaults to sends, END_TRANSACTION and CHECK_TRANSACTION_STATE.
	Match func(Request) bool

	// MessageName returns a name for the message of a send that is the same in every run; unique keys are not. Messages with
	// the same name are distinguished by their order.
	// Defaults to the message's sharding key, or without one to its KEYS.
	MessageName func(Request) string

	mu       sync.Mutex
	messages map[string]string // names of messages by unique key, which is all that END_TRANSACTION has
	seen     map[string]int
	injected []Fault
}

// Fault is a fault that was injected into a request.
type Fault struct {
	// Request identifies the request: its code, group, topic and the name of its message.
	Request string
	// Nth is which of the requests with this identity it was, from 1.
	Nth int
	// Action is what happened to it.
	Action Action
}

// String returns the fault in one line.
func (f Fault) String() string { return fmt.Sprintf("%s #%d: %v", f.Request, f.Nth, f.Action) }

// Hook decides about a request. Pass it to [Server.Control].
func (f *Faults) Hook(r Request) Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	request := f.identify(r)
	match := f.Match
	if match == nil {
		match = transactional
	}
	if !match(r) {
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

// identify returns the identity of a request: code, group, topic and the name of its message.
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

// draw returns the random action for the nth request of an identity.
func (f *Faults) draw(request string, nth int) Action {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s#%d", request, nth)
	random := rand.New(rand.NewPCG(f.Seed, h.Sum64()))
	u := random.Float64()
	for _, c := range []struct {
		probability float64
		action      func() Action
	}{
		{f.Drop, Drop}, {f.DropResponse, DropResponse}, {f.Duplicate, Duplicate}, {f.ResetBefore, ResetBefore}, {f.ResetAfter, ResetAfter},
		{f.Delay, func() Action {
			return Delay(1 + time.Duration(random.Int64N(int64(cmp.Or(f.MaxDelay, 50*time.Millisecond)))))
		}},
		{f.Reorder, func() Action { return Reorder(1 + random.IntN(3)) }},
	} {
		if u -= c.probability; u < 0 {
			return c.action()
		}
	}
	return Pass
}

// transactional is the default of Faults.Match.
func transactional(r Request) bool {
	return strings.HasPrefix(r.Name, "SEND_") || r.Name == "END_TRANSACTION" || r.Name == "CHECK_TRANSACTION_STATE"
}

// Injected returns the faults that were injected so far, sorted by request so that two runs can be compared.
func (f *Faults) Injected() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.SortedFunc(slices.Values(f.injected), func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Request, b.Request), cmp.Compare(a.Nth, b.Nth))
	})
}

// String returns the seed and the injected faults, for the log of a test that failed.
func (f *Faults) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "faults of seed %d:\n", f.Seed)
	for _, fault := range f.Injected() {
		fmt.Fprintf(&b, "  %v\n", fault)
	}
	return b.String()
}
