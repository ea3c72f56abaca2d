package rocketmq_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestConsumesAgainAfterKills kills a broker again and again, some times while the client connects to it again. A message that is sent when
// the broker is back is handled within 3 s (p99), and none that was handled is handled again. ROCKETFLOW_KILLS sets how often; a real
// broker is killed every 5 to 20 s.
func TestConsumesAgainAfterKills(t *testing.T) {
	t.Parallel()
	kills := 12
	if testbroker.Real() {
		kills = 2
	}
	if n, err := strconv.Atoi(os.Getenv("ROCKETFLOW_KILLS")); err == nil {
		kills = n
	}
	mq := testbroker.Start(t)
	ctx := t.Context()
	c := open(t, at(mq), func(c *rocketmq.Config) { c.Transport, c.SendTimeout = rocketmq.Own, time.Second })
	createTopic(t, c, broker.Topic{Name: "topic", Queues: 4})

	type place struct {
		queue  int
		offset int64
	}
	var mu sync.Mutex
	handled := map[place]int{}
	bodies := map[string]time.Time{} // when it was handled
	if _, err := c.Subscribe(ctx, broker.Subscription{Group: "group", Topics: []string{"topic"}}, func(_ context.Context, d broker.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		handled[place{d.Queue, d.Offset}]++
		if _, again := bodies[string(d.Body)]; !again {
			bodies[string(d.Body)] = time.Now()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	handledAt := func(body string) (at time.Time) {
		poll.Succeeds(t, time.Minute, func() error {
			mu.Lock()
			defer mu.Unlock()
			if at = bodies[body]; at.IsZero() {
				return fmt.Errorf("%s isn't handled", body)
			}
			return nil
		})
		return at
	}
	sent := 0
	send := func() (body string, err error) {
		sent++
		body = strconv.Itoa(sent)
		_, err = c.Send(ctx, broker.Message{Topic: "topic", Body: []byte(body)})
		return body, err
	}
	// deliver sends a message, again if that fails, and returns when it was handled.
	deliver := func() time.Time {
		var body string
		poll.Succeeds(t, time.Minute, func() (err error) {
			body, err = send()
			return err
		})
		return handledAt(body)
	}
	flow := func(d time.Duration) {
		for end := time.Now().Add(d); deliver().Before(end); {
		}
	}
	restart := func() time.Time {
		mq.Kill()
		restarting, cancel := context.WithTimeout(ctx, 5*time.Minute)
		defer cancel()
		for {
			err := mq.Restart(restarting)
			if err == nil {
				return time.Now()
			}
			if restarting.Err() != nil {
				t.Fatal(err)
			}
			mq.Kill() // on a busy machine a real broker may not boot in time
		}
	}
	pause := func() time.Duration {
		if testbroker.Real() {
			return 5*time.Second + rand.N(15*time.Second)
		}
		return rand.N(300 * time.Millisecond)
	}
	var took []time.Duration
	flow(0)
	for i := range kills {
		flow(pause())
		back := restart()
		if i%3 == 1 {
			time.Sleep(rand.N(500 * time.Millisecond)) // the client connects to it
			back = restart()
		}
		took = append(took, max(0, deliver().Sub(back)))
		t.Logf("kill %d: handled again %v after its return", i+1, took[i])
	}
	flow(0)
	mu.Lock()
	defer mu.Unlock()
	for p, n := range handled {
		if n > 1 {
			t.Errorf("queue %d, offset %d was handled %d times", p.queue, p.offset, n)
		}
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	t.Logf("%d kills: handled again after p50 %v, p99 %v; %d messages", kills, took[len(took)/2], p99, len(handled))
	if p99 > 3*time.Second {
		t.Errorf("p99 is %v: %v", p99, took)
	}
}
