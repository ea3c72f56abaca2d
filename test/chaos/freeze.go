package main

import (
	"fmt"
	"time"
)

// freezeSweeper adds the last phase of a schedule in which a process that sweeps stops, or loses its network, in the
// midst of it: all else comes to rest without it. Then it goes on.
func (d *drawing) freezeSweeper() {
	owed := transaction{Name: fmt.Sprintf("s%d-owed", d.seed), By: d.extra.IntN(publishers), Manner: joinedRaw}
	owed.Notes = []note{{Name: owed.Name + "-e0", Schedule: d.seed, Topic: topicFirst, Stream: fmt.Sprintf("s%d-owed", d.seed)}}
	d.add("all is healed; the publisher that sweeps next is frozen while it does", func(p *play) error { return p.freezeSweeper(owed) })
	for i := range 1 + d.extra.IntN(3) {
		t := d.extraTransaction(fmt.Sprintf("z%d", i))
		if i == 0 {
			t.Manner = joinedRaw // the sweep alone sends it
		}
		d.addTransaction(t)
	}
	d.add("all but the frozen publisher comes to rest", func(p *play) error {
		if !p.w.anyFrozen() {
			return nil
		}
		return p.comeToRest("", "a publisher that swept is frozen")
	})
	d.add("the frozen publisher goes on", func(p *play) error { p.thaw(); return nil })
}

// freezeSweeper publishes what only the sweep sends until a publisher that sweeps is frozen.
func (p *play) freezeSweeper(t transaction) error {
	if err := p.healAll(); err != nil {
		return err
	}
	p.failAgain()
	const tries = 6
	for try := range tries {
		if try == tries/2 {
			// Whoever sweeps may do so for long, and be a consumer. Without any consumer a publisher does.
			for who := publishers; who < publishers+consumers; who++ {
				p.w.slots[who].member().close()
			}
		}
		for _, s := range p.w.slots[:publishers] {
			s.member().arm(freeze, stepSweeping, 1)
		}
		one := t
		one.Name = fmt.Sprintf("%s-%d", t.Name, try)
		one.Notes = []note{t.Notes[0]}
		one.Notes[0].Name = one.Name + "-e0"
		p.run(one)
		for range 4 {
			if err := p.w.jump(p.ctx, 2*time.Second); err != nil {
				return err
			}
			if err := p.rest(100 * time.Millisecond); err != nil {
				return err
			}
			if p.w.anyFrozen() {
				break
			}
		}
		if p.w.anyFrozen() {
			break
		}
	}
	if p.w.anyFrozen() {
		p.w.took(freezeFault)
	}
	for _, s := range p.w.slots[:publishers] {
		if !s.member().frozen() {
			s.member().arm(freeze, "", 0)
		}
	}
	return p.w.revive(p.ctx)
}

func (w *world) anyFrozen() bool {
	for _, s := range w.slots {
		if s.member().frozen() {
			return true
		}
	}
	return false
}

// unending are the names of processes, as Postgres sees them, that may keep a transaction open: they are frozen, or a
// handler of theirs hangs.
func (w *world) unending() []string {
	names := []string{}
	for _, s := range w.slots {
		if m := s.member(); m.frozen() || m.hanging() > 0 {
			names = append(names, s.lifeName())
		}
	}
	return names
}

func (p *play) thaw() {
	for _, s := range p.w.slots {
		s.member().thaw()
	}
}

// awake has a transaction be of a publisher that isn't frozen.
func (p *play) awake(t transaction) transaction {
	for range publishers {
		if !p.w.slots[t.By].member().frozen() {
			break
		}
		t.By = (t.By + 1) % publishers
	}
	return t
}
