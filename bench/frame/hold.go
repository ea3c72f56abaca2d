package frame

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// The number of callers that publish while another transaction is open.
const holdCallers = 8

// held is one measurement while another transaction is open, or none if open is "".
type held struct {
	row         string
	open        string
	first, last float64 // events a second that were delivered in the first and the last third
}

// holds are transactions that stay open for a whole measurement. Both prevent the removal of dead rows. One that has written
// also has a transaction id, which stops readers that process rows in the order of transaction ids.
var holds = []struct{ name, statement string }{
	{"", ""},
	{"has read", "SELECT count(*) FROM business"},
	{"has written", "INSERT INTO business (account, cents) VALUES ('held', 0)"},
}

func (b *Bed) holding(ctx context.Context, o Options, rows []Row) ([]held, error) {
	var all []held
	for _, row := range rows {
		for _, h := range holds {
			m, err := b.measureHold(ctx, o, row, h.name, h.statement)
			if err != nil {
				return nil, fmt.Errorf("%s beside a transaction that %s: %w", row.Name, h.name, err)
			}
			fmt.Fprintf(os.Stderr, "open transaction: %-12s %-14s %8.0f/s, then %8.0f/s\n", m.open, m.row, m.first, m.last)
			all = append(all, m)
		}
	}
	return all, nil
}

func (b *Bed) measureHold(ctx context.Context, o Options, row Row, name, statement string) (held, error) {
	watch := NewStopwatch()
	w, err := row.Open(ctx, b, watch)
	if err != nil {
		return held{}, err
	}
	defer w.Close()
	if err := Warm(ctx, w, watch, holdCallers, 0); err != nil {
		return held{}, err
	}
	release := func() error { return nil }
	if statement != "" {
		tx, err := b.Pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
		if err != nil {
			return held{}, err
		}
		release = func() error { return tx.Rollback(context.WithoutCancel(ctx)) }
		defer func() { _ = release() }()
		if _, err := tx.Exec(ctx, statement); err != nil {
			return held{}, err
		}
	}
	load := StartLoad(ctx, w, holdCallers)
	progress := func() int {
		if w.Silent {
			return load.Done()
		}
		arrived, _ := watch.Counts()
		return arrived
	}
	third := o.HoldDuration / 3
	time.Sleep(third)
	first := progress()
	time.Sleep(third)
	second := progress()
	time.Sleep(third)
	last := progress()
	if _, err := load.Stop(); err != nil {
		return held{}, err
	}
	if err := release(); err != nil {
		return held{}, err
	}
	if err := Wait(ctx, watch); err != nil {
		return held{}, err
	}
	return held{row: row.Name, open: name, first: float64(first) / third.Seconds(), last: float64(last-second) / third.Seconds()}, nil
}
