package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/internal/devstack"
)

// driver runs schedules in several worlds in parallel and counts the results.
type driver struct {
	options
	out      io.Writer
	postgres *devstack.Postgres // nil: not started by the driver, so no fault is injected
	rocketmq *devstack.RocketMQ // nil: embedded ones, or not started by the driver

	mu             sync.Mutex
	next           uint64
	played         int
	failed         int
	events         int64
	copies         int64
	faultCounts    map[faultKind]int // how often each kind of fault was injected
	slowest        slowSchedule
	found          verdict
	began          time.Time
	serverFaultLog serverFaultLog
	halt           context.CancelFunc // cancels the schedules that run
}

// slowSchedule is a schedule and how long it took to become quiet after the last fault had ended.
type slowSchedule struct {
	seed uint64
	took time.Duration
}

// schedulesPerWorld bounds the rows and messages that a world collects.
const schedulesPerWorld = 50

func newDriver(o options, out io.Writer) *driver {
	return &driver{options: o, out: out, next: o.seed, began: time.Now(), faultCounts: map[faultKind]int{}}
}

func (d *driver) run(ctx context.Context) error {
	stop, err := d.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	d.began = time.Now()
	ctx, d.halt = context.WithCancel(ctx)
	defer d.halt()
	begin, cancel := context.WithTimeout(ctx, d.duration) // while it lives, schedules are started
	defer cancel()
	var serverFaults sync.WaitGroup
	serverFaults.Go(func() { d.injectServerFaults(begin) })
	var workers errgroup.Group
	for range d.workers {
		workers.Go(func() error {
			err := d.worker(ctx, begin)
			if err != nil {
				cancel()
			}
			return err
		})
	}
	err = workers.Wait()
	cancel()
	serverFaults.Wait()
	if ctx.Err() != nil { // interrupted, or stopped by the first failure: the results so far count
		return nil
	}
	return err
}

// start starts the servers that no flag names.
func (d *driver) start(ctx context.Context) (stop func(), err error) {
	stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if d.postgres != nil {
			err = errors.Join(err, d.postgres.Stop(ctx))
		}
		if d.rocketmq != nil {
			err = errors.Join(err, d.rocketmq.Stop(ctx))
		}
		if err != nil {
			fmt.Fprintln(d.out, err)
		}
	}
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if d.database == "" {
		d.postgres, err = devstack.StartPostgres(ctx, devstack.PostgresConfig{NoFsync: true})
		if err != nil {
			return nil, err
		}
		d.database = d.postgres.URL()
	}
	if d.broker == "rocketmq" && d.nameServer == "" {
		d.rocketmq, err = devstack.StartRocketMQ(ctx, devstack.RocketMQConfig{})
		if err != nil {
			return nil, err
		}
		d.nameServer = d.rocketmq.NameServer()
	}
	return stop, nil
}

// worker runs schedules in one world after the other until there are no more.
func (d *driver) worker(ctx, begin context.Context) error {
	for begin.Err() == nil && d.hasMore() {
		w, err := openWorld(ctx, worldConfig{
			database: d.database, nameServer: d.nameServer, patience: d.patience, steadyClock: injection(d.injection) != injectAll, faults: d.faults, transport: d.transport,
		})
		if err != nil {
			return fmt.Errorf("create a world: %w", err)
		}
		err = d.runInWorld(ctx, begin, w)
		w.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// runInWorld runs schedules in a world until one fails: what that leaves could affect the next, which gets a new world.
func (d *driver) runInWorld(ctx, begin context.Context, w *world) error {
	for range schedulesPerWorld {
		seed, ok := d.take(begin)
		if !ok {
			break
		}
		s := generate(seed, injection(d.injection), w.server == nil, d.faults)
		w.takeLog()
		v, events, took, err := w.runSchedule(ctx, s)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("schedule of seed %d: %w\n%s\n%s", seed, err, s, strings.Join(w.takeLog(), "\n"))
		}
		d.count(s, w, v, events, took)
		if !v.ok() {
			return nil
		}
	}
	// Violations by events that came after their schedule was checked.
	v, err := w.judge(ctx, nil)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.copies += w.copies()
	if !v.ok() {
		d.add(v)
		fmt.Fprintf(d.out, "after schedules had been checked:\n\t%s\n", strings.Join(v.lines(), "\n\t"))
	}
	return nil
}

func (d *driver) hasMore() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.done() && (d.schedules == 0 || d.next < d.seed+uint64(d.schedules))
}

// take returns the seed of the next schedule; ok is false if there is none.
func (d *driver) take(begin context.Context) (seed uint64, ok bool) {
	if begin.Err() != nil || !d.hasMore() {
		return 0, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	return d.next - 1, true
}

// count adds a schedule to the results, and prints it if it failed.
func (d *driver) count(s *schedule, w *world, v verdict, events int64, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if took > d.slowest.took {
		d.slowest = slowSchedule{s.seed, took}
	}
	d.played++
	d.events += events
	for k, n := range w.takeFaultCounts() {
		d.faultCounts[k] += n
	}
	if v.ok() {
		return
	}
	d.add(v)
	fmt.Fprintf(d.out, "seed %d failed after %v:\n\t%s\nrun it again: make chaos SEED=%d SCHEDULES=1 BROKER=%s FAULTS=%s TRANSPORT=%s\n%sfaults of the servers:\n%s\n%s\n",
		s.seed, time.Since(d.began).Round(time.Millisecond), strings.Join(v.lines(), "\n\t"), s.seed, d.broker, joinKinds(d.faults), d.transport, s, &d.serverFaultLog, strings.Join(w.takeLog(), "\n"))
}

func (d *driver) add(v verdict) {
	d.failed++
	d.found.lost = append(d.found.lost, v.lost...)
	d.found.duplicated = append(d.found.duplicated, v.duplicated...)
	d.found.misordered = append(d.found.misordered, v.misordered...)
	d.found.other = append(d.found.other, v.other...)
	if d.done() {
		d.halt()
	}
}

// done reports whether the violation that -find or -stop wants was found.
func (d *driver) done() bool {
	switch d.find {
	case "lost":
		return len(d.found.lost) > 0
	case "doubled":
		return len(d.found.duplicated) > 0
	case "misordered":
		return len(d.found.misordered) > 0
	}
	return d.stop && d.failed > 0
}

// summary prints the results and returns the exit status.
func (d *driver) summary() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	took := time.Since(d.began)
	fmt.Fprintf(d.out, "seeds from %d on, %.1f schedules a second, failed=%d; slowest to become quiet: seed %d in %v; duplicates at the broker, which the inbox dropped: copies=%d; additional faults: %s\n",
		d.seed, float64(d.played)/took.Seconds(), d.failed, d.slowest.seed, d.slowest.took.Round(time.Millisecond), d.copies, formatFaultCounts(d.faultCounts))
	fmt.Fprintf(d.out, "chaos: schedules=%d events=%d lost=%d doubled=%d misordered=%d\n",
		d.played, d.events, len(d.found.lost), len(d.found.duplicated), len(d.found.misordered))
	if d.failed > 0 {
		return 1
	}
	return 0
}
