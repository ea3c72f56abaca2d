// Chaos drives publishers and consumers through schedules drawn from seeds, while requests, connections, processes,
// brokers and Postgres fail under them, and judges each by a ledger that is written in the same transactions.
//
//	go run ./test/chaos -duration 30s
//	go run ./test/chaos -seed 4711 -schedules 1
//
// Every committed event must have been handled by each consumer, once, the events of a stream in the order of their
// commits; nothing may be left to send, parked or dead. The last line tells the outcome:
//
//	chaos: schedules=N events=N lost=0 doubled=0 misordered=0
//
// doubled counts events of transactions that didn't commit, too. The exit status is 1 if any of the last three is not 0,
// or if a schedule does not come to rest, and 2 for wrong usage.
//
// Flag -faults switches kinds of faults on that schedules have besides:
//
//	deploy    versions with and without a handler of an event type run side by side, forward and back
//	join      joined transactions and savepoints, rolled back by their owners in part or in whole
//	freeze    a process that sweeps stops where it is, with its sessions: the others come to rest without it
//	skew      a process has a clock that is hours or days wrong; then all is sent again
//	failover  Postgres loses its last commits; what was sent of them may be handled or be a dead letter, and nothing else
//	hang      a handler ignores its deadline: all but its aggregate comes to rest, and the router names the consumer
//
// With -broker embedded all runs in this process: to kill one of the processes is to cut it off from the broker and
// Postgres, from one instruction to the next, and to leave it. With -broker rocketmq processes are such, and SIGKILL
// ends them, the broker, and Postgres.
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
		if err := beChild(text); err != nil {
			fmt.Fprintln(os.Stderr, "chaos: process:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the flags.
type options struct {
	duration   time.Duration
	seed       uint64
	schedules  int
	broker     string
	workers    int
	stop       bool
	find       string
	harm       string
	faults     []fault
	strike     string
	patience   time.Duration
	database   string
	nameServer string
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&o.duration, "duration", 30*time.Second, "how long to begin schedules")
	flags.Uint64Var(&o.seed, "seed", 0, "of the first schedule; those that follow count up (default: drawn)")
	flags.IntVar(&o.schedules, "schedules", 0, "how many to play (default: what the duration allows)")
	flags.StringVar(&o.broker, "broker", "embedded", "embedded or rocketmq")
	flags.IntVar(&o.workers, "workers", 0, "worlds side by side (default 4)")
	flags.BoolVar(&o.stop, "stop", false, "stop at the first schedule that fails")
	flags.StringVar(&o.find, "find", "", "stop at the first that is lost, doubled or misordered, whichever of these is named")
	flags.StringVar(&o.harm, "harm", "all", "what goes wrong: all, none, or markers (the broker forgets which transactions have ended)")
	faults := flags.String("faults", "default", "kinds of faults that schedules may have besides: default, none, all, or a list of "+joinFaults(allFaults))
	flags.StringVar(&o.strike, "strike", "", "only the blows to the driver's own servers that have this in their names, and more often: killed, paused, Postgres, RocketMQ")
	flags.DurationVar(&o.patience, "patience", 0, "how long a schedule may take to come to rest (default 40s, on a real broker 3m30s)")
	flags.StringVar(&o.database, "database", "", "URL of a Postgres to use, which is left alone (default: one of its own, which is not)")
	flags.StringVar(&o.nameServer, "nameserver", "", "of a RocketMQ to use, which is left alone (default: one of its own, which is not)")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: chaos [flags]\n\nIn the last line doubled counts events of transactions that didn't commit, too.")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	wrong := func(format string, args ...any) (options, error) {
		err := fmt.Errorf(format, args...)
		fmt.Fprintln(stderr, "chaos:", err)
		flags.Usage()
		return o, err
	}
	var faultsErr error
	o.faults, faultsErr = parseFaults(*faults)
	switch {
	case flags.NArg() > 0:
		return wrong("unexpected %q", flags.Args())
	case o.broker != "embedded" && o.broker != "rocketmq":
		return wrong("-broker %q: want embedded or rocketmq", o.broker)
	case o.harm != string(allHarm) && o.harm != string(noHarm) && o.harm != string(markersHarm):
		return wrong("-harm %q: want all, none or markers", o.harm)
	case faultsErr != nil:
		return wrong("-faults: %v", faultsErr)
	case o.find != "" && o.find != "lost" && o.find != "doubled" && o.find != "misordered":
		return wrong("-find %q: want lost, doubled or misordered", o.find)
	case o.harm == string(markersHarm) && o.broker != "embedded":
		return wrong("-harm markers: only the embedded broker can")
	case o.duration <= 0 || o.patience < 0:
		return wrong("-duration: want more than 0; -patience: at least 0")
	case o.schedules < 0 || o.workers < 0:
		return wrong("-schedules and -workers: want at least 0")
	case o.nameServer != "" && o.broker != "rocketmq":
		return wrong("-nameserver: only with -broker rocketmq")
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

// run returns the exit status.
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
