// Chaos is a fault injection test. It generates schedules of transactions and faults from seeds, runs them with publishers
// and consumers, and checks the promises against a ledger that is written in the same transactions.
//
//	go run ./test/chaos -duration 30s
//	go run ./test/chaos -seed 4711 -schedules 1
//
// The invariants: every consumer has handled each committed event, once, and the events of a stream in commit order;
// nothing else was handled; at the end no event is owed, parked or a dead letter. The last line of the output counts the
// violations:
//
//	chaos: schedules=N events=N lost=0 doubled=0 misordered=0
//
// doubled also counts events of transactions that did not commit. The exit status is 1 if one of the three is not 0 or
// a schedule does not become quiet in time, and 2 for wrong usage. A schedule that fails prints its seed, which runs it again.
//
// All schedules lose and repeat requests, cut connections, and crash processes, brokers and PostgreSQL. The flag -faults
// selects kinds of faults that they may have in addition:
//
//	deploy    versions with and without a handler of an event type run side by side, forward and back; at the end the
//	          handler may be removed everywhere and retired
//	join      joined transactions and savepoints, rolled back by their owners in part or in whole
//	freeze    a process that sweeps stops in the middle of it, with its sessions open: all others go on, and make
//	          partitions ahead
//	skew      a process has a clock that is hours or days wrong; at the end all events are sent again
//	failover  PostgreSQL loses its last commits; an event of them may be handled or be a dead letter
//	hang      a handler ignores its deadline: all other aggregates go on, and Router.Err names the consumer
//
// With -broker embedded everything runs in this process: a crash cuts a simulated process off from the broker and
// PostgreSQL between two instructions and abandons it. With -broker rocketmq processes are child processes, and SIGKILL
// ends them, the broker and PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if text := os.Getenv(childVariable); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, "chaos: process:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options holds the values of the flags.
type options struct {
	duration    time.Duration
	seed        uint64
	schedules   int
	broker      string
	transport   string
	workers     int
	stop        bool
	find        string
	injection   string
	faults      []faultKind
	serverFault string
	patience    time.Duration
	database    string
	nameServer  string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&o.duration, "duration", 30*time.Second, "how long to start new schedules")
	flags.Uint64Var(&o.seed, "seed", 0, "`seed` of the first schedule; the next ones count up (default random)")
	flags.IntVar(&o.schedules, "schedules", 0, "number of schedules to run (default as many as the duration allows)")
	flags.StringVar(&o.broker, "broker", "embedded", "broker to use: embedded or rocketmq")
	flags.StringVar(&o.transport, "transport", "own", "how the processes send and consume: client-go, own, or mixed")
	flags.IntVar(&o.workers, "workers", 0, "number of worlds in parallel, each with a schema and processes of its own (default 4)")
	flags.BoolVar(&o.stop, "stop", false, "stop at the first schedule that fails")
	flags.StringVar(&o.find, "find", "", "stop at the first violation of this `kind`: lost, doubled or misordered")
	flags.StringVar(&o.injection, "inject", "all", "which faults to inject: all, none, or markers (the broker forgets which transactions have ended, and no other fault)")
	faults := flags.String("faults", "default", "additional kinds of faults: default, none, all, or a list of "+joinKinds(allFaults))
	flags.StringVar(&o.serverFault, "server-fault", "", "inject only the faults of the servers whose description contains this `text`, and more often: killed, paused, Postgres, RocketMQ")
	flags.DurationVar(&o.patience, "patience", 0, "how long a schedule may take to become quiet after its last fault (default 40s, on a real broker 3m30s)")
	flags.StringVar(&o.database, "database", "", "`URL` of a PostgreSQL to use, into which no fault is injected (default starts its own, which is killed and restarted)")
	flags.StringVar(&o.nameServer, "nameserver", "", "`address` of a RocketMQ to use, into which no fault is injected (default starts its own, which is killed and paused)")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: chaos [flags]\n\nIn the last line doubled also counts events of transactions that did not commit.")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	wrongUsage := func(format string, args ...any) (options, error) {
		err := fmt.Errorf(format, args...)
		fmt.Fprintln(stderr, "chaos:", err)
		flags.Usage()
		return o, err
	}
	var faultsErr error
	o.faults, faultsErr = parseKinds(*faults)
	switch {
	case flags.NArg() > 0:
		return wrongUsage("unexpected %q", flags.Args())
	case o.broker != "embedded" && o.broker != "rocketmq":
		return wrongUsage("-broker %q: want embedded or rocketmq", o.broker)
	case o.transport != "client-go" && o.transport != "own" && o.transport != "mixed":
		return wrongUsage("-transport %q: want client-go, own or mixed", o.transport)
	case o.injection != string(injectAll) && o.injection != string(injectNone) && o.injection != string(injectMarkerLoss):
		return wrongUsage("-inject %q: want all, none or markers", o.injection)
	case faultsErr != nil:
		return wrongUsage("-faults: %v", faultsErr)
	case o.find != "" && o.find != "lost" && o.find != "doubled" && o.find != "misordered":
		return wrongUsage("-find %q: want lost, doubled or misordered", o.find)
	case o.injection == string(injectMarkerLoss) && o.broker != "embedded":
		return wrongUsage("-inject markers: only with -broker embedded")
	case o.duration <= 0 || o.patience < 0:
		return wrongUsage("-duration: want more than 0; -patience: at least 0")
	case o.schedules < 0 || o.workers < 0:
		return wrongUsage("-schedules and -workers: want at least 0")
	case o.nameServer != "" && o.broker != "rocketmq":
		return wrongUsage("-nameserver: only with -broker rocketmq")
	}
	if o.workers == 0 {
		o.workers = 4
	}
	if o.patience == 0 {
		o.patience = 40 * time.Second
		if o.broker == "rocketmq" {
			// A consumer that dies just after its heartbeat may stay a member of its group, with queues that nobody reads, until
			// the broker misses the next ones: 123 s were seen (rocketmq/doc.go).
			o.patience = 3*time.Minute + 30*time.Second
		}
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000_000) + 1
	}
	return o, nil
}

// run runs the program with its arguments and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	d := newDriver(o, stdout)
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(stderr, "chaos:", err)
		d.summary()
		return 1
	}
	return d.summary()
}
