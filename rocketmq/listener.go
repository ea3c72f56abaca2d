package rocketmq

import "time"

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

func (l *Listener) orNoop() *Listener {
	var n Listener
	if l != nil {
		n = *l
	}
	if n.BrokerUp == nil {
		n.BrokerUp = func(BrokerInfo) {}
	}
	if n.BrokerDown == nil {
		n.BrokerDown = func(BrokerInfo) {}
	}
	if n.CheckAnswered == nil {
		n.CheckAnswered = func(CheckInfo) {}
	}
	if n.CheckDropped == nil {
		n.CheckDropped = func(CheckInfo) {}
	}
	if n.HandlerFailed == nil {
		n.HandlerFailed = func(HandlerInfo) {}
	}
	if n.ConsumerRenewed == nil {
		n.ConsumerRenewed = func(ConsumerInfo) {}
	}
	return &n
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
