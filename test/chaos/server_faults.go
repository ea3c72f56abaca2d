package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// serverFaultLog records the faults of the driver's own servers, for the report of a schedule that fails.
type serverFaultLog struct {
	mu  sync.Mutex
	all []string
}

func (s *serverFaultLog) add(what string, at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("  after %.1f s, %s: %s", at.Seconds(), time.Now().Format(time.StampMilli), what))
}

func (s *serverFaultLog) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return "  none"
	}
	return strings.Join(s.all, "\n")
}

// injectServerFaults kills, restarts and pauses the servers that the driver started, at random times until ctx ends. All
// schedules that run meanwhile have to hold their promises.
func (d *driver) injectServerFaults(ctx context.Context) {
	var all []serverFault
	if d.postgres != nil {
		all = append(all,
			serverFault{"Postgres is killed and started", func(ctx context.Context) error {
				d.postgres.Kill()
				return d.postgres.Restart(ctx)
			}},
			serverFault{"Postgres is restarted", d.postgres.Restart})
	}
	if d.rocketmq != nil {
		all = append(all,
			serverFault{"RocketMQ is killed and started", func(ctx context.Context) error {
				d.rocketmq.Kill()
				return d.rocketmq.Restart(ctx)
			}},
			serverFault{"RocketMQ is paused", func(ctx context.Context) error {
				if err := d.rocketmq.Pause(); err != nil {
					return err
				}
				time.Sleep(time.Second)
				return d.rocketmq.Continue()
			}})
	}
	all = slices.DeleteFunc(all, func(b serverFault) bool { return !strings.Contains(b.what, d.options.serverFault) })
	if injection(d.injection) != injectAll || len(all) == 0 {
		return
	}
	pause := 5 * time.Second // between two faults: this to three times this
	if d.options.serverFault != "" {
		pause = 2 * time.Second
	}
	rng := rand.New(rand.NewPCG(d.seed, 2))
	for {
		wait := time.NewTimer(pause + time.Duration(rng.Int64N(int64(2*pause))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		b := pick(rng, all...)
		d.serverFaultLog.add(b.what, time.Since(d.began))
		if err := b.inject(); err != nil {
			fmt.Fprintf(d.out, "%s: %v\n", b.what, err)
			return
		}
		d.serverFaultLog.add("done", time.Since(d.began))
	}
}

// serverFault is a fault of a server: what describes it, do injects it and ends it.
type serverFault struct {
	what string
	do   func(context.Context) error
}

func (b serverFault) inject() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	return b.do(ctx)
}
