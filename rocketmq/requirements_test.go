package rocketmq_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
)

func TestRequirements(t *testing.T) {
	t.Parallel()
	topics := []broker.Topic{{Name: "orders", Kind: broker.FIFO, Queues: 4}, {Name: "alarms", Kind: broker.Delay, Queues: 1}, {Name: "orders"}}
	groups := []string{"shop", "shop_resend", "shop"}
	for _, c := range []struct {
		profile rocketmq.Profile
		format  rocketmq.RequirementsFormat
		want    string
	}{
		{rocketmq.Apache5, rocketmq.FormatList, `
topic  ns%alarms       1 queue   DELAY
topic  ns%orders       4 queues  FIFO
group  ns%shop                   
group  ns%shop_resend            
`},
		{rocketmq.Apache4, rocketmq.FormatMqadmin, `
# NAMESRV is the address of the name server, not of a proxy; CLUSTER is the name of the cluster, such as DefaultCluster.
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'ns%alarms' -r 1 -w 1
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'ns%orders' -r 4 -w 4
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'ns%shop'
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'ns%shop_resend'
`},
		{rocketmq.Proxy5, rocketmq.FormatMqadmin, `
# NAMESRV is the address of the name server, not of a proxy; CLUSTER is the name of the cluster, such as DefaultCluster.
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'ns%alarms' -r 1 -w 1 -a +message.type=NORMAL
mqadmin updateTopic -n "$NAMESRV" -c "$CLUSTER" -t 'ns%orders' -r 4 -w 4 -a +message.type=NORMAL
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'ns%shop'
mqadmin updateSubGroup -n "$NAMESRV" -c "$CLUSTER" -g 'ns%shop_resend'
`},
		{rocketmq.Proxy5, rocketmq.FormatJSON, `
{
  "profile": "proxy5",
  "topics": [
    {
      "name": "ns%alarms",
      "type": "NORMAL",
      "queues": 1
    },
    {
      "name": "ns%orders",
      "type": "NORMAL",
      "queues": 4
    }
  ],
  "groups": [
    "ns%shop",
    "ns%shop_resend"
  ]
}
`},
	} {
		r, err := rocketmq.Config{Profile: c.profile, Namespace: "ns"}.Requirements(topics, groups)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := r.Write(&b, c.format); err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimPrefix(c.want, "\n"); b.String() != want {
			t.Errorf("%s for %s:\n%swant\n%s", c.format, c.profile, b.String(), want)
		}
	}
}

// Names that the profile doesn't allow are all named.
func TestRequirementsCheckNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 61)
	_, err := rocketmq.Config{Profile: rocketmq.ApsaraMQ5}.Requirements([]broker.Topic{{Name: long}, {Name: "good"}, {Name: "per%cent"}}, []string{long + "group"})
	if !errors.Is(err, broker.ErrIllegal) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"61 bytes, want 1 to 60", "per%cent", "66 bytes", "profile apsaramq5", "Quotas and limits"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error doesn't name %q: %v", want, err)
		}
	}
	if err := (rocketmq.Requirements{}).Write(&strings.Builder{}, "yaml"); err == nil {
		t.Error("an unknown format is accepted")
	}
}
