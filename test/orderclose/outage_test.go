//go:build !race

package orderclose_test

import (
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// A broker that loses messages that it has acknowledged loses them for good: at each moment they are on its disk, all but the
// timer, of which there is a row.

// moments are those of an order's life at which an outage begins.
var moments = []struct {
	name    string
	disturb func(l *life, disturb func())
}{
	{"before the half message", func(l *life, disturb func()) { l.at(isHalf, l.begin, disturb) }},
	{"before the commit", func(l *life, disturb func()) { l.at(isEnd, l.begin, disturb) }},
	{"before the delivery", func(l *life, disturb func()) {
		l.payment.Stop()
		l.mustBegin()
		l.Settle()
		l.Advance(time.Second) // what is stored is on the disk
		disturb()
	}},
	{"while it is handled", (*life).handling},
	{"when the broker got the timer", func(l *life, disturb func()) {
		l.at(isTimer, l.begin, func() { l.Advance(time.Second) }) // the rest is on the disk
		for l.Broker().Status().Timers == 0 {
			l.TrySettle(50 * time.Millisecond)
		}
		disturb()
	}},
	{"before the timer fires", func(l *life, disturb func()) {
		l.mustBegin()
		l.Settle()
		l.Advance(time.Second)
		disturb()
	}},
	{"when the timer is due", func(l *life, disturb func()) {
		l.mustBegin()
		l.Settle()
		l.Advance(within - 10*time.Millisecond)
		disturb()
	}},
}

// outages are what can happen to a broker or a service for a while.
var outages = []struct {
	name string
	of   func(s *shop) (end func())
}{
	{"broker loses its memory", restart(rocketmqtest.LoseMemory)},
	{"broker loses the markers", restart(rocketmqtest.LoseMarkers)},
	{"broker loses what is not flushed", restart(rocketmqtest.LoseUnflushed)},
	{"broker is paused", func(s *shop) func() {
		s.Broker().Pause()
		return s.Broker().Resume
	}},
	{"order service is cut off", func(s *shop) func() { return s.cut("order", rocketmqtest.Silent) }},
	{"order service is cut off, and its connections are lost", func(s *shop) func() { return s.cut("order", rocketmqtest.Dead) }},
	{"payment service is cut off, and its connections are lost", func(s *shop) func() { return s.cut("payment", rocketmqtest.Dead) }},
	{"payment service is refused", func(s *shop) func() { return s.cut("payment", rocketmqtest.Refused) }},
	{"order service is stopped", func(s *shop) func() {
		s.order.Stop()
		return s.order.Start
	}},
	{"payment service is stopped", func(s *shop) func() {
		if !s.payment.Running() {
			return func() {}
		}
		stopped := make(chan struct{})
		go func() { // it waits for its handler
			defer close(stopped)
			s.payment.Stop()
		}()
		return func() { <-stopped }
	}},
}

func restart(loss rocketmqtest.Loss) func(s *shop) func() {
	return func(s *shop) func() {
		s.RestartBroker(loss)
		return func() {}
	}
}

// Each outage happens at each moment, for as long as check-backs and the sweep need to notice.
func TestOutages(t *testing.T) {
	t.Parallel()
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s := openShop(t, rocketflowtest.Config{})
			for _, m := range moments {
				t.Run(m.name, func(t *testing.T) {
					// All of the orders before is on the disk: else the broker might lose it and keep where consumers have read to,
					// and they would pass over what comes in its place until the gap shows.
					s.Advance(time.Second)
					l := newLife(t, s)
					var end func()
					m.disturb(l, func() { end = o.of(s) })
					s.Advance(10 * time.Second)
					end()
					if !s.payment.Running() {
						s.payment.Start()
					}
					l.end()
				})
			}
		})
	}
}
