package saga_test

import (
	"runtime"
	"testing"

	"github.com/rocketflow/rocketflow/saga"
)

// A listener whose functions panic or end their goroutine doesn't keep a saga from its transitions.
func TestFailingListenerHasNoEffect(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panic": func() { panic("on purpose") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			called := map[string]int{}
			b.cfg.Listener = &saga.Listener{
				Moved:   func(saga.TransitionInfo) { called["Moved"]++; end() },
				Ignored: func(saga.IgnoredInfo) { called["Ignored"]++; end() },
				Waiting: func(saga.WaitInfo) { called["Waiting"]++; end() },
			}
			clear(b.router)
			b.Engine = b.engine(t, b.cfg)
			s := registerOrder(t, b)
			b.begin(t, s, "o1", order{})
			for _, p := range []paid{{"", 1}, {"nobody", 1}, {"o1", 100}, {"o1", 1}} {
				if _, err := b.send(p); err != nil {
					t.Fatal(err)
				}
			}
			i, err := s.Get(t.Context(), b.pool, "o1")
			if err != nil || i.Data.Paid == 0 {
				t.Errorf("the saga is %+v (%v), want it paid", i, err)
			}
			if called["Moved"] < 2 || called["Ignored"] < 1 || called["Waiting"] < 1 {
				t.Errorf("called %v", called)
			}
		})
	}
}
