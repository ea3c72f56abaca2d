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

// driver plays schedules in several worlds.
type driver struct {
	options
	out      io.Writer
	postgres *devstack.Postgres // nil: one that is left alone
	rocketmq *devstack.RocketMQ // nil: embedded ones, or one that is left alone

	mu      sync.Mutex
	next    uint64
	played  int
	failed  int
	events  int64
	copies  int64
	did     map[fault]int // how often each kind of fault took place
	slowest slow
	found   verdict
	began   time.Time
	strikes strikes
	halt    context.CancelFunc // ends what is being played
}

// slow is a schedule and how long it took to come to rest when all was healed.
type slow struct {
	seed uint64
	took time.Duration
}

// schedulesPerWorld bounds what a world gathers.
const schedulesPerWorld = 50

func newDriver(o options, out io.Writer) *driver {
	return &driver{options: o, out: out, next: o.seed, began: time.Now(), did: map[fault]int{}}
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
	begin, cancel := context.WithTimeout(ctx, d.duration) // of schedules
	defer cancel()
	var disasters sync.WaitGroup
	disasters.Go(func() { d.strike(begin) })
	var workers errgroup.Group
	for range d.workers {
		workers.Go(func() error {
			err := d.work(ctx, begin)
			if err != nil {
				cancel()
			}
			return err
		})
	}
	err = workers.Wait()
	cancel()
	disasters.Wait()
	if ctx.Err() != nil { // Ctrl-C, or the first failure: what was played counts
		return nil
	}
	return err
}

// start starts the servers that aren't named.
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

// work plays schedules in one world after the other until there are no more.
func (d *driver) work(ctx, begin context.Context) error {
	for begin.Err() == nil && d.more() {
		w, err := openWorld(ctx, worldConfig{
			database: d.database, nameServer: d.nameServer, patience: d.patience, calm: harm(d.harm) != allHarm, faults: d.faults,
		})
		if err != nil {
			return fmt.Errorf("make a world: %w", err)
		}
		err = d.inhabit(ctx, begin, w)
		w.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// inhabit plays schedules in a world. One that fails may have left things that trouble the next: that gets a new world.
func (d *driver) inhabit(ctx, begin context.Context, w *world) error {
	for range schedulesPerWorld {
		seed, ok := d.take(begin)
		if !ok {
			break
		}
		s := draw(seed, harm(d.harm), w.server == nil, d.faults)
		w.takeNotes()
		v, events, took, err := w.play(ctx, s)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("schedule of seed %d: %w\n%s\n%s", seed, err, s, strings.Join(w.takeNotes(), "\n"))
		}
		d.count(s, w, v, events, took)
		if !v.ok() {
			return nil
		}
	}
	// What came late, when its schedule had been judged.
	v, err := w.judge(ctx, nil)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.copies += w.copies()
	if !v.ok() {
		d.add(v)
		fmt.Fprintf(d.out, "after schedules had been judged:\n\t%s\n", strings.Join(v.lines(), "\n\t"))
	}
	return nil
}

func (d *driver) more() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.done() && (d.schedules == 0 || d.next < d.seed+uint64(d.schedules))
}

// take returns the seed of the next schedule.
func (d *driver) take(begin context.Context) (seed uint64, ok bool) {
	if begin.Err() != nil || !d.more() {
		return 0, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	return d.next - 1, true
}

// count counts a schedule, and tells one that failed.
func (d *driver) count(s *schedule, w *world, v verdict, events int64, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if took > d.slowest.took {
		d.slowest = slow{s.seed, took}
	}
	d.played++
	d.events += events
	for k, n := range w.takeDid() {
		d.did[k] += n
	}
	if v.ok() {
		return
	}
	d.add(v)
	fmt.Fprintf(d.out, "seed %d failed after %v:\n\t%s\nplay it again: make chaos SEED=%d SCHEDULES=1 BROKER=%s FAULTS=%s\n%smeanwhile:\n%s\n%s\n",
		s.seed, time.Since(d.began).Round(time.Millisecond), strings.Join(v.lines(), "\n\t"), s.seed, d.broker, joinFaults(d.faults), s, &d.strikes, strings.Join(w.takeNotes(), "\n"))
}

func (d *driver) add(v verdict) {
	d.failed++
	d.found.lost = append(d.found.lost, v.lost...)
	d.found.doubled = append(d.found.doubled, v.doubled...)
	d.found.misordered = append(d.found.misordered, v.misordered...)
	d.found.other = append(d.found.other, v.other...)
	if d.done() {
		d.halt()
	}
}

// done tells whether what was found is all that is wanted.
func (d *driver) done() bool {
	switch d.find {
	case "lost":
		return len(d.found.lost) > 0
	case "doubled":
		return len(d.found.doubled) > 0
	case "misordered":
		return len(d.found.misordered) > 0
	}
	return d.stop && d.failed > 0
}

// summary tells the outcome and returns the exit status.
func (d *driver) summary() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	took := time.Since(d.began)
	fmt.Fprintf(d.out, "seeds from %d on, %.1f schedules a second, failed=%d; slowest to rest: seed %d in %v; doubles at the broker, which the inbox took: copies=%d; kinds of faults: %s\n",
		d.seed, float64(d.played)/took.Seconds(), d.failed, d.slowest.seed, d.slowest.took.Round(time.Millisecond), d.copies, countsOf(d.did))
	fmt.Fprintf(d.out, "chaos: schedules=%d events=%d lost=%d doubled=%d misordered=%d\n",
		d.played, d.events, len(d.found.lost), len(d.found.doubled), len(d.found.misordered))
	if d.failed > 0 {
		return 1
	}
	return 0
}
