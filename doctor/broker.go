package doctor

import (
	"context"
	"fmt"
	"time"
)

var brokerChecks = []check{
	{
		Check: Check{Code: "broker-check-window", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker waits for a decision on half messages for longer than the longest transaction",
			About: `A broker checks a half message back transactionCheckMax times, once in transactionCheckInterval, from transactionTimeOut on. Then it discards the half message, whatever its transaction does. The event isn't lost: its row is sent by the sweep once the transaction has committed. But it comes late, and out of the order of its neighbours until the consumers have waited for it.

The longest transaction is outbox.Config.MaxTransaction, or the oldest transaction that is open now if that is longer.

Mend: raise transactionCheckMax, or make transactions shorter.`},
		cluster: brokerCheckWindow,
	},
}

func brokerCheckWindow(_ context.Context, m *cluster) []Result {
	longest, what := m.x.config.Expect.MaxTransaction, "outbox.Config.MaxTransaction"
	for _, d := range m.x.databases {
		if d.oldest() > longest {
			longest, what = d.oldest(), "the oldest open transaction of "+d.name
		}
	}
	return m.eachSettings(func(b *master, s *settings) []Result {
		timeout, interval := s.duration("transactionTimeOut", time.Millisecond), s.duration("transactionCheckInterval", time.Millisecond)
		checks := s.number("transactionCheckMax")
		window := max(timeout, interval) + time.Duration(checks-1)*interval
		observed := fmt.Sprintf("half messages are discarded after %s (%d checks, one in %s)", about(window), checks, about(interval))
		if window > longest {
			return one(ok("%s", observed))
		}
		wanted := int64(longest/max(interval, 1)) + 2
		return one(found(observed, fmt.Sprintf("more than %s: %s", about(longest), what), b.change("transactionCheckMax", fmt.Sprint(wanted))))
	})
}
