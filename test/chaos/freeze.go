package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rocketflow/rocketflow/internal/partition"
)

// freezeSweeper adds a last phase in which a process stops, or loses its network, in the middle of a sweep. All other work
// becomes quiet without it. Then the process goes on.
func (d *generator) freezeSweeper() {
	owed := transaction{Name: fmt.Sprintf("s%d-owed", d.seed), By: d.kindRNG.IntN(publishers), Behavior: joinedRaw}
	owed.Events = []testEvent{{Name: owed.Name + "-e0", Schedule: d.seed, Topic: topicFirst, Stream: fmt.Sprintf("s%d-owed", d.seed)}}
	d.add("all faults end; the publisher that sweeps next is frozen in the middle of the sweep", func(p *execution) error { return p.freezeSweeper(owed) })
	for i := range 1 + d.kindRNG.IntN(3) {
		t := d.extraTransaction(fmt.Sprintf("z%d", i))
		if i == 0 {
			t.Behavior = joinedRaw // only the sweep sends it
		}
		d.addTransaction(t)
	}
	d.add("all is quiet without the frozen publisher", func(p *execution) error {
		if !p.w.anyFrozen() {
			return nil
		}
		return p.quiesce("", "a publisher that swept is frozen")
	})
	d.add("a day passes; the partitions of the next days are made without the frozen publisher", func(p *execution) error {
		if !p.w.anyFrozen() || p.w.clock == nil {
			return nil
		}
		return p.awaitPartitions()
	})
	d.add("the frozen publisher goes on", func(p *execution) error { p.thaw(); return nil })
}

// freezeSweeper publishes events that only the sweep sends, until a publisher is frozen while it sweeps.
func (p *execution) freezeSweeper(t transaction) error {
	if err := p.healAll(); err != nil {
		return err
	}
	p.failAgain()
	const tries = 6
	for try := range tries {
		if try == tries/2 {
			// A consumer may hold the sweep's lease for long. Without consumers a publisher gets it.
			for who := publishers; who < publishers+consumers; who++ {
				p.w.slots[who].current().close()
			}
		}
		for _, s := range p.w.slots[:publishers] {
			s.current().arm(freeze, sweepingCrashPoint, 1)
		}
		one := t
		one.Name = fmt.Sprintf("%s-%d", t.Name, try)
		one.Events = []testEvent{t.Events[0]}
		one.Events[0].Name = one.Name + "-e0"
		p.run(one)
		for range 4 {
			if err := p.w.jump(p.ctx, 2*time.Second); err != nil {
				return err
			}
			if err := p.waitQuiet(100 * time.Millisecond); err != nil {
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
		p.w.countFault(freezeFault)
	}
	for _, s := range p.w.slots[:publishers] {
		if !s.current().frozen() {
			s.current().arm(freeze, "", 0)
		}
	}
	return p.w.restartEnded(p.ctx)
}

func (w *world) anyFrozen() bool {
	for _, s := range w.slots {
		if s.current().frozen() {
			return true
		}
	}
	return false
}

// namesWithOpenTransactions returns the application names of the processes that may keep a transaction open: those that are
// frozen, or have a handler that hangs.
func (w *world) namesWithOpenTransactions() []string {
	names := []string{}
	for _, s := range w.slots {
		if m := s.current(); m.frozen() || m.hanging() > 0 {
			names = append(names, s.instanceName())
		}
	}
	return names
}

func (p *execution) thaw() {
	for _, s := range p.w.slots {
		s.current().thaw()
	}
}

// toRunningPublisher gives a transaction of a frozen publisher to one that runs.
func (p *execution) toRunningPublisher(t transaction) transaction {
	for range publishers {
		if !p.w.slots[t.By].current().frozen() {
			break
		}
		t.By = (t.By + 1) % publishers
	}
	return t
}

// awaitPartitions moves the clock by a day and waits until the running processes have made the outbox's partitions ahead.
// That they don't is a violation: without partitions, rows go to the default partition, which retention can't drop.
func (p *execution) awaitPartitions() error {
	if err := p.w.jump(p.ctx, 25*time.Hour); err != nil {
		return err
	}
	const daysAhead = 6 // the outbox makes seven, once an hour
	const look = 5 * time.Second
	next := time.Now().Add(look)
	for limit := time.Now().Add(p.w.config.patience); ; time.Sleep(pollInterval) {
		if time.Now().After(next) { // a fault came between, and the outbox tries again in a minute
			if err := p.w.jump(p.ctx, time.Minute); err != nil {
				return err
			}
			next = time.Now().Add(look)
		}
		var missing []string
		err := p.w.try(p.ctx, func(ctx context.Context) error {
			var now time.Time
			if err := p.w.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
				return err
			}
			missing = nil
			for _, table := range []string{"outbox", "outbox_ack"} {
				days, err := partition.Days(ctx, p.w.pool, partition.Table{Schema: p.w.name, Name: table})
				if err != nil {
					return err
				}
				for ahead := range daysAhead + 1 {
					day := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, ahead)
					if !slices.ContainsFunc(days, func(d partition.Day) bool { return d.Start.Equal(day) }) {
						missing = append(missing, table+" "+day.Format(time.DateOnly))
					}
				}
			}
			return nil
		})
		if err != nil || len(missing) == 0 {
			return err
		}
		if time.Now().After(limit) {
			p.violation(fmt.Sprintf("partitions were not made while a publisher that swept is frozen: %v", missing))
			return nil
		}
	}
}
