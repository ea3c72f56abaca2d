package listen_test

import (
	"testing"

	"github.com/rocketflow/rocketflow/internal/listen"
)

// Tee keeps the order of the functions and skips those that are nil.
func TestTeeCallsAllInOrder(t *testing.T) {
	t.Parallel()
	var calls string
	add := func(name string) func(string) { return func(a string) { calls += name + a } }
	var all func(string)
	for _, fn := range []func(string){nil, add("x"), nil, add("y"), add("z")} {
		listen.Tee(&all, fn)
	}
	all("1")
	if calls != "x1y1z1" {
		t.Errorf("called %s", calls)
	}
}

func TestDefaultKeepsAFunction(t *testing.T) {
	t.Parallel()
	called := false
	own, none := func(int) { called = true }, (func(int))(nil)
	listen.Default(&own)
	listen.Default(&none)
	none(1)
	if own(1); !called {
		t.Error("the function was replaced")
	}
}
