package rocketmq_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// replicated is a broker whose messages can be read at two addresses, as of a master and its slave, and a name server that lists them.
type replicated struct {
	mq      *rocketmqtest.Server
	names   *front
	slave   *front
	suggest atomic.Bool // the master suggests that its slave is read

	mu       sync.Mutex
	master   *front // nil: away
	requests map[*front][]remoting.Code
	slaveIs  func(request, response *remoting.Command) // alters what the slave returns to a pull
}

func newReplicated(t *testing.T) *replicated {
	t.Helper()
	r := &replicated{mq: rocketmqtest.RunT(t), requests: map[*front][]remoting.Code{}}
	r.slave = r.server(t)
	r.returnMaster(t)
	r.names = newFront(t, r.mq, func(_, response *remoting.Command) {
		r.mu.Lock()
		defer r.mu.Unlock()
		addresses := fmt.Sprintf(`{"1":%q}`, r.slave.address)
		if r.master != nil {
			addresses = fmt.Sprintf(`{"0":%q,"1":%q}`, r.master.address, r.slave.address)
		}
		response.Body = bytes.ReplaceAll(response.Body, fmt.Appendf(nil, `{"0":%q}`, r.mq.BrokerAddr()), []byte(addresses))
	})
	r.names.asIs = true
	return r
}

// server returns a server of the broker that notes what is requested of it.
func (r *replicated) server(t *testing.T) *front {
	t.Helper()
	var f *front
	ready := make(chan struct{})
	f = newFront(t, r.mq, func(request, response *remoting.Command) {
		<-ready
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests[f] = append(r.requests[f], request.Code)
		switch {
		case request.Code != remoting.PullMessage:
		case f == r.slave && r.slaveIs != nil:
			r.slaveIs(request, response)
		case f != r.slave && r.suggest.Load() && response.Code == remoting.Success:
			response.Ext["suggestWhichBrokerId"] = "1"
		}
	})
	close(ready)
	return f
}

func (r *replicated) returnMaster(t *testing.T) {
	t.Helper()
	master := r.server(t)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.master = master
}

func (r *replicated) loseMaster() {
	r.mu.Lock()
	master := r.master
	r.master = nil
	r.mu.Unlock()
	master.stop()
}

func (r *replicated) requested(f *front) []remoting.Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests[f])
}

// checkSlave checks that nothing was changed at the slave.
func (r *replicated) checkSlave(t *testing.T) {
	t.Helper()
	for _, code := range r.requested(r.slave) {
		switch code {
		case remoting.PullMessage, remoting.Heartbeat, remoting.UnregisterClient, remoting.ConsumerList, remoting.QueryConsumerOffset:
		default:
			t.Errorf("request %d was sent to the slave", code)
		}
	}
}

// expect checks that messages with the numbers from first to last come, in any order, and nothing else.
func expect(t *testing.T, came <-chan broker.Delivery, first, last int) {
	t.Helper()
	got := map[string]int{}
	for range last - first + 1 {
		got[string(next(t, came).Body)]++
	}
	for i := first; i <= last; i++ {
		if got[strconv.Itoa(i)] != 1 {
			t.Errorf("of %d to %d came %v", first, last, got)
			return
		}
	}
}

// TestSlaveIsReadWhenItsMasterSaysSo: the next pull goes to the slave, and back when the slave says so.
func TestSlaveIsReadWhenItsMasterSaysSo(t *testing.T) {
	t.Parallel()
	r := newReplicated(t)
	r.mq.CreateTopic("topic", 1)
	r.suggest.Store(true)
	c := own(t, r.names.address)
	came := make(chan broker.Delivery, 1000)
	k, err := c.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}, MaxBuffered: 10}, func(_ context.Context, d broker.Delivery) error {
		came <- d
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "a connection to the slave", func() bool { return slices.Contains(r.requested(r.slave), remoting.Heartbeat) })
	for i := range 200 {
		sendRaw(t, r.mq, "topic", 0, nil, []byte(strconv.Itoa(i)))
	}
	expect(t, came, 0, 199)
	r.suggest.Store(false)
	sendRaw(t, r.mq, "topic", 0, nil, []byte("200"))
	expect(t, came, 200, 200)
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	pulls := map[*front]int{}
	for _, f := range []*front{r.slave, r.master} {
		for _, code := range r.requested(f) {
			if code == remoting.PullMessage {
				pulls[f]++
			}
		}
	}
	if pulls[r.slave] < 5 || pulls[r.master] < 5 {
		t.Errorf("%d pulls from the slave, %d from the master", pulls[r.slave], pulls[r.master])
	}
	r.checkSlave(t)
	if ids, err := testbroker.Members(t.Context(), r.mq.Addr(), "group"); err != nil || len(ids) > 0 {
		t.Errorf("after the stop the broker lists %v, %v", ids, err)
	}
}

// TestSlaveIsReadWhileItsMasterIsAway: messages come from the slave. Offsets and locks wait for the master, which learns the offset before
// it is pulled from, so that nothing comes twice.
func TestSlaveIsReadWhileItsMasterIsAway(t *testing.T) {
	t.Parallel()
	for _, serial := range []bool{false, true} {
		t.Run(fmt.Sprintf("serial=%t", serial), func(t *testing.T) {
			t.Parallel()
			r := newReplicated(t)
			r.mq.CreateTopic("topic", 1)
			c := own(t, r.names.address)
			came := make(chan broker.Delivery, 1000)
			k, err := c.Subscribe(t.Context(), broker.Subscription{Group: "group", Topics: []string{"topic"}, Serial: serial}, func(_ context.Context, d broker.Delivery) error {
				came <- d
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			send := func(first, last int) {
				for i := first; i <= last; i++ {
					sendRaw(t, r.mq, "topic", 0, nil, []byte(strconv.Itoa(i)))
				}
			}
			send(0, 9)
			expect(t, came, 0, 9)
			r.loseMaster()
			send(10, 19)
			expect(t, came, 10, 19)
			if k.Err() == nil {
				t.Error("the consumer doesn't report that the master is away")
			}
			r.mu.Lock()
			r.slaveIs = func(_, response *remoting.Command) { // it lost messages, or is behind
				response.Code, response.Body = remoting.PullRetryNow, nil
				response.Ext["nextBeginOffset"] = "1000"
			}
			r.mu.Unlock()
			send(20, 29)
			r.returnMaster(t)
			back := r.master
			began := time.Now()
			expect(t, came, 20, 29)
			t.Logf("read from the master again after %v", time.Since(began))
			told := false
			for _, code := range r.requested(back) {
				told = told || code == remoting.UpdateConsumerOffset
				if code == remoting.PullMessage && !told {
					t.Error("the master was pulled from before it knew the offset")
				}
			}
			poll.Succeeds(t, 20*time.Second, k.Err)
			if err := k.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(came) > 0 {
				t.Errorf("%d messages came twice", len(came))
			}
			r.checkSlave(t)
		})
	}
}

// TestDamagedRecordOfASlaveIsReadFromItsMaster: a slave doesn't decide that a message can't be read.
func TestDamagedRecordOfASlaveIsReadFromItsMaster(t *testing.T) {
	t.Parallel()
	r := newReplicated(t)
	r.mq.CreateTopic("topic", 1)
	r.suggest.Store(true)
	r.slaveIs = func(_, response *remoting.Command) {
		if response.Code == remoting.Success {
			response.Body = bytes.Repeat([]byte("nonsense"), 10)
		}
	}
	c := own(t, r.names.address)
	came, k := collect(t, c, "group", "topic")
	poll.Until(t, "a connection to the slave", func() bool { return slices.Contains(r.requested(r.slave), remoting.Heartbeat) })
	for i := range 20 {
		sendRaw(t, r.mq, "topic", 0, nil, []byte(strconv.Itoa(i)))
		if d := next(t, came); d.Unreadable != nil || string(d.Body) != strconv.Itoa(i) {
			t.Fatalf("got %+v", d)
		}
	}
	if err := k.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.requested(r.slave), remoting.PullMessage) {
		t.Error("the slave was never read")
	}
}
