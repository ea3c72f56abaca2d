package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// hangStream is the aggregate of a schedule whose handler hangs.
func hangStream(seed uint64) string { return fmt.Sprintf("s%d-hang", seed) }

// forEver is more calls than a schedule has.
const forEver = 1 << 20

// hang adds the publication of an event whose handler ignores its deadline: once or twice, or until it is released at the
// end. Others of its aggregate follow.
func (d *drawing) hang() {
	t := transaction{Name: fmt.Sprintf("s%d-hang", d.seed), By: d.extra.IntN(publishers), Manner: commits}
	for i := range 2 + d.extra.IntN(3) {
		t.Notes = append(t.Notes, note{
			Name: fmt.Sprintf("%s-e%d", t.Name, i), Schedule: d.seed, Topic: topicFirst, Stream: hangStream(d.seed), Counted: true,
		})
	}
	n := &t.Notes[d.extra.IntN(2)]
	n.Hang, n.HangLate = pick(d.extra, 1, 2, forEver, forEver), d.extra.IntN(2) == 0
	d.add(d.name(t), func(p *play) error { p.run(t); return nil })
}

// hang returns at once, or, for an event whose handler hangs, when it is released: it heeds no context.
func (p *process) hang(n note) {
	p.mu.Lock()
	p.hung[n.Name]++
	defer p.mu.Unlock()
	if p.hung[n.Name] > n.Hang {
		return
	}
	p.hangs++
	for !p.ended && !p.released[n.Schedule] {
		unhang := p.unhang
		p.mu.Unlock()
		<-unhang
		p.mu.Lock()
	}
	p.hangs--
}

// hanging is how many handlers hang.
func (p *process) hanging() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hangs
}

// err is what the router says is wrong.
func (p *process) err() string {
	if p.router == nil {
		return ""
	}
	return fmt.Sprint(p.router.Err())
}

// release has the handlers of a schedule hang no longer.
func (p *process) release(schedule uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released[schedule] = true
	p.wake()
}

// endHanging has no handler hang any more: the process ends.
func (p *process) endHanging() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.wake()
}

func (p *process) wake() {
	close(p.unhang)
	p.unhang = make(chan struct{})
}

// reportLimit is how long a router may take to report all handlers that hang. What was abandoned in one process is tried
// again in another, where it hangs as well, and each time it takes the deadline and five seconds until it is reported.
const reportLimit = time.Minute

// besideHanging waits until all but the aggregate whose handler hangs is at rest, and for the router to report it.
func (p *play) besideHanging() error {
	if err := p.comeToRest(hangStream(p.seed), "a handler hangs"); err != nil {
		return err
	}
	for _, s := range p.w.slots[publishers:] {
		if s.member().hanging() > 0 {
			p.w.took(hangFault)
			break
		}
	}
	for limit := time.Now().Add(reportLimit); p.unreported(); time.Sleep(pollInterval) {
		if time.Now().After(limit) {
			p.fault("the router of a process whose handler hangs doesn't name the consumer")
			break
		}
	}
	return nil
}

// unreported tells whether a process has a handler that hangs and a router that doesn't say so.
func (p *play) unreported() bool {
	for _, s := range p.w.slots[publishers:] {
		if m := s.member(); m.hanging() > 0 && !strings.Contains(m.err(), audit) {
			return true
		}
	}
	return false
}

// releaseHanging ends the hanging. Should the event have become a dead letter meanwhile, an operator has it tried again.
func (p *play) releaseHanging() error {
	for _, s := range p.w.slots {
		s.member().release(p.seed)
	}
	if !p.kinds[hangFault] {
		return nil
	}
	return p.w.try(p.ctx, func(ctx context.Context) error {
		operator, err := operate.New(operate.Config{Pool: p.w.pool, Schema: p.w.name})
		if err != nil {
			return err
		}
		_, err = operator.RetryDeadLetters(ctx, operate.ParkedFilter{Consumer: audit, Subject: hangStream(p.seed)})
		return err
	})
}
