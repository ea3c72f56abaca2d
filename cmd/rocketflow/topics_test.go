package main

import (
	"strings"
	"testing"
)

// With --service no database is needed; types, namespace, framework topics and groups are as the profile wants them.
func TestTopicsOfFlags(t *testing.T) {
	t.Parallel()
	const line = "topics --service shop --topic orders:4:fifo --topic alarms:1:DELAY --consumer billing --database-url postgres://127.0.0.1:1/none"
	for _, c := range []struct{ flags, want string }{
		{"", `
topic alarms 1 queue DELAY
topic orders 4 queues FIFO
topic rocketflow-missing-events 2 queues NORMAL
group shop-billing
group shop_discarded
group shop_resend
`},
		{" --profile Proxy5 --namespace ns", `
topic ns%alarms 1 queue NORMAL
topic ns%orders 4 queues NORMAL
topic ns%rocketflow-missing-events 2 queues NORMAL
group ns%shop-billing
group ns%shop_resend
`},
		{" --profile apache4 --format mqadmin", `
# NAMESRV is the address of the name server, not of a proxy; CLUSTER is the name of the cluster, such as DefaultCluster.
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'alarms' -r 1 -w 1
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'orders' -r 4 -w 4
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'rocketflow-missing-events' -r 2 -w 2
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'shop-billing'
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'shop_discarded'
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'shop_resend'
`},
	} {
		code, stdout, stderr := runLine(line + c.flags)
		if got := (&seeded{}).normal(stdout); code != exitOK || got != strings.TrimPrefix(c.want, "\n") || stderr != "" {
			t.Errorf("%s: got %d\n%s%s\nwant\n%s", c.flags, code, got, stderr, c.want)
		}
	}
}

// Without --service the service, its consumers and topics are those of the tables, and flags add others.
func TestTopicsOfTables(t *testing.T) {
	t.Parallel()
	s := seed(t)
	if code, _, stderr := s.rf("topics"); code != exitFailure || !strings.Contains(stderr, "belongs to no service yet") {
		t.Errorf("without an owner: got %d, %s", code, stderr)
	}
	s.exec(t, "UPDATE installation SET source = 'shop'")
	s.exec(t, "INSERT INTO consumer_handler (consumer, topic, type) VALUES ('billing', 'orders', 'a'), ('billing', 'orders', 'b'), ('mail', 'parcels', 'c')")
	s.exec(t, "INSERT INTO stream (source, topic, subject, previous, sequence) SELECT source, topic, i::text, 0, 1 FROM (VALUES ('shop', 'invoices'), ('shop', 'refunds'), ('other', 'theirs')) v (source, topic), generate_series(1, 3) i")
	code, stdout, stderr := s.rf("topics --topic loose:2 --profile huaweidms5")
	const want = `topic invoices 8 queues NORMAL
topic loose 2 queues NORMAL
topic orders 8 queues NORMAL
topic parcels 8 queues NORMAL
topic refunds 8 queues NORMAL
topic rocketflow-missing-events 2 queues NORMAL
group shop-billing
group shop-mail
group shop_resend
`
	if code != exitOK || stdout != want || stderr != "" {
		t.Errorf("got %d\n%s%s\nwant\n%s", code, stdout, stderr, want)
	}
}

func TestTopicsRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flags, stderr string
		code          int
	}{
		{"--format yaml", "--format", exitUsage},
		{"--profile kafka", "unknown profile", exitUsage},
		{"--topic :2", "--topic", exitUsage},
		{"--topic a:0", "--topic", exitUsage},
		{"--topic a:2:LITE", "--topic", exitUsage},
		{"--topic a:2:FIFO:x", "--topic", exitUsage},
		{"--topic a.b", "characters other than", exitFailure},
		{"--profile apsaramq5 --namespace ns", "profile apsaramq5", exitFailure},
	} {
		if code, _, stderr := runLine("topics --service shop " + c.flags); code != c.code || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: got %d, %s", c.flags, code, stderr)
		}
	}
}
