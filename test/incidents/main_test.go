// Package incidents prepares incidents on a real PostgreSQL and the embedded broker, and shows for each that the first screen of
// `rocketflow doctor`, `why` or `reconcile` names its cause, and that the command which it prints mends it. It contains only tests.
package incidents

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/fx"
	"go.uber.org/goleak"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/handlers"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/rocketflowfx"
	"github.com/rocketflow/rocketflow/rocketflowtest"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/test/leaks"
	"github.com/rocketflow/rocketflow/test/poll"
	"github.com/rocketflow/rocketflow/test/testbroker"
)

// programs is the directory of the rocketflow command.
var programs string

func TestMain(m *testing.M) {
	if os.Getenv(envPublisher) != "" {
		publishUntilKilled()
	}
	dir, err := os.MkdirTemp("", "rocketflow")
	if err == nil {
		programs = dir
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "rocketflow"), "github.com/rocketflow/rocketflow/cmd/rocketflow")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, append(leaks.Known(), goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))...)
}

// screen is the number of lines that an operator sees without scrolling.
const screen = 25

// shop is a service that publishes orders, and billing one that bills them.
type world struct {
	*rocketflowtest.Env
	t             *testing.T
	shop, billing *rocketflowtest.Service
	// bill is billing's handler. nil: it succeeds.
	bill   atomic.Pointer[func(rocketflow.Event) error]
	billed atomic.Int64
}

// orders is the topic of the orders.
var orders = []broker.Topic{{Name: "orders", Queues: 2}}

func newWorld(t *testing.T, config rocketflowtest.Config) *world {
	t.Helper()
	config.Configure = func(c rocketflowfx.Config) rocketflowfx.Config {
		c.RocketMQ.Transport = rocketmq.Own // it reads on at once after messages that the broker has deleted
		return c
	}
	w := &world{Env: rocketflowtest.New(t, config), t: t}
	w.shop = w.Start(rocketflowfx.Config{Service: "shop", Topics: orders})
	return w
}

// startBilling starts the consumer for the first time.
func (w *world) startBilling() {
	w.t.Helper()
	w.billing = w.Start(rocketflowfx.Config{Service: "billing", Topics: orders}, fx.Invoke(func(r *handlers.Router) {
		for _, eventType := range []string{"order.placed", "order.changed"} {
			r.Handle("bills", "orders", eventType, func(_ context.Context, _ rocketflow.Tx, e rocketflow.Event) error {
				if bill := w.bill.Load(); bill != nil {
					if err := (*bill)(e); err != nil {
						return err
					}
				}
				w.billed.Add(1)
				return nil
			})
		}
	}))
}

// publish publishes an event and returns its id.
func (w *world) publish(eventType, subject string) uuid.UUID {
	w.t.Helper()
	w.shop.Publish(rocketflow.Event{Topic: "orders", Type: eventType, Subject: subject, Body: []byte(`{}`)})
	var id uuid.UUID
	if err := w.shop.Pool.QueryRow(w.t.Context(), "SELECT id FROM outbox ORDER BY id DESC LIMIT 1").Scan(&id); err != nil {
		w.t.Fatal(err)
	}
	return id
}

// confirmed waits until the broker has confirmed all that shop has published.
func (w *world) confirmed() {
	w.t.Helper()
	poll.Until(w.t, "the broker's confirmation of all events", func() bool {
		var owed int
		err := w.shop.Pool.QueryRow(w.t.Context(), "SELECT count(*) FROM outbox o WHERE NOT EXISTS (SELECT FROM outbox_ack a WHERE a.id = o.id)").Scan(&owed)
		return err == nil && owed == 0
	})
}

// shell executes a command line as an operator's shell does. What it asks is answered with yes.
func (w *world) shell(line string) (output string, err error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "sh", "-c", line)
	command.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "DATABASE_URL="+w.DatabaseURL(), "ROCKETMQ_NAMESRV="+w.Broker().Addr())
	out, err := command.CombinedOutput()
	return string(out), err
}

// schemas are the flags that name the schemas of the test's own services: other tests use the same database.
func (w *world) schemas() (flags string) {
	for _, s := range []*rocketflowtest.Service{w.shop, w.billing} {
		if s != nil {
			flags += " --schema " + s.Schema
		}
	}
	return flags
}

// shows runs a command and fails the test unless its first screen has all parts. It returns all that the command prints.
func (w *world) shows(line string, parts ...string) string {
	w.t.Helper()
	out, _ := w.shell(line) // a finding is an exit code
	lines := strings.SplitAfter(out, "\n")
	first := strings.Join(lines[:min(len(lines), screen)], "")
	w.t.Logf("$ %s\n%s", line, out)
	for _, part := range parts {
		if !strings.Contains(first, part) {
			w.t.Errorf("the first screen of `%s` doesn't say %q", line, part)
		}
	}
	return out
}

// mends executes the first command that begins with these words among what was shown, as it is printed.
func (w *world) mends(shown, words string) {
	w.t.Helper()
	_, rest, found := strings.Cut(shown, words)
	if !found {
		w.t.Fatalf("no command `%s` is named", words)
	}
	rest, _, _ = strings.Cut(rest, "\n")
	command := words + rest
	var out string
	var err error
	if words := strings.Fields(command); words[0] == "mqadmin" { // which is Java; updateBrokerConfig -b BROKER -k NAME -v VALUE
		w.set(words[5], words[7])
	} else if isSQL(command) {
		_, err = w.shop.Pool.Exec(w.t.Context(), command, pgx.QueryExecModeSimpleProtocol)
	} else {
		out, err = w.shell(command)
	}
	w.t.Logf("$ %s\n%s", command, out)
	if err != nil {
		w.t.Fatalf("%s: %v", command, err)
	}
}

func isSQL(command string) bool {
	return strings.HasPrefix(command, "GRANT ") || strings.HasPrefix(command, "SELECT ")
}

// reconciled fails the test unless all is handled and nothing is missing.
func (w *world) reconciled() {
	w.t.Helper()
	var out string
	poll.Until(w.t, "all events to be handled", func() bool {
		var err error
		out, err = w.shell("rocketflow reconcile" + w.schemas())
		return err == nil && strings.Contains(out, " 0 waiting, 0 missing")
	})
	w.t.Logf("%s", out)
}

// exec executes a statement as an administrator who looks at shop's tables.
func (w *world) exec(sql string) {
	w.t.Helper()
	if _, err := w.shop.Pool.Exec(w.t.Context(), sql); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
}

// set changes a setting of the broker, as mqadmin updateBrokerConfig does.
func (w *world) set(name, value string) {
	w.t.Helper()
	conn, err := remoting.Dial(w.t.Context(), w.Broker().BrokerAddr(), remoting.Credentials{}, nil)
	if err == nil {
		defer conn.Close()
		_, err = conn.Call(w.t.Context(), &remoting.Command{Code: remoting.UpdateBrokerConfig, Body: []byte(name + "=" + value + "\n")})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// client returns a connection to the broker that ends with the test.
func (w *world) client() *rocketmq.Client {
	w.t.Helper()
	return testbroker.Open(w.t, rocketmq.Config{NameServers: []string{w.Broker().Addr()}, Service: "shop", Transport: rocketmq.Own})
}

// handlesAll waits until billing has handled so many events.
func (w *world) handlesAll(n int64) {
	w.t.Helper()
	poll.Until(w.t, fmt.Sprintf("%d events to be billed", n), func() bool { return w.billed.Load() == n })
}
