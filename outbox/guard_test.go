package outbox_test

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
)

// bad are the ways of a function to end that its caller must survive.
var bad = map[string]func(){
	"panic":  func() { panic("on purpose") },
	"Goexit": runtime.Goexit,
}

// Functions of AfterCommit that panic, or end their goroutine, change nothing: the transaction is committed, its event goes
// out, the other functions are called, and Within returns nil.
func TestBadAfterCommitFunctionsChangeNothing(t *testing.T) {
	t.Parallel()
	for name, end := range bad {
		for _, path := range bothPaths {
			t.Run(name+", "+path.String(), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				var log logged
				b := setup(t, func(c *outbox.Config) { c.Path, c.Logger = path, log.logger() })
				var ran []int
				var committed bool
				err := b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
					for i := range 4 {
						tx.AfterCommit(func() {
							ran = append(ran, i)
							if i%2 == 0 {
								end()
							}
						})
					}
					return tx.Publish(ctx, credited{"a", 1})
				})
				committed = err == nil
				if !committed || !slices.Equal(ran, []int{0, 1, 2, 3}) {
					t.Errorf("error %v; ran %v, want all four", err, ran)
				}
				poll.Until(t, "the event", func() bool { return len(b.broker.events()) == 1 })
				if log.count("a function of the application failed") == 0 || log.count("function=AfterCommit") == 0 {
					t.Errorf("nothing is logged: %s", log.all.String())
				}
			})
		}
	}
}

// A listener all of whose functions panic, or end their goroutine, changes nothing, whichever goroutine calls it.
func TestBadListenerChangesNothing(t *testing.T) {
	t.Parallel()
	for name, end := range bad {
		for _, path := range bothPaths {
			t.Run(name+", "+path.String(), func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				var mu sync.Mutex
				called := map[string]int{}
				listener := &outbox.Listener{}
				functions := reflect.ValueOf(listener).Elem()
				for i := range functions.NumField() {
					field := functions.Type().Field(i)
					functions.Field(i).Set(reflect.MakeFunc(field.Type, func([]reflect.Value) []reflect.Value {
						mu.Lock()
						called[field.Name]++
						mu.Unlock()
						end()
						return nil
					}))
				}
				b := setup(t, func(c *outbox.Config) { c.Path, c.Listener = path, listener })
				if _, err := b.pool.Exec(ctx, "CREATE TABLE one (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"); err != nil {
					t.Fatal(err)
				}
				for i := range 3 {
					if err := b.credit(ctx, fmt.Sprint("account-", i), 1); err != nil {
						t.Fatal(err)
					}
				}
				poll.Until(t, "the events", func() bool { return len(b.broker.events()) == 3 && b.count(t, "outbox_ack") == 3 })
				// So many failures open the breaker; what is owed then is the sweep's.
				away := fmt.Errorf("%w: no response", broker.ErrUnavailable)
				b.broker.set("prepare", away)
				b.broker.set("send", away)
				for i := range 10 {
					if err := b.credit(ctx, fmt.Sprint("account-", i), 1); err != nil {
						t.Fatal(err)
					}
				}
				b.broker.set("prepare", nil)
				b.broker.set("send", nil)
				poll.Until(t, "the other events", func() bool { return b.count(t, "outbox_ack") == 13 })
				_ = b.outbox.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
					if err := tx.Publish(ctx, credited{"b", 1}); err != nil {
						return err
					}
					_, err := tx.Exec(ctx, "INSERT INTO one VALUES ($1), ($1)", 1)
					return err
				})
				want := []string{"Recorded", "Committed", "RolledBack", "Relayed", "Acked", "Swept"}
				if path == outbox.HalfMessages {
					want = append(want, "Prepared", "Ended", "BreakerChanged", "PathChanged")
				}
				for _, f := range want {
					poll.Until(t, f+" called", func() bool {
						mu.Lock()
						defer mu.Unlock()
						return called[f] > 0
					})
				}
				poll.Until(t, "all connections given back", func() bool { return b.pool.Stat().AcquiredConns() == 0 })
			})
		}
	}
}
