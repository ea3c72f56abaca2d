package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rocketflow/rocketflow/operate"
)

// retireDelay is how long an event whose handler was removed may wait before the handler is retired.
const retireDelay = 200 * time.Millisecond

// retire adds a last phase that removes the handler of the new event type: it is deployed away everywhere and retired, as an
// operator does when the deployment can't be rolled back any more. An event of the type, published before or after, is
// passed over, and those behind it in its stream are handled.
func (d *generator) retire() {
	stream := fmt.Sprintf("s%d-retired", d.seed)
	t := transaction{Name: stream, By: d.kindRNG.IntN(publishers), Behavior: commits}
	removed := d.kindRNG.IntN(3)
	for i := range 3 {
		n := testEvent{Name: fmt.Sprintf("%s-e%d", t.Name, i), Schedule: d.seed, Topic: topicFirst, Stream: stream, Counted: i != removed}
		if i == removed {
			n.Type, n.Retired = version2Type(d.seed), true
		}
		t.Events = append(t.Events, n)
	}
	before := d.kindRNG.IntN(2) == 0
	what := "handlers of version 2 are removed from all processes and retired; then "
	if before {
		what = "handlers of version 2 are removed from all processes, and retired after "
	}
	d.add(what+d.describe(t), func(p *execution) error {
		if !p.w.handles(version2Type(p.seed)) {
			return nil // no process of version 2 has started
		}
		if err := p.releaseHanging(); err != nil {
			return err
		}
		if err := p.quiesce("", "a handler is about to be removed"); err != nil {
			return err
		}
		for who := publishers; who < publishers+consumers; who++ {
			p.replace(who, false, func(s *settings) { s.Types = nil })
		}
		if err := p.w.restartEnded(p.ctx); err != nil {
			return err
		}
		if before {
			p.run(t)
			if err := p.waitQuiet(retireDelay); err != nil {
				return err
			}
		}
		if err := p.retireHandlers(); err != nil {
			return err
		}
		if !before {
			p.run(t)
		}
		return nil
	})
}

// retireHandlers retires the handlers of the schedule's new event type.
func (p *execution) retireHandlers() error {
	operator, err := operate.New(operate.Config{Pool: p.w.pool, Schema: p.w.name})
	if err != nil {
		return err
	}
	for _, h := range []operate.Handler{{Consumer: audit, Topic: topicFirst}, {Consumer: audit, Topic: topicFollow}, {Consumer: echo, Topic: topicFirst}} {
		h.Type = version2Type(p.seed)
		retired := false
		err := p.w.try(p.ctx, func(ctx context.Context) error {
			_, err := operator.RetireHandler(ctx, h)
			if errors.Is(err, operate.ErrUnknownHandler) {
				return nil
			}
			retired = retired || err == nil
			return err
		})
		if err != nil {
			return err
		}
		if retired {
			p.w.countFault(deployFault)
		}
	}
	return nil
}
