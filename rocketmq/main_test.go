package rocketmq_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/rocketmq"
)

func nameServers(t testing.TB) []string {
	t.Helper()
	v := os.Getenv("ROCKETMQ_NAMESRV")
	if v == "" {
		t.Fatal("ROCKETMQ_NAMESRV is not set: run `make test`, or start servers with `make dev` and export the two variables that it prints")
	}
	return strings.Split(v, ";")
}

func open(t testing.TB, change ...func(*rocketmq.Config)) *rocketmq.Client {
	t.Helper()
	config := rocketmq.Config{NameServers: nameServers(t), Service: "conformance"}
	for _, f := range change {
		f(&config)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := rocketmq.Open(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}
