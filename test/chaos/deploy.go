package main

import (
	"context"
	"fmt"
)

// version2Type is the event type that version 2 of a schedule's service handles and version 1 does not. It is the schedule's
// own: in each schedule version 2 is new.
func version2Type(seed uint64) string { return fmt.Sprintf("noted.v2-s%d", seed) }

// followerType is the type of the events that echo publishes: the new type of its version, if that has one.
func (s settings) followerType() string {
	if len(s.Types) == 0 {
		return ""
	}
	return s.Types[len(s.Types)-1]
}

// deploy adds a deployment of one consumer process, forward or back. The first one is forward.
func (d *generator) deploy(first bool) {
	who, forward, kill := publishers+d.kindRNG.IntN(consumers), first || d.kindRNG.IntN(3) > 0, d.kindRNG.IntN(3) == 0
	d.addDeploy(who, forward, kill)
}

func (d *generator) addDeploy(who int, forward, kill bool) {
	version, how, types := 1, "stopped", []string(nil)
	if forward {
		version, types = 2, []string{version2Type(d.seed)}
	}
	if kill {
		how = "killed"
	}
	d.add(fmt.Sprintf("consumer %d is %s and starts as version %d", who-publishers, how, version), func(p *execution) error {
		p.replace(who, kill, func(s *settings) { s.Types = types })
		return nil
	})
}

// finishDeploy adds the last deployment, after which version 2 runs, alone or beside version 1.
func (d *generator) finishDeploy() {
	who := publishers + d.kindRNG.IntN(consumers)
	d.addDeploy(who, true, false)
	if d.kindRNG.IntN(2) == 0 {
		other := publishers + (who-publishers+1)%consumers
		d.addDeploy(other, d.kindRNG.IntN(2) == 0, false)
	}
}

// replace stops or kills a process and starts it with other settings; see restartEnded for when that takes long.
func (p *execution) replace(who int, kill bool, change func(*settings)) {
	s := p.w.slots[who]
	if m := s.current(); m.frozen() {
		return
	} else if kill {
		m.kill()
	} else {
		m.close()
	}
	change(&s.settings)
	p.changed[who] = true
	p.restartEnded()
}

// restore starts the processes that were replaced with the settings of the world again.
func (p *execution) restore(ctx context.Context) error {
	for who := range p.changed {
		s := p.w.slots[who]
		s.current().close()
		s.settings.Types, s.settings.Skew = nil, 0
	}
	return p.w.restartEnded(ctx)
}

// withHandledTypes replaces event types that no process has handled yet by the base type: a version is deployed before its
// events are published.
func (p *execution) withHandledTypes(t transaction) transaction {
	events := make([]testEvent, len(t.Events))
	for i, n := range t.Events {
		switch {
		case n.Type == "":
		case p.w.handles(n.Type):
			p.w.countFault(deployFault)
		default:
			n.Type = ""
		}
		events[i] = n
	}
	t.Events = events
	return t
}

func (w *world) handles(eventType string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.types[eventType]
}

// started records the event types of a process that has started.
func (w *world) started(s settings) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range s.Types {
		w.types[t] = true
	}
}
