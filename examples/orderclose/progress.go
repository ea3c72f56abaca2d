package orderclose

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// countInterval is the pause between two counts of the orders.
const countInterval = 200 * time.Millisecond

// showProgress prints when the first order is closed, and how many orders are in which state, until the returned func is
// called: on a terminal in one line that changes, else with a line from time to time.
func (r *run) showProgress(ctx context.Context) (stop func()) {
	every, begin, end := 10, "", "\n"
	if isTerminal(r.config.Out) {
		every, begin, end = 1, "\r\x1b[K", ""
	}
	first := false // reported already
	show := func(ctx context.Context, line bool) {
		now, err := r.count(ctx)
		if err != nil {
			return // what is wrong with the database, others will say
		}
		if !first && now.closed > 0 {
			first = true
			fmt.Fprintf(r.config.Out, "%sfirst order closed %.1fs after the start\n", begin, time.Since(r.config.Began).Seconds())
		}
		if line {
			fmt.Fprint(r.config.Out, begin, r.line(now), end)
		}
	}
	looking, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(countInterval)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-looking.Done():
				show(ctx, false) // a short run is over before the first look
				fmt.Fprint(r.config.Out, begin)
				return
			case <-tick.C:
			}
			show(looking, n%every == 0)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// counts are orders by state.
type counts struct{ pending, confirmed, closed, refunded int }

func (r *run) count(ctx context.Context) (n counts, err error) {
	err = r.database.row(ctx, "Progress", []any{r.skus}, &n.pending, &n.confirmed, &n.closed, &n.refunded)
	return n, err
}

func (r *run) line(n counts) string {
	return fmt.Sprintf("%4.1fs  placed %d of %d: pending %d, confirmed %d, closed %d, refunded %d",
		time.Since(r.started).Seconds(), n.pending+n.confirmed+n.closed, r.config.Orders, n.pending, n.confirmed, n.closed, n.refunded)
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
