package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/time/rate"

	"github.com/rocketflow/rocketflow/bench/frame"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/outbox"
)

type outageOptions struct {
	file  string
	by    string // "kill" or "pause"
	short bool
}

// outageCallers and outageRate are the load. It is lower than what the machine can do, so that the diagram shows the outage and
// not the limit of the machine.
const (
	outageCallers = 16
	outageRate    = 1000 // transactions a second
)

// sample has the totals at a time.
type sample struct {
	at        time.Duration
	committed int
	delivered int
	waiting   int // committed and not delivered
}

// outage is a run during which the broker fails and comes back.
type outage struct {
	by                  string
	samples             []sample
	lost, back, drained time.Duration // drained is 0 if the backlog was never drained
}

// runOutage publishes and consumes while a broker is away, writes the diagram, and prints a summary.
func runOutage(ctx context.Context, o outageOptions) error {
	if o.by != "kill" && o.by != "pause" {
		return fmt.Errorf("-outage-by: %q: want kill or pause", o.by)
	}
	broker, err := devstack.StartRocketMQ(ctx, devstack.RocketMQConfig{})
	if err != nil {
		return err
	}
	defer func() { _ = broker.Stop(context.WithoutCancel(ctx)) }()
	b, err := frame.NewBed(ctx, os.Getenv("DATABASE_URL"), broker.NameServer())
	if err != nil {
		return err
	}
	defer b.Close()
	run, err := measureOutage(ctx, o, b, broker)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Clean(o.file), run.draw(), 0o644); err != nil { //nolint:gosec // G306: readable by all users
		return fmt.Errorf("write picture: %w", err)
	}
	fmt.Println(run)
	return nil
}

// measureOutage runs the load and the outage, and takes samples.
func measureOutage(ctx context.Context, o outageOptions, b *frame.Bed, broker *devstack.RocketMQ) (*outage, error) {
	warm, before, away, atMost := 20*time.Second, 10*time.Second, 10*time.Second, 90*time.Second
	if o.short {
		warm, before, away = 0, 3*time.Second, 3*time.Second
	}
	run := &outage{by: o.by}
	watch := frame.NewStopwatch()
	way, err := frame.Outbox(outbox.Config{})(ctx, b, watch) // the default configuration
	if err != nil {
		return nil, err
	}
	defer way.Close()
	if err := frame.Warm(ctx, way, watch, outageCallers, warm); err != nil {
		return nil, err
	}
	offered, publish := rate.NewLimiter(outageRate, outageCallers), way.Publish
	way.Publish = func(ctx context.Context, account string, cents int64) error {
		if err := offered.Wait(ctx); err != nil {
			return err
		}
		return publish(ctx, account, cents)
	}
	load := frame.StartLoad(ctx, way, outageCallers)
	begin := time.Now()
	over := make(chan error, 1)
	go func() { // ends after the outage; the result is read from over
		time.Sleep(before)
		over <- takeAway(ctx, o.by, broker, away)
	}()
	run.lost = before
	usual := outageCallers // events in flight before the outage; at twice that number the backlog counts as drained
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		delivered, waiting := watch.Counts()
		s := sample{at: time.Since(begin), committed: load.Done(), delivered: delivered, waiting: waiting}
		run.samples = append(run.samples, s)
		select {
		case err := <-over:
			if err != nil {
				_, _ = load.Stop()
				return nil, err
			}
			run.back = s.at
		default:
		}
		if s.at < before {
			usual = max(usual, waiting)
		}
		if run.back > 0 && run.drained == 0 && waiting <= 2*usual {
			run.drained = s.at
		}
		if ctx.Err() != nil || s.at > atMost || run.drained > 0 && s.at > run.drained+before/2 {
			break
		}
	}
	if run.back == 0 { // interrupted: the broker must not be stopped while it starts
		if err := <-over; err != nil {
			_, _ = load.Stop()
			return nil, err
		}
		run.back = time.Since(begin)
	}
	if _, err := load.Stop(); err != nil {
		return nil, fmt.Errorf("a business transaction failed: %w", err)
	}
	return run, frame.Wait(ctx, watch)
}

// takeAway kills or pauses the broker for d, and returns when it is back.
func takeAway(ctx context.Context, by string, broker *devstack.RocketMQ, d time.Duration) error {
	if by == "pause" {
		if err := broker.Pause(); err != nil {
			return err
		}
		time.Sleep(d)
		return broker.Continue()
	}
	broker.Kill()
	time.Sleep(d)
	return broker.Restart(ctx)
}
