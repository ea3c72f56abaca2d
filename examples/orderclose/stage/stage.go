// Package stage runs the order-close flow on this machine: the two services as child processes, any number of each, in
// schemas and a namespace of their own that are dropped afterwards.
package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/examples/orderclose"
)

// Config configures Run.
type Config struct {
	DatabaseURL string // required
	NameServers string // as in ROCKETMQ_NAMESRV; required

	// Command runs a service, "order" or "payment", whose settings are in its environment. Run adds the
	// settings to its Env, and sets its Stdin, whose end stops the process, its Stdout and its Stderr. Required.
	Command func(service string) *exec.Cmd

	Orders    int           // Defaults to 300.
	PayWithin time.Duration // the shortest time to pay; the longest is three times that. Defaults to 1 s.
	Processes int           // of each service. Defaults to 1.
	Kill      bool          // kill one process of each service when half of the orders are placed; needs at least 2 Processes
	Began     time.Time     // the beginning for the reported time of the first close. Defaults to the call of Run.
	Out       io.Writer     // progress and result. Defaults to nowhere.
}

// stopTimeout is how long a process may take to finish what it has begun.
const stopTimeout = 15 * time.Second

// Run starts the services, runs the flow once, and returns what orderclose.Run returns. If something went wrong the
// processes' logs and the tables are kept, and a line on stderr says where.
func Run(ctx context.Context, c Config) (summary orderclose.Summary, err error) {
	c.Processes = cmp.Or(c.Processes, 1)
	if c.Kill && c.Processes < 2 {
		return summary, &rocketflow.FieldError{Field: "stage.Config.Kill", Reason: "want more than one process of each service"}
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Began.IsZero() {
		c.Began = time.Now()
	}
	run := "demo_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	logs, err := os.MkdirTemp("", "rocketflow-demo-")
	if err != nil {
		return summary, fmt.Errorf("make a directory for logs: %w", err)
	}
	schemas := []string{run + "_orders", run + "_order_rocketflow", run + "_payments", run + "_payment_rocketflow"}
	defer func() {
		if ctx.Err() == nil && (err != nil || !summary.OK()) {
			fmt.Fprintf(os.Stderr, "logs are in %s, tables in schemas %s_*\n", logs, run)
			return
		}
		err = errors.Join(err, os.RemoveAll(logs), dropSchemas(context.WithoutCancel(ctx), c.DatabaseURL, schemas))
	}()

	var services []*process
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if stopErr := stop(stopping, services); err == nil {
			err = stopErr
		}
	}()
	byService := map[string][]*process{}
	var victims []*process
	for i, service := range []string{"order", "payment"} {
		for n := range c.Processes {
			p, err := start(c.Command(service), fmt.Sprintf("%s/%s-%d.log", logs, service, n+1),
				"DATABASE_URL="+c.DatabaseURL,
				"DATABASE_SCHEMA="+schemas[2*i],
				"ROCKETFLOW_SCHEMA="+schemas[2*i+1],
				"ROCKETMQ_NAMESRV="+c.NameServers,
				"ROCKETMQ_NAMESPACE="+run,
				"ROCKETFLOW_CREATE_TOPICS=1")
			if err != nil {
				return summary, fmt.Errorf("start the %s service: %w", service, err)
			}
			services = append(services, p)
			if c.Kill && n == 0 {
				victims = append(victims, p)
			}
			byService[service] = append(byService[service], p)
		}
	}
	group, waiting := errgroup.WithContext(ctx)
	for _, p := range services {
		group.Go(func() error { return p.ready(waiting) })
	}
	if err := group.Wait(); err != nil {
		return summary, err
	}
	urls := map[string][]string{}
	for service, processes := range byService {
		for _, p := range processes {
			urls[service] = append(urls[service], p.url)
		}
	}
	fmt.Fprintf(c.Out, "services are up: order %s, payment %s\n", strings.Join(urls["order"], " "), strings.Join(urls["payment"], " "))
	if c.Kill {
		fmt.Fprintln(c.Out, "half way the first process of each is killed")
	}
	return orderclose.Run(ctx, orderclose.Config{
		OrderURLs: urls["order"], PaymentURLs: urls["payment"], DatabaseURL: c.DatabaseURL,
		OrderSchema: schemas[0], OrderRocketflowSchema: schemas[1], PaymentSchema: schemas[2], PaymentRocketflowSchema: schemas[3],
		Orders: c.Orders, PayWithin: c.PayWithin, Began: c.Began, Out: c.Out,
		Halfway: func() {
			for _, p := range victims {
				p.kill()
			}
		},
	})
}

// dropSchemas drops the schemas of a run. The services have ended, so nothing else uses them.
func dropSchemas(ctx context.Context, url string, schemas []string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("drop schemas: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, schema := range schemas {
		if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{schema}.Sanitize()+" CASCADE"); err != nil {
			return fmt.Errorf("drop schema %s: %w", schema, err)
		}
	}
	return nil
}
