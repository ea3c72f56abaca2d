package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/rocketmq"
)

// dev --broker=embedded starts a broker that can be used, even if ROCKETMQ_NAMESRV names one.
func TestDevRunsTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // its end stands in for Ctrl-C
	defer cancel()
	var stderr bytes.Buffer
	stdout, out := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"dev", "--broker=embedded", "--dir=" + t.TempDir()}, out, &stderr)
		out.Close()
	}()
	text := make([]byte, 4096)
	var printed string
	address := regexp.MustCompile(`export ROCKETMQ_NAMESRV='(127\.0\.0\.1:\d+)'\n`)
	for !address.MatchString(printed) {
		n, err := stdout.Read(text)
		if printed += string(text[:n]); err != nil {
			t.Fatalf("it ended (%v) with %d: %s%s", err, <-code, printed, stderr.String())
		}
	}
	embedded := address.FindStringSubmatch(printed)[1]
	if embedded == os.Getenv("ROCKETMQ_NAMESRV") {
		t.Error("the output names the name server that ran already")
	}
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{embedded}, Service: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
	if !strings.Contains(stderr.String(), "the embedded broker keeps nothing") {
		t.Errorf("the output doesn't say what is lost: %s", stderr.String())
	}
}

// The demo needs no RocketMQ.
func TestDemoRunsOnTheEmbeddedBroker(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := runLine("demo --broker=embedded --orders 20")
	if code != exitOK || !strings.Contains(stdout, "first order closed ") || !strings.Contains(stdout, "demo: orders=20 ") {
		t.Errorf("got %d\n%s%s", code, stdout, stderr)
	}
}
