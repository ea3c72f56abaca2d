package frame

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/outbox"
)

// The number of callers that update the same few rows, and the number of these rows.
const hotCallers = 32

var hotRows = []int{1, 32}

const (
	updateAlone  = "update alone"
	rowsAloneHot = "rows alone"
	updateHot    = "UPDATE hot SET cents = cents + $2 WHERE account = $1"
)

// heated is one measurement of callers that compete for row locks.
type heated struct {
	way       string
	rows      int
	perSec    float64 // commits
	delivered float64 // events
}

// hotWays are the update of a row alone, and the same with an event in the row's stream.
var hotWays = []struct {
	name   string
	config outbox.Config
}{
	{name: updateAlone},
	{name: rowsAloneHot}, // everything that happens in PostgreSQL, without a broker
	{"half-message path", outbox.Config{Path: outbox.HalfMessages, RelayBuffer: 1 << 20}},
	{"relay path", outbox.Config{Path: outbox.Relay, RelayBuffer: 1 << 20}},
	{"path by load", outbox.Config{RelayBuffer: 1 << 20}},
}

func (b *Bed) heating(ctx context.Context, o Options) ([]heated, error) {
	if _, err := b.Pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS hot (account text PRIMARY KEY, cents bigint NOT NULL) WITH (fillfactor = 10)"); err != nil {
		return nil, err
	}
	if _, err := b.Pool.Exec(ctx, "INSERT INTO hot SELECT 'hot-' || n, 0 FROM generate_series(0, 63) n ON CONFLICT DO NOTHING"); err != nil {
		return nil, err
	}
	var all []heated
	for round := range o.Rounds {
		for _, rows := range hotRows {
			for _, i := range rand.Perm(len(hotWays)) {
				way := hotWays[i]
				m, err := b.measureHot(ctx, o, way.name, way.config, rows)
				if err != nil {
					return nil, fmt.Errorf("%s, %d rows: %w", way.name, rows, err)
				}
				fmt.Fprintf(os.Stderr, "round %d/%d: hot rows: %2d, %-14s %8.0f/s\n", round+1, o.Rounds, rows, m.way, m.perSec)
				all = append(all, m)
			}
		}
	}
	return all, nil
}

func (b *Bed) measureHot(ctx context.Context, o Options, name string, config outbox.Config, rows int) (heated, error) {
	watch := NewStopwatch()
	w := &Way{Silent: true, Close: func() {}, Publish: func(ctx context.Context, account string, cents int64) error {
		return pgx.BeginFunc(ctx, b.Pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, updateHot, account, cents)
			return err
		})
	}}
	switch name {
	case updateAlone:
	case rowsAloneHot:
		box, err := outbox.New(outbox.Config{Pool: b.Pool, Broker: nowhere{}, Source: "bench", Schema: b.Schema, Path: outbox.Relay, RelayBuffer: 1 << 20})
		if err != nil {
			return heated{}, err
		}
		if err := box.Start(ctx); err != nil {
			return heated{}, err
		}
		w = &Way{Silent: true, Publish: updating(box, "nowhere"), Close: func() { _ = box.Stop(context.WithoutCancel(ctx)) }}
	default:
		config.Listener = &outbox.Listener{Committed: func(events []rocketflow.Event) { watch.Commit(events[0].ID.String()) }}
		g, err := openOutbox(ctx, b, config, watch.Arrive)
		if err != nil {
			return heated{}, err
		}
		w = &Way{Close: g.close, Publish: updating(g.box, g.topic)}
	}
	defer w.Close()
	publish := w.Publish
	w.Publish = func(ctx context.Context, _ string, cents int64) error {
		return publish(ctx, fmt.Sprintf("hot-%d", rand.IntN(rows)), cents)
	}
	if err := Warm(ctx, w, watch, hotCallers, 0); err != nil {
		return heated{}, err
	}
	begin := time.Now()
	load := StartLoad(ctx, w, hotCallers)
	time.Sleep(o.Duration)
	done, err := load.Stop()
	if err != nil {
		return heated{}, err
	}
	took := time.Since(begin)
	if err := Wait(ctx, watch); err != nil {
		return heated{}, err
	}
	m := heated{way: name, rows: rows, perSec: float64(done) / took.Seconds()}
	if !w.Silent {
		m.delivered = float64(done) / time.Since(begin).Seconds()
	}
	return m, nil
}

// updating is the transaction of all ways that publish an event.
func updating(box *outbox.Outbox, topic string) func(context.Context, string, int64) error {
	return func(ctx context.Context, account string, cents int64) error {
		return box.Within(ctx, func(ctx context.Context, tx rocketflow.Tx) error {
			if _, err := tx.Exec(ctx, updateHot, account, cents); err != nil {
				return err
			}
			return tx.Publish(ctx, Credited{topic: topic, Account: account, Cents: cents, Note: Note})
		})
	}
}

func (r *results) printHeated(w io.Writer) {
	if len(r.heated) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%d callers that update the same rows, alone and with an event of the row's stream:\n\n", hotCallers)
	fmt.Fprintln(w, "| updating\t| rows\t| commits/s\t| of update alone\t| delivered/s\t|")
	fmt.Fprintln(w, "| ---\t| ---:\t| ---:\t| ---:\t| ---:\t|")
	for _, rows := range hotRows {
		of := func(way string, f func(heated) float64) float64 {
			var all []float64
			for _, m := range r.heated {
				if m.way == way && m.rows == rows {
					all = append(all, f(m))
				}
			}
			return median(all)
		}
		perSec := func(m heated) float64 { return m.perSec }
		for _, way := range hotWays {
			delivered := ""
			if d := of(way.name, func(m heated) float64 { return m.delivered }); d > 0 {
				delivered = fmt.Sprintf("%.0f", d)
			}
			fmt.Fprintf(w, "| %s\t| %d\t| %.0f\t| %s\t| %s\t|\n", way.name, rows, of(way.name, perSec), ratio(of(way.name, perSec), of(updateAlone, perSec)), delivered)
		}
	}
}
