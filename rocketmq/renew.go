package rocketmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// renewConsumers gives each consumer that reads from a broker that came back a new instance. Left alone the client
// would sleep for up to a minute: its pull waits 30 s for an answer that is lost, and the broker has forgotten it.
func (c *Client) renewConsumers(name string) {
	c.mu.Lock()
	consumers := slices.Collect(maps.Keys(c.consumers))
	c.mu.Unlock()
	for _, k := range consumers {
		k.renewSoon("broker " + name + " came back")
	}
}

// renewSoon renews the consumer in the background. One renewal that waits for its turn is enough.
func (k *consumer) renewSoon(why string) {
	if !k.renewing.CompareAndSwap(false, true) {
		return
	}
	if !k.client.begin() {
		return
	}
	go func() {
		defer k.client.work.Done()
		k.renew(why)
	}()
}

const (
	renewDrain = 2 * time.Second // for handlers at work; what they settle later comes again
	renewStart = 10 * time.Second
	minRenew   = 200 * time.Millisecond
	maxRenew   = 2 * time.Second
)

func (k *consumer) renew(why string) {
	k.renewal.Lock()
	defer k.renewal.Unlock()
	k.renewing.Store(false)
	log := k.client.log.With("group", k.subscription.Group, "why", why)
	start := time.Now()
	for try := 0; ; try++ {
		select {
		case <-k.stopping:
			return
		default:
		}
		if i := k.current; i != nil {
			k.current = nil
			ctx, cancel := context.WithTimeout(context.Background(), renewDrain)
			if err := i.stop(ctx); err != nil {
				log.Info("consumer renewed over running handlers: what they hold will come again")
			}
			cancel()
		}
		ctx, cancel := k.untilStop(renewStart)
		err := k.start(ctx, &k.current)
		cancel()
		if err == nil {
			k.setTrouble(nil)
			log.Info("consumer renewed", "took", time.Since(start))
			k.client.listener.ConsumerRenewed(ConsumerInfo{Group: k.subscription.Group, Topics: k.subscription.Topics, Took: time.Since(start)})
			return
		}
		k.setTrouble(printable.Errorf("consumer of group %s can't be renewed: %w", k.subscription.Group, err))
		select {
		case <-k.stopping:
			return
		case <-time.After(backoff(try, minRenew, maxRenew)):
		}
	}
}

// untilStop returns a context that ends with the consumer.
func (k *consumer) untilStop(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	go func() {
		select {
		case <-k.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// watchConsumers looks after consumers that the client believes to be well: whether their grants still hold, and whether
// a broker lists them. One that isn't listed twice in a row is renewed. look is listed, or look, which asks for both.
func (c *Client) watchConsumers(ctx context.Context, look func(*consumer, context.Context) error) {
	c.mu.Lock()
	consumers := slices.Collect(maps.Keys(c.consumers))
	c.mu.Unlock()
	var all sync.WaitGroup // side by side, lest a broker that hangs is waited for by each in turn
	for _, k := range consumers {
		all.Go(func() {
			if !k.renewal.TryLock() {
				return // it is being renewed or stopped
			}
			err := look(k, ctx)
			renew := errors.Is(err, errNotListed) && k.unlisted > 1
			if renew {
				k.unlisted = 0
			}
			k.renewal.Unlock()
			if renew {
				k.renewSoon("no broker lists it")
			}
		})
	}
	all.Wait()
}

var errNotListed = fmt.Errorf("%w: no broker lists the consumer", broker.ErrUnavailable)

// look asks whether the grants still hold, and then as listed does. Both are called by the watch only, with renewal held.
func (k *consumer) look(ctx context.Context) error {
	if k.current == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*probeTimeout)
	defer cancel()
	err := k.probe(ctx)
	if err == nil {
		return k.listed(ctx)
	}
	k.unlisted = 0
	if ctx.Err() == nil {
		k.setTrouble(err)
	}
	return err
}

// listed asks whether a broker lists the consumer.
func (k *consumer) listed(ctx context.Context) error {
	i := k.current
	if i == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	known, err := i.known(ctx)
	switch {
	case err != nil:
		k.unlisted = 0
		return err
	case !known:
		k.unlisted++
		err = errNotListed
	default:
		k.unlisted = 0
	}
	k.setTrouble(err)
	return err
}
