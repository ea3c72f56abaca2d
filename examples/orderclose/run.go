package orderclose

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// OnHand is how many there are of each article in the beginning.
const OnHand = 1_000_000

// articles is how many different articles are sold.
const articles = 20

// Run acts for all customers, waits until nothing is outstanding, verifies the databases, and prints the result, whose last
// line is Summary.String. An error means that the run itself failed; what the services did wrong is in the summary.
func Run(ctx context.Context, c Config) (Summary, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return Summary{}, err
	}
	pool, err := pgxpool.New(ctx, c.DatabaseURL)
	if err != nil {
		return Summary{}, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer pool.Close()
	r := &run{config: c, client: newClient(c), database: newDatabase(pool, c), started: time.Now()}
	if r.client.ahead, err = r.database.ahead(ctx); err != nil {
		return Summary{}, err
	}
	if err := r.stock(ctx); err != nil {
		return Summary{}, err
	}
	stop := r.showProgress(ctx)
	err = r.drive(ctx)
	if err == nil {
		err = r.settle(ctx)
	}
	stop()
	if err != nil {
		return Summary{}, err
	}
	summary, err := r.verify(ctx)
	if err != nil {
		return Summary{}, err
	}
	summary.print(c.Out, time.Since(r.started))
	return summary, nil
}

// run is the state of one Run.
type run struct {
	config   Config
	client   *client
	database *database
	started  time.Time
	skus     []string // of this run only

	mu     sync.Mutex
	orders []string // ids of those placed
}

func (r *run) stock(ctx context.Context) error {
	batch := uuid.NewString()[:8]
	for i := range articles {
		sku := fmt.Sprintf("demo-%s-%d", batch, i+1)
		if err := r.client.putStock(ctx, sku, OnHand); err != nil {
			return fmt.Errorf("put stock: %w", err)
		}
		r.skus = append(r.skus, sku)
	}
	return nil
}

func (r *run) drive(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.config.Customers)
	for i := range r.config.Orders {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := r.customer(ctx, behaviours[i%len(behaviours)]); err != nil {
				return fmt.Errorf("customer %d: %w", i+1, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// customer places one order and then does what its behaviour says.
func (r *run) customer(ctx context.Context, b behaviour) error {
	o := placement{
		ID:          uuid.Must(uuid.NewV7()).String(),
		SKU:         r.skus[rand.IntN(len(r.skus))],
		Quantity:    1 + rand.Int64N(5),
		AmountCents: 1 + rand.Int64N(500_00),
		PayWithin:   (r.config.PayWithin + rand.N(2*r.config.PayWithin)).String(),
	}
	placed, err := r.client.place(ctx, o)
	if err != nil {
		return fmt.Errorf("place order: %w", err)
	}
	r.mu.Lock()
	r.orders = append(r.orders, o.ID)
	halfway := len(r.orders) == (r.config.Orders+1)/2
	r.mu.Unlock()
	if halfway {
		r.config.Halfway()
	}
	if err := b.act(ctx, r.client, placed); err != nil {
		return fmt.Errorf("%s, order %s: %w", b.name, o.ID, err)
	}
	return nil
}

// settleInterval is the pause between two checks for what is outstanding.
const settleInterval = 100 * time.Millisecond

// settle waits until nothing is outstanding, or until Config.Patience has passed: verify reports what is missing then.
func (r *run) settle(ctx context.Context) error {
	patience := time.Now().Add(r.config.Patience)
	for time.Now().Before(patience) {
		open, err := r.database.open(ctx, r.orders)
		if err != nil || open == 0 {
			return err
		}
		if err := sleep(ctx, settleInterval); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
