package devstack_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

func TestBrokerRequiresCredentials(t *testing.T) {
	testbroker.NeedsReal(t)
	ctx := deadline(t, 4*time.Minute)
	rocketmq, err := devstack.StartRocketMQ(ctx, devstack.RocketMQConfig{Auth: &devstack.AuthConfig{
		Admin: rocketmqtest.User{Name: "admin", Secret: "admin-secret"},
		Users: []rocketmqtest.User{{Name: "app", Secret: "app-secret", Grants: []rocketmqtest.Grant{
			{Resource: "Topic:orders*", Actions: []string{"Pub", "Sub"}},
			{Resource: "Group:*", Actions: []string{"Sub"}},
		}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rocketmq.Stop(context.Background()) })

	admin := remoting.Credentials{AccessKey: "admin", SecretKey: "admin-secret"}
	app := remoting.Credentials{AccessKey: "app", SecretKey: "app-secret"}
	for _, topic := range []string{"orders", "secrets"} {
		if err := updateTopic(ctx, rocketmq.Broker(), topic, admin); err != nil {
			t.Fatalf("create topic as admin: %v", err)
		}
	}
	for _, c := range []struct {
		name, topic string
		keys        remoting.Credentials
		want        string // "" for success
	}{
		{"granted", "orders", app, ""},
		{"not granted", "secrets", app, "no permission"},
		{"wrong secret", "orders", remoting.Credentials{AccessKey: "app", SecretKey: "guess"}, "signature"},
		{"no credentials", "orders", remoting.Credentials{}, "username"},
	} {
		err := call(ctx, rocketmq.Broker(), c.keys, &remoting.Command{Code: remoting.SendMessage, Body: []byte("x"), Ext: map[string]string{
			"producerGroup": "p", "topic": c.topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "0", "sysFlag": "0",
			"bornTimestamp": "0", "flag": "0", "properties": "", "reconsumeTimes": "0", "unitMode": "false", "batch": "false",
		}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
