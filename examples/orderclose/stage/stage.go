// Package stage plays the order-close flow on this machine: the two services as processes of their own, as many of each
// as wished, in schemas and a namespace that nobody else uses and that are gone afterwards.
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

// Config says where to play, and how much.
type Config struct {
	DatabaseURL string // required
	NameServers string // as in ROCKETMQ_NAMESRV; required

	// Command runs a service, "order" or "payment", whose settings are in its environment. The stage adds to Env what it
	// decides, and takes Stdin, whose end tells the process to stop, Stdout and Stderr. Required.
	Command func(service string) *exec.Cmd

	Orders    int       // default 300
	Processes int       // of each service; default 1
	Kill      bool      // kill one process of each service half way; there must be another to go on
	Began     time.Time // what the time of the first close is counted from; default: when Run is called
	Out       io.Writer // progress and result; default: nowhere
}

// stopTimeout is how long a process may take to finish what it has begun.
const stopTimeout = 15 * time.Second

// Run plays the flow once. It returns what orderclose.Run returns. If something went wrong, the processes' logs and the
// tables stay, and the error or Out tells where.
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
	urls := map[string][]string{}
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
			urls[service] = append(urls[service], p.url)
		}
	}
	group, waiting := errgroup.WithContext(ctx)
	for _, p := range services {
		group.Go(func() error { return p.ready(waiting) })
	}
	if err := group.Wait(); err != nil {
		return summary, err
	}
	fmt.Fprintf(c.Out, "services are up: order %s, payment %s\n", strings.Join(urls["order"], " "), strings.Join(urls["payment"], " "))
	if c.Kill {
		fmt.Fprintln(c.Out, "half way the first process of each is killed")
	}
	return orderclose.Run(ctx, orderclose.Config{
		OrderURLs: urls["order"], PaymentURLs: urls["payment"], DatabaseURL: c.DatabaseURL,
		OrderSchema: schemas[0], OrderRocketflowSchema: schemas[1], PaymentSchema: schemas[2], PaymentRocketflowSchema: schemas[3],
		Orders: c.Orders, Began: c.Began, Out: c.Out,
		Halfway: func() {
			for _, p := range victims {
				p.kill()
			}
		},
	})
}

// dropSchemas drops the schemas of a run. The services have ended, so nobody else uses them.
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
