package main

import (
	"context"
	"fmt"
)

// newType is the event type that version 2 of a schedule's service handles and version 1 does not. It is the schedule's
// own: in each schedule version 2 is new.
func newType(seed uint64) string { return fmt.Sprintf("noted.v2-s%d", seed) }

// followerType is the type of what echo publishes: a version that has a new type publishes it.
func (s settings) followerType() string {
	if len(s.Types) == 0 {
		return ""
	}
	return s.Types[len(s.Types)-1]
}

// deploy adds a change of a consumer's version, forward or back. The first one is forward.
func (d *drawing) deploy(first bool) {
	who, forward, kill := publishers+d.extra.IntN(consumers), first || d.extra.IntN(3) > 0, d.extra.IntN(3) == 0
	d.addDeploy(who, forward, kill)
}

func (d *drawing) addDeploy(who int, forward, kill bool) {
	version, how, types := 1, "stopped", []string(nil)
	if forward {
		version, types = 2, []string{newType(d.seed)}
	}
	if kill {
		how = "killed"
	}
	d.add(fmt.Sprintf("consumer %d is %s and starts as version %d", who-publishers, how, version), func(p *play) error {
		p.replace(who, kill, func(s *settings) { s.Types = types })
		return nil
	})
}

// finishDeploy adds the end: version 2 runs, alone or beside version 1.
func (d *drawing) finishDeploy() {
	who := publishers + d.extra.IntN(consumers)
	d.addDeploy(who, true, false)
	if d.extra.IntN(2) == 0 {
		other := publishers + (who-publishers+1)%consumers
		d.addDeploy(other, d.extra.IntN(2) == 0, false)
	}
}

// replace has a process end and start with other settings, if that can be done soon: what it needs may be away. Else the
// end of the schedule does it.
func (p *play) replace(who int, kill bool, change func(*settings)) {
	s := p.w.slots[who]
	if m := s.member(); m.frozen() {
		return
	} else if kill {
		m.kill()
	} else {
		m.close()
	}
	change(&s.settings)
	p.changed[who] = true
	p.revive()
}

// restore has the processes that were replaced start with the settings of the world again.
func (p *play) restore(ctx context.Context) error {
	for who := range p.changed {
		s := p.w.slots[who]
		s.member().close()
		s.settings.Types, s.settings.Skew = nil, 0
	}
	return p.w.revive(ctx)
}

// known has events of a type that no process has handled yet be of the one that all do: a version is deployed before what
// it handles is published.
func (p *play) known(t transaction) transaction {
	notes := make([]note, len(t.Notes))
	for i, n := range t.Notes {
		switch {
		case n.Type == "":
		case p.w.handles(n.Type):
			p.w.took(deployFault)
		default:
			n.Type = ""
		}
		notes[i] = n
	}
	t.Notes = notes
	return t
}

func (w *world) handles(eventType string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.types[eventType]
}

// started notes what a process that has started handles.
func (w *world) started(s settings) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range s.Types {
		w.types[t] = true
	}
}
