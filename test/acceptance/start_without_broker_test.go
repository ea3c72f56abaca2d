package acceptance

import (
	"context"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestAServiceStartsAndCommitsWhileTheBrokerIsAway starts a service while the broker is away and commits orders. All events
// are sent and handled when the broker is there, and after a restart of the broker new ones arrive within five seconds.
func TestAServiceStartsAndCommitsWhileTheBrokerIsAway(t *testing.T) {
	mq := testbroker.Start(t)
	s := setup(t, mq.NameServer())
	mq.Kill()
	client, err := rocketmq.Open(bounded(t, 20*time.Second), rocketmq.Config{NameServers: s.nameServers, Service: "acceptance", AwaitBroker: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	s.client = client
	box := s.outbox()
	router := s.router(box)
	router.Handle("ledger", s.topic, "counted", record)
	s.start(router)
	number := 0
	publish := func() {
		t.Helper()
		number++
		if err := s.publish(box, event{"account", number, s.topic}); err != nil {
			t.Fatal(err)
		}
	}
	handled := func(n int) bool { return s.count("SELECT count(*) FROM effect WHERE number = $1", n) == 1 }
	for range 5 {
		publish()
	}
	if router.Err() == nil || client.Ping(t.Context()) == nil {
		t.Error("nothing says that the broker is away")
	}
	restart := func() {
		t.Helper()
		if err := mq.Restart(bounded(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	back := time.Now()
	poll.Within(t, 30*time.Second, "what was owed is handled", func() bool { return handled(number) })
	t.Logf("what was owed is handled %v after the broker came", time.Since(back))
	poll.Within(t, 10*time.Second, "all is well", func() bool { return router.Err() == nil && client.Ping(t.Context()) == nil })

	mq.Kill()
	publishUnordered := func(key string) {
		t.Helper()
		if err := s.publish(box, rocketflow.Event{Topic: s.topic, Type: "counted", Subject: key, Body: []byte(`{"key":"` + key + `","number":1}`)}); err != nil {
			t.Fatal(err)
		}
	}
	publishUnordered("meanwhile")
	restart()
	back = time.Now()
	publishUnordered("new")
	poll.Within(t, 30*time.Second, "what is new is handled", func() bool { return s.count("SELECT count(*) FROM effect WHERE key = 'new'") == 1 })
	if took := time.Since(back); took > 5*time.Second {
		t.Errorf("what is new was handled %v after the broker was back", took)
	} else {
		t.Logf("what is new was handled %v after the broker was back", took)
	}
	poll.Within(t, 30*time.Second, "what came meanwhile is handled", func() bool { return s.count("SELECT count(*) FROM effect WHERE key = 'meanwhile'") == 1 })
	t.Logf("and all %v after", time.Since(back))
}
