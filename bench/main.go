// Command bench compares rocketflow with other ways of publishing, in one run on the same servers. It measures publishing by
// several numbers of callers, publishing while another transaction stays open, publishing from rows that all callers update,
// the sending of owed events, and handling by several numbers of streams. It prints medians as Markdown tables.
//
//	make bench                              # starts its own servers; with the peers of bench/peers
//	go run ./bench -short                   # half a minute
//	go run ./bench -outage docs/outage.svg  # kills a broker of its own under load, and draws a diagram
//
// DATABASE_URL and ROCKETMQ_NAMESRV name the servers. They have to run on this machine for their CPU time to be measured.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/rocketflow/rocketflow/bench/frame"
)

func main() {
	options := frame.Flags(flag.CommandLine)
	outage := flag.String("outage", "", "instead of everything else: kill a broker under load and draw the transactions and deliveries to this SVG file")
	kind := flag.String("outage-by", "kill", "how the broker fails: kill, or pause, which keeps its connections open")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o, err := options()
	switch {
	case err != nil:
	case *outage != "":
		err = runOutage(ctx, outageOptions{file: *outage, by: *kind, short: o.Short})
	default:
		err = frame.Run(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
