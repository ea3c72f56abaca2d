// Package neighbours tests that programs in Java, with RocketMQ's own client, can read what rocketflow publishes, and that rocketflow
// handles what they send. It contains only tests, which need a real RocketMQ, Maven and a JDK.
package neighbours

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/leaks"
	"github.com/rocketflow/rocketflow/test/testbroker"

	"github.com/jackc/pgx/v5/pgxpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, leaks.Known()...) }

// TestJava runs with one client in Java and both transports.
func TestJava(t *testing.T) {
	java := startJava(t, testbroker.NeedsReal(t))
	t.Run("transports", func(t *testing.T) { // returns when all of them have ended
		for _, transport := range []rocketmq.Transport{rocketmq.ClientGo, rocketmq.Own} {
			t.Run(transport.String(), func(t *testing.T) {
				t.Parallel()
				t.Run("reads what rocketflow publishes", func(t *testing.T) { javaReads(t, java, transport) })
				t.Run("is handled by rocketflow", func(t *testing.T) { javaIsHandled(t, java, transport) })
			})
		}
	})
}

func unique(name string) string { return name + "-" + uuid.NewString()[:8] }

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// open opens a client with a transport.
func open(t *testing.T, transport rocketmq.Transport) *rocketmq.Client {
	t.Helper()
	return testbroker.Open(t, rocketmq.Config{
		NameServers: testbroker.NameServers(t), Service: "neighbours", SendTimeout: 20 * time.Second, Transport: transport,
		// Some test bodies decompress to more than that.
		MaxMessage: maxMessage,
	})
}

const maxMessage = 1 << 20

// newTopic creates a topic.
func newTopic(t *testing.T, c *rocketmq.Client, name string, queues int) string {
	t.Helper()
	topic := unique(name)
	if err := c.CreateTopics(deadline(t, time.Minute), broker.Topic{Name: topic, Queues: queues}); err != nil {
		t.Fatal(err)
	}
	return topic
}

// newOutbox starts an outbox that uses a path.
func newOutbox(t *testing.T, c *rocketmq.Client, pool *pgxpool.Pool, schema, source string, path outbox.Path) *outbox.Outbox {
	t.Helper()
	box, err := outbox.New(outbox.Config{Pool: pool, Broker: c, Source: source, Schema: schema, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	start(t, box)
	return box
}

// start starts a part until the test ends.
func start(t *testing.T, part interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
},
) {
	t.Helper()
	if err := part.Start(deadline(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := part.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

// receive returns the next message of a listener.
func receive[T any](t *testing.T, messages <-chan T) T {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(time.Minute):
		t.Fatal("no message came")
		panic("unreachable")
	}
}
