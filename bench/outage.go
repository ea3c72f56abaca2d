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

// What callers ask for together: less than what the machine gives, so that what changes is the outage's doing.
const (
	outageCallers = 16
	outageRate    = 1000 // transactions a second
)

// sample is what had happened at a time.
type sample struct {
	at        time.Duration
	committed int
	delivered int
	waiting   int // committed and not delivered
}

// outage is a run through one.
type outage struct {
	by                  string
	samples             []sample
	lost, back, drained time.Duration // drained is 0 if it never was
}

// runOutage publishes and consumes while a broker is away, draws it, and prints the same in words.
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
	if err := os.WriteFile(filepath.Clean(o.file), run.draw(), 0o644); err != nil { //nolint:gosec // G306: for everybody to read
		return fmt.Errorf("write picture: %w", err)
	}
	fmt.Println(run)
	return nil
}

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
	go func() { // ends by itself; over is read below
		time.Sleep(before)
		over <- takeAway(ctx, o.by, broker, away)
	}()
	run.lost = before
	usual := outageCallers // what waits while nothing is wrong; twice that is as good as nothing
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
	if run.back == 0 { // interrupted; the broker must not be stopped while it starts
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

// takeAway takes the broker away for so long, and returns when it is back.
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
