package rocketmq

import (
	"errors"
	"log/slog"
	"time"

	"github.com/rocketflow/rocketflow/internal/guard"
)

// Listener is told what happened. Its functions are called from many goroutines and must return quickly; nil ones are
// skipped.
type Listener struct {
	BrokerUp        func(BrokerInfo)
	BrokerDown      func(BrokerInfo)
	CheckAnswered   func(CheckInfo)
	CheckDropped    func(CheckInfo) // too many checks at once: the broker will ask again
	HandlerFailed   func(HandlerInfo)
	ConsumerRenewed func(ConsumerInfo) // after a broker came back
}

// BrokerInfo is about our own connection to a broker.
type BrokerInfo struct {
	Broker, Address string
	Err             error // why it is down
}

// CheckInfo is about a check of a half message.
type CheckInfo struct {
	Group, Topic, MessageID string
	Decision                string // commit, rollback, unknown
	Attempt                 int
	Took                    time.Duration
	Err                     error // of ending the half message
}

// HandlerInfo is about a message that a handler did not settle and that is held for another try.
type HandlerInfo struct {
	Group, Topic, MessageID string
	Attempt                 int
	Err                     error
}

// ConsumerInfo is about a consumer.
type ConsumerInfo struct {
	Group  string
	Topics []string
	Took   time.Duration
}

// guarded returns a Listener without nil functions, each of which outlives whatever the function of l does.
func (l *Listener) guarded(log *slog.Logger) *Listener {
	var given Listener
	if l != nil {
		given = *l
	}
	return &Listener{
		BrokerUp:        guarded(log, "BrokerUp", given.BrokerUp),
		BrokerDown:      guarded(log, "BrokerDown", given.BrokerDown),
		CheckAnswered:   guarded(log, "CheckAnswered", given.CheckAnswered),
		CheckDropped:    guarded(log, "CheckDropped", given.CheckDropped),
		HandlerFailed:   guarded(log, "HandlerFailed", given.HandlerFailed),
		ConsumerRenewed: guarded(log, "ConsumerRenewed", given.ConsumerRenewed),
	}
}

func guarded[I any](log *slog.Logger, name string, fn func(I)) func(I) {
	if fn == nil {
		return func(I) {}
	}
	return func(i I) {
		if ended := guard.Run(func() { fn(i) }); ended != nil {
			sayEnded(log, "listener", ended, "name", name)
		}
	}
}

// sayEnded logs that a function of the application panicked or ended its goroutine.
func sayEnded(log *slog.Logger, what string, ended error, args ...any) {
	args = append([]any{"what", what}, append(args, "error", ended)...)
	var p *guard.PanicError
	if errors.As(ended, &p) {
		args = append(args, "stack", string(p.Stack))
	}
	log.Error("a function of the application panicked or ended its goroutine: only this call fails", args...)
}

func (c *Client) sayEnded(what string, ended error, args ...any) {
	sayEnded(c.log, what, ended, args...)
}

// Tee returns a Listener that tells all of them, in order.
func Tee(listeners ...*Listener) *Listener {
	var all Listener
	for _, l := range listeners {
		if l == nil {
			continue
		}
		tee(&all.BrokerUp, l.BrokerUp)
		tee(&all.BrokerDown, l.BrokerDown)
		tee(&all.CheckAnswered, l.CheckAnswered)
		tee(&all.CheckDropped, l.CheckDropped)
		tee(&all.HandlerFailed, l.HandlerFailed)
		tee(&all.ConsumerRenewed, l.ConsumerRenewed)
	}
	return &all
}

func tee[I any](all *func(I), fn func(I)) {
	first := *all
	switch {
	case first == nil:
		*all = fn
	case fn != nil:
		*all = func(i I) { first(i); fn(i) }
	}
}
