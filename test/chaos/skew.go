package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/operate"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// skewed is a clock that is wrong by a constant. Unlike a test's clock it is not known to be moved.
type skewed struct {
	rocketflow.Clock
	by time.Duration
}

func (s skewed) Now() time.Time { return s.Clock.Now().Add(s.by) }

// skewedBy returns c, which may be nil, if by is 0.
func skewedBy(c rocketflow.Clock, by time.Duration) rocketflow.Clock {
	if by == 0 {
		return c
	}
	if c == nil {
		c = clock.System{}
	}
	return skewed{c, by}
}

// skew adds a restart of a process with a wrong clock.
func (d *generator) skew() {
	const day = 24 * time.Hour
	by := pick(d.kindRNG, 2*time.Hour, 20*time.Hour, 6*day, 40*day)
	if d.kindRNG.IntN(2) == 0 {
		by = -by
	}
	who := d.kindRNG.IntN(publishers + consumers)
	d.add(fmt.Sprintf("process %d starts again with a clock that is %v ahead", who, by), func(p *execution) error {
		p.replace(who, false, func(s *settings) { s.Skew = by })
		return nil
	})
}

// resend waits until all is quiet, lets retention run, and sends the schedule's events again, as an operator may. No consumer may
// have deleted the record that it has handled them.
func (p *execution) resend() error {
	if err := p.releaseHanging(); err != nil { // hanging handlers would keep it from becoming quiet
		return err
	}
	if err := p.quiesce("", "a clock is wrong"); err != nil {
		return err
	}
	if err := p.w.jump(p.ctx, 65*time.Minute); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // nothing reports that retention has run in all processes
	// A repeated attempt sends events again that a failed one has sent.
	var n int
	err := p.w.try(p.ctx, func(ctx context.Context) error {
		client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{p.w.nameServer}, Namespace: p.w.namespace, Service: "chaos-resend", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer func() { _ = client.Close(context.WithoutCancel(ctx)) }()
		operator, err := operate.New(operate.Config{Pool: p.w.pool, Schema: p.w.name, Broker: client})
		if err != nil {
			return err
		}
		n, err = operator.Resend(ctx, operate.ResendFilter{Since: p.began})
		return err
	})
	if n > 0 {
		p.w.countFault(skewFault)
	}
	return err
}
