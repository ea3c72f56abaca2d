package guard

import (
	"errors"
	"log/slog"
	"sync/atomic"
)

// Reporter logs failures of functions of the application: the first one, and then each time that their number has doubled.
// All methods are safe for concurrent use.
type Reporter struct {
	Logger *slog.Logger
	Part   string // the part that called the function, such as "outbox"

	times atomic.Int64
}

// Report logs an error of Call or Run of the function with this name. nil is ignored.
func (r *Reporter) Report(function string, err error) {
	if err == nil {
		return
	}
	n := r.times.Add(1)
	if n&(n-1) != 0 {
		return
	}
	var stack string
	if p := (*PanicError)(nil); errors.As(err, &p) {
		stack = string(p.Stack)
	}
	r.Logger.Error("a function of the application failed; the "+r.Part+" continues without it: fix the function",
		"function", function, "error", err, "times", n, "stack", stack)
}

// Listen replaces a listener's function, unless it is nil, by one that calls it with Run and reports its failures.
func Listen[A any](r *Reporter, name string, fn *func(A)) {
	inner := *fn
	if inner == nil {
		return
	}
	*fn = func(a A) { r.Report(name, Run(func() { inner(a) })) }
}
