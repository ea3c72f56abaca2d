package brokertest_test

import (
	"context"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/broker/brokertest"
)

// client is the driver under test. A real one implements the methods of all the interfaces that it embeds here.
type client struct{ brokertest.Driver }

func openClient() client { return client{} }

func (client) Close(context.Context) error                     { return nil }
func (client) CreateTopic(context.Context, broker.Topic) error { return nil }

// A driver's test runs the suite on each broker that the driver supports. The function is the driver's TestConformance.
func ExampleRun() {
	_ = func(t *testing.T) {
		brokertest.Run(t, func(t *testing.T) brokertest.Harness {
			return brokertest.Harness{
				Open: func(t *testing.T) brokertest.Driver {
					c := openClient()
					t.Cleanup(func() { _ = c.Close(context.Background()) })
					return c
				},
				Close: func(t *testing.T, d brokertest.Driver) {
					if err := d.(client).Close(t.Context()); err != nil {
						t.Error(err)
					}
				},
				CreateTopic: func(t *testing.T, topic broker.Topic) {
					if err := openClient().CreateTopic(t.Context(), topic); err != nil {
						t.Fatal(err)
					}
				},
			}
		})
	}
}
