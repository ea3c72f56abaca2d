package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// behavior is what a transaction does after it has published, and how it ends.
type behavior string

const (
	commits              behavior = "commits"
	fails                behavior = "fails"
	panics               behavior = "panics"
	failsInCommit        behavior = "fails in COMMIT"
	savepoint            behavior = "rolls a savepoint back, commits"
	joined               behavior = "is joined, commits"
	joinedRaw            behavior = "is joined, its owner commits"
	heldOpen             behavior = "is held open, commits"
	hangsInCommit        behavior = "hangs in COMMIT, whose response is lost"
	hangsInCommitAborted behavior = "hangs in COMMIT until its backend is terminated"
)

// transaction is one transaction of a publisher.
type transaction struct {
	Name     string
	By       int // which publisher
	Behavior behavior
	Events   []testEvent
	Lock     int64 // advisory lock of Postgres that it waits for where it is held open or hangs
	Raw      bool  // a joined transaction is committed by the pgx.Tx, not by the rocketflow.Tx
}

// schedule is the sequence of transactions and faults that a seed determines.
type schedule struct {
	seed          uint64
	steps         []step
	requestFaults *rocketmqtest.Faults // nil: none
	kinds         map[faultKind]bool   // the additional kinds of faults that it has
}

// step is one action of a schedule. Steps run one after the other; transactions that a step starts may outlast it.
type step struct {
	what string
	do   func(*execution) error
}

// injection is a value of the flag -inject.
type injection string

const (
	injectAll        injection = "all"
	injectNone       injection = "none"
	injectMarkerLoss injection = "markers" // the broker, when all is quiet, forgets which transactions have ended; no other fault
)

const publishers, consumers = 3, 2

// generate returns the schedule of a seed, the same one each time.
func generate(seed uint64, h injection, real bool, faults []faultKind) *schedule {
	s := &schedule{seed: seed}
	d := &generator{schedule: s, rng: rand.New(rand.NewPCG(seed, 1)), injection: h, real: real, kindRNG: rand.New(rand.NewPCG(seed, 3))}
	if h == injectAll && !real {
		d.addRequestFaults()
	}
	if h == injectAll {
		d.chooseKinds(faults)
	}
	d.beginFaults()
	for i := range 4 + d.rng.IntN(7) {
		d.addFault()
		d.addRandomTransaction(i)
		d.addPause()
		d.duringFaults(i)
	}
	d.endFaults()
	if h == injectMarkerLoss {
		d.add("all is quiet, the broker forgets its markers", func(p *execution) error { return p.loseMarkers() })
	}
	return s
}

type generator struct {
	*schedule
	rng       *rand.Rand
	injection injection
	real      bool
	locks     int
	halted    bool // the broker or a process is stopped until the end; at most one is

	// The additional kinds of faults have random numbers of their own, so that a seed's other steps are the same whatever kinds
	// are selected.
	kindRNG *rand.Rand
}

func (d *generator) add(what string, do func(*execution) error) {
	d.steps = append(d.steps, step{what, do})
}

func (d *generator) oneIn(n int) bool { return d.rng.IntN(n) == 0 }

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func (d *generator) addRandomTransaction(i int) {
	t := transaction{Name: fmt.Sprintf("s%d-t%d", d.seed, i), By: d.rng.IntN(publishers), Behavior: commits}
	if d.injection == injectAll && d.oneIn(2) {
		t.Behavior = pick(d.rng, fails, panics, failsInCommit, savepoint, joined, joinedRaw, heldOpen, heldOpen, heldOpen, hangsInCommit, hangsInCommit, hangsInCommitAborted)
	}
	d.addEvents(d.rng, &t)
	switch t.Behavior {
	case heldOpen:
		d.locks++
		t.Lock = int64(d.locks)
		d.add(d.describe(t), func(p *execution) error { return p.begin(t) })
		end := func(p *execution) error { return p.release(t.Lock) }
		if d.oneIn(2) {
			end = d.crashWhileHeld(t, end)
		}
		if d.oneIn(3) {
			d.add(t.Name+" goes on", end)
		} else { // after what is drawn next
			if d.oneIn(2) {
				d.addTimePassing()
			}
			d.addPause()
			d.add(t.Name+" goes on", end)
		}
	case hangsInCommit, hangsInCommitAborted:
		d.locks++
		t.Lock = int64(d.locks)
		how := pick(d.rng, "cut", "killed")
		what := fmt.Sprintf("%s; its publisher is %s", d.describe(t), how)
		if t.Behavior == hangsInCommitAborted {
			what = d.describe(t)
		}
		d.add(what, func(p *execution) error { return p.hang(t, how == "killed") })
		if d.oneIn(2) {
			d.addPause()
		}
		d.add(t.Name+"'s COMMIT goes on", func(p *execution) error { return p.release(t.Lock) })
	default:
		if d.oneIn(3) {
			d.add(d.describe(t)+", concurrent with the next steps", func(p *execution) error { p.start(t); return nil })
		} else {
			d.add(d.describe(t), func(p *execution) error { p.run(t); return nil })
		}
	}
}

// addEvents generates the events that a transaction publishes.
func (d *generator) addEvents(rng *rand.Rand, t *transaction) {
	for k := range pick(rng, 1, 1, 1, 2, 3, 5) {
		n := testEvent{Name: fmt.Sprintf("%s-e%d", t.Name, k), Schedule: d.seed, Topic: topicFirst, Follow: rng.IntN(4) == 0}
		if x := rng.IntN(4); x < 3 { // else it is unordered
			n.Stream, n.Counted = fmt.Sprintf("s%d-%c", d.seed, 'a'+x), x < 2
		}
		if d.injection == injectAll && rng.IntN(8) == 0 {
			n.Fail = 1 + rng.IntN(2)
		}
		t.Events = append(t.Events, n)
	}
}

func (d *generator) describe(t transaction) string {
	var events []string
	for _, n := range t.Events {
		text := n.Name[len(t.Name)+1:]
		if n.Stream != "" {
			text += " of " + n.Stream
		}
		if n.Fail > 0 {
			text += fmt.Sprintf(" (audit fails %d times)", n.Fail)
		}
		if n.Follow {
			text += " (followed)"
		}
		if n.Nested {
			text += fmt.Sprintf(" (followed by way of a joined savepoint, after %d failures)", n.EchoFail)
		}
		if n.Retired {
			text += " (retired)"
		}
		if n.Type != "" {
			text += " (of version 2)"
		}
		if n.Hang > 0 {
			text += fmt.Sprintf(" (audit hangs %d times)", n.Hang)
		}
		events = append(events, text)
	}
	return fmt.Sprintf("%s by publisher %d %s: %s", t.Name, t.By, t.Behavior, strings.Join(events, ", "))
}

// crashWhileHeld returns end preceded by a crash point: the process of a transaction that was held open crashes there.
func (d *generator) crashWhileHeld(t transaction, end func(*execution) error) func(*execution) error {
	step := pick(d.rng, "recorded", "prepared", "committed", "committed", "committed")
	d.add(fmt.Sprintf("publisher %d will crash when %s is %s", t.By, t.Name, step), func(*execution) error { return nil })
	return func(p *execution) error {
		p.w.slots[t.By].current().arm(crash, step, 1)
		return end(p)
	}
}

// addFault adds a fault at once, a crash point, or, mostly, nothing.
func (d *generator) addFault() {
	if d.injection != injectAll {
		return
	}
	who := d.rng.IntN(publishers + consumers)
	name := fmt.Sprintf("publisher %d", who)
	steps := publishingCrashPoints
	if who >= publishers {
		name, steps = fmt.Sprintf("consumer %d", who-publishers), handlingCrashPoints
	}
	switch n := d.rng.IntN(100); {
	case n < 14:
		step, nth := pick(d.rng, steps...), 1+d.rng.IntN(3)
		d.add(fmt.Sprintf("%s will crash at %s %d", name, step, nth), func(p *execution) error {
			p.w.slots[who].current().arm(crash, step, nth)
			return nil
		})
	case n < 16:
		d.add(name+" is killed", func(p *execution) error { p.w.slots[who].current().kill(); return nil })
	case n < 22:
		t := connFault{write: d.oneIn(2), left: 1 + d.rng.IntN(6)}
		what := map[bool]string{true: "write", false: "response"}[t.write]
		d.add(fmt.Sprintf("%s will lose its connection to Postgres at %s %d", name, what, t.left), func(p *execution) error {
			p.w.slots[who].current().cutPostgres(t)
			return nil
		})
	case n < 25:
		d.add(name+" loses its connections to Postgres", func(p *execution) error {
			p.w.slots[who].current().cutPostgres(connFault{})
			return nil
		})
	case n < 27 && !d.halted:
		d.halted = true
		outage := pick(d.rng, rocketmqtest.Silent, rocketmqtest.Dead, rocketmqtest.Refused)
		d.add(fmt.Sprintf("%s is cut off from the broker to the end (outage %d; on a real one: frozen)", name, outage), func(p *execution) error {
			p.heals = append(p.heals, p.w.slots[who].current().isolate(outage))
			return nil
		})
	case n < 28 && !d.halted && !d.real:
		d.halted = true
		d.add("the broker pauses to the end", func(p *execution) error {
			p.w.server.Pause()
			p.heals = append(p.heals, p.w.server.Resume)
			return nil
		})
	case n < 29 && !d.halted && !d.real:
		d.halted = true
		loss := pick(d.rng, rocketmqtest.LoseNothing, rocketmqtest.LoseMarkers, rocketmqtest.LoseMemory)
		d.add(fmt.Sprintf("the broker restarts (loss %d)", loss), func(p *execution) error { return p.w.server.Restart(loss) })
	}
}

// addPause adds a wait, a jump of the clock, a restart of processes, or, mostly, nothing.
func (d *generator) addPause() {
	switch n := d.rng.IntN(100); {
	case n < 20:
		d.add("a pause", func(p *execution) error { return p.waitQuiet(60 * time.Millisecond) })
	case n < 30 && d.injection == injectAll:
		d.addTimePassing()
	case n < 31 && d.injection == injectAll:
		jump := time.Hour + time.Duration(d.rng.Int64N(int64(30*time.Hour)))
		d.add(fmt.Sprintf("the clock jumps ahead by %v", jump.Round(time.Minute)), func(p *execution) error { return p.w.jump(p.ctx, jump) })
	case n < 40:
		d.add("processes that have ended start again", func(p *execution) error { p.restartEnded(); return nil })
	}
}

// addTimePassing moves the clock by some seconds and gives those who wait for it a moment.
func (d *generator) addTimePassing() {
	jump := time.Second + time.Duration(d.rng.Int64N(int64(9*time.Second)))
	d.add(fmt.Sprintf("%v pass", jump.Round(time.Millisecond)), func(p *execution) error {
		if err := p.w.jump(p.ctx, jump); err != nil {
			return err
		}
		return p.waitQuiet(30 * time.Millisecond)
	})
}

// addRequestFaults chooses the faults of single requests, for half of the schedules.
func (d *generator) addRequestFaults() {
	if d.oneIn(2) {
		return
	}
	f := &rocketmqtest.Faults{Seed: d.seed, MaxDelay: 30 * time.Millisecond, MessageName: messageName}
	kinds := []*float64{&f.Drop, &f.DropResponse, &f.Duplicate, &f.Delay, &f.Reorder, &f.ResetBefore, &f.ResetAfter}
	for range 1 + d.rng.IntN(3) {
		*kinds[d.rng.IntN(len(kinds))] = 0.05 + 0.25*d.rng.Float64()
	}
	d.schedule.requestFaults = f
}

func (s *schedule) String() string {
	var b strings.Builder
	for _, p := range s.steps {
		fmt.Fprintf(&b, "  %s\n", p.what)
	}
	if f := s.requestFaults; f != nil {
		fmt.Fprintf(&b, "  requests: drop %.2f, drop response %.2f, duplicate %.2f, delay %.2f, reorder %.2f, cut before %.2f, cut after %.2f: %v\n",
			f.Drop, f.DropResponse, f.Duplicate, f.Delay, f.Reorder, f.ResetBefore, f.ResetAfter, f)
	}
	return b.String()
}
