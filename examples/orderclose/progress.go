package orderclose

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

// showProgress says where the orders are until the returned func is called: on a terminal in one line that changes,
// else with a line from time to time.
func (r *run) showProgress(ctx context.Context) (stop func()) {
	interval, begin, end := 2*time.Second, "", "\n"
	if isTerminal(r.config.Out) {
		interval, begin, end = 200*time.Millisecond, "\r\x1b[K", ""
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				fmt.Fprint(r.config.Out, begin)
				return
			case <-tick.C:
			}
			if line, err := r.progress(ctx); err == nil { // what is wrong with the database, others will say
				fmt.Fprint(r.config.Out, begin, line, end)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (r *run) progress(ctx context.Context) (string, error) {
	var pending, confirmed, closed, refunded int
	if err := r.database.row(ctx, "Progress", []any{r.skus}, &pending, &confirmed, &closed, &refunded); err != nil {
		return "", err
	}
	return fmt.Sprintf("%4.1fs  placed %d of %d: pending %d, confirmed %d, closed %d, refunded %d",
		time.Since(r.started).Seconds(), pending+confirmed+closed, r.config.Orders, pending, confirmed, closed, refunded), nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
