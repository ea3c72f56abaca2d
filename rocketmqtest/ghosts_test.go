package rocketmqtest_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/mqtest"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestGhosts has clients die just after a heartbeat. A real broker may handle the end of the connection first, and the
// client stays a member of its group for two minutes; here it never does.
func TestGhosts(t *testing.T) {
	t.Parallel()
	real := mqtest.NeedsReal(t)
	if n := ghosts(t, rocketmqtest.RunT(t).Addr()); n != 0 {
		t.Errorf("%d clients that are gone are still listed", n)
	}
	if n := ghosts(t, real); n == 0 {
		t.Error("a real broker lists none of the clients that are gone: rocketmq/doc.go says otherwise")
	}
}

// ghosts returns how many of 200 members a broker still lists a while after their ends.
func ghosts(t *testing.T, nameServer string) int {
	t.Helper()
	ctx := t.Context()
	names := dialBroker(t, nameServer)
	var cluster remoting.Cluster
	answer, err := names.Call(ctx, &remoting.Command{Code: remoting.ClusterInfo})
	if err == nil {
		err = remoting.DecodeJSON(answer.Body, &cluster)
	}
	if err != nil {
		t.Fatal(err)
	}
	var address string
	for _, b := range cluster.Brokers {
		address = b.Master()
	}
	group := "ghosts-" + uuid.NewString()
	for i := range 200 {
		conn := dialBroker(t, address)
		body, err := json.Marshal(map[string]any{"clientID": fmt.Sprint(group, i), "producerDataSet": []any{}, "consumerDataSet": []any{map[string]any{
			"groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING", "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET",
			"subscriptionDataSet": []any{}, "unitMode": false,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Notify(&remoting.Command{Code: remoting.Heartbeat, Body: body}); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	// Those whose end was handled after their heartbeat go in a moment.
	conn := dialBroker(t, address)
	last := -1
	for settled := time.Now(); time.Since(settled) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		var list struct {
			IDs []string `json:"consumerIdList"`
		}
		answer, err := conn.Call(ctx, &remoting.Command{Code: remoting.ConsumerList, Ext: map[string]string{"consumerGroup": group}})
		if err == nil { // else the group has no member
			if err := remoting.DecodeJSON(answer.Body, &list); err != nil {
				t.Fatal(err)
			}
		}
		if len(list.IDs) != last {
			last, settled = len(list.IDs), time.Now()
		}
	}
	return last
}

func dialBroker(t *testing.T, address string) *remoting.Conn {
	t.Helper()
	conn, err := remoting.Dial(t.Context(), address, remoting.Credentials{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}
