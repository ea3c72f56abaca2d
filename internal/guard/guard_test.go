package guard_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
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

func TestListenReportsFailures(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := &guard.Reporter{Logger: slog.New(slog.NewTextHandler(&log, nil)), Part: "part"}
	var none func(int)
	if guard.Listen(r, "None", &none); none != nil {
		t.Error("nil became a function")
	}
	n := 0
	add := func(i int) { n += i }
	guard.Listen(r, "Add", &add)
	fails := func(int) { panic("on purpose") }
	guard.Listen(r, "Fails", &fails)
	for range 5 {
		add(2)
		fails(0)
	}
	if n != 10 {
		t.Errorf("n is %d, want 10", n)
	}
	if lines := strings.Count(log.String(), "function=Fails"); lines != 3 || !strings.Contains(log.String(), "times=4") {
		t.Errorf("%d lines for 5 panics, want those of the first, the second and the fourth:\n%s", lines, log.String())
	}
}
