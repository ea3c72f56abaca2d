package incidents

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
	"github.com/rocketflow/rocketflow/rocketmq"
)

// Environment variables make the test's binary a process of shop that is killed between its commit and that of its half message.
const (
	envPublisher  = "INCIDENTS_PUBLISHER" // the schema
	envDatabase   = "INCIDENTS_DATABASE_URL"
	envNameServer = "INCIDENTS_NAMESRV"
)

// killPublisher runs that process.
func (w *world) killPublisher() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, os.Args[0])
	command.Env = append(os.Environ(), envPublisher+"="+w.shop.Schema, envDatabase+"="+w.DatabaseURL(), envNameServer+"="+w.Broker().Addr())
	output, err := command.CombinedOutput()
	if status, ok := command.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		w.t.Fatalf("the process was not killed: %v\n%s", err, output)
	}
}

// publishUntilKilled is the main function of the process.
func publishUntilKilled() {
	ctx := context.Background()
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	pool, err := pgxpool.New(ctx, os.Getenv(envDatabase))
	fail(err)
	client, err := rocketmq.Open(ctx, rocketmq.Config{NameServers: []string{os.Getenv(envNameServer)}, Service: "shop", Transport: rocketmq.Own})
	fail(err)
	box, err := outbox.New(outbox.Config{
		Pool: pool, Schema: os.Getenv(envPublisher), Broker: client, Source: "shop", Path: outbox.HalfMessages, HalfTimeout: 20 * time.Second, SweepGrace: time.Minute,
		Listener: &outbox.Listener{Committed: func([]rocketflow.Event) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until the signal arrives
		}},
	})
	fail(err)
	fail(box.Start(ctx))
	fail(box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
		return tx.Publish(ctx, rocketflow.Event{Topic: "orders", Type: "order.placed", Subject: "4711", Body: []byte(`{}`)})
	}))
}
