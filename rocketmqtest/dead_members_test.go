package rocketmqtest_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// TestDeadMembersStayListed closes connections just after a heartbeat. A real broker may handle the end of the connection first; then
// the client stays a member of its group until it has missed heartbeats for channelExpiredTimeout, 45 s in devstack and 120 s in RocketMQ 4. This
// broker never lists it.
func TestDeadMembersStayListed(t *testing.T) {
	t.Parallel()
	real := testbroker.NeedsReal(t)
	if _, n := deadMembers(t, rocketmqtest.RunT(t).Addr()); n != 0 {
		t.Errorf("%d dead members are still listed", n)
	}
	expired := 80 * time.Second
	if testbroker.Is4() {
		expired = 3 * time.Minute
	}
	for range 20 { // a broker that has much to do may see each end last
		group, n := deadMembers(t, real)
		if n == 0 {
			continue
		}
		poll.Within(t, expired, "dead members to be listed no more", func() bool { return listed(t, real, group) == 0 })
		return
	}
	t.Error("a real broker lists no dead members: rocketmq/doc.go says otherwise")
}

// deadMembers returns a group, and how many of its 200 members a broker still lists a while after their connections ended.
func deadMembers(t *testing.T, nameServer string) (string, int) {
	t.Helper()
	group := "dead-members-" + uuid.NewString()
	for i := range 200 {
		conn := testbroker.DialBroker(t, nameServer)
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
	last := -1
	for settled := time.Now(); time.Since(settled) < 3*time.Second; time.Sleep(50 * time.Millisecond) {
		if n := listed(t, nameServer, group); n != last {
			last, settled = n, time.Now()
		}
	}
	return group, last
}

func listed(t *testing.T, nameServer, group string) int {
	t.Helper()
	ids, err := testbroker.Members(t.Context(), nameServer, group)
	if err != nil {
		t.Fatal(err)
	}
	return len(ids)
}
