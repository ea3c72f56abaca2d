//go:build !race

package rocketflowfx_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/fx"
	"go.uber.org/fx/fxtest"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/migrations"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/saga"
	"github.com/rocketflow/rocketflow/timeout"
)

// lines counts log lines.
type lines struct {
	mu    sync.Mutex
	count map[string]int
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "repeated" {
			text += " (repeated)"
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[text]++
	return nil
}

func (l *lines) all() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.count)
}

// While the broker is away a busy service writes a few lines to its log in all, not several a second.
func TestOutageIsAFewLines(t *testing.T) {
	t.Parallel()
	const outage = 10 * time.Second
	mq := rocketmqtest.RunT(t)
	pool, config := shop(t)
	log := &lines{count: map[string]int{}}
	config.RocketMQ.NameServers, config.Logger = []string{mq.Addr()}, slog.New(log)
	handled := make(chan string, 10_000)
	var transactor rocketflow.Transactor
	app := fxtest.New(t, rocketflowfx.Module, fx.Supply(pool, config), fx.Populate(&transactor), fx.Invoke(func(r *handlers.Router) {
		for i := range 3 {
			handlers.On(r, fmt.Sprint("reader", i), func(_ context.Context, tx rocketflow.Tx, p Shipped) error {
				if i == 0 {
					tx.AfterCommit(func() { handled <- p.Parcel })
				}
				return nil
			})
		}
	}))
	app.RequireStart()
	n := 0
	publish := func(until time.Time) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond) // 100 a second
		defer tick.Stop()
		for time.Now().Before(until) {
			err := transactor.Within(t.Context(), func(ctx context.Context, tx rocketflow.Tx) error {
				n++
				return tx.Publish(ctx, Shipped{Parcel: fmt.Sprint("p-", n)})
			})
			if err != nil {
				t.Fatal(err)
			}
			<-tick.C
		}
	}
	publish(time.Now().Add(time.Second))
	before := log.all()
	mq.Stop(rocketmqtest.LoseNothing)
	publish(time.Now().Add(outage))
	if err := mq.Start(); err != nil {
		t.Fatal(err)
	}
	publish(time.Now().Add(time.Second))
	seen := map[string]bool{}
	late := time.After(time.Minute)
	for len(seen) < n {
		select {
		case parcel := <-handled:
			seen[parcel] = true
		case <-late:
			t.Fatalf("%d of %d events were handled", len(seen), n)
		}
	}
	app.RequireStop() // writes what was counted
	wantFew(t, 12, before, log.all())
}

func wantFew(t *testing.T, most int, before, after map[string]int) {
	t.Helper()
	total := 0
	for _, text := range slices.Sorted(maps.Keys(after)) {
		if more := after[text] - before[text]; more > 0 {
			t.Logf("%d times: %s", more, text)
			total += more
		}
	}
	if total > most {
		t.Errorf("%d lines, want at most %d", total, most)
	}
}

// The same holds while the database is away.
func TestOutageOfPostgresIsAFewLines(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	postgres, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = postgres.Stop(context.Background()) })
	pool, err := pgxpool.New(ctx, postgres.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	config := shopIn(t, "rocketflow")
	if err := migrations.Up(ctx, pool, config.Schema); err != nil {
		t.Fatal(err)
	}
	mq := rocketmqtest.RunT(t)
	log := &lines{count: map[string]int{}}
	config.RocketMQ.NameServers, config.Logger = []string{mq.Addr()}, slog.New(log)
	handled := make(chan struct{}, 10_000)
	var transactor rocketflow.Transactor
	app := fxtest.New(t, rocketflowfx.Module, fx.Supply(pool, config), fx.Populate(&transactor), fx.Invoke(func(r *handlers.Router, _ *timeout.Scheduler, _ *saga.Engine) {
		for i := range 3 {
			handlers.On(r, fmt.Sprint("reader", i), func(_ context.Context, tx rocketflow.Tx, _ Shipped) error {
				tx.AfterCommit(func() { handled <- struct{}{} })
				return nil
			})
		}
	}))
	app.RequireStart()
	n := 0
	publish := func() error {
		n++
		return transactor.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			return tx.Publish(ctx, Shipped{Parcel: fmt.Sprint("p-", n)})
		})
	}
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-handled
	}
	const more = 30 // some are on their way when the server goes
	for range more {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	before := log.all()
	postgres.Kill()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for away := time.Now().Add(8 * time.Second); time.Now().Before(away); <-tick.C {
		if err := publish(); err == nil {
			t.Fatal("published while the database is away")
		}
	}
	if err := postgres.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	for publish() != nil {
		<-tick.C
	}
	for range 3 * (more + 1) {
		select {
		case <-handled:
		case <-ctx.Done():
			t.Fatal("events are missing")
		}
	}
	app.RequireStop()
	wantFew(t, 15, before, log.all()) // two for each of the consumers
}
