package devstack_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// Boots are what costs here, so one stack goes through all of its life.
func TestStackLeavesNothingBehind(t *testing.T) {
	testbroker.NeedsReal(t)
	ctx := deadline(t, 4*time.Minute) // the first run fetches RocketMQ
	stack, err := devstack.Start(ctx, devstack.Config{Postgres: devstack.PostgresConfig{NoFsync: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stack.Stop(context.Background()) })
	dir := stack.Dir()
	other, err := devstack.Start(ctx, devstack.Config{DatabaseURL: stack.DatabaseURL(), NameServer: stack.NameServer()})
	if err != nil || other.DatabaseURL() != stack.DatabaseURL() || other.NameServer() != stack.NameServer() || other.Dir() != "" {
		t.Fatalf("a stack of servers that run: %+v, %v", other, err)
	}
	if err := other.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	exec1(t, ctx, stack.DatabaseURL(), "CREATE TABLE kept (n int)")
	exec1(t, ctx, stack.DatabaseURL(), "INSERT INTO kept VALUES (1)")
	broker := createTopic(t, ctx, stack, "kept")

	t.Run("a killed server keeps its data", func(t *testing.T) {
		stack.Postgres.Kill()
		if _, err := pgx.Connect(ctx, stack.DatabaseURL()); err == nil {
			t.Error("Postgres responds after Kill")
		}
		if err := stack.Postgres.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		exec1(t, ctx, stack.DatabaseURL(), "SELECT 1/n FROM kept")

		stack.RocketMQ.Kill()
		if c, err := net.Dial("tcp", broker); err == nil {
			c.Close()
			t.Error("the broker listens after Kill")
		}
		if err := stack.RocketMQ.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if response := route(ctx, stack, "kept"); response != nil {
			t.Errorf("route of the topic after a restart: %v", response)
		}
	})
	t.Run("a paused server is silent until it is continued", func(t *testing.T) {
		conn, err := pgx.Connect(ctx, stack.DatabaseURL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		if err := errors.Join(stack.Postgres.Pause(), stack.RocketMQ.Pause()); err != nil {
			t.Fatal(err)
		}
		responded := make(chan error, 2)
		go func() { _, err := conn.Exec(ctx, "SELECT 1"); responded <- err }()
		go func() { responded <- updateTopic(ctx, broker, "later", remoting.Credentials{}) }()
		select {
		case err := <-responded:
			t.Errorf("a paused server responded: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		if err := errors.Join(stack.Postgres.Continue(), stack.RocketMQ.Continue()); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(<-responded, <-responded); err != nil {
			t.Errorf("after Continue: %v", err)
		}
	})
	t.Run("its ports are taken", func(t *testing.T) {
		_, port, _ := net.SplitHostPort(broker)
		taken, _ := strconv.Atoi(port)
		for what, start := range map[string]func() error{
			"port " + port: func() error {
				_, err := devstack.StartRocketMQ(ctx, devstack.RocketMQConfig{BrokerPort: taken})
				return err
			},
			"port " + strconv.Itoa(taken-2): func() error {
				_, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{Port: taken - 2})
				return err
			},
		} {
			if err := start(); err == nil || !strings.Contains(err.Error(), what+" is taken") {
				t.Errorf("start on a taken port: %v, want one that names %s", err, what)
			}
		}
	})
	t.Run("Wait reports a server that dies", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if err := stack.Wait(short); err != nil {
			t.Errorf("while all run: %v", err)
		}
		stack.Postgres.Kill()
		if err := stack.Wait(ctx); err == nil || !strings.Contains(err.Error(), "PostgreSQL has ended") {
			t.Errorf("got %v", err)
		}
	})

	if err := stack.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := stack.Stop(ctx); err != nil {
		t.Errorf("second stop: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left (%v)", dir, err)
	}
	if running := processesWith(t, dir); len(running) > 0 {
		t.Errorf("left running: %q", running)
	}
}

func TestPostgresKeepsItsDirectory(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	dir := reachable(t)
	config := devstack.PostgresConfig{Dir: dir, NoFsync: true}

	first, err := devstack.StartPostgres(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	exec1(t, ctx, first.URL(), "CREATE TABLE kept (n int)")
	if _, err := devstack.StartPostgres(ctx, config); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the same data: %v", err)
	}
	if err := first.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// The lock file of a crash, its number now another program's: ours.
	stale := strconv.Itoa(os.Getpid()) + "\n" + filepath.Join(dir, "data") + "\n"
	if err := os.WriteFile(filepath.Join(dir, "data", "postmaster.pid"), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	second, err := devstack.StartPostgres(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	exec1(t, ctx, second.URL(), "SELECT * FROM kept")
	if err := second.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestPostgresThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	_, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{NoFsync: true, Settings: map[string]string{"no_such_setting": "1"}})
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("got %v, want what Postgres said", err)
	}
}

func TestRunningServersAreUsed(t *testing.T) {
	t.Parallel()
	ctx := deadline(t, time.Minute)
	there, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	_, err = devstack.Start(ctx, devstack.Config{DatabaseURL: there.URL(), NameServer: closed.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "ROCKETMQ_NAMESRV names a RocketMQ that") {
		t.Errorf("a name server that has ended: %v", err)
	}
	if err := there.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = devstack.Start(ctx, devstack.Config{DatabaseURL: there.URL(), NameServer: "there:9876"})
	if err == nil || !strings.Contains(err.Error(), "DATABASE_URL names a PostgreSQL that") {
		t.Errorf("a PostgreSQL that has ended: %v", err)
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// reachable is a directory that also an unprivileged Postgres gets to, unlike t.TempDir.
func reachable(t *testing.T) string {
	dir, err := os.MkdirTemp("", "rocketflow-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func exec1(t *testing.T, ctx context.Context, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// createTopic creates a topic, waits for its route and returns the address of the broker.
func createTopic(t *testing.T, ctx context.Context, stack *devstack.Stack, topic string) string {
	t.Helper()
	broker := stack.RocketMQ.Broker()
	if err := updateTopic(ctx, broker, topic, remoting.Credentials{}); err != nil {
		t.Fatal(err)
	}
	if err := route(ctx, stack, topic); err != nil {
		t.Fatal(err)
	}
	return broker
}

func updateTopic(ctx context.Context, broker, topic string, keys remoting.Credentials) error {
	return call(ctx, broker, keys, &remoting.Command{Code: remoting.UpdateTopic, Ext: map[string]string{
		"topic": topic, "defaultTopic": "TBW102", "readQueueNums": "2", "writeQueueNums": "2", "perm": "6",
		"topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
	}})
}

// route waits until the name server has the topic's route.
func route(ctx context.Context, stack *devstack.Stack, topic string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := call(ctx, stack.NameServer(), remoting.Credentials{}, &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": topic}})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func call(ctx context.Context, address string, keys remoting.Credentials, request *remoting.Command) error {
	conn, err := remoting.Dial(ctx, address, keys, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Call(ctx, request)
	return err
}

// processesWith returns the command lines that contain s.
func processesWith(t *testing.T, s string) []string {
	out, err := exec.Command("ps", "-A", "-o", "args=").Output()
	if err != nil {
		t.Fatal("the test needs ps: ", err)
	}
	var list []string
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte(s)) {
			list = append(list, string(line))
		}
	}
	return list
}
