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

// skewed is the clock of a machine that is wrong. Nobody moves such a clock, as far as the parts know.
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

// skew adds a process that starts again with a wrong clock.
func (d *drawing) skew() {
	const day = 24 * time.Hour
	by := pick(d.extra, 2*time.Hour, 20*time.Hour, 6*day, 40*day)
	if d.extra.IntN(2) == 0 {
		by = -by
	}
	who := d.extra.IntN(publishers + consumers)
	d.add(fmt.Sprintf("process %d starts again with a clock that is %v ahead", who, by), func(p *play) error {
		p.replace(who, false, func(s *settings) { s.Skew = by })
		return nil
	})
}

// resend has all come to rest and whoever prunes do so, and sends the schedule's events again, as an operator may.
// Nobody may have forgotten that it has handled them.
func (p *play) resend() error {
	if err := p.releaseHanging(); err != nil { // all is to rest, what hung too
		return err
	}
	if err := p.comeToRest("", "a clock is wrong"); err != nil {
		return err
	}
	if err := p.w.jump(p.ctx, 65*time.Minute); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // nothing shows that all have pruned who would
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	defer cancel()
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{p.w.nameServer}, Namespace: p.w.namespace, Service: "chaos-resend", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(context.WithoutCancel(ctx)) }()
	// What an attempt that failed has sent comes once more.
	operator, err := operate.New(operate.Config{Pool: p.w.pool, Schema: p.w.name, Broker: client})
	if err != nil {
		return err
	}
	var n int
	err = p.w.try(p.ctx, func(ctx context.Context) (err error) {
		n, err = operator.Resend(ctx, operate.ResendFilter{Since: p.began})
		return err
	})
	if n > 0 {
		p.w.took(skewFault)
	}
	return err
}
