package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/operate"
)

// ObserveUnread registers the collector of what the consumers of a schema have not read. The broker is asked at each scrape, for each queue
// of their topics and for 2 s at most: what it has not answered then has no value. All processes of a service report the same values.
func (m *Metrics) ObserveUnread(o *operate.Operator, b broker.Inspector) {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_handlers_"+name, help, []string{"consumer", "topic"}, nil)
	}
	m.registry.MustRegister(&unread{
		operator: o, broker: b,
		messages: desc("unread_messages", "Messages of a topic that the consumer's group has not read."),
		age:      desc("unread_age_seconds", "Time since the oldest of them was stored."),
	})
}

// unread is a collector.
type unread struct {
	operator      *operate.Operator
	broker        broker.Inspector
	messages, age *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (u *unread) Describe(ch chan<- *prometheus.Desc) {
	ch <- u.messages
	ch <- u.age
}

// Collect implements prometheus.Collector. What can't be read is not reported. There is no age of messages of a group that has never read:
// the broker doesn't tell it.
func (u *unread) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	now, err := u.operator.Now(ctx)
	if err != nil {
		return
	}
	list, _ := u.operator.Unread(ctx, u.broker)
	for _, v := range list {
		ch <- prometheus.MustNewConstMetric(u.messages, prometheus.GaugeValue, float64(v.Messages), v.Consumer, v.Topic)
		age := time.Duration(0)
		switch {
		case !v.Oldest.IsZero():
			age = max(now.Sub(v.Oldest), 0)
		case v.Messages > 0:
			continue
		}
		ch <- prometheus.MustNewConstMetric(u.age, prometheus.GaugeValue, age.Seconds(), v.Consumer, v.Topic)
	}
}
