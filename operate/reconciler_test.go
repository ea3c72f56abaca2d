package operate

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/lease"
	"github.com/rocketflow/rocketflow/test/testdb"
)

// A pass ends when another process may have begun one: what it has found to be missing may have been sent again by that.
func TestPassEndsWithTheLease(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	moving := new(clock.Virtual)
	process := func() *Reconciler {
		r, err := NewReconciler(ReconcilerConfig{Pool: pool, Schema: schema, Every: time.Minute, Clock: moving})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	one, other := process(), process()
	if held, err := one.acquire(t.Context()); err != nil || !held {
		t.Fatal(held, err)
	}
	for range 3 { // it is renewed
		moving.Advance(80 * time.Second)
		if err := one.keep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := lease.Release(t.Context(), pool, schema, reconcilerLease, one.holder); err != nil {
		t.Fatal(err)
	}
	if held, err := other.acquire(t.Context()); err != nil || !held {
		t.Fatal(held, err)
	}
	moving.Advance(80 * time.Second)
	if err := one.keep(t.Context()); !errors.Is(err, errLeaseLost) {
		t.Errorf("another process has the lease: %v", err)
	}
	moving.Advance(80 * time.Second)
	if err := other.keep(t.Context()); !errors.Is(err, errLeaseLost) {
		t.Errorf("it was not renewed in time: %v", err)
	}
	o, err := New(Config{Pool: pool, Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	y, err := NewSystem(SystemConfig{Operators: []*Operator{o}})
	if err != nil {
		t.Fatal(err)
	}
	watch := y.Watch(ReconcileConfig{})
	watch.keep = other.keep
	if _, err := watch.Next(t.Context()); !errors.Is(err, errLeaseLost) {
		t.Errorf("the pass goes on: %v", err)
	}
}

// What can't be compared is logged once, not with each pass.
func TestReconcilerLogsWhatIsNotCompared(t *testing.T) {
	t.Parallel()
	pool, schema := testdb.Migrated(t)
	further, other := testdb.Migrated(t)
	passes := make(chan error, 100)
	var log bytes.Buffer // written before a pass is reported, and read after the last
	r, err := NewReconciler(ReconcilerConfig{
		Pool: pool, Schema: schema, Schemas: []string{schema, "never_there", other}, Pools: []*pgxpool.Pool{further}, Every: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Report: func(_ *Reconciliation, err error) { passes <- err },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-passes; err != nil {
			t.Error(err)
		}
	}
	if err := r.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Count(text, "not everything is compared") != 1 || !strings.Contains(text, "never_there") || strings.Contains(text, other) {
		t.Errorf("%s", text)
	}
}
