package rocketmqtest_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestGrantsOfUsers checks that a user may do what it has grants for, in the forms of either version of access control.
// TestSameRefusalsAsRocketMQ compares all requests with a real broker.
func TestGrantsOfUsers(t *testing.T) {
	t.Parallel()
	const acl2, acl1 = "16 User:%s has no permission to access %s from 127.0.0.1, no matched policies.", "1 org.apache.rocketmq.acl.common.AclException: No default permission for %s"
	for version, form := range map[rocketmqtest.Version]string{rocketmqtest.RocketMQ49: acl1, rocketmqtest.RocketMQ53: acl2, rocketmqtest.RocketMQ55: acl2} {
		is4 := version == rocketmqtest.RocketMQ49
		users := grantedUsers(is4)
		admin := rocketmqtest.User{Name: "administrator", Secret: "administrator-secret"}
		mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: version, Credentials: map[string]string{admin.Name: admin.Secret}, Users: users})
		got := map[string]string{}
		for _, e := range requestsOfUsers(t, mq.BrokerAddr(), admin, users) {
			got[e.label] = e.response
		}
		refused := func(user, resource string) string {
			if is4 {
				resource = strings.ToLower(resource)
				return strings.ReplaceAll(form, "%s", resource)
			}
			return strings.Replace(strings.Replace(form, "%s", user, 1), "%s", resource, 1)
		}
		want := map[string]string{
			"nothing: send to orders":                  refused("nothing", "Topic:orders"),
			"publisher: send to orders":                "allowed",
			"publisher: send V2 to secrets":            refused("publisher", "Topic:secrets"),
			"publisher: members of readers":            refused("publisher", "Group:readers"),
			"reader-of-topics: pull orders as readers": refused("reader-of-topics", "Group:readers"),
			"reader-of-groups: pull orders as readers": refused("reader-of-groups", "Topic:orders"),
			"consumer: pull orders as readers":         "allowed",
			"consumer: beat for orders as readers":     "allowed",
			"consumer: beat for secrets as readers":    refused("consumer", "Topic:secrets"),
			"everywhere: beat for secrets as others":   "allowed",
		}
		if is4 {
			want["everywhere: create"] = "1 org.apache.rocketmq.acl.common.AclException: Need admin permission for request code=17, but accessKey=everywhere is not"
			want["nothing: send a batch to secrets"] = "allowed"
		} else {
			want["everywhere: create"] = refused("everywhere", "Topic:made")
			want["nothing: send a batch to secrets"] = refused("nothing", "Topic:secrets")
			want["operator: create"] = "allowed"
			want["nothing: response to a change of settings"] = "0"
			want["by-prefix: send to orders"] = "allowed"
			want["by-prefix: send to secrets"] = refused("by-prefix", "Topic:secrets")
			want["of-offsets: query the offset in orders of readers"] = refused("of-offsets", "Topic:orders")
			want["all-of-orders: send to orders"] = "allowed"
			want["all: delete"] = "allowed"
		}
		for label, response := range want {
			if got[label] != response {
				t.Errorf("version %d: %s: got %q, want %q", version, label, got[label], response)
			}
		}
	}
}

// TestUsersAreChecked checks that a server doesn't start with users or grants that can't mean anything.
func TestUsersAreChecked(t *testing.T) {
	t.Parallel()
	grant := func(resource string, actions ...string) []rocketmqtest.User {
		return []rocketmqtest.User{{Name: "app", Secret: "secret", Grants: []rocketmqtest.Grant{{Resource: resource, Actions: actions}}}}
	}
	for name, c := range map[string]struct {
		config rocketmqtest.Config
		want   string
	}{
		"no name":       {rocketmqtest.Config{Users: []rocketmqtest.User{{Secret: "secret"}}}, "no other user"},
		"two of a name": {rocketmqtest.Config{Users: []rocketmqtest.User{{Name: "app"}, {Name: "app"}}}, "no other user"},
		"administrator": {rocketmqtest.Config{Users: []rocketmqtest.User{{Name: "app"}}, Credentials: map[string]string{"app": "x"}}, "no other user"},
		"no kind":       {rocketmqtest.Config{Users: grant("orders", "Pub")}, "want Topic:NAME"},
		"no resource":   {rocketmqtest.Config{Users: grant("Topic:", "Pub")}, "want Topic:NAME"},
		"no action":     {rocketmqtest.Config{Users: grant("Topic:orders")}, "no actions on Topic:orders"},
		"other action":  {rocketmqtest.Config{Users: grant("Topic:orders", "PUB")}, "want Pub, Sub"},
		"prefix of 4":   {rocketmqtest.Config{Version: rocketmqtest.RocketMQ49, Users: grant("Topic:or*", "Pub")}, "RocketMQ 4.9 has"},
		"action of 4":   {rocketmqtest.Config{Version: rocketmqtest.RocketMQ49, Users: grant("Topic:orders", "Get")}, "want Pub, Sub"},
	} {
		_, err := rocketmqtest.New(c.config)
		var field *rocketflow.FieldError
		if !errors.As(err, &field) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Users") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// ExampleUser shows a test of what a service is refused.
func ExampleUser() {
	mq, err := rocketmqtest.New(rocketmqtest.Config{
		Credentials: map[string]string{"operator": "operator-secret"},
		Users: []rocketmqtest.User{{Name: "billing", Secret: "billing-secret", Grants: []rocketmqtest.Grant{
			{Resource: "Topic:orders", Actions: []string{"Sub"}}, {Resource: "Group:billing-*", Actions: []string{"Sub"}},
		}}},
	})
	if err != nil {
		panic(err)
	}
	defer mq.Close()
	// Services connect with rocketmq.Config{AccessKey: "billing", SecretKey: "billing-secret"}.
}
