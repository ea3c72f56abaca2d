package orderclose

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Verify verifies orders that others have placed and that are final. There are no other orders of the articles skus, and there
// were OnHand of each in the beginning. Only the schemas of c are used.
func Verify(ctx context.Context, c Config, pool *pgxpool.Pool, orders, skus []string) (Summary, error) {
	c = c.withDefaults()
	r := &run{config: c, database: newDatabase(pool, c), orders: orders, skus: skus}
	return r.verify(ctx)
}

// verify reads the databases. r.orders doesn't change any more.
func (r *run) verify(ctx context.Context) (s Summary, err error) {
	orders := r.orders
	err = r.database.row(ctx, "Outcome", []any{orders},
		&s.Orders, &s.Confirmed, &s.Closed, &s.Refunded, &s.TimedOut, &s.Declined, &s.Cancelled, &s.Early)
	if err != nil {
		return s, err
	}
	for _, count := range []struct {
		name string
		into *int
	}{{"Lost", &s.Lost}, {"Doubled", &s.Doubled}, {"Misordered", &s.Misordered}} {
		if *count.into, err = r.database.number(ctx, count.name, orders); err != nil {
			return s, err
		}
	}
	unfinished, err := r.database.number(ctx, "Unfinished", orders)
	if err != nil {
		return s, err
	}
	s.Lost += unfinished + len(orders) - s.Orders

	for _, invariant := range []struct {
		name, broken string
		args         []any
	}{
		{"EventsAgainstRows", "orders whose events don't match their rows", []any{orders}},
		{"ArmedTimeouts", "timeouts still armed for finished orders", []any{orders}},
		{"Stock", "articles of which there is not what there should be", []any{r.skus, OnHand}},
		{"Money", "cents captured too much", []any{orders}},
	} {
		n, err := r.database.number(ctx, invariant.name, invariant.args...)
		if err != nil {
			return s, err
		}
		if n != 0 {
			s.Broken = append(s.Broken, fmt.Sprintf("%d %s", n, invariant.broken))
		}
	}

	lateness, err := r.database.durations(ctx, "Lateness", orders)
	if err != nil {
		return s, err
	}
	latency, err := r.database.durations(ctx, "Latency", orders)
	if err != nil {
		return s, err
	}
	slices.Sort(lateness)
	slices.Sort(latency)
	s.Lateness, s.Latency = spread(lateness), spread(latency)
	return s, nil
}
