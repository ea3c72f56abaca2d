// Command bench measures rocketflow side by side in one run: publishing at several numbers of callers, beside a
// transaction that is open elsewhere, and handling at several numbers of streams. It prints medians as Markdown.
//
//	make bench                              # starts its own servers; with the peers of bench/peers
//	go run ./bench -short                   # half a minute
//	go run ./bench -outage docs/outage.svg  # a broker of its own, killed under load, as a picture
//
// DATABASE_URL and ROCKETMQ_NAMESRV name the servers, which have to run on this machine for CPU to be measured.
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
	outage := flag.String("outage", "", "instead of all else: kill a broker under load and draw what happens to this SVG file")
	kind := flag.String("outage-by", "kill", "kill, or pause: the broker answers nothing but keeps its connections")
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
