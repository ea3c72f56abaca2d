package rocketmq_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testcert"
)

func TestConformance(t *testing.T) {
	t.Run("ClientGo", func(t *testing.T) {
		usesClient(t)
		conformance(t, rocketmq.ClientGo)
	})
	t.Run("Own", func(t *testing.T) { conformance(t, rocketmq.Own) })
}

// TestConformanceOverTLS: everything goes through TLS connections, from a client with a certificate.
func TestConformanceOverTLS(t *testing.T) {
	authority := testcert.NewAuthority(t)
	mq := testbroker.StartTLS(t, authority)
	config := &tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{authority.Issue(t, testcert.Leaf{}).TLS(t)}}
	conformance(t, rocketmq.Own, func(c *rocketmq.Config) { c.NameServers, c.TLS = []string{mq.NameServer()}, config })
}

func conformance(t *testing.T, transport rocketmq.Transport, change ...func(*rocketmq.Config)) {
	opened := func(t *testing.T) *rocketmq.Client {
		return open(t, func(c *rocketmq.Config) {
			c.Transport = transport
			for _, f := range change {
				f(c)
			}
		})
	}
	brokertest.Run(t, func(t *testing.T) brokertest.Harness {
		return brokertest.Harness{
			Open: func(t *testing.T) brokertest.Driver { return opened(t) },
			Close: func(t *testing.T, d brokertest.Driver) {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				if err := d.(*rocketmq.Client).Close(ctx); err != nil {
					t.Error(err)
				}
			},
			CreateTopic: func(t *testing.T, topic broker.Topic) {
				ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
				defer cancel()
				if err := opened(t).CreateTopics(ctx, topic); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}
