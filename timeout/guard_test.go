package timeout_test

import (
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/timeout"
)

// A listener whose functions panic or end their goroutine doesn't keep a timeout from firing.
func TestFailingListenerHasNoEffect(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"panic": func() { panic("on purpose") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			called := map[string]bool{}
			b := setup(t, func(c *timeout.Config, m *fakeBroker) {
				functions := reflect.ValueOf(c.Listener).Elem()
				for i := range functions.NumField() {
					field := functions.Type().Field(i)
					functions.Field(i).Set(reflect.MakeFunc(field.Type, func([]reflect.Value) []reflect.Value {
						mu.Lock()
						called[field.Name] = true
						mu.Unlock()
						end()
						return nil
					}))
				}
			}).start(t)
			b.arm(t, "disarmed", time.Hour)
			b.disarm(t, "disarmed")
			for i := range 3 {
				b.arm(t, fmt.Sprint("o", i), 10*time.Millisecond)
				b.waitFired(t)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, f := range []string{"Armed", "Disarmed", "HandedOver", "Fired"} {
				if !called[f] {
					t.Errorf("%s was not called", f)
				}
			}
		})
	}
}
