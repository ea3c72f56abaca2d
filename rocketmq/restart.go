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
	"github.com/rocketflow/rocketflow/internal/background"
	"github.com/rocketflow/rocketflow/internal/clock"
	"github.com/rocketflow/rocketflow/internal/printable"
)

// RestartReason is why a consumer was restarted.
type RestartReason string

const (
	// BrokerCameBack means that the connection to a broker of the consumer's topics was lost and is up again.
	BrokerCameBack RestartReason = "broker came back"
	// FirstBrokerCame means that no broker could be reached when the consumer was made (Config.AwaitBroker).
	FirstBrokerCame RestartReason = "no broker was reachable at the start"
	// NotListed means that no broker lists the consumer in its group any more, although the connections to the brokers are up.
	NotListed RestartReason = "no broker lists the consumer"
)

// restartConsumers restarts the consumers when a broker has come back. Otherwise rocketmq-client-go would get no messages for up
// to a minute: its pulls wait 30 s for responses that are lost, and the broker doesn't list the consumer until its next heartbeat.
func (c *Client) restartConsumers(brokerName string) {
	c.mu.Lock()
	consumers := slices.Collect(maps.Keys(c.consumers))
	c.mu.Unlock()
	for _, k := range consumers {
		k.restartSoon(BrokerCameBack, brokerName)
	}
}

// restartSoon restarts the consumer in the background, unless a restart is pending already.
func (k *consumer) restartSoon(reason RestartReason, brokerName string) {
	if !k.restartPending.CompareAndSwap(false, true) {
		return
	}
	k.work.Go(func(work context.Context) { k.restart(work, reason, brokerName) })
}

const (
	restartDrain    = 2 * time.Second  // for handlers in progress; what they settle later is delivered again
	restartTimeout  = 10 * time.Second // of one attempt to start
	minRestartPause = 200 * time.Millisecond
	maxRestartPause = 2 * time.Second
)

// restart stops the current instance and starts another. It tries until it succeeds or work ends.
func (k *consumer) restart(work context.Context, reason RestartReason, brokerName string) {
	k.replacing.Lock()
	defer k.replacing.Unlock()
	k.restartPending.Store(false)
	log := k.client.log.With(keyGroup, k.subscription.Group, keyReason, reason)
	if brokerName != "" {
		log = log.With(keyBroker, brokerName)
	}
	start := time.Now()
	for attempt := 0; work.Err() == nil; attempt++ {
		if current := k.current; current != nil {
			k.setCurrent(nil)
			draining, cancel := context.WithTimeout(context.WithoutCancel(work), restartDrain)
			if err := current.stop(draining); err != nil {
				log.Info("consumer is restarted while handlers run; their messages are delivered again", keyError, err)
			}
			cancel()
		}
		starting, cancel := context.WithTimeout(work, restartTimeout)
		next, err := k.start(starting)
		cancel()
		if err == nil {
			k.setCurrent(next)
			k.setProblem(nil)
			took := time.Since(start)
			log.Info("consumer restarted", keyTook, took)
			k.client.listener.ConsumerRestarted(ConsumerInfo{Group: k.subscription.Group, Topics: k.subscription.Topics, Reason: reason, Took: took})
			return
		}
		k.setProblem(printable.Errorf("consumer of group %s can't be restarted: %w", k.subscription.Group, err))
		background.Sleep(work, clock.System{}, backoff(attempt, minRestartPause, maxRestartPause))
	}
}

// checkConsumers calls check for each consumer, concurrently so that a broker that hangs is waited for once. A consumer that two
// checks in sequence found not listed is restarted. check is checkListed or checkGrantsAndListed.
func (c *Client) checkConsumers(ctx context.Context, check func(*consumer, context.Context) error) {
	c.mu.Lock()
	consumers := slices.Collect(maps.Keys(c.consumers))
	c.mu.Unlock()
	var checks sync.WaitGroup
	for _, k := range consumers {
		checks.Go(func() {
			if !k.replacing.TryLock() {
				return // it is being restarted or stopped
			}
			err := check(k, ctx)
			restart := errors.Is(err, errNotListed) && k.notListed > 1
			if restart {
				k.notListed = 0
			}
			k.replacing.Unlock()
			if restart {
				k.restartSoon(NotListed, "")
			}
		})
	}
	checks.Wait()
}

var errNotListed = fmt.Errorf("%w: no broker lists the consumer", broker.ErrUnavailable)

// checkGrantsAndListed checks that the brokers still grant what the consumer needs, and then that one lists it. replacing is held.
func (k *consumer) checkGrantsAndListed(ctx context.Context) error {
	if k.current == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, grantsTimeout+listedTimeout)
	defer cancel()
	err := k.checkGrants(ctx, false)
	if err == nil {
		return k.checkListed(ctx)
	}
	k.notListed = 0
	if ctx.Err() == nil {
		k.setProblem(err)
	}
	return err
}

// checkListed checks that a broker lists the consumer. replacing is held.
func (k *consumer) checkListed(ctx context.Context) error {
	current := k.current
	if current == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, listedTimeout)
	defer cancel()
	listed, err := k.listed(ctx, current)
	switch {
	case err != nil:
		k.notListed = 0
		return err
	case !listed:
		err = errNotListed
		if !current.register(ctx) {
			k.notListed++
		}
	default:
		k.notListed = 0
	}
	k.setProblem(err)
	return err
}
