package remoting

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A list that is longer than any can be costs neither memory nor connections.
func TestListsAreBounded(t *testing.T) {
	t.Parallel()
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	numbered := func(n int, one string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(one, i))
		}
		return strings.Join(all, ",")
	}
	route := func(body []byte) error { _, err := DecodeRoute(body); return err }
	cluster := func(body []byte) error { _, err := DecodeCluster(body); return err }
	members := func(body []byte) error { _, err := DecodeMembers(body); return err }
	const largeQueues = `{"brokerName":"broker-%04d","perm":6,"readQueueNums":16,"topicSysFlag":0,"writeQueueNums":16}`
	const largeBroker = `{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911",2:"10.0.0.3:10911"},"brokerName":"broker-%04d","cluster":"DefaultCluster","enableActingMaster":false}`
	twice := `{"brokerDatas":[{"brokerAddrs":{` + numbered(200, `"%d":"h:1"`) + `}},{"brokerAddrs":{` + numbered(200, `"1%03d":"h:1"`) + `}}]}`
	for what, c := range map[string]struct {
		decode func(body []byte) error
		body   string
		want   string // in the error; empty: none
	}{
		"a large route":            {route, `{"queueDatas":[` + numbered(MaxBrokers, largeQueues) + `],"brokerDatas":[` + numbered(MaxBrokers, largeBroker) + `]}`, ""},
		"queues of many parts":     {route, `{"queueDatas":[` + many(MaxBrokers+1, "{}") + `]}`, "4097 queueDatas"},
		"queues in sum":            {route, `{"queueDatas":[` + many(2, `{"writeQueueNums":65535}`) + `]}`, "131070 queues"},
		"brokers of one name":      {route, `{"brokerDatas":[` + many(MaxBrokers+1, `{"brokerName":"b","brokerAddrs":{"0":"h:1"}}`) + `]}`, "4097 brokers"},
		"addresses":                {route, `{"brokerDatas":[{"brokerAddrs":{` + numbered(maxAddresses+1, `"%d":"h:1"`) + `}}]}`, "257 addresses"},
		"addresses of the same":    {route, twice, "400 addresses"},
		"more than is decoded":     {route, `{"queueDatas":[` + many(maxListParts+1, "{}") + `]}`, "about 262144 values"},
		"longer than is decoded":   {route, `{"queueDatas":[` + strings.Repeat(" ", maxListBody) + `]}`, "bytes, want at most"},
		"a large cluster":          {cluster, `{"brokerAddrTable":{` + numbered(MaxBrokers, `"b-%04d":{"brokerAddrs":{0:"10.0.0.1:10911"}}`) + `}}`, ""},
		"a larger cluster":         {cluster, `{"brokerAddrTable":{` + numbered(MaxBrokers+1, `"b-%04d":{}`) + `}}`, "4097 brokers"},
		"addresses in the cluster": {cluster, `{"brokerAddrTable":{"b":{"brokerAddrs":{` + numbered(maxAddresses+1, `"%d":"h:1"`) + `}}}}`, "257 addresses"},
		"a large group":            {members, `{"consumerIdList":[` + numbered(30_000, `"order-consumer-01936f5e-0000-7000-8000-%012d"`) + `]}`, ""},
		"a larger group":           {members, `{"consumerIdList":[` + many(maxMembers+1, `""`) + `]}`, "65537 ids"},
		"an endless group":         {members, `{"consumerIdList":[` + many(maxListBody, `1`) + `]}`, "bytes, want at most"},
	} {
		err := c.decode([]byte(c.body))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %d bytes: got %v, want %q", what, len(c.body), err, c.want)
		}
	}
}

// A broker that is listed twice is one: each entry with another address would be connected to in turn.
func TestBrokerListedTwiceIsOne(t *testing.T) {
	t.Parallel()
	route, err := DecodeRoute([]byte(`{"brokerDatas":[{"brokerName":"b"},{"brokerName":"b","brokerAddrs":{0:"h:1"}},{"brokerName":"b","brokerAddrs":{0:"h:2",1:"h:3"}}]}`))
	if err != nil || len(route.Brokers) != 1 || route.Brokers[0].Master() != "h:1" || route.Brokers[0].Addresses["1"] != "h:3" {
		t.Errorf("got %+v, %v", route, err)
	}
}
