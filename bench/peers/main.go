// Command peers compares rocketflow with dtm's two-phase message and Watermill's SQL forwarder, by the measurements of
// bench/frame. It is a module of its own, so that rocketflow doesn't depend on them.
//
//	make bench                     # starts its own servers
//	go run -C bench/peers . -short # half a minute
//
// DATABASE_URL and ROCKETMQ_NAMESRV name the servers. The dtm server is built from its module, which takes minutes the first time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"github.com/rocketflow/rocketflow/bench/frame"
)

func main() {
	options := frame.Flags(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	o, err := options()
	if err == nil {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o frame.Options) error {
	server := &dtmServer{}
	defer server.stop()
	if len(o.Rows) == 0 || slices.ContainsFunc(o.Rows, func(r string) bool { return strings.HasPrefix(r, "dtm") }) {
		if err := server.build(ctx); err != nil {
			return fmt.Errorf("dtm: %w", err)
		}
	}
	return frame.Run(ctx, o, os.Stdout, frame.Row{Name: "dtm", Open: server.open}, frame.Row{Name: "Watermill", Open: watermillForwarder})
}
