package saga

import (
	"log/slog"
	"testing"

	"github.com/rocketflow/rocketflow/internal/guard"
	"github.com/rocketflow/rocketflow/test/guardtest"
)

func TestEachFunctionOfTheListenerIsGuarded(t *testing.T) {
	t.Parallel()
	var l Listener
	guardtest.Fill(&l)
	guarded := l.guarded(&guard.Reporter{Logger: slog.New(slog.DiscardHandler), Part: "saga"})
	guardtest.Call(t, guarded)
}
