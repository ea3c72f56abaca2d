package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/handlers"
)

// hangStream is the aggregate of a schedule whose handler hangs.
func hangStream(seed uint64) string { return fmt.Sprintf("s%d-hang", seed) }

// always is more calls than a schedule has.
const always = 1 << 20

// hang adds the publication of an event whose handler ignores its deadline: once, twice, or until it is released at
// the end. Other events of its aggregate follow.
func (d *generator) hang() {
	t := transaction{Name: fmt.Sprintf("s%d-hang", d.seed), By: d.kindRNG.IntN(publishers), Behavior: commits}
	for i := range 2 + d.kindRNG.IntN(3) {
		t.Events = append(t.Events, testEvent{
			Name: fmt.Sprintf("%s-e%d", t.Name, i), Schedule: d.seed, Topic: topicFirst, Stream: hangStream(d.seed), Counted: true,
		})
	}
	n := &t.Events[d.kindRNG.IntN(2)]
	n.Hang, n.HangLate = pick(d.kindRNG, 1, 2, always, always), d.kindRNG.IntN(2) == 0
	d.add(d.describe(t), func(p *execution) error { p.run(t); return nil })
}

// hang blocks while the handler of an event hangs, until it is released. It ignores every context.
func (p *process) hang(n testEvent) {
	p.mu.Lock()
	p.hangCalls[n.Name]++
	defer p.mu.Unlock()
	if p.hangCalls[n.Name] > n.Hang {
		return
	}
	p.hangingCalls++
	for !p.ended && !p.released[n.Schedule] {
		wakeHanging := p.wakeHanging
		p.mu.Unlock()
		<-wakeHanging
		p.mu.Lock()
	}
	p.hangingCalls--
}

// hanging returns the number of handlers that hang.
func (p *process) hanging() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hangingCalls
}

// err returns Router.Err as text.
func (p *process) err() string {
	if p.router == nil {
		return ""
	}
	return fmt.Sprint(p.router.Err())
}

// release ends the hanging of a schedule's handlers.
func (p *process) release(schedule uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released[schedule] = true
	p.wake()
}

// releaseAllHanging ends the hanging of all handlers, because the process stops.
func (p *process) releaseAllHanging() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.wake()
}

func (p *process) wake() {
	close(p.wakeHanging)
	p.wakeHanging = make(chan struct{})
}

// reportLimit is how long a router may take to report all handlers that hang. What was abandoned in one process is tried
// again in another, where it hangs as well, and each time it takes the deadline and five seconds until it is reported.
const reportLimit = time.Minute

// quiesceBesideHanging waits until all is quiet but the aggregate whose handler hangs, and for the router to report it.
func (p *execution) quiesceBesideHanging() error {
	if err := p.quiesce(hangStream(p.seed), "a handler hangs"); err != nil {
		return err
	}
	for _, s := range p.w.slots[publishers:] {
		if s.current().hanging() > 0 {
			p.w.countFault(hangFault)
			break
		}
	}
	for limit := time.Now().Add(reportLimit); p.unreported(); time.Sleep(pollInterval) {
		if time.Now().After(limit) {
			p.violation("the router of a process whose handler hangs doesn't name the consumer")
			break
		}
	}
	return nil
}

// unreported reports whether a process has a handler that hangs and a router that doesn't report it.
func (p *execution) unreported() bool {
	for _, s := range p.w.slots[publishers:] {
		if m := s.current(); m.hanging() > 0 && !strings.Contains(m.err(), audit) {
			return true
		}
	}
	return false
}

// releaseHanging ends the hanging, and retries the event as an operator would if it has become a dead letter.
func (p *execution) releaseHanging() error {
	for _, s := range p.w.slots {
		s.current().release(p.seed)
	}
	if !p.kinds[hangFault] {
		return nil
	}
	return p.w.try(p.ctx, func(ctx context.Context) error {
		_, err := handlers.NewDeadLetters(p.w.pool, p.w.name).Retry(ctx, handlers.Filter{Consumer: audit, Subject: hangStream(p.seed)})
		return err
	})
}
