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

// strikes is what befell the driver's own servers, for schedules that fail.
type strikes struct {
	mu  sync.Mutex
	all []string
}

func (s *strikes) add(what string, at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("  after %.1f s, %s: %s", at.Seconds(), time.Now().Format(time.StampMilli), what))
}

func (s *strikes) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return "  nothing"
	}
	return strings.Join(s.all, "\n")
}

// strike hits the servers that are the driver's own now and then, until ctx ends: whatever schedules are being played
// must stand it.
func (d *driver) strike(ctx context.Context) {
	var all []blow
	if d.postgres != nil {
		all = append(all,
			blow{"Postgres is killed and started", func(ctx context.Context) error {
				d.postgres.Kill()
				return d.postgres.Restart(ctx)
			}},
			blow{"Postgres is restarted", d.postgres.Restart})
	}
	if d.rocketmq != nil {
		all = append(all,
			blow{"RocketMQ is killed and started", func(ctx context.Context) error {
				d.rocketmq.Kill()
				return d.rocketmq.Restart(ctx)
			}},
			blow{"RocketMQ is paused", func(ctx context.Context) error {
				if err := d.rocketmq.Pause(); err != nil {
					return err
				}
				time.Sleep(time.Second)
				return d.rocketmq.Continue()
			}})
	}
	all = slices.DeleteFunc(all, func(b blow) bool { return !strings.Contains(b.what, d.options.strike) })
	if harm(d.harm) != allHarm || len(all) == 0 {
		return
	}
	pause := 5 * time.Second // at least, and three times that at most
	if d.options.strike != "" {
		pause = 2 * time.Second
	}
	lot := rand.New(rand.NewPCG(d.seed, 2))
	for {
		wait := time.NewTimer(pause + time.Duration(lot.Int64N(int64(2*pause))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return
		}
		b := pick(lot, all...)
		d.strikes.add(b.what, time.Since(d.began))
		if err := b.fall(); err != nil {
			fmt.Fprintf(d.out, "%s: %v\n", b.what, err)
			return
		}
		d.strikes.add("done", time.Since(d.began))
	}
}

type blow struct {
	what string
	do   func(context.Context) error
}

func (b blow) fall() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return b.do(ctx)
}
