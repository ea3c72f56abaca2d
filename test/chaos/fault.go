package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/handlers"
)

// fault is a kind of fault that a schedule can have besides those that all schedules draw from. Flag -faults switches
// kinds on.
type fault string

const (
	deployFault   fault = "deploy"   // versions with and without a handler of an event type run side by side
	joinFault     fault = "join"     // joined transactions, their savepoints, and what their owners do with them
	freezeFault   fault = "freeze"   // a process that sweeps stops where it is, with its sessions, or is cut off
	skewFault     fault = "skew"     // a process has a clock that is hours or days wrong
	failoverFault fault = "failover" // Postgres loses its last commits
	hangFault     fault = "hang"     // a handler ignores its deadline
)

var allFaults = []fault{deployFault, joinFault, freezeFault, skewFault, failoverFault, hangFault}

// defaultFaults are on where -faults is not given. A kind whose fault is known and not mended yet is left out.
var defaultFaults = allFaults

func parseFaults(text string) ([]fault, error) {
	switch text {
	case "default":
		return defaultFaults, nil
	case "none":
		return nil, nil
	case "all":
		return allFaults, nil
	}
	var kinds []fault
	for word := range strings.SplitSeq(text, ",") {
		if !slices.Contains(allFaults, fault(word)) {
			return nil, fmt.Errorf("%q: want default, none, all, or some of %s", word, joinFaults(allFaults))
		}
		kinds = append(kinds, fault(word))
	}
	return kinds, nil
}

func joinFaults(kinds []fault) string {
	if len(kinds) == 0 {
		return "none"
	}
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ",")
}

// Settings that kinds of faults need. A jump of a schedule's clock must not make an event too old to be told from a
// duplicate.
const (
	hangTimeout   = time.Second
	skewRetention = 4 * 24 * time.Hour
)

func (s settings) on(k fault) bool { return slices.Contains(s.Faults, k) }

func (s settings) faultsConfig(c *handlers.Config) {
	if s.on(hangFault) {
		c.Timeout = hangTimeout
	}
	if s.on(skewFault) {
		c.InboxRetention, c.PositionRetention = skewRetention, skewRetention
	}
}

// took counts a fault that took place: not each that is drawn can.
func (w *world) took(k fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did[k]++
}

func (w *world) takeDid() map[fault]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	did := w.did
	w.did = map[fault]int{}
	return did
}

// countsOf tells how often each kind took place.
func countsOf(did map[fault]int) string {
	var words []string
	for _, k := range allFaults {
		if n := did[k]; n > 0 {
			words = append(words, fmt.Sprintf("%s=%d", k, n))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// choose draws the kinds that a schedule has. Those that end with a phase of their own exclude each other.
func (d *drawing) choose(on []fault) {
	d.kinds = map[fault]bool{}
	last := false
	for _, i := range d.extra.Perm(len(on)) {
		k := on[i]
		ends := k == freezeFault || k == failoverFault || k == hangFault
		skip := len(on) > 1 && d.extra.IntN(5) < 3
		if k == hangFault && len(on) > 1 && d.extra.IntN(3) > 0 {
			skip = true // it takes some seconds until a handler is given up
		}
		if skip || ends && last {
			continue
		}
		d.kinds[k] = true
		last = last || ends
	}
}

// beginFaults adds what comes before the first transaction.
func (d *drawing) beginFaults() {
	if d.kinds[skewFault] {
		d.skew()
	}
	if d.kinds[hangFault] {
		d.hang()
	}
}

// duringFaults adds what comes after the ith transaction.
func (d *drawing) duringFaults(i int) {
	if d.kinds[deployFault] && (i == 0 || d.extra.IntN(3) == 0) {
		d.deploy(i == 0)
	}
	if d.kinds[skewFault] && d.extra.IntN(4) == 0 {
		d.skew()
	}
	if (d.kinds[deployFault] || d.kinds[joinFault]) && d.extra.IntN(3) > 0 {
		d.addTransaction(d.extraTransaction(fmt.Sprintf("x%d", i)))
	}
}

// endFaults adds what comes after the last transaction.
func (d *drawing) endFaults() {
	if d.kinds[deployFault] {
		d.finishDeploy() // what comes to rest in the middle of it needs version 2
	}
	switch {
	case d.kinds[freezeFault]:
		d.freezeSweeper()
	case d.kinds[failoverFault]:
		d.failover()
		if d.kinds[deployFault] && d.kinds[skewFault] {
			d.finishDeploy()
		}
	case d.kinds[hangFault]:
		d.add("all but the aggregate whose handler hangs comes to rest, and the router says so", func(p *play) error { return p.besideHanging() })
	}
	if d.kinds[skewFault] {
		d.add("all rests, time passes, and everything is sent again", func(p *play) error { return p.resend() })
	}
	if d.kinds[deployFault] {
		d.finishDeploy()
	}
}

// extraTransaction draws a transaction that the kinds of faults ask for.
func (d *drawing) extraTransaction(name string) transaction {
	t := transaction{Name: fmt.Sprintf("s%d-%s", d.seed, name), By: d.extra.IntN(publishers), Manner: commits, Raw: d.extra.IntN(2) == 0}
	if d.kinds[joinFault] {
		t.Manner = pick(d.extra, joinManners...)
	}
	d.notes(d.extra, &t)
	for i := range t.Notes {
		n := &t.Notes[i]
		if d.kinds[deployFault] && d.extra.IntN(2) == 0 {
			n.Type = newType(d.seed)
		}
		if d.kinds[joinFault] && n.Follow && d.extra.IntN(2) == 0 {
			n.Nested, n.EchoFail = true, d.extra.IntN(3)
		}
	}
	return t
}

func (d *drawing) addTransaction(t transaction) {
	if d.extra.IntN(3) == 0 {
		d.add(d.name(t)+", beside what follows", func(p *play) error { p.start(t); return nil })
		return
	}
	d.add(d.name(t), func(p *play) error { p.run(t); return nil })
}

// healAll ends whatever goes wrong, but for what is frozen or hangs, and waits for the transactions; what is dead runs
// again.
func (p *play) healAll() error {
	for _, heal := range slices.Backward(p.heals) {
		heal()
	}
	p.heals = nil
	for lock := range p.locks {
		_ = p.release(lock)
	}
	p.running.Wait()
	for _, s := range p.w.slots {
		if m := s.member(); !m.frozen() {
			m.disarm()
			if err := m.await(p.ctx); err != nil {
				return err
			}
		}
	}
	if err := p.w.revive(p.ctx); err != nil {
		return err
	}
	return p.w.finish(p.ctx)
}

// comeToRest heals all and waits until nothing is left to do but for stream, if that isn't empty. What is wrong is
// reported with the schedule.
func (p *play) comeToRest(stream, when string) error {
	if err := p.healAll(); err != nil {
		return err
	}
	left, err := p.w.settle(p.ctx, p.seed, stream)
	if err == nil && !left.none() {
		p.fault(fmt.Sprintf("not at rest while %s: %v", when, left))
	}
	return err
}

// failAgain has requests fail as before healAll.
func (p *play) failAgain() {
	if p.faults != nil {
		p.heals = append(p.heals, p.w.server.Control(p.faults.Hook))
	}
}
