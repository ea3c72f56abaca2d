package guard_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/internal/guard"
)

func TestCallAndRunReturnWhatWentWrong(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(func()) error{"Call": guard.Call, "Run": guard.Run} {
		called := false
		if err := call(func() { called = true }); err != nil || !called {
			t.Errorf("%s: error %v, called %v", name, err, called)
		}
		for _, value := range []any{"no", io.ErrUnexpectedEOF, 7} {
			err := call(func() { panic(value) })
			var p *guard.PanicError
			if !errors.As(err, &p) || p.Value != value || !strings.Contains(string(p.Stack), "guard_test") {
				t.Errorf("%s: error %#v, want a *PanicError of %v with a stack", name, err, value)
			}
		}
		if err := call(func() { panic(io.ErrUnexpectedEOF) }); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: error %v doesn't match the error given to panic", name, err)
		}
		var m map[string]int
		if err := call(func() { m["x"] = 1 }); err == nil {
			t.Errorf("%s: a panic of the run time is not returned", name)
		}
	}
}

func TestRunSurvivesGoexit(t *testing.T) {
	t.Parallel()
	if err := guard.Run(runtime.Goexit); !errors.Is(err, guard.ErrGoexit) {
		t.Errorf("error %v, want ErrGoexit", err)
	}
	err := guard.Run(func() {
		defer runtime.Goexit()
		panic("first")
	})
	if err == nil {
		t.Error("a panic that a Goexit replaced is not returned")
	}
}

func BenchmarkCall(b *testing.B) {
	for b.Loop() {
		_ = guard.Call(func() {})
	}
}

func BenchmarkRun(b *testing.B) {
	for b.Loop() {
		_ = guard.Run(func() {})
	}
}
