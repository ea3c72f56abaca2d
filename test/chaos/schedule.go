package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// manner is how a transaction goes.
type manner string

const (
	commits      manner = "commits"
	fails        manner = "fails"
	panics       manner = "panics"
	doomed       manner = "fails in COMMIT"
	savepoint    manner = "rolls a savepoint back, commits"
	joined       manner = "is joined, commits"
	joinedRaw    manner = "is joined, its owner commits"
	held         manner = "is held open, commits"
	hangs        manner = "hangs in COMMIT, whose answer is lost"
	hangsAborted manner = "hangs in COMMIT until its backend is ended"
)

// transaction is what a publisher does.
type transaction struct {
	Name   string
	By     int // which publisher
	Manner manner
	Notes  []note
	Lock   int64 // of Postgres, that it waits for where it is held or hangs
	Raw    bool  // where its owner has a choice: commits by the pgx.Tx that was joined, not by the rocketflow.Tx
}

// schedule is what a seed comes to: which transactions, what goes wrong, and when.
type schedule struct {
	seed   uint64
	steps  []step
	faults *rocketmqtest.Faults // nil: none
	kinds  map[fault]bool       // that it has
}

// step is one thing that the driver does. They are done one after the other; transactions may go on beside them.
type step struct {
	what string
	do   func(*play) error
}

// harm says what may go wrong.
type harm string

const (
	allHarm     harm = "all"
	noHarm      harm = "none"
	markersHarm harm = "markers" // the broker, at rest, forgets which transactions have ended, and no more
)

const publishers, consumers = 3, 2

// draw makes the schedule of a seed: the same each time.
func draw(seed uint64, h harm, real bool, faults []fault) *schedule {
	s := &schedule{seed: seed}
	d := &drawing{schedule: s, lot: rand.New(rand.NewPCG(seed, 1)), harm: h, real: real, extra: rand.New(rand.NewPCG(seed, 3))}
	if h == allHarm && !real {
		d.faults()
	}
	if h == allHarm {
		d.choose(faults)
	}
	d.beginFaults()
	for i := range 4 + d.lot.IntN(7) {
		d.trouble()
		d.transact(i)
		d.pause()
		d.duringFaults(i)
	}
	d.endFaults()
	if h == markersHarm {
		d.add("all rests, the broker forgets its markers", func(p *play) error { return p.forget() })
	}
	return s
}

type drawing struct {
	*schedule
	lot    *rand.Rand
	harm   harm
	real   bool
	locks  int
	halted bool // the broker is, or a process is frozen: one thing at a time

	// What the kinds of faults draw comes from a generator of its own: a seed has the same steps besides, whatever kinds
	// are on.
	extra *rand.Rand
}

func (d *drawing) add(what string, do func(*play) error) {
	d.steps = append(d.steps, step{what, do})
}

func (d *drawing) one(n int) bool { return d.lot.IntN(n) == 0 }

func pick[T any](lot *rand.Rand, of ...T) T { return of[lot.IntN(len(of))] }

func (d *drawing) transact(i int) {
	t := transaction{Name: fmt.Sprintf("s%d-t%d", d.seed, i), By: d.lot.IntN(publishers), Manner: commits}
	if d.harm == allHarm && d.one(2) {
		t.Manner = pick(d.lot, fails, panics, doomed, savepoint, joined, joinedRaw, held, held, held, hangs, hangs, hangsAborted)
	}
	d.notes(d.lot, &t)
	switch t.Manner {
	case held:
		d.locks++
		t.Lock = int64(d.locks)
		d.add(d.name(t), func(p *play) error { return p.begin(t) })
		end := func(p *play) error { return p.release(t.Lock) }
		if d.one(2) {
			end = d.during(t, end)
		}
		if d.one(3) {
			d.add(t.Name+" goes on", end)
		} else { // after what is drawn next
			if d.one(2) {
				d.pass()
			}
			d.pause()
			d.add(t.Name+" goes on", end)
		}
	case hangs, hangsAborted:
		d.locks++
		t.Lock = int64(d.locks)
		how := pick(d.lot, "cut", "killed")
		what := fmt.Sprintf("%s; its publisher is %s", d.name(t), how)
		if t.Manner == hangsAborted {
			what = d.name(t)
		}
		d.add(what, func(p *play) error { return p.hang(t, how == "killed") })
		if d.one(2) {
			d.pause()
		}
		d.add(t.Name+"'s COMMIT goes on", func(p *play) error { return p.release(t.Lock) })
	default:
		if d.one(3) {
			d.add(d.name(t)+", beside what follows", func(p *play) error { p.start(t); return nil })
		} else {
			d.add(d.name(t), func(p *play) error { p.run(t); return nil })
		}
	}
}

// notes draws what a transaction publishes.
func (d *drawing) notes(lot *rand.Rand, t *transaction) {
	for k := range pick(lot, 1, 1, 1, 2, 3, 5) {
		n := note{Name: fmt.Sprintf("%s-e%d", t.Name, k), Schedule: d.seed, Topic: topicFirst, Follow: lot.IntN(4) == 0}
		if x := lot.IntN(4); x < 3 { // else it has no order
			n.Stream, n.Counted = fmt.Sprintf("s%d-%c", d.seed, 'a'+x), x < 2
		}
		if d.harm == allHarm && lot.IntN(8) == 0 {
			n.Fail = 1 + lot.IntN(2)
		}
		t.Notes = append(t.Notes, n)
	}
}

func (d *drawing) name(t transaction) string {
	var notes []string
	for _, n := range t.Notes {
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
		if n.Type != "" {
			text += " (of version 2)"
		}
		if n.Hang > 0 {
			text += fmt.Sprintf(" (audit hangs %d times)", n.Hang)
		}
		notes = append(notes, text)
	}
	return fmt.Sprintf("%s by publisher %d %s: %s", t.Name, t.By, t.Manner, strings.Join(notes, ", "))
}

// during has the process of a transaction that was held die as it goes on.
func (d *drawing) during(t transaction, end func(*play) error) func(*play) error {
	step := pick(d.lot, "recorded", "prepared", "committed", "committed", "committed")
	d.add(fmt.Sprintf("publisher %d will be killed when %s is %s", t.By, t.Name, step), func(*play) error { return nil })
	return func(p *play) error {
		p.w.slots[t.By].member().arm(die, step, 1)
		return end(p)
	}
}

// trouble has something go wrong, or get ready to.
func (d *drawing) trouble() {
	if d.harm != allHarm {
		return
	}
	who := d.lot.IntN(publishers + consumers)
	name := fmt.Sprintf("publisher %d", who)
	steps := publishingSteps
	if who >= publishers {
		name, steps = fmt.Sprintf("consumer %d", who-publishers), handlingSteps
	}
	switch n := d.lot.IntN(100); {
	case n < 14:
		step, nth := pick(d.lot, steps...), 1+d.lot.IntN(3)
		d.add(fmt.Sprintf("%s will be killed at %s %d", name, step, nth), func(p *play) error {
			p.w.slots[who].member().arm(die, step, nth)
			return nil
		})
	case n < 16:
		d.add(name+" is killed", func(p *play) error { p.w.slots[who].member().kill(); return nil })
	case n < 22:
		t := trap{write: d.one(2), left: 1 + d.lot.IntN(6)}
		what := map[bool]string{true: "write", false: "answer"}[t.write]
		d.add(fmt.Sprintf("%s will lose its connection to Postgres at %s %d", name, what, t.left), func(p *play) error {
			p.w.slots[who].member().cutPostgres(t)
			return nil
		})
	case n < 25:
		d.add(name+" loses its connections to Postgres", func(p *play) error {
			p.w.slots[who].member().cutPostgres(trap{})
			return nil
		})
	case n < 27 && !d.halted:
		d.halted = true
		outage := pick(d.lot, rocketmqtest.Silent, rocketmqtest.Dead, rocketmqtest.Refused)
		d.add(fmt.Sprintf("%s is cut off from the broker to the end (outage %d; on a real one: frozen)", name, outage), func(p *play) error {
			p.heals = append(p.heals, p.w.slots[who].member().isolate(outage))
			return nil
		})
	case n < 28 && !d.halted && !d.real:
		d.halted = true
		d.add("the broker pauses to the end", func(p *play) error {
			p.w.server.Pause()
			p.heals = append(p.heals, p.w.server.Resume)
			return nil
		})
	case n < 29 && !d.halted && !d.real:
		d.halted = true
		loss := pick(d.lot, rocketmqtest.LoseNothing, rocketmqtest.LoseMarkers, rocketmqtest.LoseMemory)
		d.add(fmt.Sprintf("the broker restarts (loss %d)", loss), func(p *play) error { return p.w.server.Restart(loss) })
	}
}

// pause lets time pass, or not.
func (d *drawing) pause() {
	switch n := d.lot.IntN(100); {
	case n < 20:
		d.add("a rest", func(p *play) error { return p.rest(60 * time.Millisecond) })
	case n < 30 && d.harm == allHarm:
		d.pass()
	case n < 31 && d.harm == allHarm:
		jump := time.Hour + time.Duration(d.lot.Int64N(int64(30*time.Hour)))
		d.add(fmt.Sprintf("the clock jumps ahead by %v", jump.Round(time.Minute)), func(p *play) error { return p.w.jump(p.ctx, jump) })
	case n < 40:
		d.add("who was killed runs again", func(p *play) error { p.revive(); return nil })
	}
}

// pass has some seconds pass, and those who look at the clock look.
func (d *drawing) pass() {
	jump := time.Second + time.Duration(d.lot.Int64N(int64(9*time.Second)))
	d.add(fmt.Sprintf("%v pass", jump.Round(time.Millisecond)), func(p *play) error {
		if err := p.w.jump(p.ctx, jump); err != nil {
			return err
		}
		return p.rest(30 * time.Millisecond)
	})
}

// faults draws what befalls single requests, for half of the schedules.
func (d *drawing) faults() {
	if d.one(2) {
		return
	}
	f := &rocketmqtest.Faults{Seed: d.seed, MaxDelay: 30 * time.Millisecond, MessageName: nameOf}
	kinds := []*float64{&f.Drop, &f.DropResponse, &f.Duplicate, &f.Delay, &f.Reorder, &f.ResetBefore, &f.ResetAfter}
	for range 1 + d.lot.IntN(3) {
		*kinds[d.lot.IntN(len(kinds))] = 0.05 + 0.25*d.lot.Float64()
	}
	d.schedule.faults = f
}

func (s *schedule) String() string {
	var b strings.Builder
	for _, p := range s.steps {
		fmt.Fprintf(&b, "  %s\n", p.what)
	}
	if f := s.faults; f != nil {
		fmt.Fprintf(&b, "  requests: drop %.2f, drop answer %.2f, duplicate %.2f, delay %.2f, reorder %.2f, cut before %.2f, cut after %.2f: %v\n",
			f.Drop, f.DropResponse, f.Duplicate, f.Delay, f.Reorder, f.ResetBefore, f.ResetAfter, f)
	}
	return b.String()
}
