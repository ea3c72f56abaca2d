package acceptance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/fx"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/wire"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// TestStreamsGoOnAfterAFailoverThatLostCommits fails the publisher over to a replica without the last commits. Their events
// are at the broker, and later events on the new primary follow the older predecessor. Every event that still exists is
// handled, in order, whether an event that no longer exists waits or was handled.
func TestStreamsGoOnAfterAFailoverThatLostCommits(t *testing.T) {
	t.Parallel()
	type link struct{ n, previous int64 }
	for _, c := range []struct {
		name  string
		sent  []link // before the failover, of those that were lost and those that were not
		after []link
		want  []string // what exists, in its order
	}{
		{"the predecessor is lost too", []link{{1, 0}, {2, 1}, {4, 3}}, []link{{50, 2}, {60, 50}}, []string{"1", "2", "50", "60"}},
		{"several lost events wait", []link{{1, 0}, {4, 3}, {5, 4}, {7, 6}}, []link{{50, 1}, {60, 50}}, []string{"1", "50", "60"}},
		{"the lost event was handled", []link{{1, 0}, {2, 1}, {3, 2}}, []link{{50, 2}, {60, 50}}, []string{"1", "2", "50", "60"}},
		{"lost events were handled and wait", []link{{1, 0}, {2, 1}, {4, 3}}, []link{{50, 1}, {60, 50}}, []string{"1", "50", "60"}},
		{"nothing but a lost event was there", []link{{4, 3}}, []link{{50, 0}, {60, 50}}, []string{"50", "60"}},
		{"twice", []link{{1, 0}, {3, 2}}, []link{{50, 1}, {70, 60}, {90, 50}, {95, 90}}, []string{"1", "50", "90", "95"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := rocketflowtest.New(t)
			var (
				client *rocketmq.Client
				mu     sync.Mutex
				got    []string
			)
			s := w.Start(rocketflowfx.Config{Service: "orders", Topics: envTopics}, fx.Populate(&client), fx.Invoke(func(r *handlers.Router) {
				r.Handle("ledger", envTopic, oldType, func(_ context.Context, tx rocketflow.Tx, e rocketflow.Event) error {
					tx.AfterCommit(func() {
						mu.Lock()
						defer mu.Unlock()
						got = append(got, string(e.Body))
					})
					return nil
				})
			}))
			base := w.Now().UnixMicro()
			send := func(links []link) {
				t.Helper()
				for _, l := range links {
					e, err := wire.NewEvent(rocketflow.Event{Topic: envTopic, Type: oldType, Subject: "o-1", Body: fmt.Append(nil, l.n)})
					if err != nil {
						t.Fatal(err)
					}
					e.Source, e.Sequence, e.Time = "shop", base+l.n, w.Now()
					if l.previous > 0 {
						e.Previous = base + l.previous
					}
					if _, err := client.Send(t.Context(), wire.MessageOf(e)); err != nil {
						t.Fatal(err)
					}
				}
			}
			existing := func() (those []string) {
				mu.Lock()
				defer mu.Unlock()
				for _, n := range got {
					if slices.Contains(c.want, n) {
						those = append(those, n)
					}
				}
				return those
			}
			send(c.sent)
			w.Settle()
			send(c.after)
			w.Settle()
			if c.want[0] != "1" {
				w.FastForward(2 * time.Minute) // the first of a stream may wait for handlers.Config.AdoptAfter
			}
			w.FastForward(time.Minute)
			if got := existing(); !slices.Equal(got, c.want) {
				t.Errorf("handled %v, want %v; waiting %d, dead letters %d", got, c.want, len(s.Parked()), len(s.DeadLetters()))
			}
			for range 24 * 4 { // what waits is looked at each half minute: a day of that, step by step, takes a minute
				w.Advance(15 * time.Minute)
				w.TrySettle(50 * time.Millisecond)
			}
			if got := existing(); !slices.Equal(got, c.want) {
				t.Errorf("a day later: handled %v, want %v", got, c.want)
			}
		})
	}
}
