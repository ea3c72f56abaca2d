package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/handlers"
)

// faultKind is a kind of fault that a schedule may have in addition to those of all schedules. The flag -faults selects kinds.
type faultKind string

const (
	deployFault   faultKind = "deploy"   // versions with and without a handler of an event type run side by side
	joinFault     faultKind = "join"     // joined transactions and their savepoints, rolled back by their owners
	freezeFault   faultKind = "freeze"   // a process that sweeps stops, with its sessions open
	skewFault     faultKind = "skew"     // a process has a clock that is hours or days wrong
	failoverFault faultKind = "failover" // Postgres loses its last commits
	hangFault     faultKind = "hang"     // a handler ignores its deadline
)

var allFaults = []faultKind{deployFault, joinFault, freezeFault, skewFault, failoverFault, hangFault}

// defaultFaults are the kinds that are used without -faults. Leave a kind out while it finds a known bug.
var defaultFaults = allFaults

func parseKinds(text string) ([]faultKind, error) {
	switch text {
	case "default":
		return defaultFaults, nil
	case "none":
		return nil, nil
	case "all":
		return allFaults, nil
	}
	var kinds []faultKind
	for word := range strings.SplitSeq(text, ",") {
		if !slices.Contains(allFaults, faultKind(word)) {
			return nil, fmt.Errorf("%q: want default, none, all, or some of %s", word, joinKinds(allFaults))
		}
		kinds = append(kinds, faultKind(word))
	}
	return kinds, nil
}

func joinKinds(kinds []faultKind) string {
	if len(kinds) == 0 {
		return "none"
	}
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ",")
}

// Settings that kinds of faults need. A jump of a schedule's clock must not make an event too old for the inbox.
const (
	hangTimeout   = time.Second
	skewRetention = 4 * 24 * time.Hour
)

func (s settings) on(k faultKind) bool { return slices.Contains(s.Faults, k) }

func (s settings) faultsConfig(c *handlers.Config) {
	if s.on(hangFault) {
		c.Timeout = hangTimeout
	}
	if s.on(skewFault) {
		c.InboxRetention, c.PositionRetention = skewRetention, skewRetention
	}
}

// countFault counts a fault that took effect. A fault of a schedule may have none, as when its transaction failed before.
func (w *world) countFault(k faultKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faultCounts[k]++
}

func (w *world) takeFaultCounts() map[faultKind]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	faultCounts := w.faultCounts
	w.faultCounts = map[faultKind]int{}
	return faultCounts
}

// formatFaultCounts returns how often each kind took effect.
func formatFaultCounts(faultCounts map[faultKind]int) string {
	var words []string
	for _, k := range allFaults {
		if n := faultCounts[k]; n > 0 {
			words = append(words, fmt.Sprintf("%s=%d", k, n))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// chooseKinds chooses the kinds that a schedule has. It has at most one of those with a last phase of their own.
func (d *generator) chooseKinds(on []faultKind) {
	d.kinds = map[faultKind]bool{}
	hasLastPhase := false
	for _, i := range d.kindRNG.Perm(len(on)) {
		k := on[i]
		ends := k == freezeFault || k == failoverFault || k == hangFault
		skip := len(on) > 1 && d.kindRNG.IntN(5) < 3
		if k == hangFault && len(on) > 1 && d.kindRNG.IntN(3) > 0 {
			skip = true // the router takes some seconds to give a handler up
		}
		if skip || ends && hasLastPhase {
			continue
		}
		d.kinds[k] = true
		hasLastPhase = hasLastPhase || ends
	}
}

// beginFaults adds the faults before the first transaction.
func (d *generator) beginFaults() {
	if d.kinds[skewFault] {
		d.skew()
	}
	if d.kinds[hangFault] {
		d.hang()
	}
}

// duringFaults adds the faults and transactions after the ith transaction.
func (d *generator) duringFaults(i int) {
	if d.kinds[deployFault] && (i == 0 || d.kindRNG.IntN(3) == 0) {
		d.deploy(i == 0)
	}
	if d.kinds[skewFault] && d.kindRNG.IntN(4) == 0 {
		d.skew()
	}
	if (d.kinds[deployFault] || d.kinds[joinFault]) && d.kindRNG.IntN(3) > 0 {
		d.addTransaction(d.extraTransaction(fmt.Sprintf("x%d", i)))
	}
}

// endFaults adds the last phase.
func (d *generator) endFaults() {
	if d.kinds[deployFault] {
		d.finishDeploy() // waiting until all is quiet needs a process of version 2
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
		d.add("all is quiet but the aggregate whose handler hangs, and the router reports it", func(p *execution) error { return p.quiesceBesideHanging() })
	}
	if d.kinds[skewFault] {
		d.add("all is quiet, time passes, and all events are sent again", func(p *execution) error { return p.resend() })
	}
	if d.kinds[deployFault] {
		d.finishDeploy()
	}
}

// extraTransaction generates a transaction that exercises the schedule's kinds of faults.
func (d *generator) extraTransaction(name string) transaction {
	t := transaction{Name: fmt.Sprintf("s%d-%s", d.seed, name), By: d.kindRNG.IntN(publishers), Behavior: commits, Raw: d.kindRNG.IntN(2) == 0}
	if d.kinds[joinFault] {
		t.Behavior = pick(d.kindRNG, joinedBehaviors...)
	}
	d.addEvents(d.kindRNG, &t)
	for i := range t.Events {
		n := &t.Events[i]
		if d.kinds[deployFault] && d.kindRNG.IntN(2) == 0 {
			n.Type = version2Type(d.seed)
		}
		if d.kinds[joinFault] && n.Follow && d.kindRNG.IntN(2) == 0 {
			n.Nested, n.EchoFail = true, d.kindRNG.IntN(3)
		}
	}
	return t
}

func (d *generator) addTransaction(t transaction) {
	if d.kindRNG.IntN(3) == 0 {
		d.add(d.describe(t)+", concurrent with the next steps", func(p *execution) error { p.start(t); return nil })
		return
	}
	d.add(d.describe(t), func(p *execution) error { p.run(t); return nil })
}

// healAll ends all faults except frozen processes and hanging handlers, waits for the transactions, and starts the
// processes that have ended.
func (p *execution) healAll() error {
	for _, heal := range slices.Backward(p.heals) {
		heal()
	}
	p.heals = nil
	for lock := range p.heldLocks {
		_ = p.release(lock)
	}
	p.running.Wait()
	for _, s := range p.w.slots {
		if m := s.current(); !m.frozen() {
			m.disarm()
			if err := m.await(p.ctx); err != nil {
				return err
			}
		}
	}
	if err := p.w.restartEnded(p.ctx); err != nil {
		return err
	}
	return p.w.finish(p.ctx)
}

// quiesce ends all faults and waits until nothing is left to do, except in stream unless that is empty. What is left when
// the patience ends is a violation; when says what was going on.
func (p *execution) quiesce(stream, when string) error {
	if err := p.healAll(); err != nil {
		return err
	}
	left, err := p.w.waitUntilQuiet(p.ctx, p.seed, stream)
	if err == nil && !left.empty() {
		p.violation(fmt.Sprintf("not quiet while %s: %v", when, left))
	}
	return err
}

// failAgain injects request faults again, after healAll.
func (p *execution) failAgain() {
	if p.requestFaults != nil {
		p.heals = append(p.heals, p.w.server.Control(p.requestFaults.Hook))
	}
}
