package rocketmq_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
)

// TestWrongCredentialsAreNamed: what is wrong with the credentials is an error at once that says it, by both versions of RocketMQ's ACL.
func TestWrongCredentialsAreNamed(t *testing.T) {
	t.Parallel()
	for _, version := range []rocketmqtest.Version{rocketmqtest.RocketMQ49, rocketmqtest.RocketMQ53} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			mq := rocketmqtest.RunT(t, rocketmqtest.Config{Version: version, Credentials: map[string]string{"the-user": "the-secret"}})
			for want, keys := range map[string][2]string{
				"the secret key is wrong": {"the-user", "guessed"}, "no such user": {"nobody", "guessed"}, "set AccessKey and SecretKey": {},
			} {
				_, err := rocketmq.Open(deadline(t, 10*time.Second), rocketmq.Config{
					NameServers: []string{mq.Addr()}, Service: "test", Transport: rocketmq.Own, AccessKey: keys[0], SecretKey: keys[1],
				})
				if !errors.Is(err, broker.ErrUnauthorized) || errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), want) {
					t.Errorf("%v: got %v, want %q", keys, err, want)
				}
			}
			open(t, func(c *rocketmq.Config) {
				c.NameServers, c.Transport, c.AccessKey, c.SecretKey = []string{mq.Addr()}, rocketmq.Own, "the-user", "the-secret"
			})
		})
	}
}
