package console_test

import (
	"context"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/console"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testconsole"
)

// Parked events are grouped by reason and error, and each group leads to its events.
func TestParkedEventsAreGrouped(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	service.Letters(t, 4)
	service.Exec(t, "UPDATE parked SET reason = 'retry', next_at = now(), last_error = 'no answer after ' || sequence || substr(subject, 2) || ' ms' WHERE consumer = 'mailing' AND subject <> 's4'")
	service.Exec(t, "UPDATE parked SET reason = 'unhandled', last_error = '' WHERE consumer = 'mailing' AND subject = 's4'")
	s := serve(t, console.Config{}, service)
	text := s.want("streams", "Parked events by error", "no answer after … ms", `<td class="n"><b>3</b></td><td>mailing</td>`, "no error")
	link := regexp.MustCompile(`href="([^"]*)#parked">no answer after`).FindStringSubmatch(text)
	if link == nil {
		t.Fatal("the group leads nowhere")
	}
	text = s.want(strings.TrimPrefix(html.UnescapeString(link[1]), prefix+"/"), "with the error", ">s1<", ">s2<", ">s3<")
	if strings.Contains(text, ">s4<") {
		t.Error("it shows events of another group")
	}
	if text := s.want("streams?consumer=billing"); strings.Contains(text, "no answer after") {
		t.Error("it shows groups of another consumer")
	}
}

// A saga's page has what was published while the events of its history were handled.
func TestSagaPageShowsEventsOut(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	const saga = "saga?service=order&name=order&key=4711"
	s := serve(t, console.Config{}, service)
	if text := s.want(saga); strings.Contains(text, "Events out") {
		t.Error("it shows events out, and there are none")
	}
	service.Exec(t, "UPDATE outbox SET cause = (SELECT cause_id FROM saga_history WHERE key = '4711' AND revision = 2), cause_consumer = 'sagas of orders' WHERE id = $1", service.Owed)
	console.ForgetReads(s.console)
	s.want(saga, "Events out", service.Owed.String(), "sagas of orders")
}

// queues is a broker that knows the positions of groups.
type queues struct {
	broker.Inspector
	list []broker.QueuePosition
}

func (b queues) QueuePositions(context.Context, string, string) ([]broker.QueuePosition, error) {
	return b.list, nil
}

// A consumer's unread messages are listed by queue.
func TestConsumersPageListsQueues(t *testing.T) {
	t.Parallel()
	service := testconsole.New(t, "shop")
	s := serve(t, console.Config{Broker: queues{list: []broker.QueuePosition{
		{Broker: "broker-a", Queue: 3, End: 9, Committed: 2, Unread: time.Now().Add(-time.Hour)},
		{Broker: "broker-b", Queue: 4, End: 9, Committed: 9},
		{Broker: "broker-b", Queue: 5, End: 12, Committed: -1},
	}}}, service)
	var text string
	poll.Within(t, 20*time.Second, "the broker was asked", func() bool {
		_, text, _ = s.get("consumers")
		return strings.Contains(text, "2 queues of 3 not read to the end")
	})
	rows := regexp.MustCompile(`<tr><th scope="row">orders</th><td>broker-(.)</td><td class="n">(.)</td><td class="n">(\d+)</td><td>(never read)?`).FindAllStringSubmatch(text, -1)
	if len(rows) != 4 || strings.Join(rows[0][1:], " ") != "b 5 12 never read" || strings.Join(rows[1][1:], " ") != "a 3 7 " { // of two consumers
		t.Errorf("got %q", rows)
	}
}
