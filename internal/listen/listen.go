// Package listen has the helpers with which each package implements its Listener, a struct of functions: the default of a
// function that is nil, its call, and the combination of the same function of several listeners.
package listen

// Default sets a listener's function to one that does nothing if it is nil.
func Default[A any](fn *func(A)) {
	if *fn == nil {
		*fn = func(A) {}
	}
}

// Tee makes *all call fn after what it called before. fn may be nil.
func Tee[A any](all *func(A), fn func(A)) {
	first := *all
	switch {
	case first == nil:
		*all = fn
	case fn != nil:
		*all = func(a A) { first(a); fn(a) }
	}
}

// Notify calls fn unless it is nil.
func Notify[A any](fn func(A), a A) {
	if fn != nil {
		fn(a)
	}
}
